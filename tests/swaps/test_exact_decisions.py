"""What is decided at the last moment and one second later, on one clock or one depth alone; with its words and all of its effects."""

from __future__ import annotations

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, POLICY, PREIMAGE, REFUNDED, make_deal, make_view

from layer2.swaps import (
    DEVNET_TIMING,
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
    LockReading,
    NeedsAttention,
    Offered,
    OwnTransaction,
    Paid,
    Paying,
    PayInvoice,
    PaymentStatus,
    PaymentView,
    Refund,
    Refunded,
    Refunding,
    Revealed,
    Role,
    SendLock,
    Settled,
    Settling,
    State,
    decide,
    depth_wait_s,
)
from layer2.terms import SwapDirection

SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
TIMING = DEVNET_TIMING
SIGNATURE = b"\x07" * 65
CLAIM = Claim(preimage=PREIMAGE, not_after=None)
ONE_DEPTH = {"latest": (CLAIMED, NEVER, NEVER), "at depth": (NEVER, CLAIMED, NEVER), "final": (NEVER, NEVER, CLAIMED)}
"""An endpoint that lags, or lies, shows a claim at one depth alone."""


def invoice(status: InvoiceStatus, *, now: int = NOW) -> InvoiceView:
    return InvoiceView(status=status, received_msat=100_000_000, blocks_left=1000, now_s=now)


def payment(status: PaymentStatus, *, requests_open: bool = False, now: int = NOW) -> PaymentView:
    preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
    return PaymentView(status=status, preimage=preimage, requests_open=requests_open, now_s=now)


def gives_up(outcome: str, reason: str) -> Decision:
    return Decision(state=Cancelling(outcome=outcome, reason=reason), effects=(CancelInvoice(),))


def test_own_invoices_of_a_client_are_given_up_before_the_swap_ends() -> None:
    deal = make_deal(Role.CLIENT, SUBMARINE, own_invoice=True)
    never_locked = make_view(final_time=deal.terms.lock.timelock)
    for state, seen, reason in (
        (Agreed(), CancelRequested(), "cancelled"),
        (Agreed(), make_view(now=deal.terms.lock_by + 1), "the terms were not locked in time"),
        (Locking(), EffectRefused(key="lock", reason="no gas"), "no gas"),
        (Locked(), never_locked, "the lock never took effect"),
        (Refunding(), never_locked, "the lock never took effect"),
    ):
        assert decide(deal, state, seen) == gives_up("expired", reason)


class TestSubmarineClient:
    DEAL = make_deal(Role.CLIENT, SUBMARINE)
    OWN = make_deal(Role.CLIENT, SUBMARINE, own_invoice=True)
    TIMELOCK = DEAL.terms.lock.timelock
    LATE = "the provider did not pay the invoice in time, and the lock was taken back after its timelock"
    EARLY = "the provider could not pay the invoice, and the lock was taken back early"

    def test_locks_at_the_last_moment_of_both_clocks(self) -> None:
        last = self.DEAL.terms.lock_by
        locks = Decision(state=Locking(), effects=(SendLock(not_after=last),))
        late = Decision(state=Abandoned(reason="the terms were not locked in time"))
        assert decide(self.DEAL, Agreed(), make_view(now=last)) == locks
        assert decide(self.DEAL, Agreed(), make_view(now=last + 1, head=last)) == late
        assert decide(self.DEAL, Agreed(), make_view(now=last, head=last + 1)) == late

    @pytest.mark.parametrize("key", ["claim", "refund", "refund_early", "cancel"])
    def test_only_a_refused_lock_ends_a_swap_that_locks(self, key: str) -> None:
        assert decide(self.DEAL, Locking(), EffectRefused(key=key, reason="r")) is None

    def test_the_refund_says_why_it_was_made(self) -> None:
        deep, final = make_view(REFUNDED, REFUNDED, LOCKED), make_view(REFUNDED, REFUNDED, REFUNDED)
        for state, reason in (
            (Refunding(), self.LATE),
            (Refunding(signature=SIGNATURE), self.EARLY),
        ):
            assert decide(self.DEAL, state, deep) == Decision(state=Refunded(reason=reason))
            assert decide(self.DEAL, Refunded(reason=reason), deep) is None
            for before in (state, Refunded(reason=reason)):
                closed = Decision(state=Closed(outcome="refunded", reason=reason))
                assert decide(self.DEAL, before, final) == closed
                assert decide(self.OWN, before, final) == gives_up("refunded", reason)

    def test_a_consent_that_leads_nowhere_gives_way_to_the_timelock_of_a_standing_lock(self) -> None:
        state, at, before = Refunding(signature=SIGNATURE), self.TIMELOCK, self.TIMELOCK - 1
        refunds = Decision(state=Refunding(), effects=(Refund(),))
        assert decide(self.DEAL, state, make_view(LOCKED, LOCKED, LOCKED, now=NOW, head=at)) == refunds
        assert decide(self.DEAL, state, make_view(LOCKED, LOCKED, LOCKED, now=at + 100, head=before)) is None
        for latest in (NEVER, REFUNDED):
            assert decide(self.DEAL, state, make_view(latest, LOCKED, LOCKED, now=at + 100)) is None

    def test_a_paid_swap_ends_only_with_a_final_refund_of_somebody_elses(self) -> None:
        for readings in ((REFUNDED, LOCKED, LOCKED), (REFUNDED, REFUNDED, LOCKED)):
            assert decide(self.DEAL, Paid(preimage=PREIMAGE), make_view(*readings, now=self.TIMELOCK)) is None
        # The invoice is paid: there is none to give up, though it is our own.
        closed = Closed(outcome="refunded", reason="the provider paid but never claimed", preimage=PREIMAGE)
        for deal in (self.DEAL, self.OWN):
            seen = make_view(REFUNDED, REFUNDED, REFUNDED)
            assert decide(deal, Paid(preimage=PREIMAGE), seen) == Decision(state=closed)

    @pytest.mark.parametrize("state", [Paid(preimage=PREIMAGE), Claiming(preimage=PREIMAGE)])
    def test_a_paid_swap_ends_when_its_lock_vanished_and_can_never_come_back(self, state: State) -> None:
        # A hostile provider paid for a lock that was not deep, and a reorganisation took the lock and its claim away.
        closed = Closed(
            outcome="refunded", reason="the provider paid, but the lock never took effect", preimage=PREIMAGE
        )
        for deal in (self.DEAL, self.OWN):
            for facts in ({"own_lock": OwnTransaction.DEAD}, {"final_time": self.TIMELOCK}):
                assert decide(deal, state, make_view(**facts)) == Decision(state=closed)
        still = make_view(now=self.TIMELOCK + 100, final_time=self.TIMELOCK - 1, own_lock=OwnTransaction.OPEN)
        assert decide(self.DEAL, state, still) is None

    def test_a_preimage_that_is_seen_ends_what_a_person_was_asked_to_look_at(self) -> None:
        closed = Decision(state=Closed(outcome="settled", preimage=PREIMAGE))
        assert decide(self.DEAL, NeedsAttention(reason="r"), make_view(CLAIMED, CLAIMED, CLAIMED)) == closed

    def test_an_invoice_that_is_paid_while_it_is_given_up_ends_the_swap_too(self) -> None:
        state = Cancelling(outcome="refunded", reason="r")
        closed = Decision(state=Closed(outcome="refunded", reason="r"))
        assert decide(self.OWN, state, invoice(InvoiceStatus.SETTLED)) == closed

    @pytest.mark.parametrize("readings", ONE_DEPTH.values(), ids=ONE_DEPTH)
    def test_a_claim_that_one_depth_alone_shows_is_enough_never_to_refund(self, readings: tuple[LockReading]) -> None:
        for state in (Locked(), Refunding(), Refunded(reason="r")):
            decision = decide(self.DEAL, state, make_view(*readings, now=self.TIMELOCK + 100))
            assert decision is not None
            assert decision.state in (
                Paid(preimage=PREIMAGE),
                Settled(preimage=PREIMAGE),
                Closed(outcome="settled", preimage=PREIMAGE),
            )
            assert decision.effects == ()

    @pytest.mark.parametrize("shown", [0, 2], ids=["latest", "final"])
    @pytest.mark.parametrize("reading", [LOCKED, REFUNDED], ids=["locked", "refunded"])
    def test_a_lock_that_is_there_is_never_given_up(self, shown: int, reading: LockReading) -> None:
        readings = [NEVER, NEVER, NEVER]
        readings[shown] = reading
        for facts in ({"own_lock": OwnTransaction.DEAD}, {"final_time": self.TIMELOCK}):
            decision = decide(self.DEAL, Refunding(), make_view(*readings, **facts))
            assert decision is None or not isinstance(decision.state, Abandoned)

    @pytest.mark.parametrize("own_lock", OwnTransaction)
    def test_a_lock_that_may_still_come_is_waited_for(self, own_lock: OwnTransaction) -> None:
        seen = make_view(now=self.TIMELOCK + 100, final_time=self.TIMELOCK - 1, own_lock=own_lock)
        for state in (Locking(), Locked(), Refunding()):
            assert (decide(self.DEAL, state, seen) is None) == (own_lock is not OwnTransaction.DEAD)


class TestSubmarineProvider:
    DEAL = make_deal(Role.PROVIDER, SUBMARINE)

    def test_an_offer_ends_when_no_lock_of_the_last_moment_can_be_deep_any_more(self) -> None:
        # Locked at the last moment, included as late as it may be, and then as deep as the terms ask.
        last = self.DEAL.terms.lock_by + TIMING.evm_inclusion_s + depth_wait_s(TIMING, POLICY) + TIMING.grace_s
        for now, head in ((last, last), (last, NOW), (NOW, last)):
            assert decide(self.DEAL, Offered(), make_view(now=now, head=head)) is None
        for now, head in ((last + 1, NOW), (NOW, last + 1)):
            assert decide(self.DEAL, Offered(), make_view(now=now, head=head)) == Decision(
                state=Failed(reason="not locked in time")
            )

    def test_a_late_lock_is_not_paid_for_by_either_clock(self) -> None:
        late = self.DEAL.invoice_expires_at
        for now, head in ((late, NOW), (NOW, late)):
            assert decide(self.DEAL, Offered(), make_view(LOCKED, LOCKED, NEVER, now=now, head=head)) == Decision(
                state=Failed(reason="the lock came too late to pay the invoice")
            )

    def test_a_payment_that_was_refused_before_it_was_begun_is_none(self) -> None:
        refused = EffectRefused(key="pay", reason="no way there")
        assert decide(self.DEAL, Paying(), refused) == Decision(state=Failed(reason="no way there"))
        assert decide(self.DEAL, Claiming(preimage=PREIMAGE), refused) is None

    @pytest.mark.parametrize("state", [Paying(), NeedsAttention(reason="r"), Settled(preimage=PREIMAGE)])
    def test_whatever_came_before_a_claim_that_is_seen_is_pursued(self, state: State) -> None:
        claims = Decision(state=Claiming(preimage=PREIMAGE), effects=(CLAIM,))
        assert decide(self.DEAL, state, make_view(CLAIMED, LOCKED, LOCKED)) == claims

    def test_what_was_lost_is_told_with_the_preimage_that_was_paid_for(self) -> None:
        reason = "the invoice is paid but the lock was refunded"
        seen = make_view(REFUNDED, REFUNDED, REFUNDED)
        assert decide(self.DEAL, Claiming(preimage=PREIMAGE), seen) == Decision(
            state=NeedsAttention(reason=reason, preimage=PREIMAGE), alarm="swap.lock_lost"
        )


class TestReverseClient:
    DEAL = make_deal(Role.CLIENT, REVERSE, preimage_time_ms=1)
    ANYONE = make_deal(Role.CLIENT, REVERSE, preimage_time_ms=1, pays_itself=False)

    def test_pays_at_the_last_moment_of_both_clocks(self) -> None:
        last = self.DEAL.invoice_expires_at - TIMING.payment_time_limit_s
        assert decide(self.DEAL, Agreed(), make_view(now=last)) == Decision(state=Paying(), effects=(PayInvoice(),))
        for now, head in ((last + 1, NOW), (NOW, last + 1)):
            assert decide(self.DEAL, Agreed(), make_view(now=now, head=head)) == Decision(
                state=Abandoned(reason="the hold invoice was not paid in time")
            )

    def test_cancelled_before_it_pays_it_says_so(self) -> None:
        assert decide(self.DEAL, Agreed(), CancelRequested()) == Decision(state=Abandoned(reason="cancelled"))

    def test_reveals_nothing_late_by_its_own_clock_alone(self) -> None:
        late = self.DEAL.terms.lock.timelock
        assert decide(self.DEAL, Paying(), make_view(LOCKED, LOCKED, LOCKED, now=late, head=NOW)) is None
        assert decide(self.ANYONE, AwaitingLock(), make_view(LOCKED, LOCKED, LOCKED, now=late, head=NOW)) == Decision(
            state=Closed(outcome="expired", reason="nobody paid in time, or the provider did not lock in time")
        )

    @pytest.mark.parametrize("status", [PaymentStatus.FAILED, PaymentStatus.NONE])
    def test_a_payment_is_back_only_when_nothing_of_it_can_come(self, status: PaymentStatus) -> None:
        last = self.DEAL.invoice_expires_at + TIMING.clock_skew_s
        assert decide(self.DEAL, Paying(), payment(status, requests_open=True, now=last)) is None
        assert decide(self.DEAL, Paying(), payment(status, requests_open=True, now=last + 1)) == Decision(
            state=Closed(outcome="returned", reason="the payment came back")
        )

    def test_a_payment_without_a_record_may_still_begin(self) -> None:
        """What the node has not heard of is no failure: a request may have been lost on its way, and is made again."""
        assert decide(self.DEAL, Paying(), payment(PaymentStatus.NONE)) is None

    @pytest.mark.parametrize("key", ["claim", "lock", "settle"])
    def test_only_a_refused_payment_ends_a_swap_that_pays(self, key: str) -> None:
        assert decide(self.DEAL, Paying(), EffectRefused(key=key, reason="r")) is None

    @pytest.mark.parametrize("state", [Paying(), AwaitingLock(), NeedsAttention(reason="r")])
    def test_a_claim_that_is_seen_is_pursued_until_it_is_final(self, state: State) -> None:
        for readings, after in (
            ((CLAIMED, LOCKED, LOCKED), Decision(state=Revealed(), effects=(CLAIM,))),
            ((CLAIMED, CLAIMED, LOCKED), Decision(state=Settled(preimage=PREIMAGE), effects=(CLAIM,))),
            ((CLAIMED, CLAIMED, CLAIMED), Decision(state=Closed(outcome="settled", preimage=PREIMAGE))),
        ):
            assert decide(self.DEAL, state, make_view(*readings)) == after

    def test_what_was_lost_is_told(self) -> None:
        reason = "the preimage is revealed but the lock was refunded"
        assert decide(self.DEAL, Revealed(), make_view(REFUNDED, REFUNDED, REFUNDED)) == Decision(
            state=NeedsAttention(reason=reason), alarm="swap.lock_lost"
        )


class TestReverseProvider:
    DEAL = make_deal(Role.PROVIDER, REVERSE)
    TIMELOCK = DEAL.terms.lock.timelock

    def test_locks_at_the_last_moment_and_no_later(self) -> None:
        last = self.DEAL.terms.lock_by
        enough = InvoiceView(status=InvoiceStatus.ACCEPTED, received_msat=100_000_000, blocks_left=10_000, now_s=last)
        assert decide(self.DEAL, Invoiced(), enough) == Decision(
            state=Locking(), effects=(SendLock(not_after=last),), bind_hash=True
        )
        late = InvoiceView(status=InvoiceStatus.ACCEPTED, received_msat=100_000_000, blocks_left=10_000, now_s=last + 1)
        assert decide(self.DEAL, Invoiced(), late) == gives_up("expired", "the invoice was paid too late")

    def test_sees_its_lock_stand(self) -> None:
        standing = make_view(LOCKED)
        assert decide(self.DEAL, Locking(), standing) == Decision(state=Locked())
        assert decide(self.DEAL, Locked(), standing) is None

    @pytest.mark.parametrize("key", ["claim", "refund", "settle", "cancel"])
    def test_only_a_refused_lock_gives_the_payment_back(self, key: str) -> None:
        assert decide(self.DEAL, Locking(), EffectRefused(key=key, reason="r")) is None

    def test_says_why_it_gives_a_payment_back(self) -> None:
        never_locked = make_view(final_time=self.TIMELOCK)
        for state, seen, outcome, reason in (
            (Invoiced(), HashTaken(), "expired", "the payment hash belongs to another swap"),
            (Locking(), never_locked, "expired", "the lock never took effect"),
            (Refunding(), never_locked, "expired", "the lock never took effect"),
            (Locked(), make_view(REFUNDED, REFUNDED, REFUNDED), "refunded", "the client did not claim in time"),
            (Refunding(), make_view(REFUNDED, REFUNDED, REFUNDED), "refunded", "the client did not claim in time"),
        ):
            assert decide(self.DEAL, state, seen) == gives_up(outcome, reason)

    def test_ends_when_the_lock_that_it_was_paid_for_can_never_come_back(self) -> None:
        # The client showed its preimage for a lock that was not deep, and a reorganisation took both away.
        settled, closed = Settled(preimage=PREIMAGE), Closed(outcome="settled", preimage=PREIMAGE)
        for facts in ({"own_lock": OwnTransaction.DEAD}, {"final_time": self.TIMELOCK}):
            assert decide(self.DEAL, settled, make_view(**facts)) == Decision(state=closed)
        still = make_view(now=self.TIMELOCK + 100, final_time=self.TIMELOCK - 1, own_lock=OwnTransaction.OPEN)
        assert decide(self.DEAL, settled, still) is None

    def test_says_why_nobody_paid(self) -> None:
        assert decide(self.DEAL, Invoiced(), invoice(InvoiceStatus.CANCELED)) == Decision(
            state=Closed(outcome="expired", reason="the invoice was not paid in time")
        )

    def test_says_what_went_wrong_and_keeps_the_preimage(self) -> None:
        for state, status, reason, preimage, alarm in (
            (
                Settling(preimage=PREIMAGE),
                InvoiceStatus.CANCELED,
                "the lock was claimed but the payment went back",
                PREIMAGE,
                "swap.payment_lost",
            ),
            *(
                (
                    state,
                    InvoiceStatus.SETTLED,
                    "the invoice was settled by somebody else",
                    None,
                    "swap.invoice_settled_elsewhere",
                )
                for state in (Invoiced(), Cancelling(outcome="expired", reason="r"))
            ),
        ):
            assert decide(self.DEAL, state, invoice(status)) == Decision(
                state=NeedsAttention(reason=reason, preimage=preimage), alarm=alarm
            )

    @pytest.mark.parametrize("readings", ONE_DEPTH.values(), ids=ONE_DEPTH)
    def test_a_claim_that_one_depth_alone_shows_is_settled(self, readings: tuple[LockReading]) -> None:
        decision = decide(self.DEAL, Refunding(), make_view(*readings, now=self.TIMELOCK + 100))
        assert decision is not None
        assert decision.state == Settling(preimage=PREIMAGE)
