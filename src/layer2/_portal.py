"""One event loop in a thread of its own, and calls into it from threads that have none."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread
import inspect
import os
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import cache
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from layer2.errors import AsyncRuntimeError, Layer2Error, ValidationError

__all__ = ["Portal", "SyncIterator", "close_at_exit"]

T = TypeVar("T")

_ASYNC_CALL = re.compile(r"\b(?:await )?(\w+)_async\b")
CANCEL_POLL_S = 0.02
"""How often a waiting call looks at its ``threading.Event``, which cannot call back."""


class Portal:
    """Runs coroutines of one manager. Every call blocks the calling thread only."""

    def __init__(self, name: str = "layer2-portal") -> None:
        self._stack = ExitStack()
        portal = self._stack.enter_context(start_blocking_portal("asyncio", name=name))
        self._stop = portal.stop
        self._loop = portal.call(_running_loop)
        self._thread_id = portal.call(threading.get_ident)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._closed or os.getpid() != self._pid

    @property
    def ended(self) -> bool:
        """Whether ``close`` was called, here and not in the process that this one was forked from."""
        return self._closed and os.getpid() == self._pid

    def call(
        self,
        make: Callable[[asyncio.Event | None], Awaitable[T]],
        *,
        what: str,
        cancel: threading.Event | None = None,
    ) -> T:
        """Await what ``make`` gives, on the portal's loop, and return its result or raise its error here.

        ``make`` gets the event that stands for ``cancel``. Ctrl-C cancels the task that waits; what the task had set going
        for good goes on.

        Raises:
            AsyncRuntimeError: called on the portal's own thread, after close, or after fork; or closed while it ran.
            ValidationError: ``cancel`` is no event of threads.
        """
        self.check(what)
        _check_cancel(cancel)
        event = None if cancel is None else asyncio.Event()
        if event is not None and cancel is not None and cancel.is_set():
            event.set()

        async def run() -> T:
            return await make(event)

        coroutine = run()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as error:
            coroutine.close()
            raise AsyncRuntimeError(f"{what}: the manager is closed", hint="make a new one") from error
        try:
            if cancel is not None and event is not None:
                while not future.done() and not cancel.is_set():
                    concurrent.futures.wait([future], timeout=CANCEL_POLL_S)
                if not future.done():
                    self._loop.call_soon_threadsafe(event.set)
            return future.result()
        except Layer2Error as error:
            _name_twins(error)
            raise
        except concurrent.futures.CancelledError as error:
            raise AsyncRuntimeError(f"{what}: the manager was closed meanwhile", money_may_have_moved=True) from error
        finally:
            future.cancel()

    def call_plain(self, function: Callable[[], T], *, what: str) -> T:
        """The result of a plain function that runs on the portal's loop."""

        async def run(_: asyncio.Event | None) -> T:
            return function()

        return self.call(run, what=what)

    def iterate(
        self, make: Callable[[], AsyncIterator[Any]], *, what: str, convert: Callable[[Any], Any] | None = None
    ) -> SyncIterator[Any]:
        """A plain iterator over what ``make`` gives, each item as ``convert`` makes it."""
        return SyncIterator(self, self.call_plain(make, what=what), what, convert)

    def check(self, what: str) -> None:
        """Refuse where a call could only hang.

        Raises:
            AsyncRuntimeError: on the portal's own thread, after close, after fork.
        """
        if os.getpid() != self._pid:
            raise AsyncRuntimeError(
                f"{what}: the manager was made in process {self._pid} and inherited through fork",
                hint="make a new one after the fork",
            )
        self.check_thread(what)
        if self._closed:
            raise AsyncRuntimeError(f"{what}: the manager is closed", hint="make a new one")

    def check_thread(self, what: str) -> None:
        """Refuse the portal's own thread.

        Raises:
            AsyncRuntimeError: this is it.
        """
        if threading.get_ident() == self._thread_id and not self._closed:
            raise AsyncRuntimeError(
                f"{what}: it would wait for itself, because it is called on the thread that does the work",
                hint="callbacks of the manager run there; hand the work to another thread, or use the async API",
            )

    def discard(self, iterator: AsyncIterator[Any]) -> None:
        """Close an iterator without waiting for it: for finalizers, which may run on any thread."""
        aclose = getattr(iterator, "aclose", None)
        if aclose is None or self.closed:
            return
        # The loop may have ended since, and with it the iterator.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_spawn, aclose)

    def close(self) -> None:
        """End the loop and its thread. Idempotent; calls that still wait raise ``AsyncRuntimeError``."""
        if os.getpid() != self._pid:
            return
        if not self._closed:
            self.check("close")
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stack.close()

    def abandon(self) -> None:
        """Let the thread end without waiting for it: for finalizers, which may run on any thread, this one's included."""
        if self.closed:
            return
        self._closed = True
        # The loop may have ended by itself: then there is nothing to stop.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_spawn, self._stop)


def _check_cancel(cancel: object) -> None:
    """Refuse what no thread can set: an ``asyncio.Event`` that another thread sets wakes nobody."""
    if cancel is None:
        return
    if not callable(getattr(cancel, "is_set", None)) or inspect.iscoroutinefunction(getattr(cancel, "wait", None)):
        raise ValidationError(
            f"cancel is a threading.Event, not {type(cancel).__module__}.{type(cancel).__name__}",
            field="cancel",
            hint="an asyncio.Event is for the _async calls",
        )


def _name_twins(error: Layer2Error) -> None:
    """Let an error name the calls that its reader has."""
    error.message = _ASYNC_CALL.sub(r"\1_sync", error.message)
    error.args = (error.message,)
    if error.hint is not None:
        error.hint = _ASYNC_CALL.sub(r"\1_sync", error.hint)


class SyncIterator(Generic[T]):
    """Iterates an async iterator from a thread. ``close`` (or ``with``) ends it early."""

    def __init__(
        self, portal: Portal, iterator: AsyncIterator[Any], what: str, convert: Callable[[Any], T] | None = None
    ) -> None:
        self._portal = portal
        self._convert = convert
        self._iterator = iterator
        self._what = what
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        found = self._portal.call(self._step, what=self._what)
        if not found:
            self._ended = True
            raise StopIteration
        item: T = found[0] if self._convert is None else self._convert(found[0])
        return item

    async def _step(self, _: asyncio.Event | None) -> list[Any]:
        try:
            return [await anext(self._iterator)]
        except StopAsyncIteration:
            return []

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if not self._ended:
            self._ended = True
            self._portal.discard(self._iterator)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Closable(Protocol):
    """What ``close_at_exit`` takes."""

    def close_sync(self) -> None:
        """Close it, in bounded time."""
        ...


_open: weakref.WeakSet[Any] = weakref.WeakSet()


def close_at_exit(item: Closable) -> None:
    """Close ``item`` when the interpreter ends, if it still exists and nobody did before."""
    _open.add(item)
    _hook_once()


@cache
def _hook_once() -> None:
    # atexit runs after the thread pools were shut down, on which closing depends; this hook runs before.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_close_all)


def _close_all() -> None:
    for item in list(_open):
        # The interpreter ends: nobody can be told any more, and the others must be closed too.
        with suppress(Exception):
            item.close_sync()


async def _running_loop() -> asyncio.AbstractEventLoop:
    # Leaves a worker of the loop's pool behind: closing at the interpreter's end may need one, and can start none any more.
    await asyncio.to_thread(int)
    return asyncio.get_running_loop()


_spawned: set[asyncio.Task[None]] = set()


def _spawn(aclose: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        # A step that still waits makes aclose fail; that step ends with the loop.
        with suppress(RuntimeError):
            await aclose()

    task = asyncio.get_running_loop().create_task(run())
    _spawned.add(task)
    task.add_done_callback(_spawned.discard)
