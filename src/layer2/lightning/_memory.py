"""A connection to a node of the in-memory network: ``LightningNode`` as the rest of the package sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from layer2._operations import leave_slot
from layer2.errors import (
    AmountError,
    AsyncRuntimeError,
    Expired,
    IdempotencyConflict,
    InvoiceError,
    NotFound,
    ValidationError,
)
from layer2.lightning._bolt11 import decode_invoice
from layer2.lightning._bolt11_encode import encode_invoice
from layer2.lightning._checks import check_hash, check_invoice_terms, check_limits, hash_of, resolve_amount
from layer2.lightning._invoice import Feature
from layer2.lightning._invoice import Invoice as DecodedInvoice
from layer2.lightning._memory_network import MemoryLightning
from layer2.lightning._memory_state import Invoice, NodeState, Payment, Signal
from layer2.lightning._node import InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState
from layer2.lightning._payment_rules import same_network

__all__ = ["MemoryNode"]

DEFAULT_CLTV_DELTA = 80
KEYSEND_CLTV_DELTA = 40
VERSION = "memory-1"


class MemoryNode:
    """One node. Make it with ``MemoryLightning.add_node`` or ``connect``."""

    def __init__(self, network: MemoryLightning, state: NodeState) -> None:
        self._network = network
        self._state = state
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryNode {self._state.alias} {self.node_id.hex()[:16]}>"

    @property
    def node_id(self) -> bytes:
        """The node's public key."""
        return self._state.node_id

    def _wake(self) -> MemoryLightning:
        if self._closed:
            raise AsyncRuntimeError("this connection to the Lightning node is closed")
        self._network.tick()
        return self._network

    async def info(self) -> NodeInfo:
        """Identity, network, height and liquidity."""
        network = self._wake()
        return NodeInfo(
            node_id=self.node_id,
            alias=self._state.alias,
            network=network.network,
            block_height=network.height,
            synced_to_chain=True,
            version=VERSION,
            spendable_msat=network.spendable_msat(self.node_id),
            receivable_msat=network.receivable_msat(self.node_id),
        )

    async def pay(
        self,
        invoice: str,
        *,
        amount_msat: int | None = None,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay and wait for the final record. ``time_limit_s`` changes nothing: attempts start at once or never."""
        network = self._wake()
        check_limits(fee_limit_msat, cltv_limit, time_limit_s)
        decoded = decode_invoice(invoice)
        known = self._state.payments.get(decoded.payment_hash)
        if known is None or known.state is PaymentState.FAILED:
            try:
                amount = self._payable(decoded, amount_msat)
            except (Expired, InvoiceError, AmountError):
                if known is None:
                    raise
                return known.record()
            known = Payment(
                payer=self.node_id,
                payee=decoded.payee,
                payment_hash=decoded.payment_hash,
                payment_secret=decoded.payment_secret,
                amount_msat=amount,
            )
            network.send(
                known,
                fee_limit_msat=fee_limit_msat,
                cltv_limit=cltv_limit,
                final_cltv_delta=decoded.min_final_cltv_delta,
                multi_part=decoded.has_feature(Feature.BASIC_MPP),
            )
        return await self._final(known)

    def _payable(self, decoded: DecodedInvoice, amount_msat: int | None) -> int:
        if not same_network(decoded, self._network.network):
            raise InvoiceError(
                f"the invoice is for {decoded.network}, the node is on {self._network.network}", field="invoice"
            )
        if self._network.now_s() >= decoded.expires_at:
            raise Expired("the invoice has expired", expired_at=decoded.expires_at)
        if decoded.payee == self.node_id:
            raise InvoiceError("the invoice is the node's own: self-payments are not allowed", field="invoice")
        return resolve_amount(decoded.amount_msat, amount_msat)

    async def _final(self, payment: Payment) -> PaymentRecord:
        while payment.state is PaymentState.IN_FLIGHT:
            leave_slot()
            await payment.signal.next()
        return payment.record()

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
        network = self._wake()
        check_limits(fee_limit_msat, cltv_limit, time_limit_s)
        payment_hash = hash_of(preimage)
        if amount_msat <= 0:
            raise AmountError("a keysend carries at least 1 msat", field="amount_msat")
        if node_id == self.node_id:
            raise ValidationError("a node cannot pay itself", field="recipient")
        known = self._state.payments.get(payment_hash)
        if known is None or known.state is PaymentState.FAILED:
            known = Payment(
                payer=self.node_id,
                payee=node_id,
                payment_hash=payment_hash,
                payment_secret=None,
                amount_msat=amount_msat,
                keysend_preimage=preimage,
            )
            network.send(
                known,
                fee_limit_msat=fee_limit_msat,
                cltv_limit=cltv_limit,
                final_cltv_delta=KEYSEND_CLTV_DELTA,
                multi_part=False,
            )
        return await self._final(known)

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """What the node knows now; state NONE if nothing."""
        self._wake()
        payment = self._state.payments.get(check_hash(payment_hash))
        return payment.record() if payment else PaymentRecord(payment_hash=payment_hash, state=PaymentState.NONE)

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
        network = self._wake()
        secret = network.random_bytes(32) if preimage is None else preimage
        return self._issue(
            payment_hash=hash_of(secret),
            preimage=secret,
            amount_msat=amount_msat,
            memo=memo,
            description_hash=description_hash,
            expiry_s=expiry_s,
            cltv_delta=DEFAULT_CLTV_DELTA if cltv_delta is None else cltv_delta,
        )

    async def create_hold_invoice(
        self, *, payment_hash: bytes, amount_msat: int, memo: str = "", expiry_s: int, cltv_delta: int
    ) -> InvoiceRecord:
        """Make an invoice whose payment is held until ``settle_invoice`` or ``cancel_invoice``."""
        self._wake()
        return self._issue(
            payment_hash=check_hash(payment_hash),
            preimage=None,
            amount_msat=amount_msat,
            memo=memo,
            description_hash=None,
            expiry_s=expiry_s,
            cltv_delta=cltv_delta,
        )

    def _issue(
        self,
        *,
        payment_hash: bytes,
        preimage: bytes | None,
        amount_msat: int,
        memo: str,
        description_hash: bytes | None,
        expiry_s: int,
        cltv_delta: int,
    ) -> InvoiceRecord:
        check_invoice_terms(amount_msat, memo, description_hash, expiry_s, cltv_delta)
        existing = self._state.invoices.get(payment_hash)
        if existing is not None:
            terms = (amount_msat, memo, description_hash, expiry_s, cltv_delta, preimage is None)
            if terms != existing.terms:
                raise IdempotencyConflict("an invoice with this payment hash exists, with other terms")
            return existing.record()
        network, created_at = self._network, self._network.now_s()
        payment_secret = network.random_bytes(32)
        unsigned = encode_invoice(
            network=network.network,
            timestamp=created_at,
            payment_hash=payment_hash,
            payment_secret=payment_secret,
            amount_msat=amount_msat or None,
            description=None if description_hash else memo,
            description_hash=description_hash,
            expiry_s=expiry_s,
            min_final_cltv_delta=cltv_delta,
            features=(Feature.VAR_ONION, Feature.PAYMENT_SECRET, Feature.BASIC_MPP + 1),
        )
        invoice = Invoice(
            payment_hash=payment_hash,
            payment_secret=payment_secret,
            text=unsigned.sign(self._state.private_key).text,
            amount_msat=amount_msat,
            memo=memo,
            description_hash=description_hash,
            created_at=created_at,
            expiry_s=expiry_s,
            cltv_delta=cltv_delta,
            preimage=preimage,
            is_hold=preimage is None,
        )
        network.add_invoice(self._state, invoice)
        return invoice.record()

    def _invoice(self, payment_hash: bytes) -> Invoice:
        self._wake()
        invoice = self._state.invoices.get(check_hash(payment_hash))
        if invoice is None:
            raise NotFound(f"the node has no invoice with payment hash {payment_hash.hex()}")
        return invoice

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        """The invoice as it stands. Raises ``NotFound``."""
        return self._invoice(payment_hash).record()

    async def settle_invoice(self, preimage: bytes) -> None:
        """Take a held payment. Raises ``NotFound``, and ``Expired`` if it was cancelled or nothing is held yet."""
        invoice = self._invoice(hash_of(preimage))
        if invoice.state is InvoiceState.ACCEPTED:
            self._network.settle(self._state, invoice, preimage)
        elif invoice.state is not InvoiceState.SETTLED:
            what = "was cancelled" if invoice.state is InvoiceState.CANCELED else "holds no payment yet"
            raise Expired(f"the invoice {what}: there is nothing to settle")

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """Give a held payment back, or close an open invoice. Raises ``NotFound``, and ``Expired`` if it was settled."""
        invoice = self._invoice(payment_hash)
        if invoice.state is InvoiceState.SETTLED:
            raise Expired("the invoice is settled: it cannot be cancelled any more")
        if invoice.state is not InvoiceState.CANCELED:
            self._network.cancel(self._state, invoice)

    async def watch_invoice(self, payment_hash: bytes) -> AsyncGenerator[InvoiceRecord, None]:
        """The record now and after each change. An invoice that does not exist yet is waited for."""
        check_hash(payment_hash)
        last: InvoiceRecord | None = None
        while True:
            self._wake()
            invoice = self._state.invoices.get(payment_hash)
            record = invoice.record() if invoice else None
            if record is not None and record != last:
                last = record
                yield record
                if record.state in (InvoiceState.SETTLED, InvoiceState.CANCELED):
                    return
                continue
            limit = record.expires_at if record is not None and record.state is InvoiceState.OPEN else None
            await self._changed(self._state.signals[payment_hash], limit)

    async def _changed(self, signal: Signal, until_s: int | None) -> None:
        """Return after the signal fires, or at a time at which the invoice expires by itself."""
        changed = signal.next()
        if until_s is None:
            await changed
            return
        seconds = max(0, until_s * 1000 - self._network.clock.now_ms()) / 1000
        sleeping = asyncio.ensure_future(self._network.clock.sleep(seconds))
        try:
            await asyncio.wait([changed, sleeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            sleeping.cancel()
            await asyncio.gather(sleeping, return_exceptions=True)

    async def close(self) -> None:
        """Close the connection. The node goes on. Idempotent."""
        self._closed = True
