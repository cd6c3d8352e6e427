"""Time that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from layer2.errors import ValidationError

__all__ = ["VirtualClock"]

_BLIND_TURNS = 50
"""Turns given to an event loop that does not show whether anything is ready to run."""


class VirtualClock:
    """A ``Clock`` that stands still. ``advance`` moves it, waking sleepers one by one at their own time, in order.

    It knows only its own sleepers: limits of ``asyncio.timeout`` and sockets run on the machine's time.
    """

    def __init__(self, start_ms: int = 1_750_000_000_000) -> None:
        self._start_ms = start_ms
        self._elapsed_ms = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._added = asyncio.Event()
        self._skew_ms = 0

    def now_ms(self) -> int:
        """Unix time in milliseconds, as set."""
        return self._start_ms + int(self._elapsed_ms) + self._skew_ms

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed_ms / 1000

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_ms + seconds * 1000, next(self._order), woken))
        self._added.set()
        await woken

    @property
    def sleeping(self) -> int:
        """How many tasks wait on this clock."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def jump_wall_clock(self, seconds: float) -> None:
        """Set the Unix time forward or back, as an administrator would; sleepers and ``monotonic_s`` do not notice."""
        self._skew_ms += round(seconds * 1000)

    async def advance(self, seconds: float) -> None:
        """Move by ``seconds``. Sleepers wake at their own time, and run until they wait again before time moves on."""
        if not 0 <= seconds < math.inf:
            raise ValidationError("a clock is advanced by a number of seconds >= 0", field="seconds")
        until = self._elapsed_ms + seconds * 1000
        await self._settle()
        while (due := self._next_due()) is not None and due <= until:
            self._wake(due)
            await self._settle()
        self._elapsed_ms = until
        await self._settle()

    async def advance_to_next(self) -> bool:
        """Move to the next sleeper's time and wake it. False if nobody sleeps."""
        await self._settle()
        due = self._next_due()
        if due is not None:
            self._wake(due)
            await self._settle()
        return due is not None

    @asynccontextmanager
    async def autojump(self, idle_s: float = 0.0) -> AsyncIterator[None]:
        """Inside, the clock jumps to the next sleeper whenever nothing else can run.

        ``idle_s``: real seconds for which the event loop must be idle before a jump; needed where threads or sockets work.
        """
        jumper = asyncio.create_task(self._jump(idle_s), name="layer2-virtual-clock")
        try:
            yield
        finally:
            jumper.cancel()
            await asyncio.wait([jumper])

    async def _jump(self, idle_s: float) -> None:
        while True:
            await self._settle()
            if idle_s > 0 and self.sleeping:
                await asyncio.sleep(idle_s)
                await self._settle()
            due = self._next_due()
            if due is not None:
                self._wake(due)
            else:
                self._added.clear()
                await self._added.wait()

    def _next_due(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _wake(self, due: float) -> None:
        self._elapsed_ms = max(self._elapsed_ms, due)
        while self._sleepers and self._sleepers[0][0] <= due:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    @staticmethod
    async def _settle() -> None:
        """Let everything run that can. asyncio's own loops show their queue; for others a number of turns must do."""
        ready = getattr(asyncio.get_running_loop(), "_ready", None)
        idle = 0
        turns = 0
        while idle < 3 and (ready is not None or turns < _BLIND_TURNS):
            await asyncio.sleep(0)
            turns += 1
            idle = idle + 1 if ready is not None and not ready else 0
