"""Tells metrics and callbacks of each step of a transfer, and remembers which transfers a person must look at."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from layer2._transfer_view import event_of, is_decided
from layer2.transfers import TransferState

if TYPE_CHECKING:
    from layer2._metrics import Metrics
    from layer2._observe import EventDispatcher
    from layer2.swaps import Deal, StoredSwap

__all__ = ["TransferNews"]

logger: Final = logging.getLogger("layer2.manager")


class TransferNews:
    """What the engine of a manager tells goes through here."""

    def __init__(self, events: EventDispatcher, metrics: Metrics) -> None:
        self._events = events
        self._metrics = metrics
        self._shown: dict[str, TransferState] = {}
        self.attention: set[str] = set()
        """Ids of transfers with an alarm."""

    def changed(self, swap: StoredSwap) -> None:
        """A transfer has taken a step."""
        event = event_of(swap)
        if self._enters(swap, event.state):
            decided_ms = swap.updated_at_ms - swap.created_at_ms if is_decided(swap.state) else None
            self._metrics.transfer(
                swap.deal.direction.value,
                event.state.value,
                decided_after_s=None if decided_ms is None else decided_ms / 1000,
            )
        self._events.emit(
            logger,
            logging.INFO,
            f"transfer.{event.state.value}",
            f"transfer {event.transfer_id} is {event.state.value}",
            transfer_id=event.transfer_id,
            detail=event.detail,
        )
        if swap.state.final:
            self.attention.discard(swap.deal.id)

    def _enters(self, swap: StoredSwap, state: TransferState) -> bool:
        """Whether the transfer was in another state before, as its user sees states."""
        before = self._shown.get(swap.deal.id)
        if swap.state.final:
            self._shown.pop(swap.deal.id, None)
        else:
            self._shown[swap.deal.id] = state
        if before is None and swap.state.final and state in (TransferState.SETTLED, TransferState.REFUNDED):
            # An earlier process saw how it ended; this one only saw it become final.
            return False
        return before is not state

    def alarm(self, deal: Deal, code: str, reason: str) -> None:
        """Somebody must look at a transfer."""
        self.attention.add(deal.id)
        self._metrics.alarm(code)
        self._events.emit(logger, logging.ERROR, code, f"transfer {deal.id}: {reason}", transfer_id=deal.id)
