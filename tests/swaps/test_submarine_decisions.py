"""What a submarine swap's client and provider decide, one rule a test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, PREIMAGE, REFUNDED, make_deal, make_view

from layer2.swaps import (
    Abandoned,
    Agreed,
    CancelInvoice,
    Cancelling,
    CancelRequested,
    Claim,
    Claiming,
    Closed,
    Deal,
    EffectRefused,
    Failed,
    HashTaken,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
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
    Role,
    SendLock,
    Settled,
    decide,
)
from layer2.terms import SwapDirection

SIGNATURE = b"\x07" * 65


def payment(status: PaymentStatus, *, requests_open: bool = False, now: int = NOW) -> PaymentView:
    preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
    return PaymentView(status=status, preimage=preimage, requests_open=requests_open, now_s=now)


class TestClient:
    def test_locks_in_time(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Agreed(), make_view())
        assert decision is not None
        assert decision.state == Locking()
        assert decision.effects == (SendLock(not_after=submarine_client.terms.lock_by),)

    @pytest.mark.parametrize("late", ["clock", "chain"])
    def test_never_locks_later_than_agreed(self, submarine_client: Deal, late: str) -> None:
        after = submarine_client.terms.lock_by + 1
        view = make_view(now=after) if late == "clock" else make_view(now=NOW, head=after)
        decision = decide(submarine_client, Agreed(), view)
        assert decision is not None
        assert isinstance(decision.state, Abandoned)
        assert decision.effects == ()

    def test_can_be_cancelled_only_before_the_lock(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Agreed(), CancelRequested())
        assert decision is not None
        assert isinstance(decision.state, Abandoned)
        for state in (Locking(), Locked(), Paid(preimage=PREIMAGE), Refunding()):
            assert decide(submarine_client, state, CancelRequested()) is None

    def test_waits_while_the_lock_is_not_there(self, submarine_client: Deal) -> None:
        assert decide(submarine_client, Locking(), make_view(own_lock=OwnTransaction.OPEN)) is None

    @pytest.mark.parametrize("state", [Locking(), Locked()])
    def test_gives_up_only_when_the_lock_can_never_be(self, submarine_client: Deal, state: Locking | Locked) -> None:
        timelock = submarine_client.terms.lock.timelock
        still_open = make_view(now=timelock + 100, final_time=timelock - 1, own_lock=OwnTransaction.OPEN)
        assert decide(submarine_client, state, still_open) is None
        for view in (
            make_view(now=timelock + 100, final_time=timelock, own_lock=OwnTransaction.OPEN),
            make_view(own_lock=OwnTransaction.DEAD),
        ):
            decision = decide(submarine_client, state, view)
            assert decision is not None
            assert isinstance(decision.state, Abandoned)

    def test_a_lock_that_is_seen_now_is_not_given_up_for_an_old_finalized_block(self, submarine_client: Deal) -> None:
        view = make_view(LOCKED, NEVER, NEVER, own_lock=OwnTransaction.DEAD)
        decision = decide(submarine_client, Locking(), view)
        assert decision is not None
        assert decision.state == Locked()

    def test_refunds_from_the_timelock_of_the_chain_on(self, submarine_client: Deal) -> None:
        timelock = submarine_client.terms.lock.timelock
        early = make_view(LOCKED, LOCKED, LOCKED, now=timelock + 1000, head=timelock - 1)
        assert decide(submarine_client, Locked(), early) is None
        decision = decide(submarine_client, Locked(), make_view(LOCKED, LOCKED, LOCKED, now=NOW, head=timelock))
        assert decision is not None
        assert decision.state == Refunding()
        assert decision.effects == (Refund(),)

    def test_never_refunds_a_lock_whose_preimage_it_knows(self, submarine_client: Deal) -> None:
        view = make_view(LOCKED, LOCKED, LOCKED, now=submarine_client.terms.lock.timelock + 100)
        decision = decide(submarine_client, Settled(preimage=PREIMAGE), view)
        assert decision is not None
        assert decision.state == Paid(preimage=PREIMAGE)
        assert decision.effects == ()
        assert decide(submarine_client, Claiming(preimage=PREIMAGE), view) is None

    def test_claims_for_a_provider_that_leaves_its_lock_there(self, submarine_client: Deal) -> None:
        timelock, paid = submarine_client.terms.lock.timelock, Paid(preimage=PREIMAGE)
        early = make_view(LOCKED, LOCKED, LOCKED, now=timelock + 1000, head=timelock - 1)
        assert decide(submarine_client, paid, early) is None
        decision = decide(submarine_client, paid, make_view(LOCKED, LOCKED, LOCKED, now=NOW, head=timelock))
        assert decision is not None
        assert decision.state == Claiming(preimage=PREIMAGE)
        assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)

    def test_does_not_claim_for_it_what_is_not_there(self, submarine_client: Deal) -> None:
        timelock = submarine_client.terms.lock.timelock
        gone = make_view(NEVER, NEVER, NEVER, now=timelock + 100, final_time=timelock - 1)
        assert decide(submarine_client, Paid(preimage=PREIMAGE), gone) is None

    def test_its_claim_for_the_provider_ends_the_swap(self, submarine_client: Deal) -> None:
        claiming = Claiming(preimage=PREIMAGE)
        assert decide(submarine_client, claiming, make_view(CLAIMED, LOCKED, LOCKED)) is None
        for view, expected in (
            (make_view(CLAIMED, CLAIMED, LOCKED), Settled(preimage=PREIMAGE)),
            (make_view(CLAIMED, CLAIMED, CLAIMED), Closed(outcome="settled", preimage=PREIMAGE)),
        ):
            decision = decide(submarine_client, claiming, view)
            assert decision is not None
            assert decision.state == expected

    @pytest.mark.parametrize("state", [Locking(), Locked(), Refunding(), Refunded(reason="x")])
    def test_a_claim_anywhere_wins(self, submarine_client: Deal, state: object) -> None:
        for view, expected in (
            (make_view(CLAIMED, LOCKED, LOCKED), Paid(preimage=PREIMAGE)),
            (make_view(CLAIMED, CLAIMED, LOCKED), Settled(preimage=PREIMAGE)),
            (make_view(CLAIMED, CLAIMED, CLAIMED), Closed(outcome="settled", preimage=PREIMAGE)),
        ):
            decision = decide(submarine_client, state, view)  # type: ignore[arg-type]
            assert decision is not None
            assert decision.state == expected

    def test_takes_the_providers_consent(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Locked(), RefundOffer(signature=SIGNATURE))
        assert decision is not None
        assert decision.state == Refunding(signature=SIGNATURE)
        assert decision.effects == (RefundEarly(signature=SIGNATURE),)
        assert decide(submarine_client, Paid(preimage=PREIMAGE), RefundOffer(signature=SIGNATURE)) is None

    def test_refunds_by_itself_if_the_consent_leads_nowhere(self, submarine_client: Deal) -> None:
        late = submarine_client.terms.lock.timelock
        view = make_view(LOCKED, LOCKED, LOCKED, now=late)
        decision = decide(submarine_client, Refunding(signature=SIGNATURE), view)
        assert decision is not None
        assert decision.effects == (Refund(),)

    def test_a_refund_that_a_reorg_takes_away_is_made_again(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Refunded(reason="x"), make_view(LOCKED, LOCKED, LOCKED))
        assert decision is not None
        assert decision.state == Refunding()
        assert decision.effects == (Refund(),)

    def test_gives_its_own_invoice_up_only_after_a_final_refund(self) -> None:
        deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE, own_invoice=True)
        at_depth = decide(deal, Refunding(), make_view(REFUNDED, REFUNDED, LOCKED))
        assert at_depth is not None
        assert isinstance(at_depth.state, Refunded)
        assert at_depth.effects == ()
        final = decide(deal, Refunded(reason="x"), make_view(REFUNDED, REFUNDED, REFUNDED))
        assert final is not None
        assert isinstance(final.state, Cancelling)
        assert final.effects == (CancelInvoice(),)
        gone = InvoiceView(status=InvoiceStatus.CANCELED, received_msat=0, blocks_left=None, now_s=NOW)
        closed = decide(deal, final.state, gone)
        assert closed is not None
        assert isinstance(closed.state, Closed)
        assert closed.state.outcome == "refunded"

    def test_a_lock_that_was_refused_before_it_was_signed_ends_the_swap(self, submarine_client: Deal) -> None:
        decision = decide(submarine_client, Locking(), EffectRefused(key="lock", reason="no gas"))
        assert decision is not None
        assert decision.state == Abandoned(reason="no gas")
        assert decide(submarine_client, Locked(), EffectRefused(key="lock", reason="no gas")) is None


class TestProvider:
    def test_pays_once_the_lock_is_deep_enough(self, submarine_provider: Deal) -> None:
        assert decide(submarine_provider, Offered(), make_view(LOCKED, NEVER, NEVER)) is None
        decision = decide(submarine_provider, Offered(), make_view(LOCKED, LOCKED, NEVER))
        assert decision is not None
        assert decision.state == Paying()
        assert decision.effects == (PayInvoice(),)
        assert decision.bind_hash

    def test_does_not_pay_for_a_lock_that_is_gone_again(self, submarine_provider: Deal) -> None:
        assert decide(submarine_provider, Offered(), make_view(NEVER, LOCKED, NEVER)) is None

    def test_does_not_pay_an_invoice_that_is_about_to_expire(self, submarine_provider: Deal) -> None:
        timing = submarine_provider.terms.timing
        last = submarine_provider.invoice_expires_at - timing.payment_time_limit_s
        in_time = decide(submarine_provider, Offered(), make_view(LOCKED, LOCKED, NEVER, now=last))
        assert in_time is not None
        assert in_time.state == Paying()
        for view in (
            make_view(LOCKED, LOCKED, NEVER, now=last + 1),
            make_view(LOCKED, LOCKED, NEVER, now=NOW, head=last + 1),
        ):
            late = decide(submarine_provider, Offered(), view)
            assert late is not None
            assert isinstance(late.state, Failed)
            assert late.effects == ()

    def test_does_not_pay_for_a_lock_that_ends_before_the_worst_payment(self, submarine_provider: Deal) -> None:
        longer = replace(submarine_provider, invoice_final_cltv=submarine_provider.invoice_final_cltv + 1)
        decision = decide(longer, Offered(), make_view(LOCKED, LOCKED, NEVER))
        assert decision is not None
        assert isinstance(decision.state, Failed)

    def test_a_hash_of_another_swap_is_never_paid(self, submarine_provider: Deal) -> None:
        decision = decide(submarine_provider, Offered(), HashTaken())
        assert decision is not None
        assert isinstance(decision.state, Failed)

    def test_forgets_an_offer_that_was_not_taken(self, submarine_provider: Deal) -> None:
        lock_by = submarine_provider.terms.lock_by
        assert decide(submarine_provider, Offered(), make_view(now=lock_by + 1)) is None
        decision = decide(submarine_provider, Offered(), make_view(now=lock_by + 600))
        assert decision is not None
        assert isinstance(decision.state, Failed)

    def test_claims_with_the_preimage(self, submarine_provider: Deal) -> None:
        decision = decide(submarine_provider, Paying(), payment(PaymentStatus.SUCCEEDED))
        assert decision is not None
        assert decision.state == Claiming(preimage=PREIMAGE)
        assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)

    @pytest.mark.parametrize("status", [PaymentStatus.FAILED, PaymentStatus.NONE])
    def test_a_payment_is_dead_only_when_nothing_of_it_can_come(
        self, submarine_provider: Deal, status: PaymentStatus
    ) -> None:
        expiry = submarine_provider.invoice_expires_at
        skew = submarine_provider.terms.timing.clock_skew_s
        assert decide(submarine_provider, Paying(), payment(status, requests_open=True, now=expiry + skew)) is None
        decision = decide(submarine_provider, Paying(), payment(status, requests_open=True, now=expiry + skew + 1))
        assert decision is not None
        assert isinstance(decision.state, Failed)

    def test_a_failure_counts_at_once_if_every_request_was_answered(self, submarine_provider: Deal) -> None:
        decision = decide(submarine_provider, Paying(), payment(PaymentStatus.FAILED))
        assert decision is not None
        assert isinstance(decision.state, Failed)
        assert decide(submarine_provider, Paying(), payment(PaymentStatus.NONE)) is None

    def test_waits_for_a_payment_in_flight_however_long(self, submarine_provider: Deal) -> None:
        late = submarine_provider.invoice_expires_at + 10_000
        assert decide(submarine_provider, Paying(), payment(PaymentStatus.IN_FLIGHT, now=late)) is None

    def test_a_lock_that_vanishes_while_paying_changes_nothing(self, submarine_provider: Deal) -> None:
        assert decide(submarine_provider, Paying(), make_view(NEVER, NEVER, NEVER)) is None

    def test_nothing_leads_out_of_failed(self, submarine_provider: Deal) -> None:
        state = Failed(reason="x")
        for seen in (
            make_view(LOCKED, LOCKED, LOCKED),
            make_view(CLAIMED, CLAIMED, CLAIMED),
            payment(PaymentStatus.SUCCEEDED),
            EffectRefused(key="pay", reason="x"),
        ):
            assert decide(submarine_provider, state, seen) is None

    def test_claims_again_after_a_reorg(self, submarine_provider: Deal) -> None:
        decision = decide(submarine_provider, Settled(preimage=PREIMAGE), make_view(LOCKED, LOCKED, LOCKED))
        assert decision is not None
        assert decision.state == Claiming(preimage=PREIMAGE)
        assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)

    def test_alarms_if_a_paid_lock_was_refunded(self, submarine_provider: Deal) -> None:
        state = Claiming(preimage=PREIMAGE)
        assert decide(submarine_provider, state, make_view(REFUNDED, REFUNDED, LOCKED)) is None
        decision = decide(submarine_provider, state, make_view(REFUNDED, REFUNDED, REFUNDED))
        assert decision is not None
        assert isinstance(decision.state, NeedsAttention)
        assert decision.alarm == "swap.lock_lost"
