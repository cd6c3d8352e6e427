"""EVM transactions in their wire form: fee market (EIP-1559, in an EIP-2718 envelope) and legacy (EIP-155)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2 import _rlp
from layer2._crypto import CURVE_ORDER, eth_address, keccak256, recover
from layer2._signing import sign_digest, signer_address
from layer2.addresses import EvmAddress
from layer2.errors import SignerError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layer2._rlp import Item
    from layer2.protocol import Signer

__all__ = [
    "MAX_TRANSACTION_BYTES",
    "SignedTransaction",
    "UnsignedTransaction",
    "decode_transaction",
    "encode_signed",
    "recover_sender",
    "sign_transaction",
    "signing_digest",
    "unsigned_size",
]

MAX_TRANSACTION_BYTES = 128 * 1024
"""Longest transaction that the usual pools take."""
_DYNAMIC_FEE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedTransaction:
    """A transaction before its signature. Prices are wei per gas.

    A legacy transaction (``dynamic_fee=False``) has one price, which stands in both fee fields.
    """

    chain_id: int
    nonce: int
    gas_limit: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    to: EvmAddress | None
    """None: a contract creation."""
    value: int = 0
    data: bytes = b""
    dynamic_fee: bool = True

    def __post_init__(self) -> None:
        bounds = {
            "chain_id": (self.chain_id, 64),
            "nonce": (self.nonce, 64),
            "gas_limit": (self.gas_limit, 64),
            "max_fee_per_gas": (self.max_fee_per_gas, 128),
            "max_priority_fee_per_gas": (self.max_priority_fee_per_gas, 128),
            "value": (self.value, 256),
        }
        for name, (number, bits) in bounds.items():
            if not 0 <= number < 1 << bits:
                raise ValidationError(f"{name} of a transaction must be a whole number below 2**{bits}", field=name)
        if self.chain_id == 0:
            raise ValidationError("a transaction needs a chain id; without one it could be replayed", field="chain_id")
        if self.max_priority_fee_per_gas > self.max_fee_per_gas:
            raise ValidationError("the priority fee is above the maximum fee", field="max_priority_fee_per_gas")
        if not self.dynamic_fee and self.max_priority_fee_per_gas != self.max_fee_per_gas:
            raise ValidationError("a legacy transaction has one price", field="max_priority_fee_per_gas")
        if len(self.data) > MAX_TRANSACTION_BYTES:
            raise ValidationError(f"{len(self.data)} bytes of data are more than a node takes", field="data")

    @property
    def max_cost_wei(self) -> int:
        """Most that it can take from the sender: value and gas. Fees of a rollup's L1 come on top."""
        return self.value + self.gas_limit * self.max_fee_per_gas


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A transaction with its signature, as a node takes it."""

    transaction: UnsignedTransaction
    sender: EvmAddress
    raw: bytes
    hash: bytes


def signing_digest(tx: UnsignedTransaction) -> bytes:
    """The 32 bytes that are signed: EIP-1559, or EIP-155 for a legacy transaction."""
    if tx.dynamic_fee:
        return keccak256(bytes([_DYNAMIC_FEE]) + _rlp.encode(_fields(tx)))
    return keccak256(_rlp.encode([*_fields(tx), _rlp.encode_int(tx.chain_id), b"", b""]))


def encode_signed(tx: UnsignedTransaction, signature: bytes, parity: int) -> bytes:
    """The wire form of ``tx`` with a 64-byte signature and the parity (0 or 1) of its point."""
    v = parity if tx.dynamic_fee else 35 + 2 * tx.chain_id + parity
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    body = _rlp.encode([*_fields(tx), *map(_rlp.encode_int, (v, r, s))])
    return bytes([_DYNAMIC_FEE]) + body if tx.dynamic_fee else body


def unsigned_size(tx: UnsignedTransaction) -> int:
    """Length of the wire form without the signature, in bytes."""
    return len(_rlp.encode(_fields(tx))) + tx.dynamic_fee


async def sign_transaction(tx: UnsignedTransaction, signer: Signer) -> SignedTransaction:
    """Have ``tx`` signed, and check that the signature is the account's.

    Raises:
        SignerError: the signer refused, or what it gave is not a signature by its account.
    """
    digest = signing_digest(tx)
    signature = await sign_digest(signer, digest)
    if signature[64] not in (27, 28):
        raise SignerError("the signer gave no signature that ends in 27 or 28")
    parity = signature[64] - 27
    account = signer_address(signer)
    if recover_sender(digest, signature[:64], parity) != account:
        raise SignerError(f"the signature is not by the signer's account {account}")
    raw = encode_signed(tx, signature[:64], parity)
    return SignedTransaction(transaction=tx, sender=account, raw=raw, hash=keccak256(raw))


def recover_sender(digest: bytes, signature: bytes, parity: int) -> EvmAddress | None:
    """The account that signed ``digest``; None if nobody can have, or if s is high (EIP-2)."""
    if int.from_bytes(signature[32:]) > CURVE_ORDER // 2:
        return None
    public = recover(digest, signature, parity)
    return None if public is None else EvmAddress(raw=eth_address(public))


def decode_transaction(raw: bytes) -> SignedTransaction:
    """Read a signed transaction strictly and recover its sender.

    Raises:
        ValidationError: not canonical, of another type, without replay protection, or with an invalid signature.
    """
    if not raw or len(raw) > MAX_TRANSACTION_BYTES:
        raise ValidationError(f"a signed transaction has 1..{MAX_TRANSACTION_BYTES} bytes, not {len(raw)}", field="raw")
    dynamic = raw[0] == _DYNAMIC_FEE
    if not dynamic and raw[0] < 0xC0:
        raise ValidationError(
            f"transactions of type {raw[0]:#04x} are not supported", field="raw", hint="use EIP-1559 or legacy"
        )
    try:
        item = _rlp.decode(raw[1:] if dynamic else raw)
        tx, (v, r, s) = _read_dynamic(item) if dynamic else _read_legacy(item)
    except _rlp.RlpError as error:
        raise ValidationError(f"not a signed transaction: {error}", field="raw") from error
    parity = v if dynamic else v - 35 - 2 * tx.chain_id
    if parity not in (0, 1) or max(r, s) >= CURVE_ORDER or min(r, s) == 0:
        raise ValidationError("the transaction's signature is out of range", field="raw")
    sender = recover_sender(signing_digest(tx), r.to_bytes(32) + s.to_bytes(32), parity)
    if sender is None:
        raise ValidationError("the transaction's signature is not valid", field="raw")
    return SignedTransaction(transaction=tx, sender=sender, raw=bytes(raw), hash=keccak256(raw))


def _fields(tx: UnsignedTransaction) -> list[Item]:
    to = b"" if tx.to is None else tx.to.raw
    number = _rlp.encode_int
    tail: list[Item] = [number(tx.gas_limit), to, number(tx.value), tx.data]
    if tx.dynamic_fee:
        fees = [number(tx.max_priority_fee_per_gas), number(tx.max_fee_per_gas)]
        return [number(tx.chain_id), number(tx.nonce), *fees, *tail, []]
    return [number(tx.nonce), number(tx.max_fee_per_gas), *tail]


def _read_dynamic(item: Item) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    fields = _list_of(item, 12)
    if fields[8] != []:
        raise ValidationError("transactions with an access list are not supported", field="raw")
    chain_id, nonce, tip, fee, gas_limit = map(_rlp.decode_int, fields[:5])
    tx = UnsignedTransaction(
        chain_id=chain_id,
        nonce=nonce,
        gas_limit=gas_limit,
        max_fee_per_gas=fee,
        max_priority_fee_per_gas=tip,
        to=_read_to(fields[5]),
        value=_rlp.decode_int(fields[6]),
        data=_read_bytes(fields[7]),
    )
    return tx, _read_signature(fields[9:])


def _read_legacy(item: Item) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    fields = _list_of(item, 9)
    v, r, s = _read_signature(fields[6:])
    if v < 37:
        raise ValidationError("a legacy transaction without chain id (EIP-155) could be replayed", field="raw")
    nonce, price, gas_limit = map(_rlp.decode_int, fields[:3])
    tx = UnsignedTransaction(
        chain_id=(v - 35) // 2,
        nonce=nonce,
        gas_limit=gas_limit,
        max_fee_per_gas=price,
        max_priority_fee_per_gas=price,
        to=_read_to(fields[3]),
        value=_rlp.decode_int(fields[4]),
        data=_read_bytes(fields[5]),
        dynamic_fee=False,
    )
    return tx, (v, r, s)


def _list_of(item: Item, count: int) -> list[Item]:
    if not isinstance(item, list) or len(item) != count:
        raise ValidationError(f"a signed transaction is a list of {count} fields", field="raw")
    return item


def _read_signature(fields: Sequence[Item]) -> tuple[int, int, int]:
    v, r, s = map(_rlp.decode_int, fields)
    return v, r, s


def _read_to(item: Item) -> EvmAddress | None:
    raw = _read_bytes(item)
    if len(raw) not in (0, 20):
        raise ValidationError(f"the recipient of a transaction has 20 bytes, not {len(raw)}", field="raw")
    return EvmAddress(raw=raw) if raw else None


def _read_bytes(item: Item) -> bytes:
    if not isinstance(item, bytes):
        raise ValidationError("a list stands where bytes are expected in a transaction", field="raw")
    return item
