"""A simulated Lightning network: payments that are quick, slow, stuck, refused or held, and invoices that expire and are given up.

Bitcoin's height follows from the time; parts of payments come back by height, as late as their resolution on chain allows.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from layer2.errors import Expired, InvoiceError, NotFound, PaymentFailed
from layer2.lightning import HeldHtlc, InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState
from layer2.terms import ChainTiming
from layer2.testing._simulation_loop import EPOCH_S, SimulationLoop

__all__ = ["Heights", "SimulatedInvoice", "SimulatedLightning", "SimulatedPayment"]


class Heights:
    """When Bitcoin's blocks come."""

    def __init__(self, rng: random.Random, timing: ChainTiming, rate: float) -> None:
        self._rng = rng
        self._random = timing.bitcoin_poisson
        self._mean_s = timing.bitcoin_block_ms / 1000 / rate
        self._times = [0.0]
        self.first = 800_000

    def _reach(self, count: int) -> None:
        while len(self._times) <= count:
            number = len(self._times)
            if self._random:
                self._times.append(self._times[-1] + self._rng.expovariate(1 / self._mean_s))
            else:
                # Single blocks take from a third to three times as long as usual; many together do not.
                moment = number * self._mean_s + self._rng.uniform(-0.6, 0.6) * self._mean_s
                self._times.append(max(self._times[-1], moment))

    def at(self, now: float) -> int:
        """The height at a time."""
        while self._times[-1] <= now:
            self._reach(len(self._times))
        return self.first + bisect_right(self._times, now) - 1

    def time_of(self, height: int) -> float:
        """When a height is reached."""
        self._reach(height - self.first)
        return self._times[height - self.first]


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedInvoice:
    """An invoice at its node."""

    payee: str
    payment_hash: bytes
    text: str
    amount_msat: int
    expires_at: float
    final_cltv: int
    preimage: bytes | None
    """None: held until settled."""
    state: InvoiceState = InvoiceState.OPEN
    received_msat: int = 0
    htlcs: list[HeldHtlc] = field(default_factory=list)
    payment: SimulatedPayment | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedPayment:
    """A payment at its payer's node."""

    payer: str
    payment_hash: bytes
    amount_msat: int
    fee_msat: int
    state: PaymentState = PaymentState.IN_FLIGHT
    preimage: bytes | None = None
    last_height: int = 0
    """Height at which all of it is decided on chain at the latest."""
    done: list[asyncio.Future[None]] = field(default_factory=list)
    began_at: float = 0.0


class SimulatedLightning:
    """All nodes. What a process sees of its own goes through a port that may fail."""

    def __init__(
        self,
        loop: SimulationLoop,
        rng: random.Random,
        timing: ChainTiming,
        *,
        rate: float,
        payment: str,
        balances_msat: dict[str, int],
        story: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self.timing = timing
        self.heights = Heights(rng, timing, rate)
        self._manner = payment
        self._story = story
        self.balances_msat = dict(balances_msat)
        self.total_msat = sum(balances_msat.values())
        self.invoices: dict[bytes, SimulatedInvoice] = {}
        self.payments: dict[tuple[str, bytes], SimulatedPayment] = {}
        self.paid: dict[bytes, int] = {}
        """How often an invoice was paid."""
        self.began: list[SimulatedPayment] = []
        """Every payment that ever began, also those whose record another took over."""
        self.requests_on_their_way = 0
        """To pay, from a process whose connection broke."""
        self.began_hook: Callable[[str, bytes], None] = lambda _payer, _hash: None
        """Called when one begins."""
        self.gives_back_hook: Callable[[str, bytes], None] = lambda _payee, _hash: None
        """Called before a node gives a held payment back by itself."""

    @property
    def height(self) -> int:
        """Bitcoin's height now."""
        return self.heights.at(self._loop.now)

    # -- invoices ------------------------------------------------------------------------------------------------------

    def add_invoice(self, invoice: SimulatedInvoice) -> None:
        """Open an invoice; it closes by itself when it expires unpaid."""
        self.invoices[invoice.payment_hash] = invoice
        self._loop.call_at(max(self._loop.now, invoice.expires_at), self._expire, invoice)

    def _expire(self, invoice: SimulatedInvoice) -> None:
        if invoice.state is InvoiceState.OPEN:
            invoice.state = InvoiceState.CANCELED
            self._story(f"the invoice of {invoice.payee} expires")
            self._give_back(invoice)

    def settle(self, payee: str, preimage: bytes) -> None:
        """Take a held payment. Raises ``NotFound`` or ``Expired``."""
        invoice = self._invoice(payee, hashlib.sha256(preimage).digest())
        if invoice.state is InvoiceState.SETTLED:
            return
        if invoice.state is not InvoiceState.ACCEPTED:
            raise Expired("nothing is held for the invoice")
        invoice.state = InvoiceState.SETTLED
        invoice.preimage = preimage
        self._story(f"{payee} settles its hold invoice")
        assert invoice.payment is not None
        self._later(self._reply_s(), self._succeed, invoice.payment, preimage)

    def cancel(self, payee: str, payment_hash: bytes) -> None:
        """Give a held payment back, or close an open invoice. Raises ``NotFound`` or ``Expired``."""
        invoice = self._invoice(payee, payment_hash)
        if invoice.state is InvoiceState.SETTLED:
            raise Expired("the invoice is settled")
        if invoice.state is InvoiceState.CANCELED:
            return
        invoice.state = InvoiceState.CANCELED
        self._story(f"{payee} cancels its invoice")
        self._give_back(invoice)

    def invoice_record(self, payee: str, payment_hash: bytes) -> InvoiceRecord:
        """What the payee's node knows. Raises ``NotFound``."""
        invoice = self._invoice(payee, payment_hash)
        return InvoiceRecord(
            payment_hash=payment_hash,
            text=invoice.text,
            state=invoice.state,
            amount_msat=invoice.amount_msat,
            received_msat=invoice.received_msat,
            created_at=EPOCH_S,
            expires_at=EPOCH_S + int(invoice.expires_at),
            is_hold=invoice.preimage is None,
            htlcs=tuple(invoice.htlcs),
            preimage=invoice.preimage if invoice.state is InvoiceState.SETTLED else None,
        )

    def _invoice(self, payee: str, payment_hash: bytes) -> SimulatedInvoice:
        invoice = self.invoices.get(payment_hash)
        if invoice is None or invoice.payee != payee:
            raise NotFound("the node has no such invoice")
        return invoice

    def _give_back(self, invoice: SimulatedInvoice) -> None:
        invoice.htlcs.clear()
        if invoice.payment is not None and invoice.payment.state is PaymentState.IN_FLIGHT:
            self._later(self._reply_s(), self._fail, invoice.payment)

    # -- payments ------------------------------------------------------------------------------------------------------

    def payment_record(self, payer: str, payment_hash: bytes) -> PaymentRecord:
        """What the payer's node knows."""
        payment = self.payments.get((payer, payment_hash))
        if payment is None:
            return PaymentRecord(payment_hash=payment_hash, state=PaymentState.NONE)
        return PaymentRecord(
            payment_hash=payment_hash,
            state=payment.state,
            amount_msat=payment.amount_msat,
            fee_msat=payment.fee_msat,
            preimage=payment.preimage,
            failure_reason="no_route" if payment.state is PaymentState.FAILED else None,
            highest_expiry_height=payment.last_height or None,
        )

    def pay(
        self, payer: str, text: str, *, fee_limit_msat: int, cltv_limit: int, time_limit_s: float
    ) -> SimulatedPayment:
        """A request to pay reaches the payer's node. A failed payment may be tried again, as by the real node.

        Raises:
            Expired, InvoiceError, PaymentFailed: refused, and no payment is on record.
        """
        invoice = next((one for one in self.invoices.values() if one.text == text), None)
        if invoice is None:
            raise InvoiceError("no such invoice")
        known = self.payments.get((payer, invoice.payment_hash))
        if known is not None and known.state is not PaymentState.FAILED:
            return known
        if self._loop.now > invoice.expires_at:
            if known is not None:
                return known
            raise Expired("the invoice has expired")
        if invoice.final_cltv > cltv_limit:
            raise InvoiceError("the invoice asks for a longer time lock than is allowed")
        if self._manner == "refused" and known is None:
            raise PaymentFailed("no route to the payee")
        payment = SimulatedPayment(
            payer=payer,
            payment_hash=invoice.payment_hash,
            amount_msat=invoice.amount_msat,
            fee_msat=self._rng.randint(0, fee_limit_msat) if fee_limit_msat else 0,
            began_at=self._loop.now,
        )
        self.payments[payer, invoice.payment_hash] = payment
        self.began.append(payment)
        self.began_hook(payer, payment.payment_hash)
        self._story(f"{payer} begins to pay {invoice.payee}")
        self._route(payment, invoice, cltv_limit, time_limit_s)
        return payment

    def _route(
        self, payment: SimulatedPayment, invoice: SimulatedInvoice, cltv_limit: int, time_limit_s: float
    ) -> None:
        rng, timing = self._rng, self.timing
        first = rng.uniform(0.05, min(1.0, time_limit_s / 4))
        arrive_s = first if self._manner in ("fast", "payee_holds") else rng.uniform(first, time_limit_s)
        expiry = self.heights.at(self._loop.now + arrive_s) + rng.randint(invoice.final_cltv, cltv_limit)
        payment.last_height = expiry + 3 + timing.onchain_resolve_blocks
        if invoice.preimage is None and self._manner != "fail":
            self._later(arrive_s, self._arrive_held, payment, invoice)
            return
        end = self.heights.time_of(payment.last_height)
        held_until = self._loop.now + rng.random() ** 0.3 * (end - self._loop.now) - 0.2
        match self._manner:
            case "fail":
                self._later(arrive_s, self._fail, payment)
            case "hang_then_fail":
                self._loop.call_at(held_until, self._fail, payment)
            case "hang_then_settle" | "payee_holds":
                self._later(arrive_s, self._arrive_held, payment, invoice)
                self._loop.call_at(held_until, self._settle_late, payment, invoice)
            case _:
                self._later(arrive_s, self._arrive, payment, invoice)

    def _arrive(self, payment: SimulatedPayment, invoice: SimulatedInvoice) -> None:
        if payment.state is not PaymentState.IN_FLIGHT:
            return
        if invoice.state is not InvoiceState.OPEN:
            self._fail(payment)
            return
        invoice.state = InvoiceState.SETTLED
        invoice.received_msat = payment.amount_msat
        assert invoice.preimage is not None
        self._later(self._reply_s(), self._succeed, payment, invoice.preimage)

    def _arrive_held(self, payment: SimulatedPayment, invoice: SimulatedInvoice) -> None:
        """The parts of a payment reach a payee that keeps them for now."""
        if payment.state is not PaymentState.IN_FLIGHT:
            return
        if invoice.state is not InvoiceState.OPEN:
            self._fail(payment)
            return
        invoice.state = InvoiceState.ACCEPTED
        invoice.received_msat = payment.amount_msat
        invoice.payment = payment
        if invoice.preimage is not None:
            return
        height = self.height
        lowest = height + invoice.final_cltv + self._rng.choice((0, 0, 1, 3))
        parts = self._rng.choice((1, 1, 2))
        for part in range(parts):
            share = (
                payment.amount_msat // parts
                if part
                else payment.amount_msat - (parts - 1) * (payment.amount_msat // parts)
            )
            expiry = lowest + part * self._rng.randint(0, 5)
            invoice.htlcs.append(HeldHtlc(amount_msat=share, expiry_height=expiry, accept_height=height))
        self._story(f"{invoice.payee} holds a payment until height {lowest}")
        given_up = lowest - max(18, self.timing.hold_expiry_delta_blocks)
        self._loop.call_at(max(self._loop.now, self.heights.time_of(given_up)), self._auto_cancel, invoice)

    def _auto_cancel(self, invoice: SimulatedInvoice) -> None:
        if invoice.state is InvoiceState.ACCEPTED:
            if invoice.preimage is None:
                self.gives_back_hook(invoice.payee, invoice.payment_hash)
            invoice.state = InvoiceState.CANCELED
            self._story(f"the node of {invoice.payee} gives the held payment back: it expires soon")
            self._give_back(invoice)

    def _settle_late(self, payment: SimulatedPayment, invoice: SimulatedInvoice) -> None:
        if payment.state is not PaymentState.IN_FLIGHT:
            return
        if invoice.state is InvoiceState.ACCEPTED and invoice.payment is payment and invoice.preimage is not None:
            invoice.state = InvoiceState.SETTLED
            self._succeed(payment, invoice.preimage)
        else:
            self._fail(payment)

    def _succeed(self, payment: SimulatedPayment, preimage: bytes) -> None:
        if payment.state is not PaymentState.IN_FLIGHT:
            return
        invoice = self.invoices[payment.payment_hash]
        payment.state = PaymentState.SUCCEEDED
        payment.preimage = preimage
        self.paid[payment.payment_hash] = self.paid.get(payment.payment_hash, 0) + 1
        self.balances_msat[payment.payer] -= payment.amount_msat + payment.fee_msat
        self.balances_msat[invoice.payee] += payment.amount_msat
        self.balances_msat["router"] += payment.fee_msat
        self._story(f"the payment of {payment.payer} succeeds")
        self._finish(payment)

    def _fail(self, payment: SimulatedPayment) -> None:
        if payment.state is PaymentState.IN_FLIGHT:
            payment.state = PaymentState.FAILED
            self._story(f"the payment of {payment.payer} fails")
            self._finish(payment)

    def _finish(self, payment: SimulatedPayment) -> None:
        for future in payment.done:
            if not future.done():
                future.set_result(None)
        payment.done.clear()

    async def outcome(self, payment: SimulatedPayment) -> None:
        """Wait until a payment is final."""
        if payment.state is PaymentState.IN_FLIGHT:
            future = self._loop.create_future()
            payment.done.append(future)
            await future

    def _reply_s(self) -> float:
        return self._rng.random() ** 4 * 2.0 + 0.02

    def _later(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        self._loop.call_later(max(0.0, seconds), call, *args)

    def node_info(self, name: str) -> NodeInfo:
        """A node's description of itself."""
        return NodeInfo(
            node_id=hashlib.sha256(name.encode()).digest() + b"\x02",
            alias=name,
            network="regtest",
            block_height=self.height,
            synced_to_chain=True,
            version="simulated",
            spendable_msat=self.balances_msat[name],
            receivable_msat=self.total_msat,
        )

    async def watch(self, payee: str, payment_hash: bytes) -> AsyncIterator[InvoiceRecord]:
        """The record now. Nothing that is simulated follows an invoice."""
        yield self.invoice_record(payee, payment_hash)
