"""What is submitted to a protocol, under which id, and what is known of it afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias

from layer2._inputs import check_bytes, check_text, check_whole, check_writable, kind_of
from layer2._values import Bytes, Uint, Value
from layer2.addresses import EvmAddress
from layer2.errors import AddressError, AmountError, InvoiceError, ValidationError

__all__ = [
    "Depth",
    "EvmCall",
    "LightningPayment",
    "Outcome",
    "SignedEvmTransaction",
    "Transaction",
    "TxId",
    "TxStatus",
    "check_depth",
    "check_idempotency_key",
    "check_layer",
    "read_tx_id",
]

_LAYER = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_HASH = re.compile(rf"(?:({_LAYER.pattern}):)?(?:0x)?([0-9a-fA-F]{{64}})", re.ASCII)


class Depth(IntEnum):
    """How hard it is to undo. Lightning knows PENDING (in flight) and FINALIZED (preimage held)."""

    NONE = 0
    PENDING = 1
    """A node took it."""
    INCLUDED = 2
    """In a block of the sequencer, who may still reorganise."""
    SAFE = 3
    """Derived from data on L1."""
    FINALIZED = 4
    """Derived from finalized L1 data."""


class Outcome(StrEnum):
    """What became of a transaction."""

    NONE = "none"
    """Not decided yet."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Reverted, or a payment that failed for certain. Final only at Depth.FINALIZED."""
    REPLACED = "replaced"
    """Another transaction took its nonce."""
    DROPPED = "dropped"
    """No endpoint knows it; it can still be sent again until its nonce is used."""
    UNKNOWN = "unknown"
    """Not to be found out now. Never treat it as a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TxId(Value):
    """The id of a transaction on a layer: an EVM transaction hash, or a Lightning payment hash."""

    layer: str
    hash: Bytes

    def __post_init__(self) -> None:
        check_layer(self.layer, "layer")
        check_bytes(self.hash, "tx_id", length=32)

    @classmethod
    def parse(cls, text: str, *, layer: str | None = None) -> Self:
        """Read 64 hexadecimal digits, with ``layer:`` in front unless the layer is given.

        Raises:
            ValidationError: malformed, without a layer, or of another layer.
        """
        match = _HASH.fullmatch(check_text(text, "tx_id"))
        if not match:
            raise ValidationError(f"{text[:80]!r} is not a transaction id (64 hexadecimal digits)", field="tx_id")
        named = match[1] or layer
        if named is None or (layer is not None and named != layer):
            raise ValidationError(f"the transaction id {text} is not of layer {layer}", field="tx_id")
        return cls(layer=named, hash=bytes.fromhex(match[2]))

    def __str__(self) -> str:
        return f"{self.layer}:{self.hash.hex()}"

    def __repr__(self) -> str:
        return f"TxId.parse('{self}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class TxStatus(Value):
    """What is known of a transaction: outcome and depth are separate axes, and both can go back in a reorg."""

    tx_id: TxId
    outcome: Outcome
    depth: Depth
    block_number: int | None = None
    block_hash: Bytes | None = None
    fee: Uint | None = None
    """Paid so far: wei on an EVM chain, msat on Lightning."""
    reason: str | None = None
    """Why it failed, in the node's or the contract's words."""
    replaced_by: TxId | None = None
    preimage: Bytes | None = field(default=None, repr=False)
    """Of a Lightning payment that succeeded."""

    @property
    def succeeded(self) -> bool:
        """Whether it took effect (at ``depth``)."""
        return self.outcome is Outcome.SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether it certainly did not take effect (at ``depth``). An unknown outcome is not a failure."""
        return self.outcome in (Outcome.FAILED, Outcome.REPLACED)

    @property
    def is_final(self) -> bool:
        """Whether it can never change again."""
        return self.depth is Depth.FINALIZED and self.outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REPLACED)

    def at_least(self, depth: Depth) -> bool:
        """Whether the outcome is known at ``depth`` or deeper."""
        return self.depth >= depth

    def __bool__(self) -> NoReturn:
        raise TypeError("a TxStatus is neither true nor false: ask .succeeded, .failed, .is_final or .at_least(depth)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmCall(Value):
    """A call that the client prices, numbers, signs and tracks. ``to=None`` deploys ``data``."""

    to: EvmAddress | None
    value_wei: Uint = 0
    data: Bytes = b""
    gas_limit: int | None = None
    """None: estimated, with a margin."""
    max_fee_per_gas_wei: Uint | None = None
    """Bound on the price of gas; None: the configured bound. Where a claim or refund of a swap stands behind it, the bounds of
    those hold instead: no nonce is included before the one below it."""
    idempotency_key: str | None = None
    kind: Literal["evm_call"] = "evm_call"

    if TYPE_CHECKING:  # what is made of it has an EvmAddress, but text may be given

        def __init__(
            self,
            *,
            to: EvmAddress | str | None,
            value_wei: int = 0,
            data: bytes = b"",
            gas_limit: int | None = None,
            max_fee_per_gas_wei: int | None = None,
            idempotency_key: str | None = None,
            kind: Literal["evm_call"] = "evm_call",
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", _read_to(self.to))
        check_whole(self.value_wei, "value_wei", below=2**256, error=AmountError)
        check_bytes(self.data, "data")
        if self.gas_limit is not None:
            check_whole(self.gas_limit, "gas_limit", least=1)
        if self.max_fee_per_gas_wei is not None:
            check_whole(self.max_fee_per_gas_wei, "max_fee_per_gas_wei", below=2**128, error=AmountError)
        check_idempotency_key(self.idempotency_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEvmTransaction(Value):
    """A transaction that was signed elsewhere, in its wire form (EIP-2718)."""

    raw: Bytes
    idempotency_key: str | None = None
    kind: Literal["evm_signed"] = "evm_signed"

    def __post_init__(self) -> None:
        if not check_bytes(self.raw, "raw"):
            raise ValidationError("raw is empty", field="raw")
        check_idempotency_key(self.idempotency_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningPayment(Value):
    """A payment of a BOLT11 invoice. Its id is the payment hash, so it is idempotent even without a key."""

    invoice: str = field(repr=False)
    amount_msat: Uint | None = None
    """Only for an invoice without an amount."""
    fee_limit_msat: Uint | None = None
    """None: the configured default, never unlimited."""
    cltv_limit: int | None = None
    """Longest total time lock of the route, in blocks."""
    time_limit_s: int | None = None
    """For how long new attempts are started; what is in flight is never aborted."""
    idempotency_key: str | None = None
    kind: Literal["lightning_payment"] = "lightning_payment"

    def __post_init__(self) -> None:
        check_text(self.invoice, "invoice", error=InvoiceError)
        if self.amount_msat is not None:
            check_whole(self.amount_msat, "amount_msat", least=1, error=AmountError)
        if self.fee_limit_msat is not None:
            check_whole(self.fee_limit_msat, "fee_limit_msat", error=AmountError)
        if self.cltv_limit is not None:
            check_whole(self.cltv_limit, "cltv_limit", least=1, below=2**31)
        if self.time_limit_s is not None:
            check_whole(self.time_limit_s, "time_limit_s", least=1, below=2**31)
        check_idempotency_key(self.idempotency_key)


Transaction: TypeAlias = EvmCall | SignedEvmTransaction | LightningPayment
"""Anything that ``submit_transaction_async`` takes. The union may grow in a minor release."""


def _read_to(to: object) -> EvmAddress | None:
    if to is None or isinstance(to, EvmAddress):
        return to
    if isinstance(to, str):
        return EvmAddress.parse(to)
    raise AddressError(f"to is an EVM address or its text, not {kind_of(to)}", field="to")


def read_tx_id(tx_id: object, layer: str) -> TxId:
    """The id of a transaction on ``layer``, given as it is or as text.

    Raises:
        ValidationError: it is neither, malformed, or of another layer.
    """
    parsed = TxId.parse(tx_id, layer=layer) if isinstance(tx_id, str) else tx_id
    if not isinstance(parsed, TxId):
        raise ValidationError(f"a transaction id is a TxId or its text, not {kind_of(tx_id)}", field="tx_id")
    if parsed.layer != layer:
        raise ValidationError(f"the transaction id {parsed} is not of layer {layer}", field="tx_id")
    return parsed


def check_idempotency_key(key: object) -> None:
    """Refuse what is no idempotency key: text of 1 to 200 characters, or None.

    A number would be another key than its digits in some stores and the same in others.

    Raises:
        ValidationError: it is none.
    """
    if key is None:
        return
    if not isinstance(key, str):
        raise ValidationError(
            f"an idempotency key is text, not {type(key).__name__}",
            field="idempotency_key",
            hint="for an order's number, str(number)",
        )
    if not 0 < len(key) <= 200:
        raise ValidationError("an idempotency key has 1 to 200 characters", field="idempotency_key")
    check_writable(key, "idempotency_key")


def check_layer(name: object, field: str) -> None:
    """Refuse what is no name of a layer: a small letter, then small letters, digits, ``-`` or ``_``, 32 characters at most.

    Raises:
        ValidationError: it is none.
    """
    if not _LAYER.fullmatch(text := check_text(name, field)):
        raise ValidationError(
            f"{text[:40]!r} is not the name of a layer",
            field=field,
            hint="for example bob: small letters, digits, - and _",
        )


def check_depth(depth: object) -> None:
    """Refuse what is no depth.

    Raises:
        ValidationError: it is no ``Depth``.
    """
    if not isinstance(depth, Depth):
        raise ValidationError(
            f"depth is a Depth, not {type(depth).__name__}", field="depth", hint="for example Depth.SAFE"
        )
