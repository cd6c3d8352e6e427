"""Looking: makes the observations that the decisions read, from the chain, the node and the counterparty."""

from __future__ import annotations

import asyncio
from typing import Protocol, assert_never

from layer2._clock import Clock
from layer2.errors import Layer2Error, NodeNotReady, NotFound, UnexpectedReply
from layer2.lightning import InvoiceState, LightningNode, PaymentState
from layer2.swaps._effects import Claim, PayInvoice, SendLock
from layer2.swaps._observations import (
    ChainView,
    EffectRefused,
    InvoiceStatus,
    InvoiceView,
    LockStatus,
    Observation,
    PaymentStatus,
    PaymentView,
    RefundOffer,
)
from layer2.swaps._ports import Counterparty, StoredSwap, SwapChain, offers_of
from layer2.swaps._states import Invoiced, Role, Watch
from layer2.terms import SwapDirection

__all__ = ["Looker", "OpenRequests", "lock_key", "look_at_invoice"]


ASK_REFUND_LIMIT_S = 3.0
"""A counterparty that does not answer must not keep us from looking at the chain."""
ASK_REFUND_S = 2.0
"""Pause between two questions for an early refund of one swap."""


class OpenRequests(Protocol):
    """Who knows whether a request to pay may still be on its way to the node."""

    def pay_request_open(self, swap: StoredSwap) -> bool:
        """Whether one may."""
        ...


def lock_key(swap: StoredSwap) -> str | None:
    """The key under which we send this swap's lock; None if the other side locks."""
    ours = (swap.deal.role is Role.CLIENT) == (swap.deal.direction is SwapDirection.SUBMARINE)
    return f"swap:{swap.deal.id}:{SendLock.name}" if ours else None


async def look_at_invoice(
    node: LightningNode, payment_hash: bytes, clock: Clock, *, lock_by: int | None = None
) -> InvoiceView:
    """A hold invoice of ours as it stands; one that is gone counts as cancelled.

    ``lock_by`` is given where a lock may follow: until then the node has to know the height, by which the payment is held.

    Raises:
        NodeNotReady: it says itself that it does not.
    """
    try:
        record = await node.lookup_invoice(payment_hash)
    except NotFound:
        now_s = clock.now_ms() // 1000
        return InvoiceView(status=InvoiceStatus.CANCELED, received_msat=0, blocks_left=None, now_s=now_s)
    blocks_left: int | None = None
    if record.state is InvoiceState.ACCEPTED and record.lowest_expiry_height is not None:
        info = await node.info()
        if lock_by is not None and not info.synced_to_chain and clock.now_ms() // 1000 <= lock_by:
            # Each block that it has not seen is one less until the payment goes back, while our lock can be claimed. For moments
            # after a new block this is so on every node: asking again costs nothing, and later the payment goes back anyway.
            raise NodeNotReady(
                "the Lightning node is not synchronised, so it does not tell how long the payment is held",
                hint="nothing is locked until it is",
            )
        blocks_left = record.lowest_expiry_height - info.block_height
    return InvoiceView(
        status=InvoiceStatus(record.state.value),
        received_msat=record.received_msat,
        blocks_left=blocks_left,
        now_s=clock.now_ms() // 1000,
    )


class Looker:
    """Looks at one thing for one swap."""

    def __init__(
        self,
        *,
        chain: SwapChain,
        node: LightningNode | None,
        counterparty: Counterparty,
        requests: OpenRequests,
        clock: Clock,
    ) -> None:
        self._chain = chain
        self._offers = offers_of(chain)
        self._node = node
        self._counterparty = counterparty
        self._requests = requests
        self._clock = clock
        self._asked_refund_s: dict[str, float] = {}

    async def look(self, watch: Watch, swap: StoredSwap) -> Observation | None:
        """What is to be seen now; None if nothing is."""
        match watch:
            case Watch.CHAIN:
                return await self._lock(swap)
            case Watch.PAYMENT:
                return await self._payment(swap)
            case Watch.INVOICE:
                return await self._invoice(swap)
            case Watch.REFUND_OFFER:
                return await self._refund_offer(swap)
            case _:
                assert_never(watch)

    async def _lock(self, swap: StoredSwap) -> ChainView | EffectRefused:
        terms = swap.deal.terms
        chain = self._chain if swap.state.urgent else self._offers
        view = await chain.view(terms.lock, terms.depth_policy, lock_key=lock_key(swap))
        # A process that stayed away for long may have decided to claim and never have begun. Only of what it claims with its own
        # preimage is that certain: of another one's, somebody knows it already.
        alone = any(isinstance(e.effect, Claim) and e.effect.preimage is None for e in swap.effects)
        if view.finalized.status is LockStatus.REFUNDED and alone and not swap.restored:
            shown = await self._chain.was_shown(f"swap:{swap.deal.id}:{Claim.name}")
            if not shown:
                return EffectRefused(key=Claim.name, reason="the lock was refunded before the claim was sent")
        return view

    async def _refund_offer(self, swap: StoredSwap) -> RefundOffer | None:
        if swap.deal.role is not Role.CLIENT or lock_key(swap) is None:
            return None
        now = self._clock.monotonic_s()
        # The provider is asked much less often than the nodes: it is somebody else's, and most swaps never need it.
        if now - self._asked_refund_s.get(swap.deal.id, -ASK_REFUND_S) < ASK_REFUND_S:
            return None
        self._asked_refund_s[swap.deal.id] = now
        try:
            async with asyncio.timeout(ASK_REFUND_LIMIT_S):
                signature = await self._counterparty.refund_signature(swap.deal)
        except (TimeoutError, Layer2Error):
            # Whatever it answers, it gives no offer; a stranger's errors must not slow down what our own nodes are asked.
            return None
        if signature is None:
            return None
        self._asked_refund_s.pop(swap.deal.id, None)
        return RefundOffer(signature=signature)

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    async def _payment(self, swap: StoredSwap) -> PaymentView | None:
        if self._node is None:
            return None
        # Asked before the record is read: a request that ends in between is still counted as open, never the other way round.
        requests_open = self._requests.pay_request_open(swap)
        now_s = self._now_s()
        payment_hash = swap.deal.terms.lock.preimage_hash
        record = await self._node.lookup_payment(payment_hash)
        if record.state is PaymentState.SUCCEEDED and record.preimage is None:
            raise UnexpectedReply("the node says that a payment succeeded but gives no preimage")
        wants_more = any(isinstance(e.effect, PayInvoice) for e in swap.effects)
        if (
            record.state is PaymentState.NONE
            and not requests_open
            and wants_more
            and now_s <= swap.deal.invoice_expires_at
        ):
            # Not begun yet, or begun by nobody: the effect that is wanted begins it.
            return None
        return PaymentView(
            status=PaymentStatus(record.state.value),
            preimage=record.preimage,
            requests_open=requests_open,
            now_s=now_s,
        )

    async def _invoice(self, swap: StoredSwap) -> InvoiceView | None:
        if self._node is None:
            return None
        terms = swap.deal.terms
        lock_by = terms.lock_by if isinstance(swap.state, Invoiced) else None
        return await look_at_invoice(self._node, terms.lock.preimage_hash, self._clock, lock_by=lock_by)
