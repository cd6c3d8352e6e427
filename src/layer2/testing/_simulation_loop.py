"""An event loop whose time is made up: it stands still while anything can run and jumps to the next timer when nothing can.

No thread, no socket, no clock of the machine: what runs on it runs the same way every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

__all__ = ["EPOCH_S", "OWNER", "ProcessClock", "SimulationLoop", "TaskList", "run_simulation"]

T = TypeVar("T")

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


class _Selector:
    """Stands where an event loop asks the operating system: nothing ever happens there, but time passes."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation stands still: nothing can run and no timer is set")
        if timeout > 0:
            self._loop.now += timeout
        return []

    def close(self) -> None:
        """Nothing is open."""


class SimulationLoop(asyncio.BaseEventLoop):
    """See the module. ``now`` is the time in seconds since the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6
        # The stubs of some versions know no factory that is generic.
        factory: Any = _own
        self.set_task_factory(factory)

    def time(self) -> float:
        """Seconds since the beginning of the simulation."""
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing ever comes from outside."""

    def _write_to_self(self) -> None:
        """There is no other thread to wake the loop from."""


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
