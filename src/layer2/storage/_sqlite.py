"""SQLite: durability settings, file modes, the lock file and what makes a file this file and no copy."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from layer2.errors import StorageError, StoreInUse
from layer2.storage._copy_mac import write_mac
from layer2.storage._host import host_id, process_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LockFile", "SqliteBackend", "mark_as_copy", "sync_folder"]

BUSY_TIMEOUT_MS: Final = 30_000
_SYNCHRONOUS_FULL: Final = 2


class SqliteBackend:
    """One SQLite file (or memory), one connection."""

    def __init__(self, url: URL, *, read_only: bool) -> None:
        name = url.database or ":memory:"
        self.url = url.render_as_string(hide_password=True)
        self.read_only = read_only
        self.path = None if name == ":memory:" else Path(name)
        self._lock: LockFile | None = None

    def prepare(self) -> None:
        """Take the lock and make the file with the right modes, unless it is only to be read.

        Raises:
            StoreInUse: another process has the lock.
            StorageError: the file cannot be made, or is not there to be read.
        """
        if self.path is None:
            return
        # Two names of one file must meet at one lock.
        self.path = self.path.absolute().resolve()
        if self.read_only:
            if not self.path.is_file():
                raise StorageError(f"there is no store at {self.path}", url=self.url)
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = LockFile(self.path.with_name(self.path.name + ".lock"), self.url)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)

    def make_engine(self) -> Engine:
        """An engine whose transactions take the write lock at once (or none, if read-only)."""
        mode = "ro" if self.read_only else "rw"
        target = ":memory:" if self.path is None else f"{self.path.as_uri()}?mode={mode}"
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(
                target, uri=self.path is not None, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None
            ),
            poolclass=NullPool,
            hide_parameters=True,
        )
        begin = "BEGIN" if self.read_only else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda conn: self._begin(conn, begin))
        event.listen(engine, "connect", self._configure)
        return engine

    def _begin(self, conn: Connection, statement: str) -> None:
        # By the driver itself: it happens so often that what SQLAlchemy adds to a statement counts.
        raw = conn.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        try:
            raw.execute(statement)
        except sqlite3.Error as exc:
            raise StorageError(f"the store {self.url} failed: {exc}", url=self.url) from exc

    def _configure(self, connection: Any, _record: object) -> None:
        if not self.read_only:
            connection.execute("PRAGMA journal_mode = WAL")
        for pragma in ("synchronous = FULL", "fullfsync = ON", "foreign_keys = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")

    def durability(self, conn: Connection) -> Mapping[str, str]:
        """The settings on which durability rests, as SQLite reports them.

        Raises:
            StorageError: one of them is not what it must be.
        """
        found = {
            name: str(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        wanted = {
            "journal_mode": "memory" if self.path is None else "wal",
            "synchronous": str(_SYNCHRONOUS_FULL),
            "foreign_keys": "1",
        }
        for name, value in wanted.items():
            if found[name] != value and not (self.read_only and name == "journal_mode"):
                raise StorageError(
                    f"the store {self.url} does not accept {name} = {value}: it stays {found[name]}",
                    hint="put the store on a local file system",
                    url=self.url,
                )
        return found

    def check_foreign(self, conn: Connection) -> None:
        """Refuse a file that does more than hold tables, before it is taken over: others may have written it.

        Raises:
            StorageError: it has triggers or views, which no store has.
        """
        query = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view') LIMIT 1"
        if conn.exec_driver_sql(query).first() is not None:
            raise StorageError(f"{self.url} is no store of layer2: it holds triggers or views", url=self.url)

    def begun(self, conn: Connection) -> None:
        """Nothing to check: the file is this process's own."""

    def before_commit(self, conn: Connection) -> None:
        """Refuse to go on if SQLite has already rolled the transaction back by itself.

        It does so on some errors (disk full, I/O). Were the error caught on the way, what came after it would have been committed
        statement by statement, and ``COMMIT`` would say nothing.

        Raises:
            StorageError: it has.
        """
        raw = conn.connection.driver_connection
        if not (isinstance(raw, sqlite3.Connection) and raw.in_transaction):
            raise StorageError(f"the store {self.url} rolled a transaction back by itself", url=self.url)

    def after_failure(self, conn: Connection) -> None:
        """End a transaction that is still open, as SQLite leaves it when ``COMMIT`` itself fails.

        Were it left so, the next transaction could not begin. SQLAlchemy holds it for ended.
        """
        raw = conn.connection.driver_connection
        if isinstance(raw, sqlite3.Connection) and raw.in_transaction:
            # If even this fails, the next BEGIN says so; the failure that led here must not be hidden.
            with suppress(sqlite3.Error):
                raw.rollback()

    def backup(self, conn: Connection, path: Path, key: bytes | None) -> None:
        """Copy the store as of the last commit to a new file that only the owner can read, with a MAC if there is a key.

        Raises:
            StorageError: the file is there already, or cannot be written; what was begun is removed.
        """
        raw = conn.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError as exc:
            raise StorageError(f"{path} is there already", hint="name a new file", url=self.url) from exc
        try:
            with closing(sqlite3.connect(path)) as target:
                raw.backup(target)
                mark_as_copy(target, path, self.url)
                write_mac(target, key)
            sync_folder(path.parent)
        except StorageError:
            path.unlink(missing_ok=True)
            raise
        except (sqlite3.Error, OSError) as exc:
            path.unlink(missing_ok=True)
            raise StorageError(f"the store {self.url} could not be copied to {path}: {exc}", url=self.url) from exc

    def fingerprint(self, conn: Connection) -> str:
        """What a copy of this file does not share with it: host, path and inode."""
        del conn  # the file tells, not the database
        if self.path is None:
            return "memory"
        return json.dumps({"host": host_id(), "path": str(self.path), "inode": self.path.stat().st_ino})

    def release(self) -> None:
        """Give the lock up."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def mark_as_copy(database: sqlite3.Connection, path: Path, url: str) -> None:
    """Make a database open with ``adopt=True`` only, wherever it is put: a file can get the name and inode of another one.

    Raises:
        StorageError: it is no store.
    """
    database.execute("PRAGMA journal_mode = DELETE").fetchall()
    database.execute("PRAGMA synchronous = FULL")
    try:
        changed = database.execute("UPDATE meta SET value = 'a copy' WHERE key = 'fingerprint'").rowcount
        database.commit()
    except sqlite3.OperationalError as exc:
        raise StorageError(f"{path} is no store of layer2: {exc}", url=url) from exc
    if changed != 1:
        raise StorageError(f"{path} is no store of layer2: it does not say whose it is", url=url)


def sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_held: Final[weakref.WeakSet[LockFile]] = weakref.WeakSet()


class LockFile:
    """``flock`` on a file beside the store; its text names the holder. The file stays: removing it would race."""

    def __init__(self, path: Path, url: str) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise StoreInUse.by(holder or "another process", url) from exc
        except OSError:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{process_name()}\n".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give it up. Idempotent.

        Unlocked by name: a child that was just forked holds a copy of the descriptor until it has run its first
        instructions, and closing ours would leave the lock with it for that long.
        """
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, 0)
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            finally:
                self.forget()

    def forget(self) -> None:
        """Close the descriptor without touching the text."""
        fd, self._fd = self._fd, -1
        _held.discard(self)
        os.close(fd)


def _forget_in_child() -> None:
    """A forked child shares the parent's lock and would hold it on after the parent's death."""
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)
