"""An offer is taken back only while nothing shows that the other side has acted on it: money that came is never let go of."""

from __future__ import annotations

from itertools import product

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, REFUNDED, make_deal, make_view

from layer2.swaps import (
    CancelInvoice,
    Cancelling,
    ChainView,
    Deal,
    Failed,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Offered,
    Paying,
    Role,
    decide,
    first_state,
)
from layer2.swaps._machine import withdraw
from layer2.terms import SwapDirection


def invoice(status: InvoiceStatus) -> InvoiceView:
    return InvoiceView(status=status, received_msat=100_000_000, blocks_left=1_000, now_s=NOW)


@pytest.mark.parametrize("direction", SwapDirection)
@pytest.mark.parametrize("seen", [make_view(), invoice(InvoiceStatus.OPEN)], ids=["chain", "invoice"])
def test_a_client_has_no_offer_to_take_back(direction: SwapDirection, seen: ChainView | InvoiceView) -> None:
    assert withdraw(make_deal(Role.CLIENT, direction), first_state(Role.CLIENT, direction), seen) is None


class TestAnOfferToPay:
    """A submarine provider's: its client locks."""

    def test_is_taken_back_where_no_lock_was_ever_seen(self, submarine_provider: Deal) -> None:
        decision = withdraw(submarine_provider, Offered(), make_view())
        assert decision is not None
        assert isinstance(decision.state, Failed)
        assert decision.effects == ()

    @pytest.mark.parametrize(
        "readings",
        [each for each in product((NEVER, LOCKED, REFUNDED, CLAIMED), repeat=3) if set(map(id, each)) != {id(NEVER)}],
    )
    def test_stands_once_any_reading_shows_a_lock(self, submarine_provider: Deal, readings: tuple) -> None:
        assert withdraw(submarine_provider, Offered(), make_view(*readings)) is None

    def test_stands_once_it_is_being_paid(self, submarine_provider: Deal) -> None:
        assert withdraw(submarine_provider, Paying(), make_view()) is None

    def test_is_not_taken_back_by_what_an_invoice_shows(self, submarine_provider: Deal) -> None:
        assert withdraw(submarine_provider, Offered(), invoice(InvoiceStatus.OPEN)) is None

    def test_is_never_paid_for_afterwards(self, submarine_provider: Deal) -> None:
        decision = withdraw(submarine_provider, Offered(), make_view())
        assert decision is not None
        assert decide(submarine_provider, decision.state, make_view(LOCKED, LOCKED, LOCKED)) is None


class TestAnOfferToLock:
    """A reverse provider's: its client pays a hold invoice."""

    def test_is_taken_back_by_cancelling_the_invoice(self, reverse_provider: Deal) -> None:
        decision = withdraw(reverse_provider, Invoiced(), invoice(InvoiceStatus.OPEN))
        assert decision is not None
        assert isinstance(decision.state, Cancelling)
        assert decision.state.outcome == "expired"
        assert decision.effects == (CancelInvoice(),)

    @pytest.mark.parametrize("status", [each for each in InvoiceStatus if each is not InvoiceStatus.OPEN])
    def test_stands_once_the_invoice_is_paid_or_over(self, reverse_provider: Deal, status: InvoiceStatus) -> None:
        assert withdraw(reverse_provider, Invoiced(), invoice(status)) is None

    def test_stands_once_it_is_locked(self, reverse_provider: Deal) -> None:
        assert withdraw(reverse_provider, Locked(), invoice(InvoiceStatus.OPEN)) is None

    def test_is_not_taken_back_by_what_the_chain_shows(self, reverse_provider: Deal) -> None:
        assert withdraw(reverse_provider, Invoiced(), make_view()) is None

    def test_locks_nothing_for_a_payment_that_comes_before_the_invoice_is_closed(self, reverse_provider: Deal) -> None:
        decision = withdraw(reverse_provider, Invoiced(), invoice(InvoiceStatus.OPEN))
        assert decision is not None
        assert decide(reverse_provider, decision.state, invoice(InvoiceStatus.ACCEPTED)) is None
