"""An event loop whose time is made up: it stands still while anything can run and jumps to the next timer when nothing can.

No thread, no socket, no clock of the machine: what runs on it runs the same way every time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, TypeVar, TypeVarTuple

__all__ = ["EPOCH_S", "OWNER", "ProcessClock", "SimulationLoop", "TaskList", "run_simulation"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_S: Final = 1_750_000_000
"""Unix time of the loop's second 0."""


class TaskList:
    """The tasks of one process, in the order in which they began, so that they can be ended together."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def add(self, task: asyncio.Task[Any]) -> None:
        """Count ``task`` as one of them until it ends."""
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in list(self._tasks):
            task.cancel()


OWNER: ContextVar[TaskList | None] = ContextVar("layer2_simulation_owner", default=None)
"""Whose task this is; inherited by the tasks that it makes."""


class _Call:
    """What the loop is to do: an ``asyncio.Handle`` with only what a simulation needs."""

    __slots__ = ("args", "at", "callback", "context", "dead")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, at: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.at = at
        self.dead = False

    def cancel(self) -> None:
        """Do not do it."""
        self.dead = True

    def cancelled(self) -> bool:
        """Whether it is not to be done."""
        return self.dead

    def when(self) -> float:
        """When it is to be done, in the loop's seconds."""
        return self.at


class SimulationLoop(asyncio.BaseEventLoop):
    """See the module. ``now`` is the time in seconds since the beginning.

    It does what the standard loop does without asking the operating system for anything, which makes it several times as fast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._due: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._number = count()
        # The stubs of some versions know no factory that is generic.
        factory: Any = _own
        self.set_task_factory(factory)

    def time(self) -> float:
        """Seconds since the beginning of the simulation."""
        return self.now

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Any:
        """See ``asyncio.AbstractEventLoop``."""
        call = _Call(callback, args, context, self.now)
        self._due.append(call)
        return call

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Any:
        """See ``asyncio.AbstractEventLoop``. Calls of one time are made in the order in which they were asked for."""
        call = _Call(callback, args, context, when)
        heappush(self._timers, (when, next(self._number), call))
        return call

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Any:
        """See ``asyncio.AbstractEventLoop``."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run until somebody stops the loop."""
        due, timers = self._due, self._timers
        while not self._stopping:  # type: ignore[attr-defined]  # not in the stubs
            while timers and (timers[0][0] <= self.now or not due):
                at, _, call = heappop(timers)
                if not call.dead:
                    self.now = max(self.now, at)
                    due.append(call)
            if not due:
                raise RuntimeError("the simulation stands still: nothing can run and no timer is set")
            for _ in range(len(due)):
                call = due.popleft()
                if not call.dead:
                    self._make(call)

    def _make(self, call: _Call) -> None:
        try:
            call.context.run(call.callback, *call.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as the standard loop does
            self.call_exception_handler({"message": f"unforeseen error in {call.callback}", "exception": error})

    def close(self) -> None:
        """Forget all calls."""
        super().close()
        self._due.clear()
        self._timers.clear()


def _own(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T],
    *,
    context: Context | None = None,
    **options: Any,
) -> asyncio.Task[T]:
    task = asyncio.Task(coro, loop=loop, context=context, **options)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.add(task)
    return task


def run_simulation(main: Callable[[SimulationLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` on a new loop to its end. May not be called where an event loop runs already."""
    loop = SimulationLoop()
    everything = TaskList()

    async def owned() -> T:
        OWNER.set(everything)
        return await main(loop)

    try:
        return loop.run_until_complete(owned())
    finally:
        everything.cancel()
        # Three turns: what a cancellation schedules may schedule once more.
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(loop.stop)))
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class ProcessClock:
    """The clock of one process: the loop's time, off by ``skew_s``, drifting by ``drift_ppm``, and jumping when told to."""

    def __init__(self, loop: SimulationLoop, *, skew_s: float = 0.0, drift_ppm: float = 0.0) -> None:
        self._loop = loop
        self._skew_s = skew_s
        self._drift_ppm = drift_ppm

    def now_ms(self) -> int:
        """Unix time in milliseconds, as this process believes."""
        now = self._loop.now
        return EPOCH_S * 1000 + int((now + self._skew_s + now * self._drift_ppm / 1e6) * 1000)

    def monotonic_s(self) -> float:
        """Seconds since the beginning."""
        return self._loop.now

    def jump(self, seconds: float) -> None:
        """Set the Unix time forward or back."""
        self._skew_s += seconds

    async def sleep(self, seconds: float) -> None:
        """Wait for simulated seconds."""
        await asyncio.sleep(max(0.0, seconds))
