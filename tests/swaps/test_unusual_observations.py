"""What the four decisions make of observations that come late, twice, for another state, or out of a reorganised chain."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, PREIMAGE, REFUNDED, STATES, make_deal, make_view

from layer2.swaps import (
    Abandoned,
    Agreed,
    CancelInvoice,
    Cancelling,
    CancelRequested,
    ChainView,
    Claim,
    Claiming,
    Closed,
    Deal,
    Decision,
    EffectRefused,
    HashTaken,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
    LockReading,
    LockStatus,
    NeedsAttention,
    Observation,
    Offered,
    OwnTransaction,
    Paid,
    Paying,
    PaymentStatus,
    PaymentView,
    Refund,
    Refunded,
    Refunding,
    RefundOffer,
    Revealed,
    Role,
    Settled,
    Settling,
    State,
    decide,
    first_state,
)
from layer2.terms import SwapDirection

DEALS = [(role, direction) for role in Role for direction in SwapDirection]
VIEWS: tuple[ChainView, ...] = tuple(
    make_view(latest, at_depth, finalized, now=NOW + late, own_lock=own)
    for latest, at_depth, finalized in (
        (NEVER, NEVER, NEVER),
        (LOCKED, NEVER, NEVER),
        (LOCKED, LOCKED, LOCKED),
        (REFUNDED, LOCKED, LOCKED),
        (REFUNDED, REFUNDED, LOCKED),
        (REFUNDED, REFUNDED, REFUNDED),
        (CLAIMED, LOCKED, LOCKED),
        (CLAIMED, CLAIMED, LOCKED),
        (CLAIMED, CLAIMED, CLAIMED),
    )
    for late in (0, 100_000)
    for own in OwnTransaction
)
OBSERVATIONS: tuple[Observation, ...] = (
    *VIEWS,
    *(
        PaymentView(
            status=status,
            preimage=PREIMAGE if status is PaymentStatus.SUCCEEDED else None,
            requests_open=requests_open,
            now_s=NOW,
        )
        for status in PaymentStatus
        for requests_open in (False, True)
    ),
    *(InvoiceView(status=status, received_msat=100_000_000, blocks_left=1_000, now_s=NOW) for status in InvoiceStatus),
    RefundOffer(signature=b"\x07" * 65),
    CancelRequested(),
    *(EffectRefused(key=key, reason="r") for key in ("lock", "pay", "claim", "refund", "settle", "cancel")),
    HashTaken(),
)


def deal_of(role: Role, direction: SwapDirection) -> Deal:
    own = {"preimage_time_ms": 1} if (role, direction) == (Role.CLIENT, SwapDirection.REVERSE) else {}
    return make_deal(role, direction, **own)


def state_after(deal: Deal, state: State, seen: Observation) -> State:
    decision = decide(deal, state, seen)
    assert decision is not None
    return decision.state


def invoice(status: InvoiceStatus) -> InvoiceView:
    return InvoiceView(status=status, received_msat=0, blocks_left=None, now_s=NOW)


@pytest.mark.parametrize(("role", "direction"), DEALS)
class TestEverySwap:
    def test_every_observation_in_every_state_has_an_answer_that_rests(
        self, role: Role, direction: SwapDirection
    ) -> None:
        """Deciding again on the same observation ends: a swap never runs in a circle on one look at the world."""
        deal = deal_of(role, direction)
        for state in STATES:
            for seen in OBSERVATIONS:
                reached: list[State] = [state]
                while (decision := decide(deal, reached[-1], seen)) is not None:
                    assert isinstance(decision, Decision)
                    assert decision.state not in reached, (state, seen)
                    reached.append(decision.state)

    def test_nothing_leads_out_of_a_final_state(self, role: Role, direction: SwapDirection) -> None:
        deal = deal_of(role, direction)
        final = [state for state in STATES if state.final]
        assert {type(state) for state in final} >= {Abandoned, Closed}
        for state in final:
            assert [seen for seen in OBSERVATIONS if decide(deal, state, seen) is not None] == [], state

    def test_an_alarm_is_raised_once(self, role: Role, direction: SwapDirection) -> None:
        deal = deal_of(role, direction)
        for seen in VIEWS:
            decision = decide(deal, NeedsAttention(reason="r"), seen)
            assert decision is None or decision.alarm is None

    def test_a_claim_without_its_preimage_decides_nothing(self, role: Role, direction: SwapDirection) -> None:
        """What a provider of chain data cannot show is asked for again, and never taken for a refund."""
        unread = LockReading(status=LockStatus.CLAIMED)
        for state in (Locking(), Locked()):
            assert decide(deal_of(role, direction), state, make_view(unread, LOCKED, LOCKED)) is None

    def test_begins_with_what_its_role_waits_for(self, role: Role, direction: SwapDirection) -> None:
        expected: State = Agreed()
        if role is Role.PROVIDER:
            expected = Offered() if direction is SwapDirection.SUBMARINE else Invoiced()
        assert first_state(role, direction) == expected


class TestSubmarineClient:
    def test_a_lock_that_is_there_already_is_not_sent_again(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Agreed(), make_view(LOCKED))
        assert decision is not None
        assert decision.state == Locked()
        assert decision.effects == ()

    def test_follows_a_refund_that_somebody_else_sent(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Locked(), make_view(REFUNDED, LOCKED, LOCKED))
        assert decision == Decision(state=Refunding(), effects=(Refund(),)), "for the case that it vanishes"
        final = state_after(submarine_client, Locked(), make_view(REFUNDED, REFUNDED, REFUNDED))
        assert isinstance(final, Closed)
        assert final.outcome == "refunded"

    def test_a_refund_says_to_the_end_whether_it_was_taken_early(self, submarine_client: Deal) -> None:
        for signature, words in ((b"\x07" * 65, "could not pay.*early"), (None, "in time.*after its timelock")):
            refunded = state_after(
                submarine_client, Refunding(signature=signature), make_view(REFUNDED, REFUNDED, LOCKED)
            )
            assert isinstance(refunded, Refunded)
            assert re.search(words, refunded.reason)
            final = make_view(REFUNDED, REFUNDED, REFUNDED)
            for state in (Refunding(signature=signature), refunded):
                closed = state_after(submarine_client, state, final)
                assert isinstance(closed, Closed)
                assert closed.reason == refunded.reason

    def test_a_refunding_lock_that_a_reorg_removed_for_ever_is_given_up(self, submarine_client: Deal) -> None:
        late = make_view(now=submarine_client.terms.lock.timelock + 100)
        assert isinstance(state_after(submarine_client, Refunding(), late), Abandoned)

    def test_waits_while_its_own_refund_is_under_way(self, submarine_client: Deal) -> None:
        due = make_view(LOCKED, LOCKED, LOCKED, now=submarine_client.terms.lock.timelock)
        assert decide(submarine_client, Refunding(), due) is None

    def test_with_the_preimage_it_closes_when_somebody_refunds_to_it(self, submarine_client: Deal) -> None:
        gone = make_view(REFUNDED, REFUNDED, REFUNDED)
        for state in (Paid(preimage=PREIMAGE), Settled(preimage=PREIMAGE)):
            closed = state_after(submarine_client, state, gone)
            assert isinstance(closed, Closed)
            assert closed.outcome == "refunded"
            assert closed.preimage == PREIMAGE

    def test_the_providers_consent_comes_too_late_to_matter(self, submarine_client: Deal) -> None:
        offer = RefundOffer(signature=b"\x07" * 65)
        for state in (Agreed(), Locking(), Paid(preimage=PREIMAGE), Refunding()):
            assert decide(submarine_client, state, offer) is None

    def test_ends_only_when_its_invoice_is_surely_dead(self) -> None:
        deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE, own_invoice=True)
        state = Cancelling(outcome="refunded", reason="r")
        for status in (InvoiceStatus.OPEN, InvoiceStatus.ACCEPTED):
            assert decide(deal, state, invoice(status)) is None
        assert state_after(deal, state, invoice(InvoiceStatus.CANCELED)) == Closed(outcome="refunded", reason="r")


class TestSubmarineProvider:
    def test_its_claim_is_settled_at_depth_and_over_when_final(self, submarine_provider: Deal) -> None:
        claiming = Claiming(preimage=PREIMAGE)
        settled = decide(submarine_provider, claiming, make_view(CLAIMED, CLAIMED, LOCKED))
        assert settled is not None
        assert settled.state == Settled(preimage=PREIMAGE)
        assert settled.effects == (Claim(preimage=PREIMAGE, not_after=None),), "still pursued until it is final"
        closed = state_after(submarine_provider, settled.state, make_view(CLAIMED, CLAIMED, CLAIMED))
        assert closed == Closed(outcome="settled", preimage=PREIMAGE)

    def test_a_claim_that_it_never_sent_is_pursued_too(self, submarine_provider: Deal) -> None:
        assert state_after(submarine_provider, Paying(), make_view(CLAIMED, LOCKED, LOCKED)) == Claiming(
            preimage=PREIMAGE
        )

    def test_a_refusal_that_is_not_of_the_payment_changes_nothing(self, submarine_provider: Deal) -> None:
        assert decide(submarine_provider, Paying(), EffectRefused(key="claim", reason="r")) is None

    @pytest.mark.parametrize("state", [Paying(), Claiming(preimage=PREIMAGE), Settled(preimage=PREIMAGE)])
    def test_a_swap_that_may_have_paid_never_fails_over_its_hash(self, submarine_provider: Deal, state: State) -> None:
        assert decide(submarine_provider, state, HashTaken()) is None


class TestReverseClient:
    def test_a_lost_claim_is_alarmed_only_when_the_refund_is_final(self, reverse_client: Deal) -> None:
        assert decide(reverse_client, Revealed(), make_view(REFUNDED, REFUNDED, LOCKED)) is None
        decision = decide(reverse_client, Revealed(), make_view(REFUNDED, REFUNDED, REFUNDED))
        assert decision is not None
        assert isinstance(decision.state, NeedsAttention)
        assert decision.alarm == "swap.lock_lost"

    def test_a_claim_that_a_reorg_took_back_is_pursued_again(self, reverse_client: Deal) -> None:
        settled = Settled(preimage=PREIMAGE)
        for view in (make_view(LOCKED, LOCKED, LOCKED), make_view(CLAIMED, LOCKED, LOCKED)):
            decision = decide(reverse_client, settled, view)
            assert decision is not None
            assert decision.state == Revealed()
            assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)

    def test_a_claim_found_by_itself_is_final(self, reverse_client: Deal) -> None:
        assert state_after(reverse_client, Revealed(), make_view(CLAIMED, CLAIMED, CLAIMED)) == Closed(
            outcome="settled", preimage=PREIMAGE
        )

    def test_a_payment_that_was_refused_before_it_was_sent_ends_the_swap(self, reverse_client: Deal) -> None:
        refused = EffectRefused(key="pay", reason="no route")
        assert state_after(reverse_client, Paying(), refused) == Abandoned(reason="no route")
        assert decide(reverse_client, Revealed(), refused) is None

    def test_a_claim_that_was_never_signed_ends_what_somebody_else_pays(self) -> None:
        deal = make_deal(Role.CLIENT, SwapDirection.REVERSE, preimage_time_ms=1, pays_itself=False)
        refused = EffectRefused(key="claim", reason="too late")
        assert state_after(deal, Revealed(), refused) == Closed(outcome="expired", reason="too late")


class TestReverseProvider:
    def test_a_lock_that_was_refused_before_it_was_signed_gives_the_payment_back(self, reverse_provider: Deal) -> None:
        decision = decide(reverse_provider, Locking(), EffectRefused(key="lock", reason="no gas"))
        assert decision is not None
        assert decision.state == Cancelling(outcome="expired", reason="no gas")
        assert decision.effects == (CancelInvoice(),)
        assert decide(reverse_provider, Locked(), EffectRefused(key="lock", reason="no gas")) is None

    def test_a_refund_that_somebody_else_sent_is_followed(self, reverse_provider: Deal) -> None:
        decision = decide(reverse_provider, Locked(), make_view(REFUNDED, LOCKED, LOCKED))
        assert decision == Decision(state=Refunding(), effects=(Refund(),)), "for the case that it vanishes"
        final = state_after(reverse_provider, Locked(), make_view(REFUNDED, REFUNDED, REFUNDED))
        assert isinstance(final, Cancelling)
        assert final.outcome == "refunded"

    def test_waits_for_a_lock_that_may_still_come(self, reverse_provider: Deal) -> None:
        assert decide(reverse_provider, Locking(), make_view(own_lock=OwnTransaction.OPEN)) is None
        assert decide(reverse_provider, Refunding(), make_view(LOCKED, LOCKED, LOCKED)) is None
        late = make_view(now=reverse_provider.terms.lock.timelock)
        gone = replace(late, finalized_timestamp=reverse_provider.terms.lock.timelock)
        assert isinstance(state_after(reverse_provider, Refunding(), gone), Cancelling)

    def test_is_over_when_what_it_settled_is_final(self, reverse_provider: Deal) -> None:
        settled = Settled(preimage=PREIMAGE)
        assert decide(reverse_provider, settled, make_view(LOCKED, LOCKED, LOCKED)) is None
        assert state_after(reverse_provider, settled, make_view(REFUNDED, REFUNDED, REFUNDED)) == Closed(
            outcome="settled", preimage=PREIMAGE
        )

    def test_settles_until_the_node_says_so(self, reverse_provider: Deal) -> None:
        settling = Settling(preimage=PREIMAGE)
        assert decide(reverse_provider, settling, invoice(InvoiceStatus.ACCEPTED)) is None
        decision = decide(reverse_provider, settling, invoice(InvoiceStatus.SETTLED))
        assert decision is not None
        assert decision.state == Settled(preimage=PREIMAGE)
        assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)

    @pytest.mark.parametrize("state", [Invoiced(), Cancelling(outcome="expired", reason="r")])
    def test_an_invoice_that_something_else_settled_is_alarmed(self, reverse_provider: Deal, state: State) -> None:
        decision = decide(reverse_provider, state, invoice(InvoiceStatus.SETTLED))
        assert decision is not None
        assert isinstance(decision.state, NeedsAttention)
        assert decision.alarm == "swap.invoice_settled_elsewhere"
        assert decision.effects == ()

    def test_ends_only_when_the_payment_has_gone_back(self, reverse_provider: Deal) -> None:
        state = Cancelling(outcome="refunded", reason="r")
        assert decide(reverse_provider, state, invoice(InvoiceStatus.ACCEPTED)) is None
        assert state_after(reverse_provider, state, invoice(InvoiceStatus.CANCELED)) == Closed(
            outcome="refunded", reason="r"
        )

    def test_waits_for_an_invoice_that_nobody_has_paid_yet(self, reverse_provider: Deal) -> None:
        assert decide(reverse_provider, Invoiced(), invoice(InvoiceStatus.OPEN)) is None
