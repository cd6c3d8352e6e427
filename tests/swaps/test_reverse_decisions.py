"""What a reverse swap's client and provider decide, one rule a test."""

from __future__ import annotations

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
    Closed,
    Deal,
    EffectRefused,
    HashTaken,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
    NeedsAttention,
    OwnTransaction,
    Paying,
    PayInvoice,
    PaymentStatus,
    PaymentView,
    Refund,
    Refunding,
    Revealed,
    Role,
    SendLock,
    Settled,
    SettleInvoice,
    Settling,
    decide,
    latest_claim_start,
    refund_margin_s,
    reverse_final_cltv,
)
from layer2.swaps._reverse_provider import why_not_lock
from layer2.terms import SwapDirection


def payment(status: PaymentStatus, *, requests_open: bool = False, now: int = NOW) -> PaymentView:
    preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
    return PaymentView(status=status, preimage=preimage, requests_open=requests_open, now_s=now)


def invoice(
    status: InvoiceStatus, *, received: int = 100_000_000, blocks: int | None = 1000, now: int = NOW
) -> InvoiceView:
    return InvoiceView(status=status, received_msat=received, blocks_left=blocks, now_s=now)


class TestClient:
    def test_pays_itself_or_waits_for_anyone(self, reverse_client: Deal) -> None:
        own = decide(reverse_client, Agreed(), make_view())
        assert own is not None
        assert own.state == Paying()
        assert own.effects == (PayInvoice(),)
        anyone = make_deal(Role.CLIENT, SwapDirection.REVERSE, pays_itself=False)
        shown = decide(anyone, Agreed(), make_view())
        assert shown is not None
        assert shown.state == AwaitingLock()
        assert shown.effects == ()

    @pytest.mark.parametrize("late", [0, 10**6])
    def test_takes_up_what_a_life_did_that_its_copy_does_not_know_of(self, reverse_client: Deal, late: int) -> None:
        anyone = make_deal(Role.CLIENT, SwapDirection.REVERSE, pays_itself=False)
        for latest in (LOCKED, REFUNDED):
            for deal, state in ((reverse_client, Paying()), (anyone, AwaitingLock())):
                decision = decide(deal, Agreed(), make_view(latest, now=NOW + late))
                assert decision is not None
                assert (decision.state, decision.effects) == (state, ())
        for views, state in (
            ((CLAIMED,), Revealed()),
            ((CLAIMED, CLAIMED), Settled(preimage=PREIMAGE)),
            ((CLAIMED, CLAIMED, CLAIMED), Closed(outcome="settled", preimage=PREIMAGE)),
        ):
            decision = decide(reverse_client, Agreed(), make_view(*views, now=NOW + late))
            assert decision is not None
            assert decision.state == state

    def test_does_not_pay_an_invoice_that_is_about_to_expire(self, reverse_client: Deal) -> None:
        decision = decide(reverse_client, Agreed(), make_view(now=reverse_client.invoice_expires_at))
        assert decision is not None
        assert isinstance(decision.state, Abandoned)

    def test_can_be_cancelled_only_before_it_pays(self, reverse_client: Deal) -> None:
        decision = decide(reverse_client, Agreed(), CancelRequested())
        assert decision is not None
        assert isinstance(decision.state, Abandoned)
        assert decide(reverse_client, Paying(), CancelRequested()) is None

    def test_an_invoice_for_anyone_can_be_withdrawn_until_the_preimage_is_out(self, reverse_client: Deal) -> None:
        decision = decide(reverse_client, AwaitingLock(), CancelRequested())
        assert decision is not None
        assert decision.state == Closed(outcome="expired", reason="cancelled")
        assert decision.effects == ()
        assert decide(reverse_client, Revealed(), CancelRequested()) is None

    @pytest.mark.parametrize("state", [Paying(), AwaitingLock()])
    def test_reveals_only_against_a_lock_at_depth(self, reverse_client: Deal, state: Paying | AwaitingLock) -> None:
        for view in (make_view(), make_view(LOCKED, NEVER, NEVER), make_view(NEVER, LOCKED, NEVER)):
            assert decide(reverse_client, state, view) is None
        decision = decide(reverse_client, state, make_view(LOCKED, LOCKED, NEVER))
        assert decision is not None
        assert decision.state == Revealed()
        terms = reverse_client.terms
        last = latest_claim_start(terms.timing, terms.depth_policy, terms.lock.timelock)
        assert decision.effects == (Claim(preimage=None, not_after=last),)

    @pytest.mark.parametrize("late", ["clock", "chain"])
    def test_never_reveals_too_late(self, reverse_client: Deal, late: str) -> None:
        terms = reverse_client.terms
        last = latest_claim_start(terms.timing, terms.depth_policy, terms.lock.timelock)
        in_time = decide(reverse_client, Paying(), make_view(LOCKED, LOCKED, NEVER, now=last))
        assert in_time is not None
        assert in_time.state == Revealed()
        view = (
            make_view(LOCKED, LOCKED, LOCKED, now=last + 1)
            if late == "clock"
            else make_view(LOCKED, LOCKED, LOCKED, now=NOW, head=last + 1)
        )
        assert decide(reverse_client, Paying(), view) is None

    def test_closes_when_it_would_never_reveal_any_more(self) -> None:
        anyone = make_deal(Role.CLIENT, SwapDirection.REVERSE, pays_itself=False)
        decision = decide(anyone, AwaitingLock(), make_view(LOCKED, LOCKED, LOCKED, now=anyone.terms.lock.timelock))
        assert decision is not None
        assert isinstance(decision.state, Closed)
        assert decision.state.outcome == "expired"

    def test_a_payment_that_comes_back_ends_the_swap(self, reverse_client: Deal) -> None:
        assert decide(reverse_client, Paying(), payment(PaymentStatus.IN_FLIGHT, now=NOW + 10_000)) is None
        assert decide(reverse_client, Paying(), payment(PaymentStatus.FAILED, requests_open=True)) is None
        decision = decide(reverse_client, Paying(), payment(PaymentStatus.FAILED))
        assert decision is not None
        assert decision.state == Closed(outcome="returned", reason="the payment came back")

    def test_a_preimage_that_leaked_is_alarmed_and_the_lock_taken(self, reverse_client: Deal) -> None:
        decision = decide(reverse_client, Paying(), payment(PaymentStatus.SUCCEEDED))
        assert decision is not None
        assert decision.state == Revealed()
        assert decision.effects == (Claim(preimage=PREIMAGE, not_after=None),)
        assert decision.alarm == "swap.preimage_leaked"

    def test_a_claim_that_was_never_signed_is_not_revealed(self, reverse_client: Deal) -> None:
        decision = decide(reverse_client, Revealed(), EffectRefused(key="claim", reason="too late"))
        assert decision is not None
        assert decision.state == Paying()

    def test_pursues_the_claim_to_the_end(self, reverse_client: Deal) -> None:
        late = reverse_client.terms.lock.timelock + 100
        assert decide(reverse_client, Revealed(), make_view(LOCKED, LOCKED, LOCKED, now=late)) is None
        assert decide(reverse_client, Revealed(), make_view(REFUNDED, REFUNDED, LOCKED, now=late)) is None
        lost = decide(reverse_client, Revealed(), make_view(REFUNDED, REFUNDED, REFUNDED, now=late))
        assert lost is not None
        assert isinstance(lost.state, NeedsAttention)
        settled = decide(reverse_client, Revealed(), make_view(CLAIMED, CLAIMED, LOCKED))
        assert settled is not None
        assert settled.state == Settled(preimage=PREIMAGE)
        again = decide(reverse_client, Settled(preimage=PREIMAGE), make_view(LOCKED, LOCKED, LOCKED))
        assert again is not None
        assert again.state == Revealed()
        assert again.effects == (Claim(preimage=PREIMAGE, not_after=None),)


class TestProvider:
    def test_locks_once_the_payment_is_held(self, reverse_provider: Deal) -> None:
        assert decide(reverse_provider, Invoiced(), invoice(InvoiceStatus.OPEN, blocks=None)) is None
        decision = decide(reverse_provider, Invoiced(), invoice(InvoiceStatus.ACCEPTED))
        assert decision is not None
        assert decision.state == Locking()
        assert decision.effects == (SendLock(not_after=reverse_provider.terms.lock_by),)
        assert decision.bind_hash

    @pytest.mark.parametrize("status", [each for each in InvoiceStatus if each is not InvoiceStatus.ACCEPTED])
    def test_nothing_is_signed_for_a_payment_that_went_away_since(
        self, reverse_provider: Deal, status: InvoiceStatus
    ) -> None:
        """Between the decision and the signature lies a crash, or a day: what is held is asked once more."""
        assert why_not_lock(reverse_provider, invoice(InvoiceStatus.ACCEPTED)) is None
        assert why_not_lock(reverse_provider, invoice(status)) is not None

    def test_nothing_is_locked_on_the_hash_of_another_swap(self, reverse_provider: Deal) -> None:
        decision = decide(reverse_provider, Invoiced(), HashTaken())
        assert decision is not None
        assert isinstance(decision.state, Cancelling)
        assert decision.effects == (CancelInvoice(),)
        assert decide(reverse_provider, Locking(), HashTaken()) is None

    def test_its_own_cltv_leaves_time_until_the_invoice_expires(self, reverse_provider: Deal) -> None:
        terms = reverse_provider.terms
        blocks = reverse_final_cltv(terms.timing, terms.depth_policy)
        decision = decide(
            reverse_provider, Invoiced(), invoice(InvoiceStatus.ACCEPTED, blocks=blocks, now=terms.created_at)
        )
        assert decision is not None
        assert decision.state == Locking()

    def test_does_not_lock_if_its_refund_could_come_too_late(self, reverse_provider: Deal) -> None:
        terms = reverse_provider.terms
        needed_s = terms.lock.timelock + refund_margin_s(terms.timing) - NOW
        too_few = needed_s * 1000 // terms.timing.bitcoin_block_ms
        decision = decide(reverse_provider, Invoiced(), invoice(InvoiceStatus.ACCEPTED, blocks=too_few))
        assert decision is not None
        assert isinstance(decision.state, Cancelling)
        assert decision.effects == (CancelInvoice(),)

    @pytest.mark.parametrize(
        "view",
        [
            invoice(InvoiceStatus.ACCEPTED, received=99_999_999),
            invoice(InvoiceStatus.ACCEPTED, blocks=None),
            invoice(InvoiceStatus.ACCEPTED, now=NOW + 10_000, blocks=100_000),
        ],
        ids=["too little", "nothing held", "too late"],
    )
    def test_gives_back_what_it_cannot_lock_for(self, reverse_provider: Deal, view: InvoiceView) -> None:
        decision = decide(reverse_provider, Invoiced(), view)
        assert decision is not None
        assert isinstance(decision.state, Cancelling)

    def test_an_unpaid_invoice_ends_the_swap(self, reverse_provider: Deal) -> None:
        decision = decide(reverse_provider, Invoiced(), invoice(InvoiceStatus.CANCELED, blocks=None))
        assert decision is not None
        assert isinstance(decision.state, Closed)

    @pytest.mark.parametrize("state", [Locking(), Locked(), Refunding()])
    def test_settles_at_the_first_sight_of_the_preimage(self, reverse_provider: Deal, state: object) -> None:
        late = reverse_provider.terms.lock.timelock + 100
        decision = decide(reverse_provider, state, make_view(CLAIMED, LOCKED, LOCKED, now=late))  # type: ignore[arg-type]
        assert decision is not None
        assert decision.state == Settling(preimage=PREIMAGE)
        assert SettleInvoice(preimage=PREIMAGE) in decision.effects

    def test_sends_the_claim_again_for_the_client(self, reverse_provider: Deal) -> None:
        claim = Claim(preimage=PREIMAGE, not_after=None)
        settling = decide(reverse_provider, Locked(), make_view(CLAIMED, LOCKED, LOCKED))
        assert settling is not None
        assert claim in settling.effects
        settled = decide(reverse_provider, Settling(preimage=PREIMAGE), invoice(InvoiceStatus.SETTLED))
        assert settled is not None
        assert settled.state == Settled(preimage=PREIMAGE)
        assert settled.effects == (claim,)

    def test_refunds_from_the_timelock_on_but_never_with_the_preimage(self, reverse_provider: Deal) -> None:
        timelock = reverse_provider.terms.lock.timelock
        assert (
            decide(reverse_provider, Locked(), make_view(LOCKED, LOCKED, LOCKED, now=9**12, head=timelock - 1)) is None
        )
        decision = decide(reverse_provider, Locked(), make_view(LOCKED, LOCKED, LOCKED, head=timelock))
        assert decision is not None
        assert decision.state == Refunding()
        assert decision.effects == (Refund(),)
        for state in (Settling(preimage=PREIMAGE), Settled(preimage=PREIMAGE)):
            assert decide(reverse_provider, state, make_view(LOCKED, LOCKED, LOCKED, head=timelock)) is None

    def test_cancels_only_after_a_final_refund(self, reverse_provider: Deal) -> None:
        assert decide(reverse_provider, Refunding(), make_view(REFUNDED, REFUNDED, LOCKED)) is None
        decision = decide(reverse_provider, Refunding(), make_view(REFUNDED, REFUNDED, REFUNDED))
        assert decision is not None
        assert isinstance(decision.state, Cancelling)
        assert decision.effects == (CancelInvoice(),)

    def test_cancels_a_payment_whose_lock_can_never_be(self, reverse_provider: Deal) -> None:
        waiting = make_view(now=NOW + 10_000, final_time=NOW, own_lock=OwnTransaction.OPEN)
        assert decide(reverse_provider, Locking(), waiting) is None
        decision = decide(reverse_provider, Locking(), make_view(own_lock=OwnTransaction.DEAD))
        assert decision is not None
        assert isinstance(decision.state, Cancelling)

    def test_alarms_if_the_payment_went_back_under_a_claimed_lock(self, reverse_provider: Deal) -> None:
        decision = decide(reverse_provider, Settling(preimage=PREIMAGE), invoice(InvoiceStatus.CANCELED))
        assert decision is not None
        assert isinstance(decision.state, NeedsAttention)
        assert decision.alarm == "swap.payment_lost"

    def test_closes_once_the_claim_is_final(self, reverse_provider: Deal) -> None:
        state = Settled(preimage=PREIMAGE)
        assert decide(reverse_provider, state, make_view(CLAIMED, CLAIMED, LOCKED)) is None
        decision = decide(reverse_provider, state, make_view(CLAIMED, CLAIMED, CLAIMED))
        assert decision is not None
        assert decision.state == Closed(outcome="settled", preimage=PREIMAGE)
