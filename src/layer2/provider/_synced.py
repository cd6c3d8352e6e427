"""The provider's node, once it is synchronised: one that is behind can neither hold nor pay in the time that an offer promises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from layer2.errors import NodeNotReady

if TYPE_CHECKING:
    from layer2 import Clock
    from layer2.lightning import LightningNode, NodeInfo

__all__ = ["SyncedNode"]

_WAIT_S: Final = 5.0
"""After each new block a node is not synchronised for a moment, in which nobody should be sent away."""
_LOOK_S: Final = 0.25


class SyncedNode:
    """Asks a node about itself, and waits a little while it is not synchronised; all who ask meanwhile wait once, together."""

    def __init__(self, node: LightningNode, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._waiting = asyncio.Lock()
        self._waited_at: float | None = None

    async def info(self) -> NodeInfo:
        """The node's information.

        Raises:
            NodeNotReady: it is not synchronised, and was not a little later.
        """
        info = await self._node.info()
        if info.synced_to_chain:
            return info
        async with self._waiting:
            now = self._clock.monotonic_s()
            if self._waited_at is None or now - self._waited_at >= _WAIT_S:
                while self._clock.monotonic_s() - now < _WAIT_S:
                    await self._clock.sleep(_LOOK_S)
                    info = await self._node.info()
                    if info.synced_to_chain:
                        return info
                self._waited_at = self._clock.monotonic_s()
        raise NodeNotReady("the Lightning node is not synchronised with its chain", hint="wait until it is")
