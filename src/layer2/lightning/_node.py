"""The narrow interface behind which Lightning nodes sit, and the values that cross it.

Rules for every implementation (the conformance suite in ``layer2.testing`` holds them all to these):

- ``pay`` is idempotent by payment hash: asked again, it attaches to the payment that exists. It returns only what the node's own
  record says. Where that cannot be read, it raises ``UnknownOutcome``; it never turns a lost reply into a failure.
- ``create_invoice`` and ``create_hold_invoice`` with a hash or preimage that exists return the existing invoice if all arguments
  agree, else raise ``IdempotencyConflict``.
- ``settle`` and ``cancel`` of an invoice already in that final state succeed.
- Amounts are msat, heights are block heights, times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from layer2._values import Bytes, Uint, Value

__all__ = [
    "HeldHtlc",
    "InvoiceRecord",
    "InvoiceState",
    "LightningNode",
    "NodeInfo",
    "PaymentRecord",
    "PaymentState",
]


class InvoiceState(StrEnum):
    """State of an invoice at the node that made it."""

    OPEN = "open"
    ACCEPTED = "accepted"
    """All parts of the payment have arrived and are held."""
    SETTLED = "settled"
    CANCELED = "canceled"
    """Cancelled or expired; it can never be paid."""


class PaymentState(StrEnum):
    """State of a payment at the node that makes it."""

    NONE = "none"
    """The node has no record of it. That alone is no proof that none will start."""
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """No part is in flight and the node will start none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo(Value):
    """Who the node is and whether it is ready."""

    node_id: Bytes
    alias: str
    network: str
    """``mainnet``, ``testnet``, ``signet``, ``simnet`` or ``regtest``."""
    block_height: int
    synced_to_chain: bool
    version: str
    spendable_msat: Uint
    """What it can send over its channels, at most."""
    receivable_msat: Uint


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldHtlc(Value):
    """One part of a payment that has arrived for an invoice."""

    amount_msat: Uint
    expiry_height: int
    """Block height at which the other side can take it back."""
    accept_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRecord(Value):
    """An invoice as its node knows it."""

    payment_hash: Bytes
    text: str = field(repr=False)
    state: InvoiceState
    amount_msat: Uint
    """As asked; 0 if any amount."""
    received_msat: Uint
    created_at: int
    expires_at: int
    is_hold: bool
    htlcs: tuple[HeldHtlc, ...] = ()
    """The parts held now, or settled."""
    preimage: Bytes | None = field(default=None, repr=False)

    @property
    def lowest_expiry_height(self) -> int | None:
        """The height at which the first held part can be taken back."""
        return min((htlc.expiry_height for htlc in self.htlcs), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRecord(Value):
    """A payment as its node knows it."""

    payment_hash: Bytes
    state: PaymentState
    amount_msat: Uint = 0
    fee_msat: Uint = 0
    preimage: Bytes | None = field(default=None, repr=False)
    """Present exactly if it succeeded; verified against the hash."""
    failure_reason: str | None = None
    highest_expiry_height: int | None = None
    """Latest height at which a part in flight comes back on its own."""
    in_flight_msat: Uint = 0
    """What its parts in flight have taken out of the channels, fees included; 0 where that is not known."""


class LightningNode(Protocol):
    """What layer2 needs of a Lightning node.

    Every method may raise ``NodeConnectionError``, ``AuthenticationError``, ``NodeNotReady``, ``RateLimited`` and
    ``UnexpectedReply``; what else it raises stands with it.
    """

    async def info(self) -> NodeInfo:
        """Identity, network, height and liquidity."""
        ...

    async def pay(
        self,
        invoice: str,
        *,
        amount_msat: int | None = None,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay and wait for the final record.

        The record is SUCCEEDED or FAILED. An invoice that the node refuses outright (expired, own invoice, amount missing, a final
        CLTV delta above the limit) with no payment on record raises ``PaymentFailed``, ``Expired`` or ``InvoiceError``;
        ``UnknownOutcome`` if the connection broke.
        """
        ...

    async def keysend(
        self,
        node_id: bytes,
        amount_msat: int,
        *,
        preimage: bytes,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay a node without an invoice; the preimage is the payer's."""
        ...

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """What the node knows now; state NONE if nothing."""
        ...

    async def create_invoice(
        self,
        *,
        amount_msat: int,
        memo: str = "",
        description_hash: bytes | None = None,
        expiry_s: int = 3600,
        preimage: bytes | None = None,
        cltv_delta: int | None = None,
    ) -> InvoiceRecord:
        """Make an invoice that settles by itself when paid. ``amount_msat`` 0: any amount."""
        ...

    async def create_hold_invoice(
        self, *, payment_hash: bytes, amount_msat: int, memo: str = "", expiry_s: int, cltv_delta: int
    ) -> InvoiceRecord:
        """Make an invoice whose payment is held until ``settle_invoice`` or ``cancel_invoice``."""
        ...

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        """The invoice as it stands. Raises ``NotFound``."""
        ...

    async def settle_invoice(self, preimage: bytes) -> None:
        """Take a held payment. Raises ``NotFound``, and ``Expired`` if it was cancelled or nothing is held yet."""
        ...

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """Give a held payment back, or close an open invoice. Raises ``NotFound``, and ``Expired`` if it was settled."""
        ...

    def watch_invoice(self, payment_hash: bytes) -> AsyncIterator[InvoiceRecord]:
        """The record now and after each change, ending after SETTLED or CANCELED. Events only wake: look up before deciding."""
        ...

    async def close(self) -> None:
        """Free connections. Idempotent."""
        ...
