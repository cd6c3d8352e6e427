"""Block headers of Ethereum and the OP Stack, Frontier to Prague / Jovian: fields, RLP, hash.

The hash of the RLP list of all fields, in this order, is the block hash: whoever trusts the hash trusts every field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from layer2._crypto import keccak256
from layer2._rlp import Item, RlpError, decode, decode_int, encode, encode_int
from layer2.errors import ProofError
from layer2.proofs._hexadecimal import data, quantity

__all__ = ["HEADER_FIELDS", "MAX_HEADER_BYTES", "BlockHeader"]

MAX_HEADER_BYTES: Final = 16 * 1024
"""Longest header looked at; usual ones have 500 to 700 bytes."""

_QUANTITY: Final = -1
_DATA: Final = -2
HEADER_FIELDS: Final[tuple[tuple[str, int], ...]] = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", 256),
    ("difficulty", _QUANTITY),
    ("number", _QUANTITY),
    ("gasLimit", _QUANTITY),
    ("gasUsed", _QUANTITY),
    ("timestamp", _QUANTITY),
    ("extraData", _DATA),
    ("mixHash", 32),
    ("nonce", 8),
    ("baseFeePerGas", _QUANTITY),
    ("withdrawalsRoot", 32),
    ("blobGasUsed", _QUANTITY),
    ("excessBlobGas", _QUANTITY),
    ("parentBeaconBlockRoot", 32),
    ("requestsHash", 32),
)
"""JSON-RPC names in the order of the RLP list, with the length in bytes (-1: a quantity, -2: data of any length)."""
_COUNTS: Final = (15, 16, 17, 20, 21)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """A header by its fields. ``rlp`` is what ``hash`` is the Keccak-256 of."""

    rlp: bytes
    fields: Mapping[str, int | bytes]
    """JSON-RPC name -> value, as many as the block's fork has."""

    @classmethod
    def decode(cls, rlp: bytes) -> Self:
        """Read the RLP list of a header.

        Fields that a later fork appended after those known here are accepted as they are: the hash covers them, nothing
        reads them.

        Raises:
            ProofError: not canonical RLP, or not the fields of a header of any fork.
        """
        if len(rlp) > MAX_HEADER_BYTES:
            raise ProofError(f"a header of {len(rlp)} bytes is more than {MAX_HEADER_BYTES}", check="header")
        try:
            fields = _fields(decode(rlp))
        except RlpError as error:
            raise ProofError(f"the block header is malformed: {error}", check="header") from error
        return cls(rlp=rlp, fields=fields)

    @classmethod
    def from_json_rpc(cls, block: Mapping[str, object]) -> Self:
        """The header of an ``eth_getBlockBy...`` answer; the hash that the answer names must be the hash of its fields.

        Raises:
            ProofError: a field is missing or malformed, or the hash is another.
        """
        items: list[bytes] = []
        ended: str | None = None
        for name, kind in HEADER_FIELDS:
            value = block.get(name)
            if value is None:
                ended = ended or name
                continue
            if ended is not None:
                raise ProofError(f"the block has {name} but not {ended}", field=ended, check="header")
            if kind == _QUANTITY:
                items.append(encode_int(quantity(value, name)))
            else:
                items.append(data(value, name, kind if kind >= 0 else None))
        header = cls.decode(encode(list(items)))
        if header.hash != data(block.get("hash"), "hash", 32):
            raise ProofError("the fields of the block do not hash to its hash", field="hash", check="header")
        return header

    @property
    def hash(self) -> bytes:
        """The block hash."""
        return keccak256(self.rlp)

    @property
    def parent_hash(self) -> bytes:
        """Hash of the block before."""
        return self._bytes("parentHash")

    @property
    def state_root(self) -> bytes:
        """Root of the account trie after the block."""
        return self._bytes("stateRoot")

    @property
    def receipts_root(self) -> bytes:
        """Root of the trie of the block's receipts."""
        return self._bytes("receiptsRoot")

    @property
    def number(self) -> int:
        """Height."""
        return self._int("number")

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        return self._int("timestamp")

    def _bytes(self, name: str) -> bytes:
        value = self.fields[name]
        assert isinstance(value, bytes)
        return value

    def _int(self, name: str) -> int:
        value = self.fields[name]
        assert isinstance(value, int)
        return value


def _fields(items: Item) -> dict[str, int | bytes]:
    if isinstance(items, bytes) or (len(items) not in _COUNTS and len(items) < len(HEADER_FIELDS)):
        raise RlpError(f"a header is a list of {', '.join(map(str, _COUNTS))} or more items")
    flat = [item for item in items if isinstance(item, bytes)]
    if len(flat) != len(items):
        raise RlpError("a field is a list")
    return {name: _field(name, kind, item) for (name, kind), item in zip(HEADER_FIELDS, flat, strict=False)}


def _field(name: str, kind: int, item: bytes) -> int | bytes:
    if kind == _QUANTITY:
        if len(item) > 32:
            raise RlpError(f"{name} is above 2**256")
        return decode_int(item)
    if kind not in (_DATA, len(item)):
        raise RlpError(f"{name} has {len(item)} bytes, not {kind}")
    return item
