"""Which file decides for which role and direction."""

from __future__ import annotations

from layer2.swaps import _reverse_client, _reverse_provider, _submarine_client, _submarine_provider
from layer2.swaps._effects import Decision
from layer2.swaps._observations import Observation
from layer2.swaps._states import Agreed, Deal, Invoiced, Offered, Role, State
from layer2.terms import SwapDirection

__all__ = ["decide", "first_state", "withdraw"]

_DECIDE = {
    (Role.CLIENT, SwapDirection.SUBMARINE): _submarine_client.decide,
    (Role.CLIENT, SwapDirection.REVERSE): _reverse_client.decide,
    (Role.PROVIDER, SwapDirection.SUBMARINE): _submarine_provider.decide,
    (Role.PROVIDER, SwapDirection.REVERSE): _reverse_provider.decide,
}


def decide(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """What follows from ``seen`` in ``state``: the next state with its effects, or None if nothing changes.

    Pure: no clock, no randomness, no input or output. The same arguments give the same answer for ever.
    """
    return _DECIDE[deal.role, deal.direction](deal, state, seen)


def withdraw(deal: Deal, state: State, seen: Observation) -> Decision | None:
    """How an offer of ours on which, as ``seen`` shows, nobody has acted is taken back; None if it is not to be. Pure."""
    if deal.role is Role.CLIENT:
        return None
    if deal.direction is SwapDirection.SUBMARINE:
        return _submarine_provider.withdraw(state, seen)
    return _reverse_provider.withdraw(state, seen)


def first_state(role: Role, direction: SwapDirection) -> State:
    """The state in which a swap begins once its terms are signed."""
    if role is Role.CLIENT:
        return Agreed()
    return Offered() if direction is SwapDirection.SUBMARINE else Invoiced()
