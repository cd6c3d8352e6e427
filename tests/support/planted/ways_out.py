"""Bugs in how a party that has something bound gets out: by a claim, by a refund, after a restart."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from layer2.storage import SwapJournal
from layer2.swaps import (
    ChainView,
    Claim,
    Claiming,
    Closed,
    Decision,
    Locked,
    Locking,
    LockStatus,
    Refund,
    Revealed,
)
from layer2.testing import _simulation_ports
from planted.planting import (
    CLIENT,
    FINAL,
    KNOWS,
    PROVIDER,
    PURSUE,
    RESEND,
    REVERSE,
    SUBMARINE,
    blind,
    bug,
    decide,
    without_claims,
)


@bug(KNOWS, PROVIDER, REVERSE)
def refunds_what_it_could_settle():
    with blind(PROVIDER, REVERSE, without_claims):
        yield


def _without(kind):
    def wrong(right, deal, state, seen):
        decision = right(deal, state, seen)
        if decision is not None:
            decision = replace(decision, effects=tuple(e for e in decision.effects if not isinstance(e, kind)))
        return decision

    return wrong


@bug(RESEND, PROVIDER, REVERSE)
def leaves_the_claim_to_its_client():
    with decide(PROVIDER, REVERSE, _without(Claim)):
        yield


@bug(RESEND, CLIENT, SUBMARINE)
def leaves_the_claim_to_its_provider():
    def wrong(right, deal, state, seen):
        decision = right(deal, state, seen)
        return None if decision is not None and isinstance(decision.state, Claiming) else decision

    with decide(CLIENT, SUBMARINE, wrong):
        yield


def _gives_up(kind):
    def wrong(right, deal, state, seen):
        late = isinstance(seen, ChainView) and seen.head_timestamp >= deal.terms.lock.timelock
        if late and isinstance(state, kind) and seen.latest.status is LockStatus.LOCKED:
            return Decision(state=Closed(outcome="expired", reason="the timelock has passed"))
        return right(deal, state, seen)

    return wrong


@bug(PURSUE, CLIENT, REVERSE)
def gives_up_what_it_revealed_for():
    with decide(CLIENT, REVERSE, _gives_up(Revealed)):
        yield


@bug(PURSUE, PROVIDER, SUBMARINE)
def gives_up_what_it_paid_for():
    with decide(PROVIDER, SUBMARINE, _gives_up(Claiming)):
        yield


@bug(PURSUE, CLIENT, REVERSE)
def forgets_that_a_claim_was_shown():
    async def never(self, key):
        return False

    with patch.object(_simulation_ports.ChainPort, "was_shown", never):
        yield


@bug(FINAL)
def does_not_take_up_its_exits_after_a_restart():
    right = SwapJournal.unfinished

    async def wrong(self, *, exits, **rest):
        return [] if exits else await right(self, exits=exits, **rest)

    with patch.object(SwapJournal, "unfinished", wrong):
        yield


def _leaves_it(right, deal, state, seen):
    decision = right(deal, state, seen)
    others = isinstance(state, Locked | Locking) and isinstance(seen, ChainView)
    if others and decision is not None and seen.latest.status is LockStatus.REFUNDED:
        return replace(decision, effects=tuple(e for e in decision.effects if not isinstance(e, Refund)))
    return decision


@bug(FINAL, CLIENT, SUBMARINE)
def leaves_its_refund_to_a_stranger_as_client():
    with decide(CLIENT, SUBMARINE, _leaves_it):
        yield


@bug(FINAL, PROVIDER, REVERSE)
def leaves_its_refund_to_a_stranger_as_provider():
    with decide(PROVIDER, REVERSE, _leaves_it):
        yield
