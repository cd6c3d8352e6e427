"""Room for a new offer: caps, what the provider holds, and offers that nobody acted on, which give way when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from layer2 import Clock
from layer2.config import ProviderConfig
from layer2.errors import InsufficientFunds, SwapRefused
from layer2.provider._giving_way import binds, in_order
from layer2.provider._held import HeldParts
from layer2.provider._inventory import Inventory
from layer2.swaps import StoredSwap, SwapEngine, SwapGas
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transactions import Depth

__all__ = ["ProviderChain", "Room", "Wanted"]

_WITHDRAW_LIMIT_S: Final = 5.0
"""For so long a request waits until offers that give way have been looked at once more."""


class ProviderChain(Protocol):
    """What the service asks of the EVM side, beyond what the engine does."""

    async def token_balance(self) -> int:
        """What the provider's account holds, in the token's base unit."""
        ...

    async def gas(self) -> SwapGas:
        """What the gas of one swap may cost, and what the account has for it; raises ``FeeLimitExceeded``."""
        ...

    async def check_gas(self, swaps: int) -> int:
        """What the gas of one swap may cost; raises ``InsufficientFunds`` unless the account can pay that for ``swaps``."""
        ...

    async def safe_lag_s(self, now_s: int) -> int | None:
        """How old the safe head is; None if the chain has none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new offer would bind."""

    direction: SwapDirection
    amount_sat: int
    """Of the lock."""
    policy: DepthPolicy
    token: int = 0
    """Token base units that our own lock takes."""
    pay_msat: int = 0
    """What our payment takes out of the channels, routing included."""
    spendable_msat: int = 0
    """What the channels hold."""
    taken_msat: Mapping[str, int] = field(default_factory=dict)
    """What payments that are under way have taken out of the channels already, by swap."""


def _short_of_msat(inventory: Inventory, wanted: Wanted, without: AbstractSet[str]) -> int:
    """What the channels lack for the payment that is wanted; not above 0: nothing."""
    return wanted.pay_msat + inventory.lightning_bound_msat(without, wanted.taken_msat) - wanted.spendable_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class _Funds:
    """What the account holds. It is read once for a request: what has room is then searched for in memory."""

    token: int
    gas: SwapGas


class Room:
    """Decides whether an offer may be made, and makes room for it where only idle offers are in the way.

    ``idle_s`` is how long an offer is left in peace, so that whoever asked has the time to lock or to pay.
    """

    def __init__(
        self,
        *,
        engine: SwapEngine,
        inventory: Inventory,
        held: HeldParts,
        chain: ProviderChain,
        settings: ProviderConfig,
        max_safe_lag_s: int,
        clock: Clock,
        idle_s: int,
    ) -> None:
        self._engine = engine
        self._inventory = inventory
        self._held = held
        self._chain = chain
        self._settings = settings
        self._max_safe_lag_s = max_safe_lag_s
        self._clock = clock
        self._idle_s = idle_s

    async def check(self, wanted: Wanted, origin: str | None) -> None:
        """Return if there is room, or would be if idle offers gave way; none does yet. ``origin`` is who asks.

        Raises:
            SwapRefused: ``rule`` names the cap; InsufficientFunds: not enough gas of ours.
        """
        await self._find(wanted, origin)

    async def require(self, wanted: Wanted, origin: str | None) -> None:
        """Return if there is room, perhaps since idle offers gave way. ``origin`` is who asks.

        Raises:
            SwapRefused: ``rule`` names the cap; InsufficientFunds: not enough gas of ours.
        """
        wanted, funds, idle = await self._find(wanted, origin)
        if idle:
            await self._withdraw(idle)
            # Whether they are gone, and nothing else has come: only what is stored now counts.
            self._check(wanted, funds, frozenset())

    async def _find(self, wanted: Wanted, origin: str | None) -> tuple[Wanted, _Funds, tuple[str, ...]]:
        """What is wanted beside what is paid already, what the account holds, and the offers without which there is room."""
        if wanted.policy.depth is Depth.INCLUDED:
            lag = await self._chain.safe_lag_s(self._clock.now_ms() // 1000)
            if lag is None or lag > self._max_safe_lag_s:
                raise SwapRefused(
                    "the chain's safe head is too old to act on anything that is not safe", rule="safe_lag"
                )
        if wanted.direction is SwapDirection.REVERSE:
            await self._held.count()
        if wanted.pay_msat and (short_msat := _short_of_msat(self._inventory, wanted, frozenset())) > 0:
            wanted = replace(wanted, taken_msat=await self._held.taken_msat(short_msat))
        funds = _Funds(token=await self._chain.token_balance(), gas=await self._chain.gas())
        idle: tuple[str, ...] = ()
        try:
            self._check(wanted, funds, frozenset())
        except (SwapRefused, InsufficientFunds):
            idle = await self._in_the_way(wanted, funds, origin)
            if not idle:
                raise
        return wanted, funds, idle

    def _check(self, wanted: Wanted, funds: _Funds, without: AbstractSet[str]) -> None:
        inventory, caps = self._inventory, self._settings
        inventory.check_room(
            caps, wanted.direction, wanted.amount_sat, wanted.policy, token_balance=funds.token, without=without
        )
        if funds.token - inventory.token_bound(without) < wanted.token:
            raise SwapRefused("the account does not hold enough now", rule="liquidity")
        if wanted.pay_msat and _short_of_msat(inventory, wanted, without) > 0:
            raise SwapRefused("the channels do not hold enough now", rule="liquidity")
        inventory.check_gas(caps, funds.gas.check(inventory.active - len(without) + 1))

    async def _in_the_way(self, wanted: Wanted, funds: _Funds, origin: str | None) -> tuple[str, ...]:
        """The fewest offers without which there would be room; none if all that may give way would not be enough.

        What is short is freed one after the other, and nothing gives way that does not bind any of it.
        """
        chosen: tuple[str, ...] = ()
        while (rule := self._short(wanted, funds, chosen)) is not None:
            idle = self._giving_way(rule, wanted, origin, frozenset(chosen))
            if self._short(wanted, funds, chosen + idle) == rule:
                return ()
            low, high = 0, len(idle)
            while high - low > 1:
                # Each step counts all that is open, and what has a deadline must not wait for all of them.
                await asyncio.sleep(0)
                middle = (low + high) // 2
                enough = self._short(wanted, funds, chosen + idle[:middle]) != rule
                low, high = (low, middle) if enough else (middle, high)
            chosen += idle[:high]
        return chosen

    def _short(self, wanted: Wanted, funds: _Funds, without: tuple[str, ...]) -> str | None:
        """The rule by which there is no room; None: there is."""
        try:
            self._check(wanted, funds, frozenset(without))
        except SwapRefused as refused:
            return refused.rule
        except InsufficientFunds:
            return "gas"
        return None

    def _giving_way(self, rule: str, wanted: Wanted, origin: str | None, chosen: AbstractSet[str]) -> tuple[str, ...]:
        def bound_by(swap: StoredSwap) -> int:
            terms = swap.deal.terms
            if swap.deal.id in chosen:
                return 0
            return binds(
                rule,
                wanted.direction,
                direction=terms.direction,
                amount_sat=self._inventory.amount_sat(swap),
                policy=terms.depth_policy,
            )

        return in_order(
            self._inventory.idle_offers(),
            bound_by=bound_by,
            wanted=binds(
                rule,
                wanted.direction,
                direction=wanted.direction,
                amount_sat=wanted.amount_sat,
                policy=wanted.policy,
            ),
            origin=origin,
            before_ms=self._clock.now_ms() - self._idle_s * 1000,
        )

    async def _withdraw(self, idle: tuple[str, ...]) -> None:
        answers = {swap_id: self._engine.withdraw(swap_id) for swap_id in idle}
        await asyncio.wait(answers.values(), timeout=_WITHDRAW_LIMIT_S)
        for swap_id, answer in answers.items():
            if answer.done() and not answer.result():
                self._inventory.keep(swap_id)
