"""What to pay for gas (EIP-1559), and what a rollup charges on top. All prices are wei per gas."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from layer2.errors import FeeLimitExceeded

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.evm._client import EvmClient
    from layer2.evm._transactions import UnsignedTransaction

__all__ = [
    "DataFee",
    "FeeLimits",
    "FeeOracle",
    "GasPrice",
    "NoDataFee",
    "bumped",
    "first_tip_bound",
    "offer",
    "tipping_at_most",
]

BUMP_PERCENT = 12
"""By how much both prices of a replacement are raised; pools ask for 10 % and round in ways of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeLimits:
    """Bounds on what a sender pays."""

    max_fee_per_gas_wei: int = 100 * 10**9
    """For user traffic."""
    exit_max_fee_per_gas_wei: int = 1_000 * 10**9
    """For exits, which must not fail for their price."""
    max_gas_cost_wei: int = 10**16
    """For one transaction of user traffic, L1 and operator fees included."""
    exit_max_gas_cost_wei: int = 2 * 10**16
    min_tip_wei: int = 1_000_000
    """Floor of the priority fee."""
    exit_again_max_tip_wei: int = 10**9
    """Bound on the priority fee of an exit that is tried again because the endpoint says that it failed for good."""
    base_fee_headroom: int = 2
    """The maximum fee is this many times the base fee, plus the tip: at BOB's parameters enough for hundreds of full blocks."""

    def price(self, *, is_exit: bool) -> int:
        """Bound on the price of gas."""
        return self.exit_max_fee_per_gas_wei if is_exit else self.max_fee_per_gas_wei

    def cost(self, *, is_exit: bool) -> int:
        """Bound on the cost of one transaction besides its value."""
        return self.exit_max_gas_cost_wei if is_exit else self.max_gas_cost_wei


@dataclass(frozen=True, slots=True, kw_only=True)
class GasPrice:
    """A price of gas. ``floor`` is what the next block certainly asks for: its base fee and the tip."""

    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    floor: int


class DataFee(Protocol):
    """What a chain charges besides gas."""

    async def upper_bound_wei(self, tx: UnsignedTransaction, /) -> int:
        """The most that ``tx`` pays on top of its gas, in wei. It never shows the transaction's data to the endpoint."""
        ...


class NoDataFee:
    """A chain on which gas is all there is to pay."""

    async def upper_bound_wei(self, _tx: UnsignedTransaction, /) -> int:
        """Zero."""
        return 0


class FeeOracle:
    """The current price, asked at most once in ``max_age_s``."""

    def __init__(self, client: EvmClient, limits: FeeLimits, clock: Clock, *, max_age_s: float = 2.0) -> None:
        self._client = client
        self._limits = limits
        self._clock = clock
        self._max_age_s = max_age_s
        self._price: GasPrice | None = None
        self._asked_at = 0.0

    async def price(self) -> GasPrice:
        """Median tip of recent blocks, but not below the floor, on a base fee with headroom.

        Raises:
            NodeError: the endpoint does not say.
        """
        now = self._clock.monotonic_s()
        if self._price is None or now - self._asked_at >= self._max_age_s:
            history = await self._client.fee_history()
            base = history.base_fees[-1]
            tip = max(self._limits.min_tip_wei, int(statistics.median_low(history.tips)) if history.tips else 0)
            self._price = GasPrice(
                max_fee_per_gas=base * self._limits.base_fee_headroom + tip,
                max_priority_fee_per_gas=tip,
                floor=base + tip,
            )
            self._asked_at = now
        return self._price

    def forget(self) -> None:
        """Ask again next time: a node found the price too low."""
        self._price = None


def first_tip_bound(max_tip_wei: int | None) -> int | None:
    """Up to where a tip follows the market. The rest is for replacements, which pools refuse at a tip that is not raised."""
    return None if max_tip_wei is None else max_tip_wei // 4


def tipping_at_most(price: GasPrice, max_tip_wei: int | None) -> GasPrice:
    """The price with a lower tip, if its own is above ``max_tip_wei``."""
    if max_tip_wei is None or price.max_priority_fee_per_gas <= max_tip_wei:
        return price
    less = price.max_priority_fee_per_gas - max_tip_wei
    return GasPrice(
        max_fee_per_gas=price.max_fee_per_gas - less, max_priority_fee_per_gas=max_tip_wei, floor=price.floor - less
    )


def offer(price: GasPrice, *, gas_limit: int, data_fee_wei: int, price_bound: int, cost_bound: int) -> GasPrice:
    """The price that is offered within the bounds: headroom gives way, the floor does not.

    Raises:
        FeeLimitExceeded: even the floor is above a bound; ``limit`` and ``needed`` are wei, of the whole cost or per gas.
    """
    needed = price.floor * gas_limit + data_fee_wei
    if needed > cost_bound:
        raise FeeLimitExceeded(
            f"the transaction may cost {needed} wei of gas, above the bound of {cost_bound}",
            hint="raise bob.max_gas_cost_wei, or wait until gas is cheaper",
            limit=cost_bound,
            needed=needed,
        )
    if price.floor > price_bound:
        raise FeeLimitExceeded(
            f"gas costs {price.floor} wei, above the bound of {price_bound}",
            hint="raise the bound on the price of gas, or wait until gas is cheaper",
            limit=price_bound,
            needed=price.floor,
        )
    highest = min(price.max_fee_per_gas, price_bound, (cost_bound - data_fee_wei) // gas_limit)
    tip = min(price.max_priority_fee_per_gas, highest)
    return GasPrice(max_fee_per_gas=highest, max_priority_fee_per_gas=tip, floor=price.floor)


def bumped(
    old: GasPrice, current: GasPrice, *, bound: int, tip_bound: int | None = None, times: int = 1
) -> GasPrice | None:
    """The price of a replacement: both fields raised ``times`` steps of ``BUMP_PERCENT``, and not below the current price.

    None if that would pass ``bound``, or its tip ``tip_bound``: then the old one stays.
    """
    fee, tip = old.max_fee_per_gas, old.max_priority_fee_per_gas
    least = (_step(fee), _step(tip))
    if least[0] > bound:
        return None
    for _ in range(times):
        fee, tip = _step(fee), _step(tip)
    fee = min(max(fee, current.max_fee_per_gas), bound)
    tip = min(max(tip, current.max_priority_fee_per_gas), fee, fee if tip_bound is None else tip_bound)
    if fee < least[0] or tip < least[1]:
        return None
    return GasPrice(max_fee_per_gas=fee, max_priority_fee_per_gas=tip, floor=current.floor)


def _step(value: int) -> int:
    return value + max(1, -(-value * BUMP_PERCENT // 100))
