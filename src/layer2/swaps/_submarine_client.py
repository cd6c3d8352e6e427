"""Submarine swap, client: lock on the chain, have the invoice paid, or take the lock back.

What keeps the money: the lock is sent only once, before ``lock_by``; it is refunded only while no preimage is known; the invoice
is given up only when the lock can never be claimed any more. A paid lock that its claimer leaves there is claimed for it at last.
"""

from __future__ import annotations

from typing import assert_never

from layer2.swaps._effects import CancelInvoice, Claim, Decision, Refund, RefundEarly, SendLock
from layer2.swaps._observations import (
    CancelRequested,
    ChainView,
    EffectRefused,
    HashTaken,
    InvoiceStatus,
    InvoiceView,
    LockStatus,
    Observation,
    PaymentView,
    RefundOffer,
    can_never_lock,
    seen_preimage,
)
from layer2.swaps._states import (
    Abandoned,
    Agreed,
    Cancelling,
    Claiming,
    Closed,
    Deal,
    Locked,
    Locking,
    NeedsAttention,
    Paid,
    Refunded,
    Refunding,
    Settled,
    State,
)

__all__ = ["decide"]


def decide(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """The next state and its effects, or None if ``seen`` changes nothing."""
    match seen:
        case ChainView():
            return _on_chain(deal, state, seen)
        case RefundOffer():
            return _on_refund_offer(state, seen)
        case InvoiceView():
            return _on_invoice(state, seen)
        case CancelRequested():
            return _give_up(deal, "expired", "cancelled") if isinstance(state, Agreed) else None
        case EffectRefused():
            refused_lock = isinstance(state, Locking) and seen.key == SendLock.name
            return _give_up(deal, "expired", seen.reason) if refused_lock else None
        case PaymentView() | HashTaken():
            return None
        case _:
            assert_never(seen)


def _on_chain(deal: Deal, state: State, view: ChainView) -> Decision | None:
    if isinstance(state, Agreed):
        return _begin(deal, view)
    if not isinstance(state, Locking | Locked | Paid | Claiming | Refunding | Refunded | Settled | NeedsAttention):
        return None
    preimage = seen_preimage(view)
    if preimage is not None:
        return _claimed(state, view, preimage)
    match state:
        case Locking() | Locked():
            return _locked(deal, state, view)
        case Refunding() | Refunded():
            return _refunding(deal, state, view)
        case Paid() | Claiming() | Settled():
            return _unclaimed(deal, state, view)
        case NeedsAttention():
            return None
        case _:
            assert_never(state)


def _begin(deal: Deal, view: ChainView) -> Decision:
    terms = deal.terms
    if view.latest.status is not LockStatus.NEVER:
        return Decision(state=Locked())
    if max(view.now_s, view.head_timestamp) > terms.lock_by:
        return _give_up(deal, "expired", "the terms were not locked in time")
    return Decision(state=Locking(), effects=(SendLock(not_after=terms.lock_by),))


def _locked(deal: Deal, state: Locking | Locked, view: ChainView) -> Decision | None:
    match view.latest.status:
        case LockStatus.LOCKED:
            if view.head_timestamp >= deal.terms.lock.timelock:
                return Decision(state=Refunding(), effects=(Refund(),))
            return None if isinstance(state, Locked) else Decision(state=Locked())
        case LockStatus.REFUNDED:
            # Whoever sent it: if it vanishes, ours is made when it is due.
            return _refunding(deal, Refunding(), view) or Decision(state=Refunding(), effects=(Refund(),))
        case LockStatus.NEVER:
            if can_never_lock(view, deal.terms.lock.timelock):
                return _give_up(deal, "expired", "the lock never took effect")
            return None
        case LockStatus.CLAIMED:  # the caller has taken the preimage out of every such view
            return None
        case _:
            assert_never(view.latest.status)


def _refunding(deal: Deal, state: Refunding | Refunded, view: ChainView) -> Decision | None:
    if view.finalized.status is LockStatus.REFUNDED:
        return _over(deal, "refunded", _why_refunded(state), None)
    if view.at_depth.status is LockStatus.REFUNDED:
        return None if isinstance(state, Refunded) else Decision(state=Refunded(reason=_why_refunded(state)))
    if can_never_lock(view, deal.terms.lock.timelock):
        return _give_up(deal, "expired", "the lock never took effect")
    if isinstance(state, Refunded):
        return Decision(state=Refunding(), effects=(Refund(),))
    due = view.latest.status is LockStatus.LOCKED and view.head_timestamp >= deal.terms.lock.timelock
    if state.signature is not None and due:
        return Decision(state=Refunding(), effects=(Refund(),))
    return None


def _why_refunded(state: Refunding | Refunded) -> str:
    if isinstance(state, Refunded):
        return state.reason
    if state.signature is not None:
        return "the provider could not pay the invoice, and the lock was taken back early"
    return "the provider did not pay the invoice in time, and the lock was taken back after its timelock"


def _claimed(state: State, view: ChainView, preimage: bytes) -> Decision | None:
    if view.finalized.status is LockStatus.CLAIMED:
        return Decision(state=Closed(outcome="settled", preimage=preimage))
    if view.at_depth.status is LockStatus.CLAIMED:
        return None if isinstance(state, Settled) else Decision(state=Settled(preimage=preimage))
    return None if isinstance(state, Paid | Claiming) else Decision(state=Paid(preimage=preimage))


def _unclaimed(deal: Deal, state: Paid | Claiming | Settled, view: ChainView) -> Decision | None:
    """The claim vanished in a reorganisation. The provider sends it again; we know the preimage, so we never refund."""
    if view.finalized.status is LockStatus.REFUNDED:
        # Somebody else took it back, to us: both legs are ours and nothing is left to do.
        return _over(deal, "refunded", "the provider paid but never claimed", state.preimage)
    if isinstance(state, Settled):
        return Decision(state=Paid(preimage=state.preimage))
    if can_never_lock(view, deal.terms.lock.timelock):
        # A provider that did not wait until the lock was deep: the reorganisation took the lock away together with its claim.
        return _over(deal, "refunded", "the provider paid, but the lock never took effect", state.preimage)
    if (
        isinstance(state, Paid)
        and view.latest.status is LockStatus.LOCKED
        and view.head_timestamp >= deal.terms.lock.timelock
    ):
        # A provider that means to take its money has done so by now. The claim pays it whoever sends it, and ends the swap.
        return Decision(
            state=Claiming(preimage=state.preimage), effects=(Claim(preimage=state.preimage, not_after=None),)
        )
    return None


def _on_refund_offer(state: State, offer: RefundOffer) -> Decision | None:
    if not isinstance(state, Locked):
        return None
    return Decision(state=Refunding(signature=offer.signature), effects=(RefundEarly(signature=offer.signature),))


def _on_invoice(state: State, view: InvoiceView) -> Decision | None:
    if not isinstance(state, Cancelling) or view.status not in (InvoiceStatus.CANCELED, InvoiceStatus.SETTLED):
        return None
    return Decision(state=Closed(outcome=state.outcome, reason=state.reason))


def _give_up(deal: Deal, outcome: str, reason: str) -> Decision:
    if deal.own_invoice:
        return Decision(state=Cancelling(outcome=outcome, reason=reason), effects=(CancelInvoice(),))
    return Decision(state=Abandoned(reason=reason))


def _over(deal: Deal, outcome: str, reason: str, preimage: bytes | None) -> Decision:
    if deal.own_invoice and preimage is None:
        return _give_up(deal, outcome, reason)
    return Decision(state=Closed(outcome=outcome, reason=reason, preimage=preimage))
