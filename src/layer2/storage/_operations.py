"""The journal of idempotency keys (``layer2.lightning.OperationJournal``) in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from layer2.errors import IdempotencyConflict, StorageError
from layer2.storage._tables import operation

if TYPE_CHECKING:
    from layer2.storage._runner import Store

__all__ = ["SqlOperationJournal"]


class SqlOperationJournal:
    """``OperationJournal`` on a ``Store``. Keys of different scopes (protocols) have nothing to do with each other."""

    def __init__(self, store: Store, *, scope: str = "lightning") -> None:
        self._store = store
        self._scope = scope

    async def begin(self, key: str, digest: bytes) -> str | None:
        """Bind the key to the arguments. Returns the decision taken under it, None if there is none yet.

        Raises:
            IdempotencyConflict: the key is bound to other arguments.
        """
        return await self._store.run(_begin, self._scope, key, digest, self._store.clock.now_ms())

    async def finish(self, key: str, outcome: str) -> str:
        """Store the decision, unless there is one. Returns the one that stands.

        Raises:
            StorageError: the key was never bound.
        """
        return await self._store.run(_finish, self._scope, key, outcome)


def _begin(conn: Connection, scope: str, key: str, digest: bytes, at_ms: int) -> str | None:
    found = conn.execute(
        select(operation.c.digest, operation.c.outcome).where(operation.c.scope == scope, operation.c.key == key)
    ).one_or_none()
    if found is None:
        conn.execute(insert(operation).values(scope=scope, key=key, digest=digest.hex(), begun_at_ms=at_ms))
        return None
    if found.digest != digest.hex():
        raise IdempotencyConflict("the idempotency key was used with other arguments", key=key, hint="take a new key")
    outcome: str | None = found.outcome
    return outcome


def _finish(conn: Connection, scope: str, key: str, outcome: str) -> str:
    row = (operation.c.scope == scope, operation.c.key == key)
    conn.execute(update(operation).where(*row, operation.c.outcome.is_(None)).values(outcome=outcome))
    stands: str | None = conn.execute(select(operation.c.outcome).where(*row)).scalar_one_or_none()
    if stands is None:
        raise StorageError(f"the idempotency key {key!r} was never bound to arguments")
    return stands
