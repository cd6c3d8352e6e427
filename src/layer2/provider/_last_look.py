"""The last look before money of ours moves: caps that offers, each of them within, could pass together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2.errors import FeeLimitExceeded, InsufficientFunds, SwapRefused
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from layer2.config import ProviderConfig
    from layer2.provider._held import HeldParts
    from layer2.provider._inventory import Inventory
    from layer2.provider._room import ProviderChain
    from layer2.swaps import StoredSwap

__all__ = ["LastLook"]


class LastLook:
    """Asked right before a lock is signed, and before a payment is begun: a refusal costs nobody more than time.

    Offers cost nothing to ask for, so they are not counted against the gas of an hour: whoever asks for many would keep everybody
    else out. What counts is decided here, one swap after the other.
    """

    def __init__(
        self, *, held: HeldParts, inventory: Inventory, chain: ProviderChain, settings: ProviderConfig
    ) -> None:
        self._held = held
        self._inventory = inventory
        self._chain = chain
        self._settings = settings

    async def why_not_begin(self, swap: StoredSwap) -> str | None:
        """Why the swap must not go on; None: it may, and is counted from now on. Raises ``NodeError``."""
        if swap.deal.direction is SwapDirection.REVERSE:
            reason = await self._held.why_not_hold(swap)
            if reason is not None:
                return reason
        try:
            one_swap_wei = await self._chain.check_gas(self._inventory.owing(besides=swap.deal.id) + 1)
            self._inventory.begin_to_spend(self._settings, swap.deal.id, one_swap_wei)
        except (FeeLimitExceeded, InsufficientFunds):
            # The counterparty reads the reason, and our balance is not its business.
            return "the gas of this swap cannot be paid now"
        except SwapRefused as refused:
            return refused.message
        return None
