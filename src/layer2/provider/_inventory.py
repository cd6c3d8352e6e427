"""What the provider's open swaps bind, so that no offer is made that cannot be kept."""

from __future__ import annotations

from layer2.errors import SwapRefused
from layer2.provider._settings import ProviderSettings
from layer2.swaps import Claiming, Invoiced, Locked, Locking, Offered, Paying, Refunding, StoredSwap
from layer2.terms import SwapDirection

__all__ = ["Inventory"]


class Inventory:
    """A tally over the open swaps, kept up to date by the engine's changes."""

    def __init__(self) -> None:
        self._open: dict[str, StoredSwap] = {}

    def changed(self, swap: StoredSwap) -> None:
        """Take a swap's newest state into the tally."""
        if swap.state.final:
            self._open.pop(swap.deal.id, None)
        else:
            self._open[swap.deal.id] = swap

    @property
    def active(self) -> int:
        """Number of open swaps."""
        return len(self._open)

    def token_bound(self) -> int:
        """Token base units that promised locks will still take out of the account. What is locked already has left it."""
        return sum(
            swap.deal.terms.lock.amount
            for swap in self._open.values()
            if swap.deal.direction is SwapDirection.REVERSE and isinstance(swap.state, Invoiced | Locking)
        )

    def lightning_bound_msat(self) -> int:
        """Millisatoshi that promised payments may still take out of the channels, routing included."""
        return sum(
            swap.deal.terms.invoice_amount_msat + swap.deal.terms.routing_fee_limit_msat
            for swap in self._open.values()
            if swap.deal.direction is SwapDirection.SUBMARINE and isinstance(swap.state, Offered | Paying)
        )

    def unsafe_token(self) -> int:
        """Token base units whose deciding event on the chain is not final: a stalled batcher undoes them together."""
        deciding = Paying | Claiming | Locking | Locked | Refunding
        return sum(swap.deal.terms.lock.amount for swap in self._open.values() if isinstance(swap.state, deciding))

    def open_reverse(self) -> int:
        """Unpaid hold invoices."""
        return sum(isinstance(swap.state, Invoiced) for swap in self._open.values())

    def check_room(
        self, settings: ProviderSettings, direction: SwapDirection, amount_sat: int, unsafe_sat: int
    ) -> None:
        """Refuse what is above the provider's caps.

        Raises:
            SwapRefused: ``rule`` names the cap.
        """
        if not settings.accept_new:
            raise SwapRefused("no new swaps are accepted now", rule="accept_new")
        if self.active >= settings.max_active:
            raise SwapRefused("too many swaps are open", rule="max_active")
        if direction is SwapDirection.REVERSE and self.open_reverse() >= settings.max_open_reverse:
            raise SwapRefused("too many invoices are unpaid", rule="max_open_reverse")
        if unsafe_sat + amount_sat > settings.max_unsafe_sat:
            raise SwapRefused("too much value waits for the chain to be safe", rule="max_unsafe")
