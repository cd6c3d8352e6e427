"""Events of the HTLC contract, read strictly. They wake and bring preimages; decisions rest on the lock's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from layer2._crypto import sha256
from layer2._values import Bytes, Value
from layer2.addresses import EvmAddress
from layer2.errors import UnexpectedReply
from layer2.evm._abi import event_topic, split_words
from layer2.evm._htlc import usable_preimage
from layer2.terms import Lock

__all__ = [
    "CLAIM_TOPIC",
    "LOCKUP_TOPIC",
    "REFUND_TOPIC",
    "ClaimEvent",
    "HtlcEvent",
    "LockupEvent",
    "RefundEvent",
    "decode_htlc_event",
    "htlc_topics",
    "parse_htlc_log",
]

LOCKUP_TOPIC: Final = event_topic("Lockup(bytes32,bytes32,address,uint256,address,address,uint256)")
"""First topic of the event of a new lock."""
CLAIM_TOPIC: Final = event_topic("Claim(bytes32,bytes32,bytes32)")
"""First topic of the event of a claim."""
REFUND_TOPIC: Final = event_topic("Refund(bytes32,bytes32)")
"""First topic of the event of a refund."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockupEvent(Value):
    """A lock was made."""

    lock: Lock

    @property
    def lock_id(self) -> bytes:
        """The id, which the event's own was checked to equal."""
        return self.lock.lock_id

    @property
    def preimage_hash(self) -> bytes:
        """SHA-256 of the preimage."""
        return self.lock.preimage_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimEvent(Value):
    """A lock was claimed."""

    lock_id: Bytes
    preimage_hash: Bytes
    preimage: Bytes = field(repr=False)
    """Checked to belong to the hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundEvent(Value):
    """A lock was paid back, after its timelock or with the claimer's consent."""

    lock_id: Bytes
    preimage_hash: Bytes


HtlcEvent: TypeAlias = LockupEvent | ClaimEvent | RefundEvent
"""Any event of the contract."""


def htlc_topics(
    *,
    event: bytes | None = None,
    lock_id: bytes | None = None,
    preimage_hash: bytes | None = None,
    claimer: EvmAddress | None = None,
) -> list[str | None]:
    """The ``topics`` of an eth_getLogs filter; None matches anything. Only Lockup has ``claimer`` as a topic."""
    topics = [event, lock_id, preimage_hash, None if claimer is None else claimer.raw.rjust(32, b"\0")]
    while topics and topics[-1] is None:
        topics.pop()
    return [None if topic is None else "0x" + topic.hex() for topic in topics]


def decode_htlc_event(
    *, chain_id: int, contract: EvmAddress, address: bytes, topics: Sequence[bytes], data: bytes
) -> HtlcEvent:
    """Read one log entry of the contract.

    Raises:
        UnexpectedReply: of another contract, not one of its three events, of the wrong size, or at odds with itself.
    """
    if address != contract.raw:
        raise UnexpectedReply("a log entry of another contract than the HTLC")
    match topics:
        case [topic, lock_id, preimage_hash, claimer] if topic == LOCKUP_TOPIC:
            amount, token, refunder, timelock = split_words(data, 4)
            try:
                lock = Lock(
                    chain_id=chain_id,
                    contract=contract,
                    preimage_hash=preimage_hash,
                    amount=int.from_bytes(amount),
                    token=_address(token),
                    claimer=_address(claimer),
                    refunder=_address(refunder),
                    timelock=int.from_bytes(timelock),
                )
            except ValueError as exc:
                raise UnexpectedReply("a Lockup event with parameters that no lock can have") from exc
            if lock.lock_id != lock_id:
                raise UnexpectedReply("a Lockup event whose lock id does not commit to its parameters")
            return LockupEvent(lock=lock)
        case [topic, lock_id, preimage_hash] if topic == CLAIM_TOPIC:
            (preimage,) = split_words(data, 1)
            if not usable_preimage(preimage) or sha256(preimage) != preimage_hash:
                raise UnexpectedReply("a Claim event whose preimage does not belong to its hash")
            return ClaimEvent(lock_id=lock_id, preimage_hash=preimage_hash, preimage=preimage)
        case [topic, lock_id, preimage_hash] if topic == REFUND_TOPIC:
            split_words(data, 0)
            return RefundEvent(lock_id=lock_id, preimage_hash=preimage_hash)
        case _:
            raise UnexpectedReply("a log entry that is none of the HTLC contract's events")


def parse_htlc_log(log: Mapping[str, Any], *, chain_id: int, contract: EvmAddress) -> HtlcEvent:
    """Read one entry of eth_getLogs or of a receipt. The caller judges its place (block, ``removed``).

    Raises:
        UnexpectedReply: fields missing or malformed, or as for ``decode_htlc_event``.
    """
    topics = log.get("topics")
    if not isinstance(topics, list) or len(topics) > 4:
        raise UnexpectedReply("a log entry has a list of up to four topics")
    return decode_htlc_event(
        chain_id=chain_id,
        contract=contract,
        address=_hex(log.get("address"), 20),
        topics=[_hex(topic, 32) for topic in topics],
        data=_hex(log.get("data"), None),
    )


def _address(word: bytes) -> EvmAddress:
    if any(word[:12]):
        raise UnexpectedReply("an address in a log entry has more than 160 bits")
    return EvmAddress(raw=word[12:])


def _hex(text: Any, length: int | None) -> bytes:
    digits = text[2:] if isinstance(text, str) and text.startswith("0x") else "?"
    try:
        raw = bytes.fromhex(digits) if digits.isalnum() or not digits else None
    except ValueError:
        raw = None
    if raw is None or (length is not None and len(raw) != length):
        raise UnexpectedReply("a log entry with a field that is not hexadecimal text of the right length")
    return raw
