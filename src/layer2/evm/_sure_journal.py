"""A journal whose writes are certain: what seemed to fail is read back, at once or before anything else is written."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from layer2.errors import StorageError
from layer2.evm._journal import TxState
from layer2.evm._live import live_from
from layer2.evm._transactions import decode_transaction

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.evm._journal import TxJournal, TxRecord
    from layer2.evm._live import LivePool

__all__ = ["SureTxJournal"]


class SureTxJournal:
    """A journal that reads back what it was told had failed: an answer that was lost at the commit is no failure.

    Where the reading fails too, the record is in doubt. Until it could be read nothing new is written, and what ``pool`` has of it
    is then made what the journal says, as a restart would.
    """

    def __init__(self, journal: TxJournal, pool: LivePool, clock: Clock) -> None:
        self._journal = journal
        self._pool = pool
        self._clock = clock
        self._doubtful: set[str] = set()
        self._settling = asyncio.Lock()
        self.still_ours = journal.still_ours
        self.get = journal.get
        self.by_hash = journal.by_hash
        self.open_records = journal.open_records
        self.last_nonce = journal.last_nonce
        self.abandoned_records = journal.abandoned_records
        self.in_force = journal.in_force

    @property
    def in_doubt(self) -> bool:
        """Whether there is a write of which it is not known if it was made."""
        return bool(self._doubtful)

    async def settle(self) -> None:
        """Read what is in doubt.

        Raises:
            StorageError: it still cannot be read.
        """
        if not self._doubtful:
            return
        async with self._settling:
            for key in list(self._doubtful):
                record = await self._journal.get(key)
                self._doubtful.discard(key)
                self._take(key, record)

    async def put_new(self, record: TxRecord) -> None:
        """See ``TxJournal``."""
        await self._certain()
        try:
            await self._journal.put_new(record)
        except StorageError as error:
            if await self._read_back(record.key, error) != record:
                raise

    async def update(self, record: TxRecord, *, expected_version: int) -> TxRecord:
        """See ``TxJournal``."""
        await self._certain()
        try:
            return await self._journal.update(record, expected_version=expected_version)
        except StorageError as error:
            updated = replace(record, version=expected_version + 1)
            if await self._read_back(record.key, error) != updated:
                raise
            return updated

    async def _certain(self) -> None:
        if self._doubtful:
            await self.settle()
            # What was to be written was decided from before that.
            raise StorageError("a transaction was read again after its write was in doubt", retry_safe=True)

    async def _read_back(self, key: str, error: StorageError) -> TxRecord | None:
        # In doubt from here on, also if whoever waits for the answer is cancelled.
        self._doubtful.add(key)
        try:
            record = await self._journal.get(key)
        except StorageError as later:
            raise StorageError(
                f"whether the transaction {key!r} is in the journal is not known: {error}",
                hint="nothing new is sent from this account until the store can be read",
                money_may_have_moved=True,
                retry_safe=False,
            ) from later
        self._doubtful.discard(key)
        return record

    def _take(self, key: str, record: TxRecord | None) -> None:
        """Make what is known of a transaction what the journal says."""
        live = self._pool.by_key(key)
        if record is None:
            return
        if record.state is not TxState.OPEN:
            if live is not None and record.state is TxState.ABANDONED:
                self._pool.abandon(live, record)
            elif live is not None:
                self._pool.remove(live)
            return
        if live is None:
            live = live_from(record, now_s=self._clock.monotonic_s())
            live.maybe_taken = True
            self._pool.add(live)
        elif live.record.latest != record.latest:
            self._pool.reprice(live, record, decode_transaction(record.latest.raw).transaction)
        else:
            live.record = record
