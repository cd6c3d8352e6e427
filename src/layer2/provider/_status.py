"""A swap's state in the words that the HTTP interface uses."""

from __future__ import annotations

from typing import assert_never

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
    StatusName,
    StoredSwap,
    SwapStatus,
)
from layer2.terms import SwapDirection

__all__ = ["status_of"]


def status_of(swap: StoredSwap) -> SwapStatus:
    """What is told of a swap to whoever knows its id."""
    name = _name(swap)
    reason = getattr(swap.state, "reason", None)
    return SwapStatus(id=swap.deal.id, status=name, failure_reason=reason or None)


def _name(swap: StoredSwap) -> StatusName:
    submarine = swap.deal.direction is SwapDirection.SUBMARINE
    match swap.state:
        case Offered() | Invoiced() | Agreed() | AwaitingLock():
            return StatusName.SWAP_CREATED
        case Locking():
            return StatusName.TRANSACTION_MEMPOOL
        case Locked():
            return StatusName.TRANSACTION_CONFIRMED
        case Paying():
            return StatusName.INVOICE_PENDING
        case Claiming() | Paid() | Revealed() | Settling():
            return StatusName.INVOICE_PAID
        case Settled():
            return StatusName.TRANSACTION_CLAIMED if submarine else StatusName.INVOICE_SETTLED
        case Failed():
            return StatusName.INVOICE_FAILED
        case Refunding() | Refunded():
            return StatusName.TRANSACTION_REFUNDED
        case Cancelling(outcome=outcome):
            return StatusName.TRANSACTION_REFUNDED if outcome == "refunded" else StatusName.SWAP_EXPIRED
        case Closed(outcome="settled"):
            return StatusName.TRANSACTION_CLAIMED if submarine else StatusName.INVOICE_SETTLED
        case Closed(outcome="refunded" | "returned"):
            return StatusName.TRANSACTION_REFUNDED
        case Closed() | Abandoned():
            return StatusName.SWAP_EXPIRED
        case NeedsAttention():
            return StatusName.NEEDS_ATTENTION
        case _:
            assert_never(swap.state)
