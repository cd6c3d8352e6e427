"""One network operation at a time and slot: concurrency limit, time limits, ``cancel``, and the rules of life.

Everything runs in the caller's own task, inside ``asyncio.timeout`` scopes: a limit, a ``cancel`` event and ``close_async``
all end a call by expiring its scope, so a cancellation of the task itself is never taken for one of them, and no task is
left behind.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

from layer2._metrics import Metrics
from layer2._observe import operation_context, span
from layer2.errors import AsyncRuntimeError, AsyncTimeout, ConfigurationError, TaskCancelled, ValidationError
from layer2.protocol import DEFAULT, Timeout

if TYPE_CHECKING:
    from layer2.transactions import TxId

__all__ = ["Operations", "leave_slot", "slot_again"]

T = TypeVar("T")
_Reason: TypeAlias = Literal["timeout", "cancel", "closed"]
_TxIdSource: TypeAlias = "TxId | Callable[[], TxId | None] | None"


class _Slot:
    """A slot as one task has it: left and taken again on the way."""

    __slots__ = ("owner", "taken", "task", "waiters")

    def __init__(self, owner: object, waiters: asyncio.Semaphore) -> None:
        self.owner = owner
        self.task = asyncio.current_task()
        self.waiters = waiters
        self.taken = False

    async def take(self) -> None:
        await self.waiters.acquire()
        self.taken = True

    def leave(self) -> None:
        if self.taken:
            self.taken = False
            self.waiters.release()


_held: Final[ContextVar[_Slot | None]] = ContextVar("layer2_slot", default=None)
"""The slot in which the code runs: a nested call in the same task shares it, or it would wait for itself."""


def _own_slot() -> _Slot | None:
    slot = _held.get()
    return slot if slot is not None and slot.task is asyncio.current_task() else None


def leave_slot() -> None:
    """Give back the slot in which this task runs, if it does: what follows awaits what others decide, for days perhaps."""
    if (slot := _own_slot()) is not None:
        slot.leave()


@asynccontextmanager
async def slot_again() -> AsyncIterator[None]:
    """The slot that ``leave_slot`` gave back, for one network operation; nothing where there was none."""
    slot = _own_slot()
    if slot is None or slot.taken:
        yield
        return
    await slot.take()
    try:
        yield
    finally:
        slot.leave()


class _Call:
    """The state of one ``run``: what it is, how far it came, and why it was ended from outside."""

    __slots__ = (
        "awaits",
        "keyed",
        "moves_money",
        "reason",
        "repeatable",
        "scope",
        "slot",
        "started",
        "task",
        "timeout",
        "transfer_id",
        "tx_id",
        "what",
    )

    def __init__(
        self,
        what: str,
        tx_id: _TxIdSource,
        transfer_id: str | None,
        timeout: Timeout,
        *,
        slot: bool,
        awaits: bool,
        moves_money: bool,
        repeatable: bool,
        keyed: bool,
    ) -> None:
        self.what = what
        self.slot = slot
        self.tx_id = tx_id
        self.transfer_id = transfer_id
        self.timeout = timeout
        self.awaits = awaits
        self.moves_money = moves_money
        self.repeatable = repeatable
        self.keyed = keyed
        self.started = False
        self.reason: _Reason = "timeout"
        self.scope: asyncio.Timeout | None = None
        self.task = asyncio.current_task()

    def interrupt(self, reason: _Reason) -> None:
        """End the call at its current await. The first reason counts."""
        if self.scope is not None and not self.scope.expired() and self.reason == "timeout":
            self.reason = reason
            self.scope.reschedule(asyncio.get_running_loop().time())

    def error(self, *, limit_s: float | None) -> AsyncTimeout | TaskCancelled | AsyncRuntimeError:
        """The error that the caller gets for being ended from outside."""
        tx_id = self.tx_id() if callable(self.tx_id) else self.tx_id
        # Of what was to be made under a key, an earlier call may have begun it: that was not looked up yet.
        moved = self.moves_money and (self.started or self.keyed)
        retry_safe = self.repeatable or not moved
        where = "" if moved or self.started or not self.slot else ": it waited for a slot, and nothing was sent"
        if self.reason == "cancel":
            goes_on = (True if tx_id is not None else None) if moved else False
            if self.awaits:
                goes_on = True
            return TaskCancelled(
                f"{self.what} was cancelled{where}",
                hint=f"{self.transfer_id or 'what it waits for'} goes on without this call" if self.awaits else None,
                tx_id=tx_id,
                transfer_id=self.transfer_id,
                goes_on=goes_on,
                money_may_have_moved=moved,
                retry_safe=retry_safe,
            )
        if self.reason == "closed":
            return AsyncRuntimeError(
                f"{self.what} was ended by close_async{where}", money_may_have_moved=moved, retry_safe=retry_safe
            )
        hint = None
        if moved:
            known = self.transfer_id or (None if tx_id is None else str(tx_id))
            hint = f"follow it up with its id{'' if known is None else f', {known}'}, or " + (
                "make the same call again: it goes on with what was begun"
                if retry_safe
                else "next time give an idempotency key: without one, asking again may spend twice"
            )
        return AsyncTimeout(
            f"{self.what} took longer than {limit_s:g} s{where}",
            hint=hint,
            tx_id=tx_id,
            transfer_id=self.transfer_id,
            money_may_have_moved=moved,
            retry_safe=retry_safe,
        )


class Operations:
    """Runs network operations for one manager and its protocols.

    ``max_concurrency`` slots serve user traffic, ``exit_slots`` serve claims, refunds, settles, cancels and re-sends only.
    It belongs to the event loop on which ``open`` was called and to this process.
    """

    def __init__(
        self,
        *,
        max_concurrency: int = 64,
        default_timeout_ms: int = 30_000,
        exit_slots: int = 16,
        metrics: Metrics | None = None,
        owner: str = "the client",
    ) -> None:
        self._owner = owner
        for key, number in (
            ("max_concurrency", max_concurrency),
            ("default_timeout_ms", default_timeout_ms),
            ("exit_slots", exit_slots),
        ):
            if number < 1:
                raise ConfigurationError(f"{key} must be at least 1, not {number}", key=key)
        self.max_concurrency = max_concurrency
        self.default_timeout_s = default_timeout_ms / 1000
        self._metrics = metrics or Metrics()
        self._user = asyncio.Semaphore(max_concurrency)
        self._exits = asyncio.Semaphore(exit_slots)
        self._calls: set[_Call] = set()
        self._left = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._closed = False

    def open(self) -> None:
        """Bind to the running event loop and this process. Idempotent there.

        Raises:
            AsyncRuntimeError: closed, bound to another loop, or inherited through fork.
        """
        if self._loop is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._pid = os.getpid()
        self.check("open")

    @property
    def is_open(self) -> bool:
        """Whether operations may run."""
        return self._loop is not None and not self._closed

    @property
    def running(self) -> int:
        """Calls that were begun and have not returned, queueing ones included."""
        return len(self._calls)

    @property
    def queued(self) -> int:
        """Calls that wait for a slot."""
        return sum(not call.started for call in self._calls)

    def check(self, what: str) -> None:
        """Refuse use before ``open``, after ``close_async``, from another event loop and after fork.

        Raises:
            AsyncRuntimeError: one of these.
        """
        if self._closed:
            raise AsyncRuntimeError(f"{what}: {self._owner} is closed", hint="make a new one", retry_safe=False)
        if self._loop is None:
            raise AsyncRuntimeError(
                f"{what}: {self._owner} is not initialised",
                hint="await initialize_all_async() of its manager first, or initialize_async() of a layer of its own",
            )
        self.check_place(what)

    def check_place(self, what: str) -> None:
        """Refuse use from another event loop and after fork, closed or not; before ``open`` every place is right.

        Raises:
            AsyncRuntimeError: one of these.
        """
        if self._loop is None:
            return
        if os.getpid() != self._pid:
            raise AsyncRuntimeError(
                f"{what}: {self._owner} was made in process {self._pid} and inherited through fork",
                hint="make a new one after the fork; connections and keys in flight cannot be shared",
            )
        if asyncio.get_running_loop() is not self._loop:
            raise AsyncRuntimeError(
                f"{what}: {self._owner} belongs to another event loop",
                hint="use it where it was initialised, or use Layer2ManagerSync from threads",
            )

    async def run(
        self,
        factory: Callable[[], Awaitable[T]],
        *,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
        what: str,
        name: str | None = None,
        tx_id: _TxIdSource = None,
        transfer_id: str | None = None,
        exit: bool = False,
        slot: bool = True,
        awaits: bool = False,
        moves_money: bool = True,
        repeatable: bool = False,
        keyed: bool = False,
    ) -> T:
        """Await ``factory()`` in a slot, within its limits, in the calling task.

        Args:
            factory: makes the awaitable once the slot is there; not called at all if the call ends earlier.
            timeout: seconds for everything, queueing included; ``DEFAULT``: the default limit, from the slot on, and none
                without a slot; ``None``: none.
            cancel: ends the call when set.
            what: names the operation in errors.
            name: names it in metrics and spans, where few names may stand; None: ``what`` is always the same text.
            tx_id: the id for following up, or a function that tells it once it is known.
            transfer_id: put into errors.
            exit: takes a slot that user traffic cannot.
            slot: False for what only awaits other operations.
            awaits: it only waits for what goes on without it.
            moves_money: False for reads, whose errors then say that a retry is safe.
            repeatable: making the same call again cannot spend twice, whatever became of this one.
            keyed: an earlier call under the same idempotency key may have begun it.

        Raises:
            AsyncTimeout: the limit passed.
            TaskCancelled: ``cancel`` was set. ``goes_on`` is False if nothing was begun, True if an id exists or it only
                waited, else None.
            AsyncRuntimeError: not open, closed (also while it ran), another loop, after fork.
            ValidationError: ``timeout`` is no number of seconds >= 0, or ``cancel`` no event of asyncio.
        """
        self.check(what)
        _check_cancel(cancel)
        call = _Call(
            what,
            tx_id,
            transfer_id,
            check_timeout(timeout),
            slot=slot,
            awaits=awaits,
            moves_money=moves_money,
            repeatable=repeatable,
            keyed=keyed,
        )
        if cancel is not None and cancel.is_set():
            call.reason = "cancel"
            raise call.error(limit_s=None)
        self._calls.add(call)
        shown = (name or what).replace(" ", "_").replace("'", "")
        try:
            known = None if callable(tx_id) else tx_id
            with self._metrics.operation(shown), operation_context(transfer_id=transfer_id, tx_id=known), span(shown):
                if cancel is None:
                    return await self._scoped(call, factory, exits=exit, slot=slot)
                return await self._watched(call, cancel, factory, exits=exit, slot=slot)
        finally:
            self._calls.discard(call)
            self._left.set()

    async def wait_for_task(
        self, what: str, begin: Callable[[], asyncio.Task[T]], *, timeout: Timeout, cancel: asyncio.Event | None
    ) -> T:
        """Wait for a task that goes on whoever stops waiting for it; also when nothing else runs any more. No limit by default.

        Raises:
            ValidationError: as by ``run``; nothing was begun. AsyncTimeout, TaskCancelled: as by ``run``; it goes on.
        """
        _check_cancel(cancel)
        limit = None if timeout is DEFAULT else check_timeout(timeout)
        call = _Call(what, None, None, limit, slot=False, awaits=True, moves_money=False, repeatable=True, keyed=False)
        waiting = partial(asyncio.shield, begin())
        if cancel is None:
            return await self._scoped(call, waiting, exits=False, slot=False)
        if cancel.is_set():
            call.reason = "cancel"
            raise call.error(limit_s=None)
        return await self._watched(call, cancel, waiting, exits=False, slot=False)

    async def ask(self, what: str, question: Callable[[], Awaitable[T]]) -> T:
        """``run`` for one network operation that moves nothing, where a call consists of several: each has its slot and limit."""
        return await self.run(question, what=what, moves_money=False)

    async def _watched(
        self,
        call: _Call,
        cancel: asyncio.Event,
        factory: Callable[[], Awaitable[T]],
        *,
        exits: bool,
        slot: bool,
    ) -> T:
        async def watch() -> None:
            await cancel.wait()
            call.interrupt("cancel")

        watcher = asyncio.create_task(watch())
        try:
            return await self._scoped(call, factory, exits=exits, slot=slot)
        finally:
            watcher.cancel()
            await asyncio.wait({watcher})

    async def _scoped(
        self,
        call: _Call,
        factory: Callable[[], Awaitable[T]],
        *,
        exits: bool,
        slot: bool,
    ) -> T:
        from_slot = call.timeout is DEFAULT and slot
        limit_s = call.timeout
        if limit_s is DEFAULT:
            limit_s = self.default_timeout_s if slot else None
        try:
            async with AsyncExitStack() as stack:
                call.scope = await stack.enter_async_context(asyncio.timeout(None if from_slot else limit_s))
                if slot:
                    await self._take_slot(stack, exits=exits)
                if from_slot:
                    self._start_limit(call)
                call.started = True
                return await factory()
        except TimeoutError as error:
            # The scope makes a TimeoutError of its own cancellation only; one that the operation raised stays as it is.
            if call.scope is not None and call.scope.expired() and isinstance(error.__cause__, asyncio.CancelledError):
                raise call.error(limit_s=limit_s) from error
            raise
        finally:
            call.scope = None

    def _start_limit(self, call: _Call) -> None:
        scope = call.scope
        if scope is not None and not scope.expired() and call.reason == "timeout":
            scope.reschedule(asyncio.get_running_loop().time() + self.default_timeout_s)

    async def _take_slot(self, stack: AsyncExitStack, *, exits: bool) -> None:
        held = _own_slot()
        if held is not None and held.owner is self and held.taken and not exits:
            return
        slot = _Slot(self, self._exits if exits else self._user)
        await slot.take()
        stack.callback(slot.leave)
        token = _held.set(slot)
        stack.callback(_held.reset, token)

    async def close_async(self, *, grace_s: float = 5.0, besides: asyncio.Task[object] | None = None) -> None:
        """Take no more operations, give those that run ``grace_s`` seconds to end, then end them. Idempotent, bounded.

        Those of the task ``besides``, which waits for this, are left alone, as the current one's are. What is ended this way raises
        ``AsyncRuntimeError`` at its caller, and says whether money may have moved.
        """
        self._closed = True
        if self._loop is not asyncio.get_running_loop() or os.getpid() != self._pid:
            return
        waiting = {asyncio.current_task(), besides}

        def others() -> list[_Call]:
            return [call for call in self._calls if call.task not in waiting]

        for call in others():
            if not call.started:
                call.interrupt("closed")
        if await self._wait_idle(others, grace_s):
            return
        for call in others():
            call.interrupt("closed")
        await self._wait_idle(others, grace_s)

    async def _wait_idle(self, others: Callable[[], list[_Call]], limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while others():
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True


def _check_cancel(cancel: object) -> None:
    """Refuse what cannot be awaited: ``threading.Event.wait`` would stop the whole event loop, for ever."""
    if cancel is not None and not inspect.iscoroutinefunction(getattr(cancel, "wait", None)):
        raise ValidationError(
            f"cancel is an asyncio.Event, not {type(cancel).__module__}.{type(cancel).__name__}",
            field="cancel",
            hint="a threading.Event is for the _sync calls; here, set an asyncio.Event by loop.call_soon_threadsafe",
        )


def check_timeout(timeout: object) -> Timeout:
    """Give ``timeout`` back if it is ``DEFAULT``, ``None`` or a number of seconds >= 0.

    Raises:
        ValidationError: it is not.
    """
    if timeout is None or timeout is DEFAULT:
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout) or timeout < 0:
        raise ValidationError(
            f"timeout must be a number of seconds >= 0, None or DEFAULT, not {timeout!r:.40}", field="timeout"
        )
    return None if math.isinf(timeout) else timeout
