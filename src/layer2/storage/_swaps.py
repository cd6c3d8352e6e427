"""What happens to a swap in the store. Every function runs within one transaction and touches nothing but the database.

State, history and outbox change together or not at all: ``apply_transition`` is the only way to change a swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, bindparam, insert, select, update

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

# Statements are made once: to make one takes several times as long as to run it.
_OF: Final = swap.c.id == bindparam("of_id")
_AT: Final = swap.c.version == bindparam("of_version")
_BY_KEY: Final = select(swap.c.id, swap.c.request_digest).where(swap.c.idempotency_key == bindparam("key"))
_ADD: Final = insert(swap)
# FOR UPDATE (PostgreSQL; SQLite has the write lock since BEGIN): from here on the version stands still.
_CLAIM_VERSION: Final = select(swap.c.role, swap.c.state_kind).where(_OF, _AT).with_for_update()
_MOVE: Final = (
    update(swap)
    .where(_OF, _AT)
    .values(
        {
            name: bindparam(name)
            for name in ("state_kind", "shape", "state", "version", "active", "wake_at_ms", "updated_at_ms")
        }
    )
)
_NOTE: Final = update(swap).where(_OF).values(note=bindparam("note"))
_OF_HASH: Final = select(swap.c.id).where(swap.c.payment_hash == bindparam("hash")).limit(1)

_EFFECT: Final = (swap_effect.c.swap_id == bindparam("of_id"), swap_effect.c.key == bindparam("of_key"))
_KNOWN_EFFECTS: Final = select(swap_effect.c.key, swap_effect.c.status).where(
    swap_effect.c.swap_id == bindparam("of_id")
)
_ADD_EFFECT: Final = insert(swap_effect)
_WANT_AGAIN: Final = (
    update(swap_effect)
    .where(*_EFFECT)
    .values({name: bindparam(name) for name in ("version", "ordinal", "kind", "shape", "payload", "status")})
)
_GIVE_UP: Final = update(swap_effect).where(*_EFFECT).values(status=EffectStatus.SUPERSEDED.value)
_BEGUN: Final = update(swap_effect).where(*_EFFECT).values(begun=bindparam("begun"))

_OWNER: Final = select(used_hash.c.swap_id).where(used_hash.c.payment_hash == bindparam("hash"))
_BIND: Final = insert(used_hash)


def insert_swap(conn: Connection, new: NewSwap, *, at_ms: int) -> Inserted:
    """Store a swap in its first state; with ``idempotency_key``, unless the same request is there already.

    Raises:
        IdempotencyConflict: the key belongs to another request.
        HashTaken: ``bind_hash`` is set and another swap has the hash. Nothing was written.
    """
    if new.idempotency_key is not None:
        found = conn.execute(_BY_KEY, {"key": new.idempotency_key}).one_or_none()
        if found is not None and found.request_digest == new.request_digest:
            return Inserted(id=found.id, created=False)
        if found is not None:
            raise IdempotencyConflict.of(new.idempotency_key)
    terms = new.deal.terms
    if new.bind_hash:
        _check_hash(conn, terms.lock.preimage_hash, new.deal.id)
    deal, state = encode_deal(new.deal), encode_state(new.state)
    conn.execute(
        _ADD,
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
    at = {"of_id": swap_id, "of_version": expected_version}
    row = conn.execute(_CLAIM_VERSION, at).one_or_none()
    if row is None:
        raise StaleVersion(swap_id, expected_version)
    if bind_hash is not None:
        _check_hash(conn, bind_hash, swap_id)
    version = expected_version + 1
    after = encode_state(state)
    moved = {
        "state_kind": after.kind,
        "shape": after.shape,
        "state": after.text,
        "version": version,
        "active": not state.final if active is None else active,
        "wake_at_ms": wake_at_ms,
        "updated_at_ms": at_ms,
    }
    assert conn.execute(_MOVE, {**at, **moved}).rowcount == 1
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
    known = {} if version == 1 else {row.key: row.status for row in conn.execute(_KNOWN_EFFECTS, {"of_id": swap_id})}
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
        if effect.name in known:
            conn.execute(_WANT_AGAIN, {"of_id": swap_id, "of_key": effect.name, **values})
        else:
            new = {"swap_id": swap_id, "key": effect.name, "attempts": 0, "begun": False, "created_at_ms": at_ms}
            conn.execute(_ADD_EFFECT, {**new, **values})
    for key, status in known.items():
        if key not in wanted and status == EffectStatus.PENDING:
            conn.execute(_GIVE_UP, {"of_id": swap_id, "of_key": key})


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
    if conn.execute(_BEGUN, {"of_id": swap_id, "of_key": key, "begun": begun}).rowcount != 1:
        raise NotFound(f"swap {swap_id} has no effect {key!r}")


def annotate(conn: Connection, swap_id: str, note: str) -> None:
    """Replace the note that people see beside a swap.

    Raises:
        NotFound: no such swap.
    """
    if conn.execute(_NOTE, {"of_id": swap_id, "note": note}).rowcount != 1:
        raise NotFound(f"no transfer {swap_id} in this store")


def hash_known(conn: Connection, payment_hash: bytes) -> bool:
    """Whether a swap of this store, in any role, was ever bound to the hash or made with it."""
    bound = hash_owner(conn, payment_hash) is not None
    return bound or conn.execute(_OF_HASH, {"hash": payment_hash.hex()}).first() is not None


def hash_owner(conn: Connection, payment_hash: bytes) -> str | None:
    """The id of the swap that the hash is bound to, or None."""
    found: str | None = conn.execute(_OWNER, {"hash": payment_hash.hex()}).scalar_one_or_none()
    return found


def _check_hash(conn: Connection, payment_hash: bytes, swap_id: str) -> None:
    holder = hash_owner(conn, payment_hash)
    if holder is not None and holder != swap_id:
        raise HashTaken(swap_id, holder)


def _bind_hash(conn: Connection, payment_hash: bytes, swap_id: str, role: str, at_ms: int) -> None:
    if hash_owner(conn, payment_hash) is None:
        conn.execute(
            _BIND,
            {"payment_hash": payment_hash.hex(), "swap_id": swap_id, "role": role, "at_ms": at_ms},
        )
