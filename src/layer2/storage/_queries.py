"""Reading swaps. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, or_, select, true

from layer2.errors import NotFound
from layer2.storage._codecs import decode_deal, decode_effect, decode_state, exit_kinds
from layer2.storage._meta import EPOCH
from layer2.storage._rows import EffectStatus, StoredEffect, StoredSwap
from layer2.storage._tables import meta, swap, swap_effect

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layer2.swaps._states import Role
    from layer2.terms import SwapDirection

__all__ = [
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

MAX_PAGE: Final = 1000

# Statements are made once: to make one takes several times as long as to run it.
_NOW_EPOCH: Final = select(meta.c.value).where(meta.c.key == EPOCH).scalar_subquery().label("now_epoch")
_SWAP: Final = select(swap, _NOW_EPOCH)
_BY_ID: Final = _SWAP.where(swap.c.id == bindparam("of_id"))
_BY_KEY: Final = _SWAP.where(swap.c.idempotency_key == bindparam("key"))
_OLDEST_FIRST: Final = (swap.c.created_at_ms, swap.c.id)
_BY_HASH: Final = _SWAP.where(swap.c.payment_hash == bindparam("hash")).order_by(*_OLDEST_FIRST)
_BY_LOCK: Final = _SWAP.where(swap.c.lock_id == bindparam("lock_id")).order_by(*_OLDEST_FIRST)
_IN_ORDER: Final = (swap_effect.c.swap_id, swap_effect.c.version, swap_effect.c.ordinal)
_EFFECTS: Final = select(swap_effect).order_by(*_IN_ORDER)
_LEAVING: Final = swap.c.state_kind.in_(sorted(exit_kinds()))
_ALL_ACTIVE: Final = (
    _SWAP.where(swap.c.active.is_(true()), swap.c.id > bindparam("after_id"))
    .order_by(swap.c.id)
    .limit(bindparam("page"))
)
_ACTIVE: Final = {None: _ALL_ACTIVE, True: _ALL_ACTIVE.where(_LEAVING), False: _ALL_ACTIVE.where(~_LEAVING)}
_ACTIVE_OF: Final = {exits: query.where(swap.c.role == bindparam("of_role")) for exits, query in _ACTIVE.items()}
_PENDING: Final = swap_effect.c.status == EffectStatus.PENDING.value
_EFFECTS_OF: Final = _EFFECTS.where(swap_effect.c.swap_id == bindparam("of_id"))
_PENDING_OF: Final = _EFFECTS_OF.where(_PENDING)
_PENDING_OF_MANY: Final = _EFFECTS.where(swap_effect.c.swap_id.in_(bindparam("ids", expanding=True)), _PENDING)


def load_swap(conn: Connection, swap_id: str) -> StoredSwap:
    """The swap, with its pending effects.

    Raises:
        NotFound: no such swap.
        StorageError: it cannot be read. So do the other functions here.
    """
    found = _load(conn, _BY_ID, of_id=swap_id)
    if not found:
        raise NotFound(f"no transfer {swap_id} in this store")
    return found[0]


def by_idempotency_key(conn: Connection, key: str) -> StoredSwap | None:
    """The swap that was made under ``key``."""
    return next(iter(_load(conn, _BY_KEY, key=key)), None)


def by_payment_hash(
    conn: Connection, payment_hash: bytes, *, direction: SwapDirection | None = None
) -> list[StoredSwap]:
    """All swaps on a hash, or those in one direction, oldest first: a quote does not reserve one, so several may name it."""
    query = _BY_HASH if direction is None else _BY_HASH.where(swap.c.direction == direction.value)
    return _load(conn, query, hash=payment_hash.hex())


def by_lock_id(conn: Connection, lock_id: bytes) -> list[StoredSwap]:
    """All swaps on a lock id, oldest first."""
    return _load(conn, _BY_LOCK, lock_id=lock_id.hex())


def page_active(
    conn: Connection,
    *,
    role: Role | None = None,
    exits: bool | None = None,
    after_id: str | None = None,
    limit: int = 200,
) -> list[StoredSwap]:
    """Unfinished swaps by id, a page at a time: pass the last id on; an empty list ends it.

    ``exits``: only those on their way out against a deadline (True), or only the others (False).
    """
    values: dict[str, Any] = {"after_id": after_id or "", "page": _page(limit)}
    if role is None:
        return _load(conn, _ACTIVE[exits], **values)
    return _load(conn, _ACTIVE_OF[exits], of_role=role.value, **values)


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
    query = _SWAP
    if role is not None:
        query = query.where(swap.c.role == role.value)
    if kinds is not None:
        query = query.where(swap.c.state_kind.in_(sorted(kinds)))
    if active is not None:
        query = query.where(swap.c.active.is_(active))
    if after is not None:
        at = conn.execute(select(swap.c.created_at_ms).where(swap.c.id == after)).scalar_one_or_none()
        if at is None:
            raise NotFound(f"no transfer {after} in this store")
        query = query.where(or_(swap.c.created_at_ms < at, and_(swap.c.created_at_ms == at, swap.c.id < after)))
    return _load(conn, query.order_by(swap.c.created_at_ms.desc(), swap.c.id.desc()).limit(_page(limit)))


def pending_effects(conn: Connection, swap_id: str) -> list[StoredEffect]:
    """The outbox of a swap, in the order in which its state wants them."""
    return [_effect(row) for row in conn.execute(_PENDING_OF, {"of_id": swap_id})]


def effects_of(conn: Connection, swap_id: str) -> list[StoredEffect]:
    """Every effect that a swap ever wanted."""
    return [_effect(row) for row in conn.execute(_EFFECTS_OF, {"of_id": swap_id})]


def _page(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _pending(conn: Connection, ids: Sequence[str]) -> dict[str, list[StoredEffect]]:
    if len(ids) == 1:
        return {ids[0]: pending_effects(conn, ids[0])}
    found: dict[str, list[StoredEffect]] = {}
    for row in conn.execute(_PENDING_OF_MANY, {"ids": ids}):
        found.setdefault(row.swap_id, []).append(_effect(row))
    return found


def _effect(row: Row[Any]) -> StoredEffect:
    return StoredEffect(
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


def _load(conn: Connection, query: Select[Any], **values: object) -> list[StoredSwap]:
    rows = conn.execute(query, values).all()
    if not rows:
        return []
    effects = _pending(conn, [row.id for row in rows])
    return [_swap(row, effects.get(row.id, [])) for row in rows]


def _swap(row: Row[Any], effects: list[StoredEffect]) -> StoredSwap:
    return StoredSwap(
        deal=decode_deal(row.deal_shape, row.deal),
        state=decode_state(row.state_kind, row.shape, row.state),
        state_kind=row.state_kind,
        version=row.version,
        active=row.active,
        restored=row.epoch < int(row.now_epoch or 0),
        effects=tuple(effects),
        wake_at_ms=row.wake_at_ms,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        idempotency_key=row.idempotency_key,
        request_digest=row.request_digest,
        note=row.note,
    )
