"""The disk of a simulated process whose power fails: of the write that was under way, any sectors are there and any are not."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from layer2.storage import Store, SwapJournal
    from layer2.swaps import Role
    from layer2.testing._simulation_loop import ProcessClock

__all__ = ["SimulatedDisk"]

SECTOR: Final = 512
"""Bytes that a disk writes whole or not at all."""


class SimulatedDisk:
    """A real SQLite file for the store of one process. ``open`` it, tear it, ``close`` it."""

    def __init__(self, role: Role, clock: ProcessClock, rng: random.Random) -> None:
        self._role = role
        self._clock = clock
        self._rng = rng
        memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
        self._folder = tempfile.TemporaryDirectory(
            prefix="layer2-disk-", dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
        )
        self._file = Path(self._folder.name) / "store.sqlite3"
        self._log = self._file.with_name(self._file.name + "-wal")
        self._store: Store | None = None

    async def open(self) -> SwapJournal:
        """The journal on what the disk holds."""
        from layer2.storage import Store, SwapJournal

        self._store = await Store.open(f"sqlite:///{self._file}", clock=self._clock, inline=True)
        return SwapJournal(self._store, self._role)

    def written(self) -> bytes:
        """What the write-ahead log holds now: a transaction is durable once all that it adds to it is."""
        return self._log.read_bytes()

    async def power_cut(self, before: bytes) -> None:
        """Leave of all that was added to the log since ``before`` what a power cut leaves: some sectors, in no order, or all."""
        assert self._store is not None
        after, tables = self.written(), self._file.read_bytes()
        # Closing would write what the log holds into the tables: all of it is put back as it was.
        await self.close()
        torn = bytearray(after)
        kept = self._rng.choice((0.0, 0.5, 0.9, 1.0))
        for start in range(0, len(after), SECTOR):
            old = before[start : start + SECTOR].ljust(len(after[start : start + SECTOR]), b"\0")
            if self._rng.random() >= kept:
                torn[start : start + SECTOR] = old
        self._file.write_bytes(tables)
        self._log.write_bytes(torn)

    async def close(self) -> None:
        """Close the store. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def remove(self) -> None:
        """Close it and remove it."""
        await self.close()
        self._folder.cleanup()
