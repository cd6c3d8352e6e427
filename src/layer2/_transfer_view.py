"""What a user sees of a swap: the state in few words, the price that was agreed, by when it must be driven again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from layer2._quoting import quote_of_deal
from layer2.errors import Layer2Error, SwapExpired, SwapRefunded, UnknownOutcome
from layer2.swaps import (
    Abandoned,
    Agreed,
    AwaitingLock,
    Cancelling,
    Claiming,
    Closed,
    Failed,
    Invoiced,
    Locked,
    Locking,
    NeedsAttention,
    Offered,
    Paid,
    Paying,
    Refunded,
    Refunding,
    Revealed,
    Settled,
    Settling,
    act_by,
)
from layer2.transfers import Transfer, TransferEvent, TransferHost, TransferState

if TYPE_CHECKING:
    from layer2.assets import AssetRegistry
    from layer2.swaps import State, StoredSwap

__all__ = [
    "ends_a_wait",
    "event_of",
    "failure_of",
    "is_decided",
    "needs_attention",
    "state_name",
    "step",
    "transfer_of",
]


def is_decided(state: State) -> bool:
    """Whether the user's side is decided: settled at the terms' depth, refunded, or over."""
    return state.settled or state.final or isinstance(state, Refunded | Cancelling)


def ends_a_wait(state: State) -> bool:
    """Whether nothing is gained by waiting on: it is decided, or a person must look at it first."""
    return is_decided(state) or isinstance(state, NeedsAttention)


def state_name(state: State) -> TransferState:
    """The state in the user's words."""
    match state:
        case Agreed() | Offered() | Invoiced():
            return TransferState.AGREED
        case AwaitingLock():
            return TransferState.AWAITING_PAYMENT
        case Paying():
            return TransferState.PAYING
        case Locking():
            return TransferState.LOCKING
        case Locked():
            return TransferState.LOCKED
        case Paid() | Revealed() | Claiming() | Settling():
            return TransferState.CLAIMING
        case Settled() | Closed(outcome="settled"):
            return TransferState.SETTLED
        case Refunding():
            return TransferState.REFUNDING
        case Refunded() | Cancelling(outcome="refunded") | Closed(outcome="refunded" | "returned"):
            return TransferState.REFUNDED
        case Abandoned() | Cancelling() | Closed() | Failed():
            return TransferState.EXPIRED
        case NeedsAttention():
            return TransferState.NEEDS_ATTENTION
        case _:
            assert_never(state)


def failure_of(swap: StoredSwap) -> Layer2Error | None:
    """The error that a transfer whose wait has ended raises at whoever waits for it; None if it settled."""
    reason = getattr(swap.state, "reason", "") or "it failed"
    match state_name(swap.state):
        case TransferState.SETTLED:
            return None
        case TransferState.NEEDS_ATTENTION:
            return needs_attention([swap])
        case TransferState.REFUNDED:
            # With a preimage the provider has paid at its own cost: another transfer would pay the recipient twice.
            paid = getattr(swap.state, "preimage", None) is not None
            return SwapRefunded(
                f"the transfer failed and the money is back: {reason}",
                hint="the recipient was paid all the same: do not pay again" if paid else None,
                retry_safe=False if paid else None,
                transfer_id=swap.deal.id,
                swap_id=swap.deal.terms.swap_id,
            )
        case _:
            return SwapExpired(
                f"the transfer ended before anything was bound: {reason}",
                transfer_id=swap.deal.id,
                swap_id=swap.deal.terms.swap_id,
            )


def needs_attention(swaps: Sequence[StoredSwap]) -> UnknownOutcome:
    """The error that names transfers which a person must look at."""
    reasons = [getattr(swap.state, "reason", "") for swap in swaps]
    named = "; ".join(f"{swap.deal.id}: {reason}" for swap, reason in zip(swaps, reasons, strict=True))
    return UnknownOutcome(
        f"a person must look at what cannot happen while the assumptions hold: {named}",
        transfer_id=swaps[0].deal.id,
        reason=reasons[0],
        hint="the runbook says what to do; the transfer is still watched",
    )


def transfer_of(swap: StoredSwap, host: TransferHost, registry: AssetRegistry) -> Transfer:
    """The handle on a swap; ``registry`` tells what its token is."""
    return Transfer(
        id=swap.deal.id,
        state=state_name(swap.state),
        reason=getattr(swap.state, "reason", None) or None,
        quote=quote_of_deal(swap.deal, registry),
        invoice=swap.deal.terms.invoice,
        created_at_ms=swap.created_at_ms,
        updated_at_ms=swap.updated_at_ms,
        act_by=act_by(swap.deal, swap.state),
        _host=host,
    )


def event_of(swap: StoredSwap) -> TransferEvent:
    """The newest step of a swap."""
    return step(swap.deal.id, swap.version, swap.state, swap.updated_at_ms)


def step(transfer_id: str, version: int, state: State, at_ms: int) -> TransferEvent:
    """One step of a swap."""
    return TransferEvent(
        transfer_id=transfer_id,
        version=version,
        state=state_name(state),
        detail=type(state).__name__,
        reason=getattr(state, "reason", None) or None,
        at_ms=at_ms,
    )
