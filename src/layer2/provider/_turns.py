"""Turns: a few requests at a time, each network address in its turn, and a bounded number that waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from layer2.errors import NodeNotReady

__all__ = ["Busy", "Turns"]

MOST_WAITING: Final = 256
MOST_WAITING_OF_ONE: Final = 64
"""As many operations as a client has at a time by default: whoever begins that many transfers at once is refused none."""


class Busy(NodeNotReady):
    """Too many wait already. Nothing was done."""


class Turns:
    """Lets ``parallel`` requests through at a time.

    Whoever asks for much waits behind whoever asks for little: addresses take turns, and where too many wait, the last request of
    whoever has the most of them waiting goes. Requests whose origin is None are the program's own, and are not bounded.
    """

    def __init__(self, parallel: int = 1, *, most: int = MOST_WAITING, most_of_one: int = MOST_WAITING_OF_ONE) -> None:
        self._free = parallel
        self._most = most
        self._most_of_one = most_of_one
        self._waiting: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, origin: str | None) -> AsyncGenerator[None, None]:
        """Wait for a turn and have it. Raises ``Busy``."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(origin)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, origin: str | None) -> None:
        if origin is not None:
            self._make_room(origin)
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(origin, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._leave(origin, waiter)
            elif waiter.exception() is None:
                self._next()
            raise

    def _make_room(self, origin: str) -> None:
        counts = {other: len(waiting) for other, waiting in self._waiting.items() if other is not None}
        mine = counts.get(origin, 0)
        if mine >= self._most_of_one:
            raise _busy()
        if sum(counts.values()) < self._most:
            return
        largest = max(counts, key=lambda other: counts[other])
        if counts[largest] <= mine + 1:
            raise _busy()
        last = self._waiting[largest][-1]
        self._leave(largest, last)
        if not last.done():
            last.set_exception(_busy())

    def _leave(self, origin: str | None, waiter: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(origin, deque())
        if waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[origin]

    def _next(self) -> None:
        while self._waiting:
            origin, waiting = self._waiting.popitem(last=False)
            waiter = waiting.popleft()
            if waiting:
                self._waiting[origin] = waiting
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1


def _busy() -> Busy:
    return Busy("too many ask for swaps at this moment")
