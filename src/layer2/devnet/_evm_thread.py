"""The one thread of the embedded EVM: a few of the calls that wait are answered at each change to it and back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeVar

from layer2.errors import AsyncRuntimeError

__all__ = ["EvmThread"]

T = TypeVar("T")

ANSWERED_TOGETHER: Final = 8
"""To change threads costs as much as a call; an answer that is there must not wait for many others."""


@dataclass(slots=True)
class _Job:
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
            self.error = error


class EvmThread:
    """Runs functions one after the other, in the order in which they were asked for, by any event loops."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "layer2-evm")
        self._change = Lock()
        self._waiting: deque[_Job] = deque()
        self._working = False
        self._closed = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` in the thread. One that has not begun when its caller is cancelled is left out."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._change:
            if self._closed:
                raise AsyncRuntimeError("the embedded EVM is closed", hint="start it again")
            self._waiting.append(_Job(loop, answer, function, arguments))
            idle, self._working = not self._working, True
        if idle:
            # Not by way of the loop: if that stands still, others must be answered all the same. What was closed in between has
            # cancelled the answer.
            with suppress(RuntimeError):
                self._executor.submit(self._work)
        return await answer

    def close(self) -> None:
        """End the thread after what it does now, and cancel what waits."""
        with self._change:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            _tell(job.loop, job.answer.cancel)
        self._executor.shutdown(wait=False)

    def _work(self) -> None:
        while jobs := self._next():
            for job in jobs:
                job.run()
            for loop in dict.fromkeys(job.loop for job in jobs):
                _tell(loop, _answer, [job for job in jobs if job.loop is loop])

    def _next(self) -> list[_Job]:
        with self._change:
            jobs: list[_Job] = []
            while self._waiting and len(jobs) < ANSWERED_TOGETHER:
                job = self._waiting.popleft()
                if not job.answer.cancelled():
                    jobs.append(job)
            self._working = bool(jobs)
            return jobs


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    # A loop that was closed meanwhile has nobody left who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.answer.done():
            continue
        if job.error is None:
            job.answer.set_result(job.result)
        else:
            job.answer.set_exception(job.error)
