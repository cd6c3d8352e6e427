"""Which offers give way when something is short: those of whoever binds the most of it, by network address."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from layer2.swaps import StoredSwap
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transactions import Depth

__all__ = ["binds", "in_order"]

_COUNTED: Final = frozenset({"max_active", "gas", "max_held"})
"""Rules that cap a number of swaps; the others cap value."""
_REVERSE_ONLY: Final = frozenset({"max_held", "max_locked", "max_soft_hold"})


def binds(
    rule: str, for_direction: SwapDirection, *, direction: SwapDirection, amount_sat: int, policy: DepthPolicy
) -> int:
    """How much an offer binds of what is short: a number of swaps, or satoshi; 0 if nothing.

    Args:
        rule: of the refusal that says what is short.
        for_direction: of the swap that was refused.
        direction: of the offer.
        amount_sat: of its lock.
        policy: of its lock.
    """
    submarine = direction is SwapDirection.SUBMARINE
    if rule in _REVERSE_ONLY:
        concerned = not submarine
    elif rule == "max_unsafe":
        concerned = submarine and policy.depth is Depth.INCLUDED
    elif rule == "liquidity":
        concerned = direction is for_direction
    else:
        concerned = rule in _COUNTED
    if not concerned:
        return 0
    return 1 if rule in _COUNTED else amount_sat


def in_order(
    offers: Iterable[tuple[StoredSwap, str | None]],
    *,
    bound_by: Callable[[StoredSwap], int],
    wanted: int,
    origin: str | None,
    before_ms: int,
) -> tuple[str, ...]:
    """Offers that may give way to one for ``origin``, in that order: of whoever binds the most first, the oldest first.

    Who asks for little cannot be driven out by who asks for much: nothing gives way of whoever binds no more than ``origin`` does.
    Of what is younger than ``before_ms`` only that gives way without which its owner still binds as much as ``origin`` then would.
    So every address has its first offer in peace, and none keeps the others out by asking for all there is again and again.

    Args:
        offers: those on which nobody acted, each with who asked for it; None: that is not known, and may be many.
        bound_by: how much an offer binds of what is short; those that bind nothing stay.
        wanted: how much the new one would bind.
        origin: who asks.
        before_ms: what was made before then, nobody wants any more.
    """
    groups: dict[str | None, list[tuple[int, int, str, int]]] = defaultdict(list)
    for place, (swap, owner) in enumerate(offers):
        if bound := bound_by(swap):
            groups[owner].append((swap.created_at_ms, place, swap.deal.id, bound))
    totals = {owner: sum(bound for *_, bound in group) for owner, group in groups.items()}
    mine = totals.get(origin, 0)
    most: list[tuple[int, bool, int, int, str | None]] = []

    def consider(owner: str | None) -> None:
        if groups[owner]:
            created_ms, place, *_ = groups[owner][-1]
            heapq.heappush(most, (-totals[owner], owner != origin, created_ms, place, owner))

    for owner, group in groups.items():
        group.sort(reverse=True)
        consider(owner)
    chosen: list[str] = []
    while most:
        owner = heapq.heappop(most)[-1]
        if owner != origin and totals[owner] <= mine:
            continue
        created_ms, _, swap_id, bound = groups[owner].pop()
        left = totals[owner] - bound
        too_much = owner not in (origin, None) and left >= mine + wanted
        if created_ms < before_ms or too_much:
            chosen.append(swap_id)
            totals[owner] = left
            consider(owner)
    return tuple(chosen)
