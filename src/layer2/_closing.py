"""Closing a layer: once, however often it is asked for, and to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2._operations import Operations
    from layer2.protocol import Timeout

__all__ = ["Closing"]


class Closing:
    """Closes something once, however often it is asked to, and goes on when whoever waits for it gives up.

    Half closed, tasks and connections would be left. ``close`` is given the task that asked first, which it must not wait for.
    """

    def __init__(
        self,
        operations: Operations,
        what: str,
        close: Callable[[asyncio.Task[object] | None], Coroutine[Any, Any, None]],
    ) -> None:
        self._operations = operations
        self._what = what
        self._close = close
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether nothing may be done any more."""
        return self._task is not None

    async def wait(self, *, timeout: Timeout, cancel: asyncio.Event | None) -> None:
        """Begin to close, if nobody has, and wait until it is done.

        Raises:
            AsyncTimeout, TaskCancelled: it goes on; wait again. ValidationError: of ``timeout`` or ``cancel``.
        """
        await self._operations.wait_for_task(self._what, self._begin, timeout=timeout, cancel=cancel)

    def _begin(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._close(asyncio.current_task()), name=f"layer2: {self._what}")
        return self._task
