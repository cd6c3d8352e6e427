"""The background tasks of a sender: each begins again when it fails, and says how it fares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from layer2._health import LoopHealth
from layer2._observe import log_event
from layer2.errors import Layer2Error

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.addresses import EvmAddress

__all__ = ["SenderLoops"]

_log = logging.getLogger("layer2.evm")


class SenderLoops:
    """Keeps loops running: an endpoint or a store that fails now may work again later."""

    def __init__(self, account: EvmAddress, clock: Clock, pause_s: float) -> None:
        self._account = account
        self._clock = clock
        self._pause_s = pause_s
        self.health: dict[str, LoopHealth] = {}

    async def keep(self, name: str, work: Callable[[LoopHealth], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` for ever; it says of itself when it has worked."""
        health = self.health.setdefault(name, LoopHealth(self._clock))
        while True:
            try:
                await work(health)
            except Layer2Error as error:
                health.failed(error)
                text = f"the {name} of {self._account} failed and begins again: {error}"
                log_event(_log, logging.WARNING, "evm.sender_failed", text, account=self._account)
            except Exception as error:  # noqa: BLE001 - logged with its trace, and the loop goes on
                health.failed(type(error).__name__)
                text = f"the {name} of {self._account} failed and begins again"
                log_event(_log, logging.ERROR, "evm.sender_crashed", text, account=self._account, exc_info=True)
            await self._clock.sleep(self._pause_s)
