"""Submarine swap, provider: see the client's lock deep enough, pay the invoice, claim the lock with the preimage.

What keeps the money: the payment is begun once per hash and only against a lock at depth with time left; it counts as dead only
when the node's record says so and no request of ours can still be on its way; after that nothing is paid, ever.
"""

from __future__ import annotations

from typing import assert_never

from layer2.swaps._deadlines import depth_wait_s, may_pay
from layer2.swaps._effects import Claim, Decision, PayInvoice
from layer2.swaps._observations import (
    CancelRequested,
    ChainView,
    EffectRefused,
    HashTaken,
    InvoiceView,
    LockStatus,
    Observation,
    PaymentStatus,
    PaymentView,
    RefundOffer,
    seen_preimage,
)
from layer2.swaps._states import Claiming, Closed, Deal, Failed, NeedsAttention, Offered, Paying, Settled, State

__all__ = ["decide", "withdraw"]


def decide(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """The next state and its effects, or None if ``seen`` changes nothing."""
    match seen:
        case ChainView():
            return _on_chain(deal, state, seen)
        case PaymentView():
            return _on_payment(deal, seen) if isinstance(state, Paying) else None
        case EffectRefused():
            refused_pay = isinstance(state, Paying) and seen.key == PayInvoice.name
            return Decision(state=Failed(reason=seen.reason)) if refused_pay else None
        case HashTaken():
            # Said of the step that begins to pay: nothing was paid for this lock, and nothing will be.
            unpaid = isinstance(state, Offered)
            return Decision(state=Failed(reason="the payment hash belongs to another swap")) if unpaid else None
        case CancelRequested() | RefundOffer() | InvoiceView():
            return None
        case _:
            assert_never(seen)


def withdraw(state: State, seen: Observation) -> Decision | None:
    """Take an offer back for which no lock is to be seen. One that comes all the same is never paid for: its refund is signed."""
    if not isinstance(state, Offered) or not isinstance(seen, ChainView):
        return None
    readings = (seen.latest, seen.at_depth, seen.finalized)
    if any(reading.status is not LockStatus.NEVER for reading in readings):
        return None
    return Decision(state=Failed(reason="the offer was taken back: nothing was locked while others asked"))


def _on_chain(deal: Deal, state: State, view: ChainView) -> Decision | None:
    if not isinstance(state, Offered | Paying | Claiming | Settled | NeedsAttention):
        return None
    preimage = seen_preimage(view)
    if preimage is not None:
        return _claimed(state, view, preimage)
    match state:
        case Offered():
            return _offered(deal, view)
        case Paying():
            # A lock that a reorg took away can come back: what is under way cannot be stopped, so only the payment decides.
            return None
        case Claiming():
            if view.finalized.status is LockStatus.REFUNDED:
                return _lost(state.preimage)
            return None
        case Settled():
            return Decision(state=Claiming(preimage=state.preimage), effects=_claim(state.preimage))
        case NeedsAttention():
            return None
        case _:
            assert_never(state)


def _offered(deal: Deal, view: ChainView) -> Decision | None:
    terms = deal.terms
    now = max(view.now_s, view.head_timestamp)
    if view.at_depth.status is LockStatus.LOCKED:
        if view.latest.status is not LockStatus.LOCKED:
            return None
        if may_pay(
            terms.timing,
            invoice_expires_at=deal.invoice_expires_at,
            final_cltv=deal.invoice_final_cltv,
            timelock=terms.lock.timelock,
            now=now,
        ):
            return Decision(state=Paying(), effects=(PayInvoice(),), bind_hash=True)
        return Decision(state=Failed(reason="the lock came too late to pay the invoice"))
    last_moment = terms.lock_by + terms.timing.evm_inclusion_s + depth_wait_s(terms.timing, terms.depth_policy)
    if now > last_moment + terms.timing.grace_s:
        return Decision(state=Failed(reason="not locked in time"))
    return None


def _on_payment(deal: Deal, view: PaymentView) -> Decision | None:
    if view.status is PaymentStatus.SUCCEEDED:
        assert view.preimage is not None
        return Decision(state=Claiming(preimage=view.preimage), effects=_claim(view.preimage))
    if view.status is PaymentStatus.IN_FLIGHT:
        return None
    expired = view.now_s > deal.invoice_expires_at + deal.terms.timing.clock_skew_s
    if expired or (view.status is PaymentStatus.FAILED and not view.requests_open):
        return Decision(state=Failed(reason="the payment failed"))
    return None


def _claimed(state: State, view: ChainView, preimage: bytes) -> Decision | None:
    if view.finalized.status is LockStatus.CLAIMED:
        return Decision(state=Closed(outcome="settled", preimage=preimage))
    if view.at_depth.status is LockStatus.CLAIMED:
        return (
            None if isinstance(state, Settled) else Decision(state=Settled(preimage=preimage), effects=_claim(preimage))
        )
    return (
        None if isinstance(state, Claiming) else Decision(state=Claiming(preimage=preimage), effects=_claim(preimage))
    )


def _claim(preimage: bytes) -> tuple[Claim]:
    return (Claim(preimage=preimage, not_after=None),)


def _lost(preimage: bytes) -> Decision:
    reason = "the invoice is paid but the lock was refunded"
    return Decision(state=NeedsAttention(reason=reason, preimage=preimage), alarm="swap.lock_lost")
