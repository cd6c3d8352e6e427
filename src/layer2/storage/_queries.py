"""Reading swaps. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, true

from layer2.errors import NotFound
from layer2.storage._codecs import decode_deal, decode_effect, decode_state
from layer2.storage._meta import epoch
from layer2.storage._rows import EffectStatus, StoredEffect, StoredSwap
from layer2.storage._tables import swap, swap_effect

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layer2.swaps._states import Role

__all__ = [
    "active_ids",
    "by_idempotency_key",
    "by_lock_id",
    "by_payment_hash",
    "count_active",
    "effects_of",
    "list_swaps",
    "load_swap",
    "page_active",
    "pending_effects",
]

MAX_PAGE = 1000


def load_swap(conn: Connection, swap_id: str) -> StoredSwap:
    """The swap, with its pending effects.

    Raises:
        NotFound: no such swap.
        StorageError: it cannot be read. So do the other functions here.
    """
    found = _load(conn, select(swap).where(swap.c.id == swap_id))
    if not found:
        raise NotFound(f"no swap {swap_id} in this store")
    return found[0]


def by_idempotency_key(conn: Connection, key: str) -> StoredSwap | None:
    """The swap that was made under ``key``."""
    return next(iter(_load(conn, select(swap).where(swap.c.idempotency_key == key))), None)


def by_payment_hash(conn: Connection, payment_hash: bytes) -> list[StoredSwap]:
    """All swaps on a hash, oldest first: a quote does not reserve one, so several may name it."""
    query = select(swap).where(swap.c.payment_hash == payment_hash.hex())
    return _load(conn, query.order_by(swap.c.created_at_ms, swap.c.id))


def by_lock_id(conn: Connection, lock_id: bytes) -> list[StoredSwap]:
    """All swaps on a lock id, oldest first."""
    query = select(swap).where(swap.c.lock_id == lock_id.hex())
    return _load(conn, query.order_by(swap.c.created_at_ms, swap.c.id))


def page_active(
    conn: Connection, *, role: Role | None = None, after_id: str | None = None, limit: int = 200
) -> list[StoredSwap]:
    """Unfinished swaps by id, a page at a time: pass the last id on; an empty list ends it."""
    return _load(conn, _active(select(swap), role, after_id, limit))


def active_ids(
    conn: Connection, *, role: Role | None = None, after_id: str | None = None, limit: int = 200
) -> list[str]:
    """The ids of unfinished swaps, in order, a page at a time."""
    return list(conn.execute(_active(select(swap.c.id), role, after_id, limit)).scalars())


def _active(query: Select[Any], role: Role | None, after_id: str | None, limit: int) -> Select[Any]:
    query = query.where(swap.c.active.is_(true()))
    if role is not None:
        query = query.where(swap.c.role == role.value)
    if after_id is not None:
        query = query.where(swap.c.id > after_id)
    return query.order_by(swap.c.id).limit(_page(limit))


def count_active(conn: Connection, *, role: Role | None = None) -> int:
    """How many swaps are unfinished."""
    query = select(func.count()).select_from(swap).where(swap.c.active.is_(true()))
    if role is not None:
        query = query.where(swap.c.role == role.value)
    return int(conn.execute(query).scalar_one())


def list_swaps(
    conn: Connection,
    *,
    role: Role | None = None,
    kinds: Collection[str] | None = None,
    active: bool | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[StoredSwap]:
    """Swaps, newest first. ``kinds``: of the state (``state_kinds()``); ``after``: the last id of the page before.

    Raises:
        NotFound: ``after`` is no swap of this store.
    """
    query = select(swap)
    if role is not None:
        query = query.where(swap.c.role == role.value)
    if kinds is not None:
        query = query.where(swap.c.state_kind.in_(sorted(kinds)))
    if active is not None:
        query = query.where(swap.c.active.is_(active))
    if after is not None:
        at = conn.execute(select(swap.c.created_at_ms).where(swap.c.id == after)).scalar_one_or_none()
        if at is None:
            raise NotFound(f"no swap {after} in this store")
        query = query.where(or_(swap.c.created_at_ms < at, and_(swap.c.created_at_ms == at, swap.c.id < after)))
    return _load(conn, query.order_by(swap.c.created_at_ms.desc(), swap.c.id.desc()).limit(_page(limit)))


def pending_effects(conn: Connection, swap_id: str) -> list[StoredEffect]:
    """The outbox of a swap, in the order in which its state wants them."""
    return _effects(conn, [swap_id], pending=True).get(swap_id, [])


def effects_of(conn: Connection, swap_id: str) -> list[StoredEffect]:
    """Every effect that a swap ever wanted."""
    return _effects(conn, [swap_id], pending=False).get(swap_id, [])


def _page(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _effects(conn: Connection, ids: Sequence[str], *, pending: bool) -> dict[str, list[StoredEffect]]:
    query = select(swap_effect).where(swap_effect.c.swap_id.in_(ids))
    if pending:
        query = query.where(swap_effect.c.status == EffectStatus.PENDING.value)
    found: dict[str, list[StoredEffect]] = {}
    for row in conn.execute(query.order_by(swap_effect.c.swap_id, swap_effect.c.version, swap_effect.c.ordinal)):
        found.setdefault(row.swap_id, []).append(
            StoredEffect(
                swap_id=row.swap_id,
                key=row.key,
                version=row.version,
                effect=decode_effect(row.kind, row.shape, row.payload),
                status=EffectStatus(row.status),
                attempts=row.attempts,
                begun=row.begun,
                last_error=row.last_error,
                created_at_ms=row.created_at_ms,
            )
        )
    return found


def _load(conn: Connection, query: Select[Any]) -> list[StoredSwap]:
    rows = conn.execute(query).all()
    if not rows:
        return []
    now_epoch = epoch(conn)
    effects = _effects(conn, [row.id for row in rows], pending=True)
    return [_swap(row, now_epoch, effects.get(row.id, [])) for row in rows]


def _swap(row: Row[Any], now_epoch: int, effects: list[StoredEffect]) -> StoredSwap:
    return StoredSwap(
        deal=decode_deal(row.deal_shape, row.deal),
        state=decode_state(row.state_kind, row.shape, row.state),
        state_kind=row.state_kind,
        version=row.version,
        active=row.active,
        restored=row.epoch < now_epoch,
        effects=tuple(effects),
        wake_at_ms=row.wake_at_ms,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        idempotency_key=row.idempotency_key,
        request_digest=row.request_digest,
        note=row.note,
    )
