"""Bring a database to the schema of this version, and refuse those that are not ours or too new."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, column, inspect, select, table

from layer2.errors import StorageError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

__all__ = ["VERSION_TABLE", "check_schema", "migrate"]

VERSION_TABLE: Final = "layer2_schema"
_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_alembic: Final = threading.Lock()
"""Alembic keeps the running migration in module globals."""


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_MIGRATIONS), version_locations=[str(_MIGRATIONS)])


def _revision(conn: Connection, url: str) -> str | None:
    """The schema revision that the database has; None if it is empty."""
    names = set(inspect(conn).get_table_names())
    if VERSION_TABLE not in names:
        if names:
            raise StorageError(
                f"the database {url} holds tables of something else",
                hint="give layer2 a database of its own, or a schema of its own on PostgreSQL",
                url=url,
            )
        return None
    found: str = conn.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar_one()
    if found not in {script.revision for script in _scripts().walk_revisions()}:
        raise StorageError(
            f"the store {url} was written by a newer version of layer2 (schema {found})",
            hint="install that version or a later one; nothing was changed",
            url=url,
        )
    return found


def check_schema(conn: Connection, url: str) -> None:
    """Refuse a database whose schema is not exactly this version's.

    Raises:
        StorageError: no store, an older or a newer one.
    """
    if _revision(conn, url) != _scripts().get_current_head():
        raise StorageError(
            f"the store {url} is empty or of an older version of layer2",
            hint="open it once for writing: that upgrades it",
            url=url,
        )


def migrate(conn: Connection, url: str) -> None:
    """Run the migrations that are missing, within the caller's transaction.

    Raises:
        StorageError: the database is not ours, or of a newer version.
    """
    scripts = _scripts()
    if _revision(conn, url) == scripts.get_current_head():
        return
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    def steps(revision: Any, _context: Any) -> Any:
        return scripts._upgrade_revs("head", revision)  # noqa: SLF001 - what alembic's own upgrade command calls

    with _alembic, EnvironmentContext(Config(), scripts, fn=steps, destination_rev="head") as environment:
        environment.configure(connection=conn, version_table=VERSION_TABLE, transactional_ddl=True)
        environment.run_migrations()
