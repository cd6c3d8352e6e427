"""What the provider's open swaps bind, so that no offer is made that cannot be kept, and the caps on what strangers may bind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final

from layer2 import Clock
from layer2.assets import AssetForm, convert_amount
from layer2.config import ProviderConfig
from layer2.errors import SwapRefused
from layer2.swaps import (
    Cancelling,
    Claiming,
    Failed,
    Invoiced,
    Locked,
    Locking,
    Offered,
    Paying,
    Refunding,
    Settled,
    State,
    StoredSwap,
    whole_satoshi,
)
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transactions import Depth

__all__ = ["Inventory"]

MAX_ACTIVE: Final = 5_000
"""Open swaps at a time."""
_HOUR_S: Final = 3_600


def _payment_msat(swap: StoredSwap) -> int:
    return swap.deal.terms.invoice_amount_msat + swap.deal.terms.routing_fee_limit_msat


def _require(holds: bool, rule: str, message: str) -> None:
    if not holds:
        raise SwapRefused(message, rule=rule)


def _check_gas(caps: ProviderConfig, others: int, one_swap_wei: int) -> None:
    cost = (others + 1) * one_swap_wei
    _require(cost <= caps.max_gas_per_hour_wei, "max_gas_per_hour", "the gas for this hour is spent")


class Inventory:
    """A tally over the open swaps, kept up to date by the engine's changes.

    Args:
        token: the ERC-20 that locks hold.
        clock: for what happened within the last hour.
    """

    def __init__(self, token: AssetForm, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._open: dict[str, StoredSwap] = {}
        self._origins: dict[str, str | None] = {}
        self._kept: set[str] = set()
        self._paying_since: dict[str, float] = {}
        self._parts: dict[str, int] = {}
        self._spending: set[str] = set()
        self._undecided: set[str] = set()
        """Those among them whose lock was not let through yet."""
        self._spent_at: dict[str, float] = {}

    def changed(self, swap: StoredSwap) -> None:
        """Take a swap's newest state into the tally."""
        swap_id = swap.deal.id
        if isinstance(swap.state, Failed) or (isinstance(swap.state, Cancelling) and swap_id in self._undecided):
            # Nothing was sent for it.
            self._spent_at.pop(swap_id, None)
        if not isinstance(swap.state, Locking):
            self._undecided.discard(swap_id)
        if swap.state.final:
            self._open.pop(swap_id, None)
            self._origins.pop(swap_id, None)
            self._kept.discard(swap_id)
            self._paying_since.pop(swap_id, None)
            self._parts.pop(swap_id, None)
            self._spending.discard(swap_id)
            return
        self._open[swap_id] = swap
        if isinstance(swap.state, Paying):
            self._paying_since.setdefault(swap_id, self._clock.monotonic_s())
        if swap_id not in self._spending and isinstance(swap.state, Locking | Claiming):
            self._spends(swap_id)
            if isinstance(swap.state, Locking):
                self._undecided.add(swap_id)

    def _spends(self, swap_id: str) -> None:
        self._spending.add(swap_id)
        self._spent_at[swap_id] = self._clock.monotonic_s()

    @property
    def active(self) -> int:
        """Number of open swaps."""
        return len(self._open)

    def owing(self, besides: str) -> int:
        """Number of other swaps on which money hangs: each may still have to claim or refund."""
        return sum(swap.state.urgent for swap_id, swap in self._open.items() if swap_id != besides)

    def offered(self, swap_id: str, origin: str | None) -> None:
        """Remember who asked for an offer that was just stored. Forgotten with the process: then nobody in particular did."""
        if swap_id in self._open:
            self._origins[swap_id] = origin

    def idle_offers(self) -> Iterator[tuple[StoredSwap, str | None]]:
        """Offers that nobody has acted on, each with who asked for it; None: that is not known."""
        for swap_id, swap in self._open.items():
            if isinstance(swap.state, Offered | Invoiced) and swap_id not in self._kept and not swap.restored:
                yield swap, self._origins.get(swap_id)

    def keep(self, swap_id: str) -> None:
        """Remember that an offer was not taken back when that was asked for: its client has acted, so it is not idle."""
        if swap_id in self._open:
            self._kept.add(swap_id)

    def token_bound(self, without: AbstractSet[str] = frozenset()) -> int:
        """Token base units that promised locks will still take out of the account. What is locked already has left it."""
        return self._sum(SwapDirection.REVERSE, (Invoiced, Locking), without)

    def lightning_bound_msat(
        self, without: AbstractSet[str] = frozenset(), taken_msat: Mapping[str, int] = MappingProxyType({})
    ) -> int:
        """Millisatoshi that promised payments may still take out of the channels, routing included.

        ``taken_msat``: what payments that are under way have taken out already, by swap.
        """
        return sum(
            max(0, _payment_msat(swap) - taken_msat.get(swap.deal.id, 0))
            for swap in self._of(SwapDirection.SUBMARINE, (Offered, Paying), without)
        )

    def held_outgoing(self) -> tuple[StoredSwap, ...]:
        """Submarine swaps that have been paying for longer than new attempts are made, the largest first.

        What is in flight of them now stays there, or comes back.
        """
        now = self._clock.monotonic_s()
        held = (
            swap
            for swap in self._of(SwapDirection.SUBMARINE, (Paying,), frozenset())
            if now - self._paying_since[swap.deal.id] > swap.deal.terms.timing.payment_time_limit_s
        )
        return tuple(sorted(held, key=_payment_msat, reverse=True))

    def unsafe_token(self, without: AbstractSet[str] = frozenset()) -> int:
        """Token base units of locks that we pay for before they are safe: a stalled batcher undoes them together.

        Reverse swaps do not count: we act on the preimage, which no reorganisation takes back.
        """
        return sum(
            swap.deal.terms.lock.amount
            for swap in self._of(SwapDirection.SUBMARINE, (Offered, Paying, Claiming, Settled), without)
            if swap.deal.terms.depth_policy.depth is Depth.INCLUDED
        )

    def consists_of(self, swap_id: str, parts: int) -> None:
        """Remember of how many parts the held payment of a reverse swap consists."""
        if swap_id in self._open:
            self._parts[swap_id] = parts

    def uncounted(self) -> tuple[StoredSwap, ...]:
        """Reverse swaps that we have locked for while nobody said of how many parts their payment consists."""
        locked = self._of(SwapDirection.REVERSE, (Locked, Refunding), frozenset(self._parts))
        return tuple(locked)

    def held_parts(self, without: AbstractSet[str] = frozenset()) -> int:
        """Parts of the payments of reverse swaps that are held."""
        held = self._of(SwapDirection.REVERSE, (Locking, Locked, Refunding), without)
        return sum(self._parts.get(swap.deal.id, 1) for swap in held)

    def awaited(self, without: AbstractSet[str] = frozenset()) -> int:
        """Reverse swaps whose payment may come, in one part or more."""
        return sum(1 for _ in self._of(SwapDirection.REVERSE, (Invoiced,), without))

    def spending_swaps(self) -> int:
        """Swaps that began to cost gas within the last hour, or are about to."""
        since = self._clock.monotonic_s() - _HOUR_S
        self._spent_at = {swap_id: at for swap_id, at in self._spent_at.items() if at > since}
        return len(self._spent_at)

    def check_room(
        self,
        caps: ProviderConfig,
        direction: SwapDirection,
        amount_sat: int,
        policy: DepthPolicy,
        *,
        token_balance: int,
        without: AbstractSet[str] = frozenset(),
    ) -> None:
        """Refuse what is above the provider's caps.

        Args:
            caps: the configured ones.
            direction: of the swap that is asked for.
            amount_sat: what it would lock.
            policy: depth at which the waiting party would act.
            token_balance: what the account holds, in the token's base unit.
            without: ids of open swaps that are not counted.

        Raises:
            SwapRefused: ``rule`` names the cap.
        """
        _require(self.active - len(without) < MAX_ACTIVE, "max_active", "too many swaps are open")
        if direction is SwapDirection.SUBMARINE:
            if policy.depth is Depth.INCLUDED:
                unsafe = self._to_sat(self.unsafe_token(without)) + amount_sat
                _require(unsafe <= caps.max_unsafe_total, "max_unsafe", "too much value waits for the chain to be safe")
            return
        held = self.held_parts(without) + self.awaited(without)
        _require(held < caps.max_held_per_channel, "max_held", "too many payments are held or may come")
        locked = self._sum(SwapDirection.REVERSE, (Invoiced, Locking, Locked, Refunding), without)
        _require(self._to_sat(locked) + amount_sat <= caps.max_locked_total, "max_locked", "too much value is locked")
        soft = self._to_sat(self._sum(SwapDirection.REVERSE, (Invoiced,), without)) + amount_sat
        # To a balance anybody can send less than a satoshi.
        share = whole_satoshi(token_balance, self._token, up=False) * caps.max_soft_hold_percent // 100
        _require(soft <= share, "max_soft_hold", "too much is kept for invoices that nobody has paid yet")

    def check_gas(self, caps: ProviderConfig, one_swap_wei: int) -> None:
        """Refuse a swap whose gas would pass the hour's cap.

        Raises:
            SwapRefused: ``rule`` is ``max_gas_per_hour``.
        """
        _check_gas(caps, self.spending_swaps(), one_swap_wei)

    def begin_to_spend(self, caps: ProviderConfig, swap_id: str, one_swap_wei: int) -> None:
        """Count a swap that is about to cost gas. Those that only wait for this are not in its way.

        Raises:
            SwapRefused: it would pass the hour's cap; ``rule`` is ``max_gas_per_hour``. Nothing was counted.
        """
        if swap_id in self._spending and swap_id not in self._undecided:
            return
        self.spending_swaps()
        _check_gas(caps, len(self._spent_at.keys() - self._undecided), one_swap_wei)
        self._undecided.discard(swap_id)
        self._spends(swap_id)

    def _of(
        self, direction: SwapDirection, states: tuple[type[State], ...], without: AbstractSet[str]
    ) -> Iterator[StoredSwap]:
        for swap_id, swap in self._open.items():
            if swap.deal.direction is direction and isinstance(swap.state, states) and swap_id not in without:
                yield swap

    def _sum(self, direction: SwapDirection, states: tuple[type[State], ...], without: AbstractSet[str]) -> int:
        return sum(swap.deal.terms.lock.amount for swap in self._of(direction, states, without))

    def amount_sat(self, swap: StoredSwap) -> int:
        """What a swap's lock holds."""
        return self._to_sat(swap.deal.terms.lock.amount)

    def _to_sat(self, token_amount: int) -> int:
        return convert_amount(token_amount, self._token.decimals, self._token.asset.decimals)
