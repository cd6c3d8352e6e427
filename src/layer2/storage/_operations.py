"""The journal of idempotency keys (``layer2.lightning.OperationJournal``) in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from layer2.errors import IdempotencyConflict, StorageError
from layer2.lightning._journal import Decision
from layer2.storage._meta import epoch
from layer2.storage._tables import operation

if TYPE_CHECKING:
    from layer2.storage._runner import Store

__all__ = ["SqlOperationJournal"]


class SqlOperationJournal:
    """``OperationJournal`` on a ``Store``. Keys of different scopes (protocols) have nothing to do with each other."""

    def __init__(self, store: Store, *, scope: str = "lightning") -> None:
        self._store = store
        self._scope = scope

    async def begin(self, key: str, digest: bytes) -> Decision | None:
        """Note the arguments. Returns the decision taken under the key, None if there is none yet.

        Raises:
            IdempotencyConflict: the decision was taken with other arguments.
        """
        return await self._store.run(_begin, self._scope, key, digest, self._store.clock.now_ms())

    async def finish(self, key: str, digest: bytes, outcome: str) -> str:
        """Store the decision, unless there is one. Returns the one that stands.

        Raises:
            IdempotencyConflict: other arguments were noted meanwhile.
            StorageError: the key was never noted.
        """
        return await self._store.run(_finish, self._scope, key, digest, outcome)


def _begin(conn: Connection, scope: str, key: str, digest: bytes, at_ms: int) -> Decision | None:
    row = (operation.c.scope == scope, operation.c.key == key)
    now = epoch(conn)
    noted = {"digest": digest.hex(), "begun_at_ms": at_ms, "epoch": now}
    found = conn.execute(select(operation.c.digest, operation.c.outcome, operation.c.epoch).where(*row)).one_or_none()
    if found is None:
        conn.execute(insert(operation).values(scope=scope, key=key, **noted))
        return None
    if found.outcome is None:
        # Nothing was sent under it: whoever noted it was refused, or has not decided yet and will find the key taken.
        conn.execute(update(operation).where(*row).values(noted))
        return None
    if found.digest != digest.hex():
        raise IdempotencyConflict.of(key)
    return Decision(found.outcome, restored=found.epoch < now)


def _finish(conn: Connection, scope: str, key: str, digest: bytes, outcome: str) -> str:
    row = (operation.c.scope == scope, operation.c.key == key)
    found = conn.execute(select(operation.c.digest, operation.c.outcome).where(*row)).one_or_none()
    if found is None:
        raise StorageError(f"the idempotency key {key!r} was never noted with arguments")
    if found.digest != digest.hex():
        raise IdempotencyConflict.of(key)
    stands: str | None = found.outcome
    if stands is None:
        conn.execute(update(operation).where(*row).values(outcome=outcome))
        return outcome
    return stands
