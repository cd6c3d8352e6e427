"""Reverse swap, provider: hold the payment, lock on the chain, settle with the preimage that the claim shows.

What keeps the money: the lock's refund is final before lnd gives the payment back; the invoice is cancelled only when the lock
can never be claimed any more; once the preimage is known, the lock is never refunded and the payment is taken.
"""

from __future__ import annotations

from typing import assert_never

from layer2.swaps._deadlines import may_lock_reverse
from layer2.swaps._effects import CancelInvoice, Claim, Decision, Refund, SendLock, SettleInvoice
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
    Cancelling,
    Closed,
    Deal,
    Invoiced,
    Locked,
    Locking,
    NeedsAttention,
    Refunding,
    Settled,
    Settling,
    State,
)

__all__ = ["decide", "why_not_lock", "withdraw"]


def decide(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """The next state and its effects, or None if ``seen`` changes nothing."""
    match seen:
        case ChainView():
            return _on_chain(deal, state, seen)
        case InvoiceView():
            return _on_invoice(deal, state, seen)
        case EffectRefused():
            refused_lock = isinstance(state, Locking) and seen.key == SendLock.name
            return _cancel("expired", seen.reason) if refused_lock else None
        case HashTaken():
            # Said of the step that begins to lock: nothing is locked for this payment, and nothing will be.
            unlocked = isinstance(state, Invoiced)
            return _cancel("expired", "the payment hash belongs to another swap") if unlocked else None
        case PaymentView() | RefundOffer() | CancelRequested():
            return None
        case _:
            assert_never(seen)


def _on_chain(deal: Deal, state: State, view: ChainView) -> Decision | None:
    if not isinstance(state, Locking | Locked | Refunding | Settling | Settled | NeedsAttention):
        return None
    preimage = seen_preimage(view)
    match state:
        case Locking() | Locked() | Refunding() if preimage is not None:
            return Decision(state=Settling(preimage=preimage), effects=_settle(preimage))
        case Locking() | Locked():
            return _locked(deal, state, view)
        case Refunding():
            return _refunding(deal, view)
        case Settled():
            over = view.finalized.status in (LockStatus.CLAIMED, LockStatus.REFUNDED)
            # A client that did not wait until the lock was deep loses it with its claim to a reorganisation.
            if over or can_never_lock(view, deal.terms.lock.timelock):
                return Decision(state=Closed(outcome="settled", preimage=state.preimage))
            return None
        case Settling() | NeedsAttention():
            return None
        case _:
            assert_never(state)


def _locked(deal: Deal, state: Locking | Locked, view: ChainView) -> Decision | None:
    match view.latest.status:
        case LockStatus.LOCKED:
            if view.head_timestamp >= deal.terms.lock.timelock:
                return Decision(state=Refunding(), effects=(Refund(),))
            return None if isinstance(state, Locked) else Decision(state=Locked())
        case LockStatus.REFUNDED:
            # Whoever sent it: if it vanishes, ours is made when it is due.
            return _refunding(deal, view) or Decision(state=Refunding(), effects=(Refund(),))
        case LockStatus.NEVER:
            if can_never_lock(view, deal.terms.lock.timelock):
                return _cancel("expired", "the lock never took effect")
            return None
        case LockStatus.CLAIMED:  # the caller has taken the preimage out of every such view
            return None
        case _:
            assert_never(view.latest.status)


def _refunding(deal: Deal, view: ChainView) -> Decision | None:
    if view.finalized.status is LockStatus.REFUNDED:
        return _cancel("refunded", "the client did not claim in time")
    if can_never_lock(view, deal.terms.lock.timelock):
        return _cancel("expired", "the lock never took effect")
    return None


def _on_invoice(deal: Deal, state: State, view: InvoiceView) -> Decision | None:
    match state:
        case Invoiced():
            return _invoiced(deal, view)
        case Settling():
            if view.status is InvoiceStatus.SETTLED:
                claim = Claim(preimage=state.preimage, not_after=None)
                return Decision(state=Settled(preimage=state.preimage), effects=(claim,))
            if view.status is InvoiceStatus.CANCELED:
                reason = "the lock was claimed but the payment went back"
                return Decision(state=NeedsAttention(reason=reason, preimage=state.preimage), alarm="swap.payment_lost")
            return None
        case Cancelling():
            if view.status is InvoiceStatus.CANCELED:
                return Decision(state=Closed(outcome=state.outcome, reason=state.reason))
            if view.status is InvoiceStatus.SETTLED:
                reason = "the invoice was settled by somebody else"
                return Decision(state=NeedsAttention(reason=reason), alarm="swap.invoice_settled_elsewhere")
            return None
        case _:
            return None


def _invoiced(deal: Deal, view: InvoiceView) -> Decision | None:
    match view.status:
        case InvoiceStatus.OPEN:
            return None
        case InvoiceStatus.CANCELED:
            return Decision(state=Closed(outcome="expired", reason="the invoice was not paid in time"))
        case InvoiceStatus.SETTLED:
            reason = "the invoice was settled by somebody else"
            return Decision(state=NeedsAttention(reason=reason), alarm="swap.invoice_settled_elsewhere")
        case InvoiceStatus.ACCEPTED:
            pass
        case _:
            assert_never(view.status)
    if (refusal := why_not_lock(deal, view)) is not None:
        return _cancel("expired", refusal)
    return Decision(state=Locking(), effects=(SendLock(not_after=deal.terms.lock_by),), bind_hash=True)


def withdraw(state: State, seen: Observation) -> Decision | None:
    """Take an offer back whose invoice nobody has paid. A payment that comes before the invoice is closed goes back with it."""
    if not isinstance(state, Invoiced) or not isinstance(seen, InvoiceView) or seen.status is not InvoiceStatus.OPEN:
        return None
    return _cancel("expired", "the offer was taken back: the invoice was not paid while others asked")


def why_not_lock(deal: Deal, view: InvoiceView) -> str | None:
    """Why nothing may be locked for the payment as it is held now; None: it may. Asked once more just before the signature."""
    terms = deal.terms
    if view.status is not InvoiceStatus.ACCEPTED:
        return "the payment is not held any more"
    if view.received_msat < terms.invoice_amount_msat or view.blocks_left is None:
        return "less was paid than the invoice asks"
    if view.now_s > terms.lock_by:
        return "the invoice was paid too late"
    in_time = may_lock_reverse(terms.timing, timelock=terms.lock.timelock, now=view.now_s, blocks_left=view.blocks_left)
    return None if in_time else "the held payment expires too soon"


def _settle(preimage: bytes) -> tuple[SettleInvoice, Claim]:
    # We send the claim again for the client if a reorg takes it away: we have its payment, so the lock must never come back to us.
    return SettleInvoice(preimage=preimage), Claim(preimage=preimage, not_after=None)


def _cancel(outcome: str, reason: str) -> Decision:
    return Decision(state=Cancelling(outcome=outcome, reason=reason), effects=(CancelInvoice(),))
