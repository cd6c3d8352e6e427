"""Every state with every observation, for every role and direction: a decision or a deliberate None, never an error."""

import itertools

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, PREIMAGE, REFUNDED, make_deal, make_view

from layer2.swaps import (
    Abandoned,
    Agreed,
    AwaitingLock,
    CancelInvoice,
    Cancelling,
    CancelRequested,
    Claim,
    Claiming,
    Closed,
    Decision,
    EffectRefused,
    Failed,
    HashTaken,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
    LockStatus,
    NeedsAttention,
    Offered,
    OwnTransaction,
    Paid,
    Paying,
    PayInvoice,
    PaymentStatus,
    PaymentView,
    Refund,
    RefundEarly,
    Refunded,
    Refunding,
    RefundOffer,
    Revealed,
    Role,
    SendLock,
    Settled,
    SettleInvoice,
    Settling,
    State,
    decide,
)
from layer2.terms import SwapDirection

STATES = (
    Agreed(),
    Offered(),
    Invoiced(),
    Locking(),
    Locked(),
    Paid(preimage=PREIMAGE),
    Paying(),
    AwaitingLock(),
    Revealed(),
    Claiming(preimage=PREIMAGE),
    Settling(preimage=PREIMAGE),
    Refunding(),
    Refunding(signature=bytes(65)),
    Cancelling(outcome="refunded", reason="x"),
    Failed(reason="x"),
    Settled(preimage=PREIMAGE),
    Refunded(reason="x"),
    Abandoned(reason="x"),
    Closed(outcome="settled", preimage=PREIMAGE),
    NeedsAttention(reason="x"),
    NeedsAttention(reason="x", preimage=PREIMAGE),
)
READINGS = (NEVER, LOCKED, REFUNDED, CLAIMED)
KINDS = [(role, direction) for role in Role for direction in SwapDirection]
OURS_TO_LOCK = {(Role.CLIENT, SwapDirection.SUBMARINE), (Role.PROVIDER, SwapDirection.REVERSE)}


def _deals(role, direction):
    for own_invoice, pays_itself in itertools.product((False, True), repeat=2):
        yield make_deal(role, direction, own_invoice=own_invoice, pays_itself=pays_itself, preimage_time_ms=1)


def _moments(deal):
    terms = deal.terms
    for moment in (NOW, terms.lock_by, deal.invoice_expires_at, terms.lock.timelock):
        yield from (moment - 1, moment, moment + 1, moment + 30)


def _chain_views(deal):
    for latest, deep, final in itertools.product(READINGS, repeat=3):
        for own_lock in OwnTransaction:
            for now in (NOW, deal.terms.lock.timelock - 1, deal.terms.lock.timelock, deal.terms.lock.timelock + 60):
                yield make_view(latest, deep, final, now=now, own_lock=own_lock)
    for now, head in itertools.product(_moments(deal), repeat=2):
        yield make_view(LOCKED, LOCKED, NEVER, now=now, head=head)
        yield make_view(NEVER, NEVER, NEVER, now=now, head=head, own_lock=OwnTransaction.OPEN)


def _other_views(deal):
    for status, requests_open, now in itertools.product(PaymentStatus, (False, True), _moments(deal)):
        preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
        yield PaymentView(status=status, preimage=preimage, requests_open=requests_open, now_s=now)
    for status, received, blocks, now in itertools.product(
        InvoiceStatus, (0, 1, deal.terms.invoice_amount_msat), (None, -5, 0, 18, 100, 2016), _moments(deal)
    ):
        yield InvoiceView(status=status, received_msat=received, blocks_left=blocks, now_s=now)
    yield RefundOffer(signature=bytes(65))
    yield CancelRequested()
    yield HashTaken()
    for key in ("lock", "claim", "refund", "refund_early", "pay", "settle", "cancel"):
        yield EffectRefused(key=key, reason="x")


def _all(role, direction):
    for deal in _deals(role, direction):
        for seen in (*_chain_views(deal), *_other_views(deal)):
            for state in STATES:
                yield deal, state, seen, decide(deal, state, seen)


def test_every_state_is_among_them():
    assert {type(state) for state in STATES} == set(State.__args__)


@pytest.mark.parametrize(("role", "direction"), KINDS)
def test_every_pair_is_decided_and_what_is_decided_makes_sense(role, direction):
    count = 0
    for deal, state, seen, decision in _all(role, direction):
        count += 1
        if decision is None:
            continue
        assert isinstance(decision, Decision)
        assert not state.final, "a final state changed"
        names = [effect.name for effect in decision.effects]
        assert len(names) == len(set(names)), "one name for two effects"
        assert not (decision.state.final and decision.effects), "effects of a state that nobody drives any more"
        assert decision.alarm is None or isinstance(decision.state, NeedsAttention | Revealed)
        assert isinstance(decision.state, NeedsAttention) <= (decision.alarm is not None)
        _money_is_kept(deal, state, seen, decision)
    assert count > 100_000


def _money_is_kept(deal, state, seen, decision):
    kind = (deal.role, deal.direction)
    readings = [getattr(seen, name).status for name in ("latest", "at_depth", "finalized") if hasattr(seen, name)]
    for effect in decision.effects:
        match effect:
            case SendLock():
                assert kind in OURS_TO_LOCK
                assert isinstance(state, Agreed | Invoiced)
                assert effect.not_after <= deal.terms.lock_by
                assert decision.bind_hash == (deal.role is Role.PROVIDER)
            case Refund() | RefundEarly():
                assert kind in OURS_TO_LOCK
                assert LockStatus.CLAIMED not in readings, "a refund of what is claimed"
                assert not hasattr(state, "preimage")
            case PayInvoice():
                assert kind not in OURS_TO_LOCK
                assert isinstance(state, Agreed | Offered)
                assert decision.bind_hash == (deal.role is Role.PROVIDER)
            case SettleInvoice():
                assert kind == (Role.PROVIDER, SwapDirection.REVERSE)
                assert effect.preimage == PREIMAGE
            case CancelInvoice():
                claimed = LockStatus.CLAIMED in readings and not isinstance(state, Agreed)
                assert not claimed, "an invoice given up though its preimage is known"
                assert isinstance(decision.state, Cancelling)
            case Claim(preimage=None):
                assert kind == (Role.CLIENT, SwapDirection.REVERSE)
                assert seen.at_depth.status is LockStatus.LOCKED
                assert effect.not_after is not None
            case Claim():
                assert effect.preimage == PREIMAGE


@pytest.mark.parametrize(("role", "direction"), KINDS)
def test_a_decision_seen_again_is_not_made_again_for_ever(role, direction):
    """From any pair, the same observation over and over comes to rest: at least once delivery cannot make it turn in a circle."""
    for deal, _, seen, first in _all(role, direction):
        decision, steps = first, 0
        while decision is not None and steps < 6:
            decision, steps = decide(deal, decision.state, seen), steps + 1
        assert decision is None, f"{seen} never comes to rest"
