"""What the states say of themselves, against what the decisions do in them."""

from __future__ import annotations

from itertools import product

import pytest
from swap_worlds import PREIMAGE, STATES, make_deal, sights

from layer2.swaps import (
    Abandoned,
    Agreed,
    Cancelling,
    CancelRequested,
    ChainView,
    Claiming,
    Closed,
    Failed,
    Invoiced,
    InvoiceView,
    LockReading,
    LockStatus,
    NeedsAttention,
    Observation,
    Offered,
    Paid,
    PaymentStatus,
    PaymentView,
    Refunding,
    RefundOffer,
    Revealed,
    Role,
    Settled,
    Settling,
    State,
    Watch,
    decide,
)
from layer2.terms import SwapDirection

SEEN_BY = {
    Watch.CHAIN: ChainView,
    Watch.PAYMENT: PaymentView,
    Watch.INVOICE: InvoiceView,
    Watch.REFUND_OFFER: RefundOffer,
}
each_state = pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)


def acts_on(state: State, kind: type[Observation]) -> bool:
    """Whether one of the four decisions makes anything of what is seen so in this state."""
    for role, direction, own, pays in product(Role, SwapDirection, (False, True), (False, True)):
        deal = make_deal(role, direction, own_invoice=own, pays_itself=pays, preimage_time_ms=1)
        seen_so = (seen for seen in sights(deal) if isinstance(seen, kind))
        if any(decide(deal, state, seen) is not None for seen in seen_so):
            return True
    return False


def test_every_state_is_among_them() -> None:
    assert {type(state) for state in STATES} == set(State.__args__)


@each_state
def test_a_state_that_watches_nothing_is_final(state: State) -> None:
    assert state.final == (state.watches == frozenset())


@each_state
def test_money_may_be_moving_but_before_the_first_step_and_after_the_last(state: State) -> None:
    assert state.committed != isinstance(state, Agreed | Offered | Invoiced | Cancelling | Failed | Abandoned | Closed)


@each_state
def test_what_has_a_deadline_to_get_out_by_is_on_its_way_out_and_urgent(state: State) -> None:
    assert state.exit == isinstance(state, Revealed | Claiming | Settling | Refunding | Cancelling)
    assert state.urgent == (state.committed or state.exit)


@each_state
def test_only_what_is_settled_says_so(state: State) -> None:
    assert state.settled == isinstance(state, Settled)


@pytest.mark.parametrize(
    "value",
    [
        Paid(preimage=PREIMAGE),
        Claiming(preimage=PREIMAGE),
        Settling(preimage=PREIMAGE),
        Settled(preimage=PREIMAGE),
        Closed(outcome="settled", preimage=PREIMAGE),
        NeedsAttention(reason="r", preimage=PREIMAGE),
        Refunding(signature=PREIMAGE),
        LockReading(status=LockStatus.CLAIMED, preimage=PREIMAGE),
        PaymentView(status=PaymentStatus.SUCCEEDED, preimage=PREIMAGE, requests_open=False, now_s=0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_be_logged_shows_no_preimage_and_no_signature(value: object) -> None:
    assert repr(PREIMAGE) not in repr(value)
    assert PREIMAGE.hex() not in repr(value)


def test_a_deal_spends_nothing_that_it_was_not_given() -> None:
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    assert (deal.routing_fee_limit_msat, deal.max_gas_wei) == (0, 0)


@each_state
def test_what_can_move_a_state_is_looked_at_and_nothing_else(state: State) -> None:
    """A sight that nobody looks for would leave a swap where it is for ever; a needless one costs an endpoint a call a look."""
    watched = {watch for watch, kind in SEEN_BY.items() if acts_on(state, kind)}
    if isinstance(state, Settling):
        # Its claim is sent again for the client when the chain shows that it is gone: an effect, no decision.
        watched |= {Watch.CHAIN}
    assert state.watches == watched


@each_state
def test_a_user_can_cancel_exactly_where_the_decisions_let_him(state: State) -> None:
    assert state.cancellable == acts_on(state, CancelRequested)
