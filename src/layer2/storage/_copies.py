"""Puts a copy of a store in the place of the store, for ``layer2 restore``. SQLite only: a server has means of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from layer2.errors import ConfigurationError, StorageError, StoreInUse
from layer2.storage._copy_mac import check_mac, write_mac
from layer2.storage._session import Session
from layer2.storage._sqlite import LockFile, mark_as_copy, sync_folder

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.swaps import Role

__all__ = ["restore_copy"]

_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; with another file's, a database is destroyed."""


async def restore_copy(
    url: str, copy: Path, *, clock: Clock, key: bytes | None, role: Role | None = None, replace: bool = False
) -> Path | None:
    """Put ``copy`` in the place of the store at ``url``. It opens there with ``Store.open(..., adopt=True)`` only.

    Args:
        url: of a SQLite store.
        copy: what ``Store.backup`` wrote, or the file of a store whose process is gone. It is read, not moved.
        key: what ``copy_key`` gives: the copy must be authenticated under it. None: whatever is in the copy is believed, whoever
            put it there. It begins no payment and no lock, but it may lie about what it follows.
        role: whose store it must be, if its transfers show that; None: anybody's.
        clock: gives the name under which a store that is there is kept.
        replace: move a store that is there aside, instead of refusing.

    Returns:
        Where the store that was there is now; None if there was none.

    Raises:
        ConfigurationError: the URL cannot be read, or is that of a store in memory.
        StoreInUse: a process has the store, or the copy, open.
        UntrustedCopy: the copy is not what was authenticated under ``key``.
        StorageError: a store is there and ``replace`` is False; the copy is damaged, no store, or of the other role; on PostgreSQL.
    """
    stamp = datetime.fromtimestamp(clock.now_ms() // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    target = _file_of(url)
    try:
        return await asyncio.to_thread(_place, target, url, copy, stamp, replace, key, role)
    except OSError as exc:
        raise StorageError(f"{copy} could not be put at {target}: {exc.strerror or exc}", url=url) from exc
    except sqlite3.Error as exc:
        raise StorageError(f"{copy} cannot be read as a store: {exc}", url=url) from exc


def _file_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError("the store's URL cannot be read", hint="for example sqlite:////path/to/file") from exc
    if parsed.drivername.startswith("postgresql"):
        raise StorageError(
            "a store on PostgreSQL is restored with the server's own means",
            hint="restore the dump with pg_restore into an empty database, then run `layer2 restore --in-place`",
            url=parsed.render_as_string(hide_password=True),
        )
    if parsed.drivername != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("the store is no file that a copy could be put in the place of", key="store.url")
    return Path(str(parsed.database))


def _place(
    target: Path, url: str, copy: Path, stamp: str, replace: bool, key: bytes | None, role: Role | None
) -> Path | None:
    target, copy = target.absolute().resolve(), copy.absolute().resolve()
    if copy == target:
        raise StorageError(f"{copy} is the store itself", hint="name the copy", url=url)
    if not copy.is_file():
        raise StorageError(f"there is no file {copy}", url=url)
    _refuse_if_open(copy)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = LockFile(target.with_name(target.name + ".lock"), url)
    try:
        if target.exists() and not replace:
            raise StorageError(
                f"there is a store at {target}",
                hint="if it is of no use any more, add --replace: it is moved aside, not deleted",
                url=url,
            )
        fresh = target.with_name(f"{target.name}.restoring")
        try:
            _copy_checked(copy, fresh, url, key, role)
            aside = _move_aside(target, stamp)
            fresh.rename(target)
        finally:
            for path in _with_companions(fresh):
                path.unlink(missing_ok=True)
        sync_folder(target.parent)
        return aside
    finally:
        lock.release()


def _refuse_if_open(copy: Path) -> None:
    """Two live copies of one store lose money: the file must not be that of a store in use."""
    lock = copy.with_name(copy.name + ".lock")
    with suppress(FileNotFoundError):
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
            raise StoreInUse.by(holder or "another process", f"sqlite:///{copy}") from exc
        finally:
            os.close(fd)


def _copy_checked(copy: Path, fresh: Path, url: str, key: bytes | None, role: Role | None) -> None:
    for path in _with_companions(fresh):
        path.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with (
        closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(fresh)) as to,
    ):
        source.backup(to)
        verdict = [row[0] for row in to.execute("PRAGMA integrity_check(1)")]
        if verdict != ["ok"]:
            raise StorageError(f"{copy} is damaged: {verdict[0]}", hint="take an older copy", url=url)
        if key is not None:
            check_mac(to, key, copy, url)
        mark_as_copy(to, copy, url)
        write_mac(to, None)
    # Whether this version can open it is known before anything is moved.
    session = Session(f"sqlite:///{fresh}", read_only=False, adopt=True, role=role)
    try:
        session.open()
    finally:
        session.close()
        fresh.with_name(fresh.name + ".lock").unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh)) as to:
        mark_as_copy(to, copy, url)


def _move_aside(target: Path, stamp: str) -> Path | None:
    if not target.exists():
        # What a lost database left beside it would be taken for the new one's.
        for path in _with_companions(target)[1:]:
            path.unlink(missing_ok=True)
        return None
    aside, number = target.with_name(f"{target.name}.replaced-{stamp}"), 1
    while aside.exists():
        number += 1
        aside = target.with_name(f"{target.name}.replaced-{stamp}-{number}")
    # The database last: until it is moved, this can be done again.
    for old, new in reversed(list(zip(_with_companions(target), _with_companions(aside), strict=True))):
        with suppress(FileNotFoundError):
            old.rename(new)
    return aside


def _with_companions(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in _BESIDE)]
