"""What a client lets hang on blocks that only the sequencer has confirmed: how much in all, and while the safe head follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from layer2.assets import AssetForm, convert_amount
from layer2.errors import SwapRefused
from layer2.swaps._ports import Ask, StoredSwap
from layer2.swaps._states import Agreed
from layer2.transactions import Depth

__all__ = ["UnsafeBound"]


class UnsafeBound:
    """Refuses new swaps that act before the chain is safe, where that would be too much or too long."""

    def __init__(
        self,
        *,
        token: AssetForm,
        open_swaps: Callable[[], Sequence[StoredSwap]],
        max_unsafe: int,
        safe_lag_s: Callable[[], Awaitable[int]],
        max_safe_lag_s: int,
        ask: Ask,
    ) -> None:
        self._token = token
        self._open_swaps = open_swaps
        self._max_unsafe = max_unsafe
        self._safe_lag_s = safe_lag_s
        self._max_safe_lag_s = max_safe_lag_s
        self._ask = ask

    def check_value(self, lock_sat: int) -> None:
        """Refuse a lock of so much beside those of all open swaps.

        Raises:
            SwapRefused: ``rule`` is ``max_unsafe``.
        """
        # A stalled batcher undoes together all that only the sequencer has confirmed. What is agreed is about to be bound.
        unsafe = sum(
            convert_amount(swap.deal.terms.lock.amount, self._token.decimals, self._token.asset.decimals)
            for swap in self._open_swaps()
            if (swap.state.committed or isinstance(swap.state, Agreed))
            and swap.deal.terms.depth_policy.depth is Depth.INCLUDED
        )
        if unsafe + lock_sat > self._max_unsafe:
            raise SwapRefused(
                f"{unsafe} satoshi already hang on blocks that only the sequencer has confirmed; the bound is {self._max_unsafe}",
                rule="max_unsafe",
                hint="wait until earlier transfers are final, or raise swap.max_unsafe_total",
            )

    async def check_lag(self) -> None:
        """Refuse while the safe head is too old.

        Raises:
            SwapRefused: ``rule`` is ``safe_lag``.
        """
        if await self._ask("looking how old the safe head is", self._safe_lag_s) > self._max_safe_lag_s:
            raise SwapRefused(
                "the chain has not been safe for too long to begin a transfer that does not wait for it",
                rule="safe_lag",
                hint="wait, or configure swap.depth so that it waits for the safe head",
            )
