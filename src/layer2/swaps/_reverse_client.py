"""Reverse swap, client: pay the hold invoice, see the provider's lock deep enough, claim it and so reveal the preimage.

What keeps the money: the preimage leaves only against a lock at depth that is exactly the one of the terms, with time to claim,
reach the depth, and claim once more. Until then the payment can only come back.
"""

from __future__ import annotations

from typing import assert_never

from layer2.swaps._deadlines import latest_claim_start, may_claim
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
from layer2.swaps._states import (
    Abandoned,
    Agreed,
    AwaitingLock,
    Closed,
    Deal,
    NeedsAttention,
    Paying,
    Revealed,
    Settled,
    State,
)

__all__ = ["decide"]


def decide(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """The next state and its effects, or None if ``seen`` changes nothing."""
    match seen:
        case ChainView():
            return _on_chain(deal, state, seen)
        case PaymentView():
            return _on_payment(deal, seen) if isinstance(state, Paying) else None
        case CancelRequested():
            return _on_cancel(state)
        case EffectRefused():
            return _on_refused(deal, state, seen)
        case RefundOffer() | InvoiceView() | HashTaken():
            return None
        case _:
            assert_never(seen)


def _on_chain(deal: Deal, state: State, view: ChainView) -> Decision | None:
    if isinstance(state, Agreed):
        return _begin(deal, view)
    if not isinstance(state, Paying | AwaitingLock | Revealed | Settled | NeedsAttention):
        return None
    preimage = seen_preimage(view)
    if preimage is not None:
        return _claimed(state, view, preimage)
    match state:
        case Paying() | AwaitingLock():
            return _waiting(deal, state, view)
        case Revealed():
            if view.finalized.status is LockStatus.REFUNDED:
                reason = "the preimage is revealed but the lock was refunded"
                return Decision(state=NeedsAttention(reason=reason), alarm="swap.lock_lost")
            return None
        case Settled():
            return Decision(state=Revealed(), effects=(Claim(preimage=state.preimage, not_after=None),))
        case NeedsAttention():
            return None
        case _:
            assert_never(state)


def _begin(deal: Deal, view: ChainView) -> Decision | None:
    # Only after a restored copy: the life that it does not know of has paid, and may have revealed.
    preimage = seen_preimage(view)
    if preimage is not None:
        return _claimed(Agreed(), view, preimage)
    if view.latest.status is not LockStatus.NEVER:
        return Decision(state=Paying() if deal.pays_itself else AwaitingLock())
    now = max(view.now_s, view.head_timestamp)
    if now + deal.terms.timing.payment_time_limit_s > deal.invoice_expires_at:
        return Decision(state=Abandoned(reason="the hold invoice was not paid in time"))
    if deal.pays_itself:
        return Decision(state=Paying(), effects=(PayInvoice(),))
    return Decision(state=AwaitingLock())


def _on_cancel(state: State) -> Decision | None:
    match state:
        case Agreed():
            return Decision(state=Abandoned(reason="cancelled"))
        case AwaitingLock():
            # From here on we never reveal, so whoever has paid gets the payment back, and the provider its lock.
            return Decision(state=Closed(outcome="expired", reason="cancelled"))
        case _:
            return None


def _waiting(deal: Deal, state: Paying | AwaitingLock, view: ChainView) -> Decision | None:
    terms = deal.terms
    in_time = may_claim(
        terms.timing,
        terms.depth_policy,
        timelock=terms.lock.timelock,
        now=view.now_s,
        head_timestamp=view.head_timestamp,
    )
    if in_time and view.at_depth.status is LockStatus.LOCKED and view.latest.status is LockStatus.LOCKED:
        not_after = latest_claim_start(terms.timing, terms.depth_policy, terms.lock.timelock)
        return Decision(state=Revealed(), effects=(Claim(preimage=None, not_after=not_after),))
    if not in_time and isinstance(state, AwaitingLock):
        # From here on we would never reveal, so whoever paid gets the payment back.
        return Decision(
            state=Closed(outcome="expired", reason="nobody paid in time, or the provider did not lock in time")
        )
    return None


def _on_payment(deal: Deal, view: PaymentView) -> Decision | None:
    if view.status is PaymentStatus.SUCCEEDED:
        # Only we know the preimage, and it has not left: either it leaked or the node is wrong. What can be had is the lock.
        return Decision(
            state=Revealed(), effects=(Claim(preimage=view.preimage, not_after=None),), alarm="swap.preimage_leaked"
        )
    if view.status is PaymentStatus.IN_FLIGHT:
        return None
    expired = view.now_s > deal.invoice_expires_at + deal.terms.timing.clock_skew_s
    if expired or (view.status is PaymentStatus.FAILED and not view.requests_open):
        return Decision(state=Closed(outcome="returned", reason="the payment came back"))
    return None


def _on_refused(deal: Deal, state: State, refused: EffectRefused) -> Decision | None:
    if isinstance(state, Paying) and refused.key == PayInvoice.name:
        return Decision(state=Abandoned(reason=refused.reason))
    if isinstance(state, Revealed) and refused.key == Claim.name:
        # The claim was never signed: the preimage has not left, and is not going to.
        if deal.pays_itself:
            return Decision(state=Paying())
        return Decision(state=Closed(outcome="expired", reason=refused.reason))
    return None


def _claimed(state: State, view: ChainView, preimage: bytes) -> Decision | None:
    claim = (Claim(preimage=preimage, not_after=None),)
    if view.finalized.status is LockStatus.CLAIMED:
        return Decision(state=Closed(outcome="settled", preimage=preimage))
    if view.at_depth.status is LockStatus.CLAIMED:
        return None if isinstance(state, Settled) else Decision(state=Settled(preimage=preimage), effects=claim)
    return None if isinstance(state, Revealed) else Decision(state=Revealed(), effects=claim)
