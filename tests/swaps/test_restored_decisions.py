"""A provider's swap from a restored copy: the life it does not know of may have paid or locked, and nothing shows that but a look."""

from __future__ import annotations

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, PREIMAGE, REFUNDED, make_view

from layer2.swaps import (
    Cancelling,
    Decision,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
    LockReading,
    Offered,
    Paying,
    PaymentStatus,
    PaymentView,
    Settling,
    State,
    Watch,
)
from layer2.swaps._restored import decide_restored, looks_first

STATES: tuple[State, ...] = (Locking(), Locked(), Paying(), Settling(preimage=PREIMAGE))


def payment(status: PaymentStatus) -> PaymentView:
    preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
    return PaymentView(status=status, preimage=preimage, requests_open=False, now_s=NOW)


def invoice(status: InvoiceStatus) -> InvoiceView:
    return InvoiceView(status=status, received_msat=100_000_000, blocks_left=1_000, now_s=NOW)


def test_an_offer_looks_first_where_it_would_have_acted() -> None:
    assert looks_first(Offered()) == (Watch.PAYMENT,)
    assert looks_first(Invoiced()) == (Watch.CHAIN,)


@pytest.mark.parametrize("state", [*STATES, Cancelling(outcome="expired", reason="r")])
def test_what_is_no_offer_is_driven_as_ever(state: State) -> None:
    assert looks_first(state) == ()
    for seen in (
        *(payment(status) for status in PaymentStatus),
        *(invoice(status) for status in InvoiceStatus),
        make_view(LOCKED, LOCKED, LOCKED),
        make_view(),
    ):
        assert decide_restored(state, seen) is None


class TestAnOfferToPay:
    @pytest.mark.parametrize("status", [PaymentStatus.IN_FLIGHT, PaymentStatus.SUCCEEDED])
    def test_that_the_lost_life_paid_for_goes_on_without_paying_again(self, status: PaymentStatus) -> None:
        assert decide_restored(Offered(), payment(status)) == Decision(state=Paying())

    @pytest.mark.parametrize("status", [PaymentStatus.NONE, PaymentStatus.FAILED])
    def test_that_nobody_paid_for_is_an_offer_still(self, status: PaymentStatus) -> None:
        assert decide_restored(Offered(), payment(status)) is None

    def test_is_not_moved_by_what_its_own_decision_reads(self) -> None:
        assert decide_restored(Offered(), make_view(LOCKED, LOCKED, LOCKED)) is None
        assert decide_restored(Offered(), invoice(InvoiceStatus.ACCEPTED)) is None


class TestAnOfferToLock:
    @pytest.mark.parametrize("reading", [LOCKED, REFUNDED, CLAIMED], ids=["locked", "refunded", "claimed"])
    @pytest.mark.parametrize("shown", [0, 1, 2], ids=["latest", "at depth", "final"])
    def test_whose_lock_any_depth_shows_goes_on_without_locking_again(self, reading: LockReading, shown: int) -> None:
        readings = [NEVER, NEVER, NEVER]
        readings[shown] = reading
        assert decide_restored(Invoiced(), make_view(*readings)) == Decision(state=Locking())

    def test_whose_lock_is_nowhere_is_an_offer_still(self) -> None:
        assert decide_restored(Invoiced(), make_view()) is None

    def test_whose_payment_is_held_waits_until_no_lock_of_the_lost_life_can_come(self) -> None:
        assert decide_restored(Invoiced(), invoice(InvoiceStatus.ACCEPTED)) == Decision(state=Locking())

    @pytest.mark.parametrize("status", [InvoiceStatus.OPEN, InvoiceStatus.SETTLED, InvoiceStatus.CANCELED])
    def test_whose_payment_is_not_held_is_decided_as_ever(self, status: InvoiceStatus) -> None:
        assert decide_restored(Invoiced(), invoice(status)) is None
        assert decide_restored(Invoiced(), payment(PaymentStatus.SUCCEEDED)) is None
