"""By when a swap must be driven again, if the process that drives it ends now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from layer2.swaps._deadlines import latest_claim_start
from layer2.swaps._states import Claiming, Deal, Locked, Locking, Paying, Refunding, Revealed, Role, Settling, State
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from layer2.swaps._ports import StoredSwap

__all__ = ["act_by", "run_again_by"]


def act_by(deal: Deal, state: State) -> int | None:
    """Unix seconds by which a process must drive the swap again; None if nothing of ours is bound.

    Whoever has to claim needs its claim included before the timelock, by a sequencer whose clock may run ahead. A refund begins at
    the timelock, and a held payment comes back later than that by more than a refund takes: there the timelock bounds both.
    """
    terms, timing = deal.terms, deal.terms.timing
    match state:
        case Paying() | Revealed() if deal.direction is SwapDirection.REVERSE:
            return latest_claim_start(timing, terms.depth_policy, terms.lock.timelock)
        case Claiming() if deal.role is Role.CLIENT:
            return None
        case Paying() | Claiming():
            return terms.lock.timelock - timing.evm_inclusion_s - timing.evm_clock_skew_s
        case Locking() | Locked() | Refunding() | Settling():
            return terms.lock.timelock
        case _:
            return None


def run_again_by(swaps: Iterable[StoredSwap]) -> int | None:
    """The nearest of their times; None if none of them has one."""
    return min((by for swap in swaps if (by := act_by(swap.deal, swap.state)) is not None), default=None)
