"""What the nodes of the in-memory network remember: invoices, payments and their parts."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from layer2.lightning._memory_route import Route
from layer2.lightning._node import HeldHtlc, InvoiceRecord, InvoiceState, PaymentRecord, PaymentState

__all__ = ["Invoice", "NodeState", "Part", "Payment", "Signal"]


class Signal:
    """Wakes everybody who waits. Who looks, finds nothing new and takes ``next`` without a pause between, misses nothing."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def next(self) -> asyncio.Future[None]:
        """Done after the next ``fire``. It counts from this call on, not from when it is awaited."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        waiter.add_done_callback(self._waiters.pop)
        return waiter

    def fire(self) -> None:
        """Wake all who wait now."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Part:
    """One part of a payment on its way: ``position`` HTLCs of its route are in place."""

    payment: Payment
    route: Route
    position: int = 0
    returning: bool = False
    """The outcome is decided and travels back."""
    preimage: bytes | None = None
    failure_reason: str | None = None
    arrived_height: int = 0
    arrived_ms: int = 0

    @property
    def waiting_at(self) -> bytes:
        """The node that has it now."""
        hops = self.route.hops
        return hops[self.position - 1].receiver if self.position else hops[0].sender


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Payment:
    """A payment as its payer knows it."""

    payer: bytes
    payee: bytes
    payment_hash: bytes
    payment_secret: bytes | None
    amount_msat: int
    keysend_preimage: bytes | None = None
    parts: list[Part] = field(default_factory=list)
    unresolved: set[Part] = field(default_factory=set)
    failure_reason: str | None = None
    signal: Signal = field(default_factory=Signal)

    @property
    def state(self) -> PaymentState:
        """In flight while any part is; then succeeded if any part was taken."""
        if self.unresolved:
            return PaymentState.IN_FLIGHT
        taken = any(part.preimage for part in self.parts)
        return PaymentState.SUCCEEDED if taken else PaymentState.FAILED

    def record(self) -> PaymentRecord:
        """The record that the node gives out."""
        state = self.state
        live = [part for part in self.parts if part.preimage or part in self.unresolved]
        return PaymentRecord(
            payment_hash=self.payment_hash,
            state=state,
            amount_msat=self.amount_msat,
            fee_msat=sum(part.route.fee_msat for part in live),
            preimage=next(part.preimage for part in self.parts if part.preimage)
            if state is PaymentState.SUCCEEDED
            else None,
            failure_reason=self.failure_reason if state is PaymentState.FAILED else None,
            highest_expiry_height=max((part.route.hops[0].expiry_height for part in self.unresolved), default=None),
            in_flight_msat=sum(part.route.hops[0].amount_msat for part in self.unresolved if part.position),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Invoice:
    """An invoice as its payee knows it."""

    payment_hash: bytes
    payment_secret: bytes
    text: str
    amount_msat: int
    memo: str
    description_hash: bytes | None
    created_at: int
    expiry_s: int
    cltv_delta: int
    preimage: bytes | None
    is_hold: bool
    state: InvoiceState = InvoiceState.OPEN
    parts: list[Part] = field(default_factory=list)
    """Those held, or those that settled it."""
    received_msat: int = 0

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        return self.created_at + self.expiry_s

    @property
    def terms(self) -> tuple[object, ...]:
        """What two requests for the same invoice must agree on."""
        return (self.amount_msat, self.memo, self.description_hash, self.expiry_s, self.cltv_delta, self.is_hold)

    def record(self) -> InvoiceRecord:
        """The record that the node gives out. The preimage is shown once the invoice is settled."""
        settled = self.state is InvoiceState.SETTLED
        return InvoiceRecord(
            payment_hash=self.payment_hash,
            text=self.text,
            state=self.state,
            amount_msat=self.amount_msat,
            received_msat=self.received_msat,
            created_at=self.created_at,
            expires_at=self.expires_at,
            is_hold=self.is_hold,
            htlcs=tuple(
                HeldHtlc(
                    amount_msat=part.route.amount_msat,
                    expiry_height=part.route.hops[-1].expiry_height,
                    accept_height=part.arrived_height,
                )
                for part in self.parts
            ),
            preimage=self.preimage if settled or not self.is_hold else None,
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class NodeState:
    """Everything that one node knows."""

    private_key: bytes
    node_id: bytes
    alias: str
    accept_keysend: bool = True
    hanging: bool = False
    invoices: dict[bytes, Invoice] = field(default_factory=dict)
    payments: dict[bytes, Payment] = field(default_factory=dict)
    signals: defaultdict[bytes, Signal] = field(default_factory=lambda: defaultdict(Signal))
    """One per payment hash: fires when the invoice is made or changes."""
