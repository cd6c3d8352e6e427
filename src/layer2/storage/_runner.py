"""The store as the rest of the package sees it: ``await store.run(function, ...)`` is one transaction."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Self, TypeVar

from layer2._observe import log_event
from layer2.errors import AsyncRuntimeError, StoreInUse
from layer2.storage._meta import bind_chain
from layer2.storage._session import Session, StoreInfo

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Connection

    from layer2._clock import Clock
    from layer2.swaps import Role

__all__ = ["Store"]

P = ParamSpec("P")
T = TypeVar("T")
STANDBY_POLL_S: Final = 1.0
OWNER_LIMIT_S: Final = 2.0
"""For so long an exit waits to learn whether the store is still ours: a database that hangs must not keep it."""
_log: Final = logging.getLogger("layer2.storage")


class Store:
    """One open store. Transactions run one after the other, in the order in which ``run`` was called.

    In a thread of its own, or inline: then a transaction runs within the call, nothing else happens meanwhile, and a run is
    reproducible. ``clock`` is what the functions that are run here take their times from.
    """

    def __init__(self, session: Session, executor: ThreadPoolExecutor | None, info: StoreInfo, clock: Clock) -> None:
        self._session = session
        self._executor = executor
        self._closing: asyncio.Future[None] | None = None
        self._closed = False
        self._pid = os.getpid()
        self._lost: StoreInUse | None = None
        self._lost_event = asyncio.Event()
        self.info = info
        self.clock = clock

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock,
        read_only: bool = False,
        inline: bool = False,
        adopt: bool = False,
        role: Role | None = None,
        standby: bool = False,
    ) -> Self:
        """Open the store at ``url`` and bring it to this version's schema.

        Args:
            url: ``sqlite:///path``, ``sqlite://`` (in memory) or ``postgresql://user:password@host/database``.
            clock: the time for everything that is written.
            read_only: beside a running service: no lock, no migration, no write.
            inline: no thread.
            adopt: take over a copy of a store whose original is gone (``layer2 restore``).
            role: with ``adopt``: whose store it must be, if its transfers show that.
            standby: while another process has the store, wait until it gives it up or dies, instead of raising.

        Raises:
            ConfigurationError: not such a URL.
            StoreInUse: another process has it open for writing.
            StorageError: it cannot be opened, is not durable, is a copy, or was written by a newer version.
        """
        while True:
            try:
                return await cls._open(url, clock=clock, read_only=read_only, inline=inline, adopt=adopt, role=role)
            except StoreInUse:
                if not standby:
                    raise
            await clock.sleep(STANDBY_POLL_S)

    @classmethod
    async def _open(
        cls, url: str, *, clock: Clock, read_only: bool, inline: bool, adopt: bool, role: Role | None
    ) -> Self:
        session = Session(url, read_only=read_only, adopt=adopt, role=role)
        if inline:
            return cls(session, None, session.open(), clock)
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="layer2-store")
        try:
            info = await _in_thread(executor, session.open)
        except BaseException:
            # Also after a cancellation, when the thread may still be opening: closing queues up behind that.
            executor.submit(session.close)
            executor.shutdown(wait=False)
            raise
        return cls(session, executor, info, clock)

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``fn(connection, *args, **kwargs)`` in one transaction: committed once this returns, rolled back if ``fn`` raises.

        If the caller is cancelled, a transaction that has begun goes on to its end in the background, one that has not is
        dropped; the next ``run`` sees the outcome.

        Raises:
            AsyncRuntimeError: closed, or inherited through fork.
            StoreInUse: on PostgreSQL: another process took over while the connection was down.
            StorageError: the database failed.
        """
        return await self._noticed(lambda: self._session.run(fn, *args, **kwargs))

    async def still_ours(self, *, certain: bool = False) -> None:
        """Ask whether the store is still this process's, before something is done of which whoever takes it over has to know.

        Args:
            certain: it must be; else, as for an exit that has a deadline, nothing is raised where it cannot be found out in time.

        Raises:
            AsyncRuntimeError: closed, or inherited through fork.
            StoreInUse: another process took it over.
            StorageError: it should be certain, and the database does not answer.
        """
        if not self._session.can_be_lost:
            return
        ask = partial(self._session.still_ours, certain=certain)
        if certain:
            await self._noticed(ask)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(OWNER_LIMIT_S):
                await self._noticed(ask)

    async def until_lost(self) -> StoreInUse:
        """Wait until it shows that another process took the store over. Gives the error that says so."""
        await self._lost_event.wait()
        assert self._lost is not None
        return self._lost

    async def _noticed(self, work: Callable[[], T]) -> T:
        try:
            return await self._in_turn(work)
        except StoreInUse as error:
            self._lost = self._lost or error
            self._lost_event.set()
            raise

    async def bind_chain(self, chain_id: int, first_block: bytes) -> None:
        """Remember by its first block which chain of this id the store belongs to, and refuse another one from then on.

        A store in which nothing of any chain stands goes over to another.

        Args:
            chain_id: the chain's id, which a chain that is started anew has again.
            first_block: the hash of its block 0.

        Raises:
            ConfigurationError: what is stored belongs to another chain of that id.
        """
        await self.run(bind_chain, chain_id, first_block, self.info.url)

    async def backup(self, path: Path, *, key: bytes | None = None) -> None:
        """Copy the store as of the last commit to a new file, while it goes on being used, also beside a writer.

        The copy is taken for one: it opens with ``adopt=True`` only.

        Args:
            path: of the new file.
            key: what ``copy_key`` gives: the copy is authenticated under it, so that ``restore_copy`` knows it for unchanged.

        Raises:
            AsyncRuntimeError: closed, or inherited through fork.
            StorageError: the file is there already or cannot be written; the store is on PostgreSQL.
        """
        await self._in_turn(lambda: self._session.backup(path, key))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._pid != os.getpid():
            raise AsyncRuntimeError("the store was opened before a fork", hint="open it in the child process")
        if self._closed:
            raise AsyncRuntimeError("the store is closed")
        return work() if self._executor is None else await _in_thread(self._executor, work)

    async def close(self) -> None:
        """Let what was begun end, close the connection and give the lock up. Idempotent; of no effect after a fork."""
        if self._pid != os.getpid() or (self._closed and self._executor is None):
            return
        self._closed = True
        if self._executor is None:
            self._session.close()
            return
        executor, self._executor = self._executor, None
        closing = executor.submit(self._session.close)
        executor.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


async def _in_thread(executor: ThreadPoolExecutor, fn: Callable[[], T]) -> T:
    future = executor.submit(fn)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        # Nobody waits for the outcome any more, but a failed write must not pass in silence.
        future.add_done_callback(_log_failure)
        raise


def _log_failure(future: object) -> None:
    from concurrent.futures import Future

    assert isinstance(future, Future)
    if not future.cancelled() and (error := future.exception()) is not None:
        text = f"a transaction whose caller was cancelled failed: {type(error).__name__}"
        log_event(_log, logging.ERROR, "storage.failed_unobserved", text, exc_info=error)
