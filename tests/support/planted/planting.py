"""How a bug is planted: a small patch of the real engine, of the program of one party."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

from layer2.swaps import Cancelling, ChainView, Claim, Decision, Locking, LockStatus, Role, _machine
from layer2.swaps._act import Actor
from layer2.swaps._effects import CancelInvoice
from layer2.terms import SwapDirection

SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
CLIENT, PROVIDER = Role.CLIENT, Role.PROVIDER


PERSIST = "what is decided is written, whole, before it is done"
DEAD = "a payment is dead when its record says so and no request is on its way, or after its invoice's expiry"
CONSENT = "an early refund is signed only for a dead payment, and nothing is paid after it"
LOCK = "a lock's parameters are fixed before the first signature, and it is sent until `lock_by`"
GIVE_UP = "an invoice is given up only when its lock is refunded for good or can never be"
KNOWS = "who knows the preimage never refunds"
RESEND = "who is paid and knows the preimage sees to the claim"
FINAL = "a claim or refund is watched until it is final, across restarts"
DEPTH = "decisions rest on the state of the lock id at the needed depth"
BELIEVE = "success is read from the lock, not from a receipt or a word"
PURSUE = "from the reveal on the claim is pursued until one outcome is final"
REVEAL = "the preimage leaves only with room to claim, looked at again before the first send"
HASH = "one swap has a hash, bound by the decision to pay"
OUTLAST = "a submarine lock outlasts the worst payment"
HELD = "a lock is made for a payment that is held past its final refund, looked at again before it is signed"
SENT = "what was signed is kept and sent again, with its own number"
ESTIMATE = "no call shows a preimage before its claim"
REFUNDABLE = "refundable means by the time of the chain's head"
FEE = "the routing fee stays within its limit"


@dataclass(frozen=True)
class Bug:
    """``plant`` is a context manager; ``role`` and ``direction`` say whose code is wrong, so that other seeds need not be run."""

    name: str
    rule: str
    """Of the design, which it breaks."""
    plant: Callable
    role: Role | None = None
    direction: SwapDirection | None = None
    real_sender: bool = False
    """Whether the bug is in what only some seeds have."""

    def concerns(self, plan):
        if self.real_sender and not (plan.real_sender and plan.timing == "devnet"):
            return False
        strategy = {CLIENT: plan.client, PROVIDER: plan.provider, None: "honest"}[self.role]
        return strategy == "honest" and self.direction in (None, plan.direction)


BUGS: list[Bug] = []


def bug(rule, role=None, direction=None, *, real_sender=False):
    def add(plant):
        BUGS.append(Bug(plant.__name__, rule, contextmanager(plant), role, direction, real_sender))
        return plant

    return add


def decide(role, direction, wrong):
    """Put ``wrong(right, deal, state, seen)`` in the place of a decision file."""
    right = _machine._DECIDE[role, direction]
    changed = {(role, direction): lambda deal, state, seen: wrong(right, deal, state, seen)}
    return patch.dict(_machine._DECIDE, changed)


def seeing(change):
    """A decision that sees the chain otherwise than it is."""

    def wrong(right, deal, state, seen):
        return right(deal, state, change(deal, seen) if isinstance(seen, ChainView) else seen)

    return wrong


@contextmanager
def blind(role, direction, change):
    """Neither a decision nor the look before an act sees the chain as it is."""
    right = Actor._look

    async def look(self, swap):
        return change(swap.deal, await right(self, swap))

    with decide(role, direction, seeing(change)), patch.object(Actor, "_look", look):
        yield


def without_claims(_deal, seen):
    """What is claimed is seen as locked, but for what is final."""
    return replace(seen, latest=unclaimed(seen.latest), at_depth=unclaimed(seen.at_depth))


def gives_the_invoice_up_at(kind, reason):
    """A client that locks, and gives its own invoice up when it sees this."""

    def wrong(right, deal, state, seen):
        if isinstance(seen, kind) and isinstance(state, Locking) and deal.own_invoice:
            return Decision(state=Cancelling(outcome="expired", reason=reason), effects=(CancelInvoice(),))
        return right(deal, state, seen)

    return decide(CLIENT, SUBMARINE, wrong)


def forgets_until_when(right, deal, state, seen):
    """A claim without the time after which it is not begun."""
    decision = right(deal, state, seen)
    if decision is not None:
        effects = tuple(replace(e, not_after=None) if isinstance(e, Claim) else e for e in decision.effects)
        decision = replace(decision, effects=effects)
    return decision


def unclaimed(reading):
    return (
        replace(reading, status=LockStatus.LOCKED, preimage=None) if reading.status is LockStatus.CLAIMED else reading
    )
