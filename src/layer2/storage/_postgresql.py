"""PostgreSQL through psycopg 3: durability settings, the advisory lock, and what makes a database no copy."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from layer2.errors import StorageError, StoreInUse
from layer2.storage._host import process_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PostgresqlBackend"]

SILENCE_MS: Final = 25_000
"""How long the other end may leave what was sent to it unacknowledged. Keepalives see only to connections on which nothing is
sent: without this a statement to a server whose machine is gone would be repeated for a quarter of an hour."""

_SESSION: Final = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '30s'",
    "SET statement_timeout = '60s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    # A holder that vanished without a word must lose the lock soon, so that a standby can take over.
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    f"SET tcp_user_timeout = {SILENCE_MS}",
)


class PostgresqlBackend:
    """One database (or one schema of it), one connection, which holds the advisory lock as long as it lives."""

    def __init__(self, url: URL, *, read_only: bool) -> None:
        self.url = url.render_as_string(hide_password=True)
        self.read_only = read_only
        self._url = url.set(drivername="postgresql+psycopg")
        self._backend_pid = 0

    def prepare(self) -> None:
        """Nothing: the lock belongs to the connection, see ``begun``."""

    def make_engine(self) -> Engine:
        """An engine with this package's session settings."""
        engine = create_engine(
            self._url,
            poolclass=NullPool,
            hide_parameters=True,
            isolation_level="REPEATABLE READ" if self.read_only else "READ COMMITTED",
            connect_args={
                "application_name": f"layer2 {process_name()}"[:63],
                "connect_timeout": 10,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": SILENCE_MS,
            },
        )
        event.listen(engine, "connect", self._configure)
        return engine

    def _configure(self, connection: Any, _record: object) -> None:
        try:
            self._begin_session(connection)
        except BaseException:
            connection.close()
            raise

    def _begin_session(self, connection: Any) -> None:
        connection.autocommit = True
        for statement in _SESSION:
            connection.execute(statement)
        if self.read_only:
            connection.execute("SET default_transaction_read_only = on")
        else:
            self._lock(connection)
        self._backend_pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        connection.autocommit = False

    def _lock(self, connection: Any) -> None:
        schema = connection.execute("SELECT current_schema()").fetchone()[0]
        if schema is None:
            raise StorageError(
                f"no schema of the search path of {self.url} exists", hint="create the schema first", url=self.url
            )
        key = int.from_bytes(hashlib.sha256(b"layer2 store " + schema.encode()).digest()[:8], signed=True)
        if connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()[0]:
            return
        holder = connection.execute(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
            " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 1",
            ((key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF),
        ).fetchone()
        raise StoreInUse.by(holder[0] if holder and holder[0] else "another process", self.url)

    def durability(self, conn: Connection) -> Mapping[str, str]:
        """The settings on which durability rests, as the server reports them.

        Raises:
            StorageError: the server does not sync to disk.
        """
        found = {
            name: str(conn.exec_driver_sql(f"SHOW {name}").scalar_one())
            for name in ("fsync", "synchronous_commit", "full_page_writes", "server_version")
        }
        for name in ("fsync", "full_page_writes"):
            if found[name] != "on":
                raise StorageError(
                    f"the server of {self.url} runs with {name} = {found[name]}: it may lose what it confirmed",
                    hint=f"set {name} = on",
                    url=self.url,
                )
        return found

    def begun(self, conn: Connection) -> None:
        """Check that this transaction is on the very session that holds the lock.

        Raises:
            StorageError: a pooler in between gave it another.
        """
        if conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != self._backend_pid:
            raise StorageError(
                f"transactions on {self.url} run on changing server sessions",
                hint="connect to PostgreSQL directly: a pooler in transaction mode breaks the lock of the store",
                url=self.url,
            )

    def before_commit(self, conn: Connection) -> None:
        """Nothing: a PostgreSQL transaction that met an error refuses to commit by itself."""

    def after_failure(self, conn: Connection) -> None:
        """Nothing: PostgreSQL ends a transaction whose commit fails."""

    def backup(self, conn: Connection, path: Path, key: bytes | None) -> None:
        """Refuse: the server has better means.

        Raises:
            StorageError: always.
        """
        del conn, path, key  # only SQLite copies itself
        raise StorageError(
            f"the store {self.url} is on a server", hint="take the copy with pg_dump or a base backup", url=self.url
        )

    def check_foreign(self, conn: Connection) -> None:
        """Nothing: who restores a dump on the server is its administrator."""

    def fingerprint(self, conn: Connection) -> str:
        """What a restored dump does not share with its source: the cluster's system identifier and the database's oid.

        The host is not part of it: a standby process on another machine takes over the same database.
        """
        return str(
            conn.exec_driver_sql(
                "SELECT json_build_object('system', system_identifier::text, 'database', oid::text)::text"
                " FROM pg_control_system(), pg_database WHERE datname = current_database()"
            ).scalar_one()
        )

    def release(self) -> None:
        """Nothing: closing the connection gives the lock up."""
