"""Transaction receipts as they stand in a block's receipts trie (EIP-2718, EIP-658, OP Stack deposits).

A receipt is ``rlp([status, cumulative gas, bloom, logs])``, with the transaction type in front unless it is 0. Before
Byzantium the first item is the state root. Deposits (0x7e) carry nonce and version from Canyon on: exactly where JSON
shows ``depositReceiptVersion``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from layer2._crypto import keccak256
from layer2._rlp import Item, RlpError, decode, decode_int, encode, encode_int
from layer2._values import Bytes, Value
from layer2.errors import ProofError
from layer2.proofs._hexadecimal import data, quantity

__all__ = ["DEPOSIT", "Log", "Receipt", "logs_bloom", "receipt_key", "receipts_trie_entries"]

DEPOSIT: Final = 0x7E
_TYPES: Final = (0, 1, 2, 3, 4, DEPOSIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Value):
    """One event: who emitted it, what it can be found by, and the rest."""

    address: Bytes
    topics: tuple[Bytes, ...]
    data: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Value):
    """What a transaction did."""

    type: int
    status: int | None
    """1 success, 0 failure; None before Byzantium."""
    post_state: Bytes | None = None
    """State root after the transaction, before Byzantium."""
    cumulative_gas_used: int
    bloom: Bytes
    logs: tuple[Log, ...]
    deposit_nonce: int | None = None
    deposit_version: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the receipt itself says that the transaction took effect. Before Byzantium it does not say."""
        return self.status == 1

    def encode(self) -> bytes:
        """The value in the receipts trie."""
        first = self.post_state if self.post_state is not None else encode_int(self.status or 0)
        logs: list[Item] = [[log.address, list(log.topics), log.data] for log in self.logs]
        items: list[Item] = [first, encode_int(self.cumulative_gas_used), self.bloom, logs]
        if self.deposit_version is not None:
            items += [encode_int(self.deposit_nonce or 0), encode_int(self.deposit_version)]
        return (bytes([self.type]) if self.type else b"") + encode(items)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a value of the receipts trie.

        Raises:
            ProofError: not canonical, or of a type whose receipts are not known here.
        """
        try:
            return cls(**_parts(raw))
        except RlpError as error:
            raise ProofError(f"the receipt is malformed: {error}", check="receipt") from error

    @classmethod
    def from_json_rpc(cls, answer: Mapping[str, object]) -> Self:
        """Read an ``eth_getTransactionReceipt`` answer. Only what stands in the trie is taken over.

        Raises:
            ProofError: a field is missing or malformed.
        """
        kind = quantity(answer.get("type") or "0x0", "type")
        if kind > 0x7F:
            raise ProofError(f"{kind:#x} is not a transaction type", field="type", check="format")
        status = answer.get("status")
        logs = answer.get("logs")
        if not isinstance(logs, list):
            raise ProofError("logs is not a list", field="logs", check="format")
        version = answer.get("depositReceiptVersion")
        return cls(
            type=kind,
            status=None if status is None else quantity(status, "status"),
            post_state=None if status is not None else data(answer.get("root"), "root", 32),
            cumulative_gas_used=quantity(answer.get("cumulativeGasUsed"), "cumulativeGasUsed"),
            bloom=data(answer.get("logsBloom"), "logsBloom", 256),
            logs=tuple(map(_log_from_json_rpc, logs)),
            deposit_nonce=None if version is None else quantity(answer.get("depositNonce"), "depositNonce"),
            deposit_version=None if version is None else quantity(version, "depositReceiptVersion"),
        )


def logs_bloom(logs: Iterable[Log]) -> bytes:
    """The 2048-bit filter of the addresses and topics of ``logs`` (Yellow Paper, 4.3.1)."""
    bits = 0
    for log in logs:
        for item in (log.address, *log.topics):
            digest = keccak256(item)
            for at in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[at : at + 2]) & 2047)
    return bits.to_bytes(256)


def receipt_key(index: int) -> bytes:
    """Key of a transaction's receipt in its block's trie: ``rlp(index)``, so the keys do not sort as the indexes do."""
    return encode(index)


def receipts_trie_entries(receipts: Iterable[Receipt]) -> dict[bytes, bytes]:
    """The entries of the receipts trie of a block whose receipts these are, all of them and in order."""
    return {receipt_key(index): receipt.encode() for index, receipt in enumerate(receipts)}


def _parts(raw: bytes) -> dict[str, Any]:
    kind = raw[0] if raw and raw[0] < 0xC0 else 0
    if kind not in _TYPES or raw[:1] == b"\0":
        raise RlpError(f"receipts of transactions of type {kind:#x} are unknown")
    items = decode(raw[1:] if kind else raw)
    if isinstance(items, bytes) or len(items) not in ((4, 6) if kind == DEPOSIT else (4,)):
        raise RlpError("a receipt is a list of 4 items (a deposit's of 4 or 6)")
    status, post_state = _outcome(items[0], legacy=not kind)
    return {
        "type": kind,
        "status": status,
        "post_state": post_state,
        "cumulative_gas_used": decode_int(items[1]),
        "bloom": _sized(items[2], 256, "the bloom filter"),
        "logs": tuple(map(_log, _list(items[3], "the logs"))),
        "deposit_nonce": decode_int(items[4]) if len(items) == 6 else None,
        "deposit_version": decode_int(items[5]) if len(items) == 6 else None,
    }


def _outcome(item: Item, *, legacy: bool) -> tuple[int | None, bytes | None]:
    if legacy and isinstance(item, bytes) and len(item) == 32:
        return None, item
    status = decode_int(item)
    if status > 1:
        raise RlpError("the status is neither 0 nor 1")
    return status, None


def _log(item: Item) -> Log:
    parts = _list(item, "a log")
    if len(parts) != 3:
        raise RlpError("a log is a list of 3 items")
    topics = _list(parts[1], "the topics")
    if len(topics) > 4:
        raise RlpError("a log with more than 4 topics")
    if isinstance(parts[2], list):
        raise RlpError("the data of a log is a list")
    return Log(
        address=_sized(parts[0], 20, "the address of a log"),
        topics=tuple(_sized(topic, 32, "a topic") for topic in topics),
        data=parts[2],
    )


def _log_from_json_rpc(answer: object) -> Log:
    if not isinstance(answer, Mapping) or not isinstance(topics := answer.get("topics"), list):
        raise ProofError("a log is an object with topics", field="logs", check="format")
    return Log(
        address=data(answer.get("address"), "address", 20),
        topics=tuple(data(topic, "topics", 32) for topic in topics),
        data=data(answer.get("data"), "data"),
    )


def _list(item: Item, what: str) -> list[Item]:
    if isinstance(item, bytes):
        raise RlpError(f"{what} must be a list")
    return item


def _sized(item: Item, length: int, what: str) -> bytes:
    if isinstance(item, list) or len(item) != length:
        raise RlpError(f"{what} must have {length} bytes")
    return item
