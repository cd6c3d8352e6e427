"""An event loop with real sockets and made-up time: it jumps to the next timer when nothing can run and nothing has arrived.

What would run in a thread runs within the call, so that time never passes while it works. Servers, clients and their time limits
are the real ones; a minute of waiting costs what is done in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

EPOCH_MS = 1_750_000_000_000


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # another class on each system
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("nothing can run, nothing arrives, and no timer is set")
        self._loop.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``now`` is the time in seconds since it was made."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.wrap_future(_at_once(None, func, *args), loop=self)


class LoopClock:
    """The ``Clock`` of a ``VirtualTimeLoop``."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.now * 1000)

    def monotonic_s(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _at_once(_executor: object, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(func(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - as an executor does
        done.set_exception(error)
    return done


def run_in_virtual_time(main: Callable[[LoopClock], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` to its end on a loop of its own. May not be called where one runs."""
    with (
        patch.object(ThreadPoolExecutor, "submit", _at_once),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return runner.run(main(LoopClock(loop)))
