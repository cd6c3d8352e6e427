"""What a provider's swap from a restored copy looks at first, and decides otherwise: the life it does not know of may have acted.

That life may have locked, or paid, after the copy was taken. So an offer is given up only when both layers show that nothing of
ours is bound; until then it is driven as if it were, without beginning anything.
"""

from __future__ import annotations

from layer2.swaps._effects import Decision
from layer2.swaps._observations import (
    ChainView,
    InvoiceStatus,
    InvoiceView,
    LockStatus,
    Observation,
    PaymentStatus,
    PaymentView,
)
from layer2.swaps._states import Invoiced, Locking, Offered, Paying, State, Watch

__all__ = ["decide_restored", "looks_first"]


def looks_first(state: State) -> tuple[Watch, ...]:
    """What is looked at before what the state watches."""
    match state:
        case Offered():
            return (Watch.PAYMENT,)
        case Invoiced():
            return (Watch.CHAIN,)
        case _:
            return ()


def decide_restored(state: State, seen: Observation) -> Decision | None:
    """What follows from ``seen`` only because the swap is of a restored copy; None: nothing, and the usual decision holds.

    The hash is not bound: of several offers for one invoice the lost life paid for one, and which is not known. Each then goes on
    as if it were the one, and claims its lock if there is one.
    """
    match state, seen:
        case Offered(), PaymentView(status=PaymentStatus.IN_FLIGHT | PaymentStatus.SUCCEEDED):
            return Decision(state=Paying())
        case Invoiced(), ChainView() if any(
            reading.status is not LockStatus.NEVER for reading in (seen.latest, seen.at_depth, seen.finalized)
        ):
            return Decision(state=Locking())
        case Invoiced(), InvoiceView(status=InvoiceStatus.ACCEPTED):
            # Its lock may still be on its way: the payment goes back when the lock can never take effect.
            return Decision(state=Locking())
        case _:
            return None
