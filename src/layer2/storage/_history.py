"""The append-only history of a swap, numbered without gaps and chained by checksums."""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select

from layer2.errors import NotFound, StorageError
from layer2.storage._codecs import Encoded, canonical_json, decode_observation, decode_state
from layer2.storage._rows import StoredEvent
from layer2.storage._tables import swap, swap_event

__all__ = ["CREATED", "append_event", "history", "verify_history"]

CREATED: Final = "created"
_GENESIS: Final = "layer2 swap history 1"

_OF: Final = swap_event.c.swap_id == bindparam("of_id")
_CHECKSUM: Final = select(swap_event.c.checksum).where(_OF, swap_event.c.version == bindparam("of_version"))
_ADD: Final = insert(swap_event)
_ALL: Final = select(swap_event).where(_OF).order_by(swap_event.c.version)
_AFTER: Final = (
    select(swap_event).where(_OF, swap_event.c.version > bindparam("after_version")).order_by(swap_event.c.version)
)
_STANDS: Final = select(swap.c.version, swap.c.state_kind, swap.c.shape, swap.c.state).where(
    swap.c.id == bindparam("of_id")
)


def append_event(
    conn: Connection, swap_id: str, *, version: int, seen: Encoded, before: str, after: Encoded, at_ms: int
) -> None:
    """Add a row to the history of a swap.

    Raises:
        StorageError: the row before it is missing.
    """
    previous = _GENESIS
    if version > 1:
        found = conn.execute(_CHECKSUM, {"of_id": swap_id, "of_version": version - 1}).scalar_one_or_none()
        if found is None:
            raise StorageError(f"the history of swap {swap_id} lacks version {version - 1}", hint="restore a backup")
        previous = found
    row = {
        "swap_id": swap_id,
        "version": version,
        "kind": seen.kind,
        "shape": seen.shape,
        "observation": seen.text,
        "state_before": before,
        "state_after": after.kind,
        "state_shape": after.shape,
        "state": after.text,
        "at_ms": at_ms,
    }
    conn.execute(_ADD, {**row, "checksum": _checksum(previous, row)})


def _checksum(previous: str, row: dict[str, object]) -> str:
    return hashlib.sha256(f"{previous}\n{canonical_json(row)}".encode()).hexdigest()


def history(conn: Connection, swap_id: str, *, after_version: int = 0) -> list[StoredEvent]:
    """The steps of a swap, oldest first. Empty if there is no such swap.

    Raises:
        StorageError: a row cannot be read.
    """
    rows = conn.execute(_AFTER, {"of_id": swap_id, "after_version": after_version})
    return [
        StoredEvent(
            swap_id=row.swap_id,
            version=row.version,
            kind=row.kind,
            observation=None if row.kind == CREATED else decode_observation(row.kind, row.shape, row.observation),
            state_before=row.state_before,
            state_after=row.state_after,
            state=decode_state(row.state_after, row.state_shape, row.state),
            at_ms=row.at_ms,
            checksum=row.checksum,
        )
        for row in rows
    ]


def verify_history(conn: Connection, swap_id: str) -> int:
    """Check a swap's whole history and give its number of steps.

    The numbers have no gaps, each state follows on the one before, every checksum fits, and the swap stands where its last step
    left it.

    Raises:
        NotFound: no such swap.
        StorageError: something does not fit; the message says at which version.
    """
    current = conn.execute(_STANDS, {"of_id": swap_id}).one_or_none()
    if current is None:
        raise NotFound(f"no transfer {swap_id} in this store")
    previous, before, last = _GENESIS, "", None
    for number, found in enumerate(conn.execute(_ALL, {"of_id": swap_id}).mappings().all(), start=1):
        row = dict(found)
        checksum = row.pop("checksum")
        if row["version"] != number or row["state_before"] != before or checksum != _checksum(previous, row):
            raise StorageError(
                f"the history of swap {swap_id} was changed or damaged at version {number}", hint="restore a backup"
            )
        previous, before, last = checksum, str(row["state_after"]), row
    if last is None or (current.version, current.state_kind, current.shape, current.state) != (
        last["version"],
        last["state_after"],
        last["state_shape"],
        last["state"],
    ):
        raise StorageError(f"swap {swap_id} does not stand where its history ends", hint="restore a backup")
    return int(current.version)
