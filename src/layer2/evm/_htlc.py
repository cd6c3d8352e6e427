"""The HTLC contract (``contracts/Layer2Htlc.vy``) from Python: calls, the state of a lock and its slot, reverts.

Pure functions; whoever has a connection sends what they make. Preimages never stand in a ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from layer2._crypto import CURVE_ORDER, eth_address, keccak256, recover, sha256
from layer2._values import Bytes, Value
from layer2.errors import UnexpectedReply, ValidationError
from layer2.evm._abi import Word, decode_bytes32, decode_revert, encode_call, selector
from layer2.terms import Lock

__all__ = [
    "CLAIM_GAS",
    "LOCKED",
    "LOCKS_SLOT",
    "LOCK_GAS",
    "MAX_TIMELOCK_S",
    "NEVER",
    "REFUNDED",
    "REFUND_COOPERATIVE_GAS",
    "REFUND_GAS",
    "REVERT_NAMES",
    "LockPhase",
    "LockState",
    "cooperative_refund_digest",
    "decode_htlc_revert",
    "decode_state",
    "decode_status",
    "encode_claim",
    "encode_lock",
    "encode_refund",
    "encode_refund_cooperative",
    "encode_status",
    "storage_slot",
    "usable_preimage",
    "verify_cooperative_refund",
]

LOCKS_SLOT: Final = 0
"""Storage slot of the mapping from lock id to state."""
MAX_TIMELOCK_S: Final = 60 * 86_400
"""``lock`` refuses a timelock further ahead of the block's timestamp."""

LOCK_GAS: Final = 300_000
"""Gas limits: more than twice what a plain token costs, for tokens behind proxies or with bookkeeping of their own.

They are constants because a claim is never estimated: an estimate would show the preimage to the endpoint.
"""
CLAIM_GAS: Final = 250_000
"""Gas limit of a claim."""
REFUND_GAS: Final = 250_000
"""Gas limit of a refund after the timelock."""
REFUND_COOPERATIVE_GAS: Final = 260_000
"""Gas limit of a refund by the claimer's signature."""

_LOCK_TYPES: Final = "bytes32,uint256,address,address,address,uint256"
_REFUND_TYPE: Final = b"Refund(bytes32 lockId)"

REVERT_NAMES: Final[Mapping[bytes, str]] = {
    selector(f"{name}()"): name
    for name in (
        "AlreadyUsed",
        "BadClaimer",
        "BadPreimage",
        "BadRefunder",
        "BadSignature",
        "NotLocked",
        "TimelockNotPassed",
        "TimelockPassed",
        "TimelockTooFar",
        "TokenWithoutCode",
        "TransferFailed",
        "WrongAmountPulled",
        "ZeroAmount",
    )
}
"""The contract's custom errors by selector. None has arguments."""


class LockPhase(StrEnum):
    """Where a lock stands. It only ever goes from never to locked, and from locked to claimed or refunded."""

    NEVER = "never"
    LOCKED = "locked"
    CLAIMED = "claimed"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState(Value):
    """The state of one lock id at one block."""

    phase: LockPhase
    preimage: Bytes | None = field(default=None, repr=False)
    """Of a claimed lock, and only of one."""

    def __post_init__(self) -> None:
        if (self.phase is LockPhase.CLAIMED) != (self.preimage is not None):
            raise ValidationError("a claimed lock has a preimage, and no other has")


NEVER: Final = LockState(phase=LockPhase.NEVER)
"""The state of a lock id that was never used."""
LOCKED: Final = LockState(phase=LockPhase.LOCKED)
"""The state of a lock that is neither claimed nor refunded."""
REFUNDED: Final = LockState(phase=LockPhase.REFUNDED)
"""The state of a lock that went back."""


def usable_preimage(preimage: bytes) -> bool:
    """Whether the contract takes it: 32 bytes whose value is above 2, as 0 to 2 stand for the other states."""
    return len(preimage) == 32 and int.from_bytes(preimage) > 2


def _after_hash(lock: Lock) -> tuple[Word, ...]:
    return (lock.amount, lock.token, lock.claimer, lock.refunder, lock.timelock)


def encode_lock(lock: Lock) -> bytes:
    """Pull the amount from the caller, who must have approved it to the contract, and lock it."""
    return encode_call(f"lock({_LOCK_TYPES})", lock.preimage_hash, *_after_hash(lock))


def encode_claim(lock: Lock, preimage: bytes) -> bytes:
    """Pay the claimer; anybody may call.

    The result contains the preimage: it is neither logged nor simulated before the preimage may be known.

    Raises:
        ValidationError: it is not the preimage of this lock, or one that the contract does not take.
    """
    if not usable_preimage(preimage) or sha256(preimage) != lock.preimage_hash:
        raise ValidationError("this is not a preimage with which the lock can be claimed", field="preimage")
    return encode_call(f"claim({_LOCK_TYPES})", preimage, *_after_hash(lock))


def encode_refund(lock: Lock) -> bytes:
    """Pay the refunder back; anybody may call, from the first block whose timestamp is not below the timelock."""
    return encode_call(f"refund({_LOCK_TYPES})", lock.preimage_hash, *_after_hash(lock))


def encode_refund_cooperative(lock: Lock, signature: bytes) -> bytes:
    """Pay the refunder back at any time; anybody may call.

    ``signature``: the claimer's over ``cooperative_refund_digest``; r, s and v (27 or 28), 65 bytes.

    Raises:
        ValidationError: the signature is not the claimer's, so that the contract would refuse it.
    """
    if not verify_cooperative_refund(lock, signature):
        raise ValidationError("the consent to the refund is not signed by the claimer", field="signature")
    return encode_call(
        f"refundCooperative({_LOCK_TYPES},uint8,bytes32,bytes32)",
        lock.preimage_hash,
        *_after_hash(lock),
        signature[64],
        signature[:32],
        signature[32:64],
    )


def cooperative_refund_digest(lock: Lock) -> bytes:
    """What the claimer signs (EIP-712, ``Refund(bytes32 lockId)``) to give up the lock."""
    struct = keccak256(keccak256(_REFUND_TYPE) + lock.lock_id)
    return keccak256(b"\x19\x01" + lock.domain_separator + struct)


def verify_cooperative_refund(lock: Lock, signature: bytes) -> bool:
    """Whether the contract would take ``signature`` (r, s, v) as the claimer's consent. A high s is refused (EIP-2)."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64]) > CURVE_ORDER // 2:
        return False
    public = recover(cooperative_refund_digest(lock), signature[:64], signature[64] - 27)
    return public is not None and eth_address(public) == lock.claimer.raw


def encode_status(lock_id: bytes) -> bytes:
    """Ask for the state of a lock; ``decode_status`` reads the answer."""
    return encode_call("status(bytes32)", lock_id)


def decode_status(data: bytes, preimage_hash: bytes | None = None) -> LockState:
    """Read the answer to ``encode_status``, which is also the word at ``storage_slot``.

    ``preimage_hash``: of the lock that was asked for; a preimage that does not belong to it is an unexpected reply.

    Raises:
        UnexpectedReply: not one word, or a preimage of another hash.
    """
    return decode_state(int.from_bytes(decode_bytes32(data)), preimage_hash)


def decode_state(value: int, preimage_hash: bytes | None = None) -> LockState:
    """Read the value of a lock's storage slot.

    Raises:
        UnexpectedReply: not a 256-bit number, or a preimage of another hash.
    """
    if not 0 <= value < 2**256:
        raise UnexpectedReply("the value of a storage slot has at most 256 bits")
    if value <= 2:
        return (NEVER, LOCKED, REFUNDED)[value]
    preimage = value.to_bytes(32)
    if preimage_hash is not None and sha256(preimage) != preimage_hash:
        raise UnexpectedReply("the endpoint gave a preimage that does not belong to the lock's hash")
    return LockState(phase=LockPhase.CLAIMED, preimage=preimage)


def storage_slot(lock_id: bytes) -> bytes:
    """Where a lock's state is stored: ``keccak256(slot of the mapping || key)``, in Vyper's order."""
    if len(lock_id) != 32:
        raise ValidationError(f"a lock id has 32 bytes, not {len(lock_id)}", field="lock_id")
    return keccak256(LOCKS_SLOT.to_bytes(32) + lock_id)


def decode_htlc_revert(data: bytes) -> str | None:
    """Name of the contract's error, else what ``decode_revert`` reads in the data (a token's own words), else None."""
    if len(data) == 4 and data in REVERT_NAMES:
        return REVERT_NAMES[data]
    return decode_revert(data)
