"""What happens to a swap in the store. Every function runs within one transaction and touches nothing but the database.

State, history and outbox change together or not at all: ``apply_transition`` is the only way to change a swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from layer2.errors import IdempotencyConflict, NotFound, StorageError
from layer2.storage._codecs import Encoded, encode_deal, encode_effect, encode_observation, encode_state
from layer2.storage._history import CREATED, append_event
from layer2.storage._meta import epoch
from layer2.storage._rows import EffectStatus, HashTaken, Inserted, NewSwap, StaleVersion
from layer2.storage._tables import swap, swap_effect, used_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layer2.swaps._effects import Effect
    from layer2.swaps._observations import Observation
    from layer2.swaps._states import State

__all__ = ["annotate", "apply_transition", "hash_known", "hash_owner", "insert_swap", "mark_begun", "mark_effect"]


def insert_swap(conn: Connection, new: NewSwap, *, at_ms: int) -> Inserted:
    """Store a swap in its first state; with ``idempotency_key``, unless the same request is there already.

    Raises:
        IdempotencyConflict: the key belongs to another request.
        HashTaken: ``bind_hash`` is set and another swap has the hash. Nothing was written.
    """
    if new.idempotency_key is not None:
        found = conn.execute(
            select(swap.c.id, swap.c.request_digest).where(swap.c.idempotency_key == new.idempotency_key)
        ).one_or_none()
        if found is not None and found.request_digest == new.request_digest:
            return Inserted(id=found.id, created=False)
        if found is not None:
            raise IdempotencyConflict(
                "the idempotency key was used for another transfer", key=new.idempotency_key, hint="take a new key"
            )
    terms = new.deal.terms
    if new.bind_hash:
        _check_hash(conn, terms.lock.preimage_hash, new.deal.id)
    deal, state = encode_deal(new.deal), encode_state(new.state)
    conn.execute(
        insert(swap),
        {
            "id": new.deal.id,
            "role": new.deal.role.value,
            "direction": new.deal.direction.value,
            "state_kind": state.kind,
            "shape": state.shape,
            "state": state.text,
            "deal_shape": deal.shape,
            "deal": deal.text,
            "version": 1,
            "active": not new.state.final,
            "wake_at_ms": new.wake_at_ms,
            "epoch": epoch(conn),
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms,
            "idempotency_key": new.idempotency_key,
            "request_digest": new.request_digest,
            "payment_hash": terms.lock.preimage_hash.hex(),
            "lock_id": terms.lock.lock_id.hex(),
            "note": new.note,
        },
    )
    if new.bind_hash:
        _bind_hash(conn, terms.lock.preimage_hash, new.deal.id, new.deal.role.value, at_ms)
    created = Encoded(kind=CREATED, shape=deal.shape, text=deal.text)
    append_event(conn, new.deal.id, version=1, seen=created, before="", after=state, at_ms=at_ms)
    _want_effects(conn, new.deal.id, 1, new.effects, at_ms)
    return Inserted(id=new.deal.id, created=True)


def apply_transition(
    conn: Connection,
    *,
    swap_id: str,
    expected_version: int,
    state: State,
    observation: Observation,
    effects: Iterable[Effect],
    at_ms: int,
    bind_hash: bytes | None = None,
    active: bool | None = None,
    wake_at_ms: int | None = None,
) -> int:
    """Store the next state with what led to it and everything that is wanted in it; give the new version.

    Args:
        conn: in a transaction.
        swap_id: which swap.
        expected_version: the one from which the decision was made.
        state: the new one.
        observation: what was seen.
        effects: all that the new state wants. Pending ones that are not among them are given up.
        at_ms: now, Unix milliseconds.
        bind_hash: claim this payment hash for the swap, for ever.
        active: whether recovery loads the swap again; None: as the state says.
        wake_at_ms: when the driver wants to look at it next.

    Raises:
        StaleVersion: the swap is not at that version (any more). Nothing was written.
        HashTaken: another swap has the hash. Nothing was written.
    """
    # FOR UPDATE (PostgreSQL; SQLite has the write lock since BEGIN): from here on the version stands still.
    row = conn.execute(
        select(swap.c.role, swap.c.state_kind)
        .where(swap.c.id == swap_id, swap.c.version == expected_version)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise StaleVersion(swap_id, expected_version)
    if bind_hash is not None:
        _check_hash(conn, bind_hash, swap_id)
    version = expected_version + 1
    after = encode_state(state)
    hit = conn.execute(
        update(swap)
        .where(swap.c.id == swap_id, swap.c.version == expected_version)
        .values(
            state_kind=after.kind,
            shape=after.shape,
            state=after.text,
            version=version,
            active=not state.final if active is None else active,
            wake_at_ms=wake_at_ms,
            updated_at_ms=at_ms,
        )
    ).rowcount
    assert hit == 1
    if bind_hash is not None:
        _bind_hash(conn, bind_hash, swap_id, row.role, at_ms)
    seen = encode_observation(observation)
    append_event(conn, swap_id, version=version, seen=seen, before=row.state_kind, after=after, at_ms=at_ms)
    _want_effects(conn, swap_id, version, effects, at_ms)
    return version


def _want_effects(conn: Connection, swap_id: str, version: int, effects: Iterable[Effect], at_ms: int) -> None:
    """Make the pending rows of the outbox exactly ``effects``.

    One that is wanted again after it was done is pending again: a state wants an effect because the world does not show its
    result, perhaps since a reorg took it away, and repeating is safe by its key.
    """
    known = {
        row.key: row.status
        for row in conn.execute(select(swap_effect.c.key, swap_effect.c.status).where(swap_effect.c.swap_id == swap_id))
    }
    wanted: set[str] = set()
    for ordinal, effect in enumerate(effects):
        if effect.name in wanted:
            raise StorageError(f"a state wants the effect {effect.name!r} twice")
        wanted.add(effect.name)
        encoded = encode_effect(effect)
        values = {
            "version": version,
            "ordinal": ordinal,
            "kind": encoded.kind,
            "shape": encoded.shape,
            "payload": encoded.text,
            "status": EffectStatus.PENDING.value,
        }
        where = (swap_effect.c.swap_id == swap_id, swap_effect.c.key == effect.name)
        if effect.name in known:
            conn.execute(update(swap_effect).where(*where).values(**values))
        else:
            new = {"swap_id": swap_id, "key": effect.name, "attempts": 0, "begun": False, "created_at_ms": at_ms}
            conn.execute(insert(swap_effect), {**new, **values})
    given_up = [key for key, status in known.items() if key not in wanted and status == EffectStatus.PENDING]
    if given_up:
        conn.execute(
            update(swap_effect)
            .where(swap_effect.c.swap_id == swap_id, swap_effect.c.key.in_(given_up))
            .values(status=EffectStatus.SUPERSEDED.value)
        )


def mark_effect(
    conn: Connection, *, swap_id: str, key: str, version: int, status: EffectStatus, error: str | None = None
) -> bool:
    """Write down an attempt at an effect and what it is now; False if the effect was given up or wanted anew meanwhile.

    ``version`` is the swap version with which the effect was read from the outbox. ``error`` must not hold secrets.
    """
    hit = conn.execute(
        update(swap_effect)
        .where(
            swap_effect.c.swap_id == swap_id,
            swap_effect.c.key == key,
            swap_effect.c.version == version,
            swap_effect.c.status == EffectStatus.PENDING.value,
        )
        .values(status=status.value, attempts=swap_effect.c.attempts + 1, last_error=error)
    ).rowcount
    return hit == 1


def mark_begun(conn: Connection, *, swap_id: str, key: str, begun: bool) -> None:
    """Remember that a request for an effect was begun, or that its end was seen.

    Raises:
        NotFound: the swap never wanted such an effect.
    """
    where = (swap_effect.c.swap_id == swap_id, swap_effect.c.key == key)
    if conn.execute(update(swap_effect).where(*where).values(begun=begun)).rowcount != 1:
        raise NotFound(f"swap {swap_id} has no effect {key!r}")


def annotate(conn: Connection, swap_id: str, note: str) -> None:
    """Replace the note that people see beside a swap.

    Raises:
        NotFound: no such swap.
    """
    if conn.execute(update(swap).where(swap.c.id == swap_id).values(note=note)).rowcount != 1:
        raise NotFound(f"no swap {swap_id} in this store")


def hash_known(conn: Connection, payment_hash: bytes) -> bool:
    """Whether a swap of this store, in any role, was ever bound to the hash or made with it."""
    text = payment_hash.hex()
    bound = conn.execute(select(used_hash.c.swap_id).where(used_hash.c.payment_hash == text)).first()
    return (
        bound is not None
        or conn.execute(select(swap.c.id).where(swap.c.payment_hash == text).limit(1)).first() is not None
    )


def hash_owner(conn: Connection, payment_hash: bytes) -> str | None:
    """The id of the swap that the hash is bound to, or None."""
    found: str | None = conn.execute(
        select(used_hash.c.swap_id).where(used_hash.c.payment_hash == payment_hash.hex())
    ).scalar_one_or_none()
    return found


def _check_hash(conn: Connection, payment_hash: bytes, swap_id: str) -> None:
    holder = hash_owner(conn, payment_hash)
    if holder is not None and holder != swap_id:
        raise HashTaken(swap_id, holder)


def _bind_hash(conn: Connection, payment_hash: bytes, swap_id: str, role: str, at_ms: int) -> None:
    if hash_owner(conn, payment_hash) is None:
        conn.execute(
            insert(used_hash),
            {"payment_hash": payment_hash.hex(), "swap_id": swap_id, "role": role, "at_ms": at_ms},
        )
