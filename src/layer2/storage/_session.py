"""The synchronous core of the store: one connection, one transaction at a time, every failure a ``StorageError``."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from layer2.errors import ConfigurationError, Layer2Error, StorageError, StoreInUse
from layer2.storage._meta import claim_identity, owner
from layer2.storage._postgresql import PostgresqlBackend
from layer2.storage._schema import check_schema, migrate
from layer2.storage._sqlite import SqliteBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from layer2.swaps import Role

__all__ = ["Session", "StoreInfo"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """What ``health`` shows of a store."""

    url: str
    """Without the password."""
    read_only: bool
    instance_id: str | None
    """Of this store; a restored copy gets its own. None if opened to read only."""
    durability: Mapping[str, str] = field(default_factory=dict)
    """The database's settings on which durability rests, as it reports them."""


def make_backend(url: str, *, read_only: bool) -> SqliteBackend | PostgresqlBackend:
    """The back end for ``sqlite:///path``, ``sqlite://`` (memory), ``postgresql://…`` or ``postgresql+psycopg://…``.

    Raises:
        ConfigurationError: none of them.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError("the store's URL cannot be read", hint="for example sqlite:////path/to/file") from exc
    if parsed.drivername == "sqlite" and not parsed.query:
        return SqliteBackend(parsed, read_only=read_only)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return PostgresqlBackend(parsed, read_only=read_only)
    raise ConfigurationError(
        f"a store is sqlite:///path, sqlite:// or postgresql://..., not {parsed.drivername}", key="store.url"
    )


class Session:
    """Everything here runs on one thread: the runner's, or the caller's if inline."""

    def __init__(self, url: str, *, read_only: bool, adopt: bool, role: Role | None = None) -> None:
        self._backend = make_backend(url, read_only=read_only)
        self.url = self._backend.url
        self._read_only = read_only
        self._adopt = adopt
        self._role = role
        self._token = secrets.token_hex(16)
        self._engine: Engine | None = None
        self._conn: Connection | None = None
        self._taken_over = False
        self.can_be_lost = not read_only and isinstance(self._backend, PostgresqlBackend)
        """Whether another process can take the store over while this one lives: a file's lock lasts as long as its holder."""

    def open(self) -> StoreInfo:
        """Take the lock, connect, migrate and check.

        Raises:
            StoreInUse: another process has the store.
            StorageError: it cannot be opened, is not durable, is a copy, or is of a newer version.
        """
        try:
            with self._translated():
                return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> StoreInfo:
        self._backend.prepare()
        self._engine = self._backend.make_engine()
        self._conn = conn = self._engine.connect()
        instance = None
        with conn.begin():
            durability = self._backend.durability(conn)
            if self._read_only:
                check_schema(conn, self.url)
            else:
                if self._adopt:
                    self._backend.check_foreign(conn)
                migrate(conn, self.url)
                instance = claim_identity(
                    conn, self.url, self._backend.fingerprint(conn), self._token, adopt=self._adopt, role=self._role
                )
        return StoreInfo(url=self.url, read_only=self._read_only, instance_id=instance, durability=durability)

    def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """``fn(conn, …)`` in one transaction: committed if it returns, rolled back if it raises.

        Raises:
            StoreInUse: another process took the store over while the connection was down.
            StorageError: the database failed. If the commit itself failed, it may have happened: read before trying again.
        """
        with self._translated():
            conn, transaction = self._begin()
            try:
                with transaction:
                    result = fn(conn, *args, **kwargs)
                    self._backend.before_commit(conn)
            except BaseException:
                self._backend.after_failure(conn)
                raise
            return result

    def _begin(self) -> tuple[Connection, RootTransaction]:
        """A transaction in which nothing was done yet but the back end's check.

        That check also shows a connection which the server dropped meanwhile, and it is made anew: to ask for it by itself would
        double the time that a small transaction takes.
        """
        again = False
        while True:
            conn = self._held()
            try:
                transaction = conn.begin()
                self._backend.begun(conn)
            except BaseException as error:
                with suppress(SQLAlchemyError):
                    conn.rollback()
                if again or not isinstance(error, SQLAlchemyError) or not conn.invalidated:
                    self._backend.after_failure(conn)
                    raise
                again = True
            else:
                return conn, transaction

    def still_ours(self, *, certain: bool) -> None:
        """Raise if another process has taken the store over; ``certain``: also if that cannot be found out now.

        Raises:
            StoreInUse: it has.
            StorageError: the database does not answer, and it should be certain.
        """
        try:
            with self._translated():
                self._connection()
        except StoreInUse:
            raise
        except StorageError:
            if certain:
                raise

    def backup(self, path: Path, key: bytes | None) -> None:
        """Copy the store as of the last commit to ``path``. See ``Store.backup``."""
        with self._translated():
            self._backend.backup(self._connection(), path, key)

    def _connection(self) -> Connection:
        """The connection that holds the lock; a new one if the server dropped it and nobody took over since."""
        conn = self._held()
        if self._is_alive(conn):
            return conn
        conn.invalidate()
        return self._held()

    def _held(self) -> Connection:
        """The connection that holds the lock, as it was left; a new one if it is known to be broken and nobody took over since."""
        if self._taken_over:
            raise self._lost()
        if self._engine is None:
            raise StorageError(f"the store {self.url} is closed", url=self.url)
        conn = self._conn
        if conn is not None and not conn.invalidated:
            return conn
        if conn is not None:
            self._conn = None
            conn.close()
        conn = self._engine.connect()
        if not self._read_only:
            with conn.begin():
                current = owner(conn)
            if current != self._token:
                conn.close()
                self._taken_over = True
                raise self._lost()
        self._conn = conn
        return conn

    def _lost(self) -> StoreInUse:
        return StoreInUse.by("a process that took it over while the connection was down", self.url)

    def _is_alive(self, conn: Connection) -> bool:
        if isinstance(self._backend, SqliteBackend):
            return True
        try:
            with conn.begin():
                conn.exec_driver_sql("SELECT 1")
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Close the connection and give the lock up. Idempotent."""
        conn, self._conn = self._conn, None
        engine, self._engine = self._engine, None
        if conn is not None:
            # It may be broken, which is why it is closed: the engine and the lock must be given up all the same.
            with suppress(SQLAlchemyError):
                conn.close()
        if engine is not None:
            engine.dispose()
        self._backend.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Layer2Error:
            # Some of them are OSErrors too; they say already what they are.
            raise
        except SQLAlchemyError as exc:
            raise StorageError(f"the store {self.url} failed: {_reason(exc)}", url=self.url) from exc
        except OSError as exc:
            raise StorageError(f"the store {self.url} failed: {exc.strerror or exc}", url=self.url) from exc


def _reason(exc: SQLAlchemyError) -> str:
    """The database's own words, one line: what follows (statement, row) may hold values that do not belong in a log."""
    origin = getattr(exc, "orig", None)
    lines = str(origin or exc).splitlines()
    return lines[0] if lines else type(exc).__name__
