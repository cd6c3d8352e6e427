"""Submissions that wait for their turn: exits by deadline, then user traffic in order, within the window of unconfirmed ones."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from layer2._observe import TRANSFER_ID
from layer2.errors import AsyncRuntimeError
from layer2.evm._journal import TxRecord
from layer2.transactions import EvmCall

__all__ = ["Job", "JobQueue", "KeyLocks", "SubmitProgress", "request_digest"]

_NO_DEADLINE = 2**63


def request_digest(call: EvmCall) -> bytes:
    """What makes two submissions with one key the same: recipient, value and data (SHA-256)."""
    to = b"" if call.to is None else call.to.raw
    return hashlib.sha256(len(to).to_bytes(1) + to + call.value_wei.to_bytes(32) + call.data).digest()


@dataclass(slots=True, eq=False)
class SubmitProgress:
    """How far a submission came, for a caller whose wait ended before it did."""

    begun: bool = False
    """False: nothing of it was signed or journalled, and nothing will be."""
    looked: bool = False
    """Whether it was looked up what an earlier one with the same key has begun."""
    attached: bool = False
    """Whether it attached to an earlier one with the same key."""
    record: TxRecord | None = None
    """Known from when it is in the journal, which is before it is sent."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A submission on its way from the queue to a node."""

    call: EvmCall
    key: str
    digest: bytes
    gas_limit: int
    exit: bool
    not_after: int | None
    deadline: int | None
    max_tip_wei: int | None
    again: TxRecord | None
    """An abandoned record with the same key and request, whose place this takes."""
    nonce: int | None = None
    """The only one that it may have; None: the next free one."""
    progress: SubmitProgress
    transfer_id: str | None = field(default_factory=TRANSFER_ID.get)
    """For which transfer: other tasks than its own carry it out."""
    done: asyncio.Future[TxRecord]
    """Ends when a node has it, or with the error; cancelled with its caller."""

    async def turn(self, timeout_s: float) -> bool:
        """Wait until it is being made. False: that has not begun, and it is taken out of its line."""
        try:
            await asyncio.wait([self.done], timeout=timeout_s)
        except asyncio.CancelledError:
            self.done.cancel()
            raise
        if not self.done.done() and not self.progress.begun:
            self.done.cancel()
            return False
        return True

    def fail(self, error: BaseException) -> None:
        """Tell the caller, if it is still there."""
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self, record: TxRecord) -> None:
        """Tell the caller, if it is still there."""
        if not self.done.done():
            self.done.set_result(record)


class JobQueue:
    """Two lines. Putting and taking cost the same however many wait."""

    def __init__(self) -> None:
        self._users: deque[Job] = deque()
        self._exits: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._arrival = {False: asyncio.Event(), True: asyncio.Event()}

    def __len__(self) -> int:
        return len(self._users) + len(self._exits)

    def put(self, job: Job) -> None:
        """Line up."""
        if job.exit:
            deadline = _NO_DEADLINE if job.deadline is None else job.deadline
            heapq.heappush(self._exits, (deadline, next(self._order), job))
        else:
            self._users.append(job)
        self._arrival[job.exit].set()

    def nudge(self) -> None:
        """The window may have opened."""
        for event in self._arrival.values():
            event.set()

    def nudge_users(self) -> None:
        """No exit stands in their way any more."""
        self._arrival[False].set()

    @property
    def exits_wait(self) -> bool:
        """Whether an exit is in line."""
        return any(not job.done.done() for _, _, job in self._exits)

    async def arrival(self, *, exits: bool) -> None:
        """Wait until a job was put there, or a nudge."""
        event = self._arrival[exits]
        await event.wait()
        event.clear()

    def take(self, *, exits: bool) -> Job | None:
        """The next whose caller still waits; None if there is none."""
        while self._exits if exits else self._users:
            job = heapq.heappop(self._exits)[2] if exits else self._users.popleft()
            if not job.done.done():
                return job
        return None

    def fail_all(self) -> None:
        """The sender closes: nothing of this was sent."""
        for job in [*self._users, *(job for _, _, job in self._exits)]:
            job.fail(AsyncRuntimeError("it was closed before the transaction was sent", money_may_have_moved=False))
        self._users.clear()
        self._exits.clear()


class KeyLocks:
    """One submission at a time for each idempotency key. A key costs nothing once nobody holds it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def held(self, key: str) -> AsyncIterator[None]:
        """Wait for the key, and hold it."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)
