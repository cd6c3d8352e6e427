"""Facts about the store itself: whose it is, which life and which chain it is of, and the counter behind the preimages."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from layer2.errors import ConfigurationError, StorageError
from layer2.storage._tables import evm_tx, meta, operation, swap

if TYPE_CHECKING:
    from layer2.swaps import Role

__all__ = ["EPOCH", "bind_chain", "claim_identity", "epoch", "get_meta", "next_preimage_time", "owner", "set_meta"]

EPOCH: Final = "epoch"
_CHAIN: Final = "first_block_of_chain_"
_FINGERPRINT: Final = "fingerprint"
_INSTANCE: Final = "instance_id"
_OWNER: Final = "owner"
_PREIMAGE_TIME: Final = "preimage_time_ms"

_VALUE: Final = select(meta.c.value).where(meta.c.key == bindparam("key"))
_CHANGE: Final = update(meta).where(meta.c.key == bindparam("of_key")).values(value=bindparam("new_value"))


def get_meta(conn: Connection, key: str) -> str | None:
    """The value under ``key``, or None."""
    return conn.execute(_VALUE, {"key": key}).scalar_one_or_none()


def set_meta(conn: Connection, key: str, value: str) -> None:
    """Store ``value`` under ``key``."""
    if conn.execute(_CHANGE, {"of_key": key, "new_value": value}).rowcount == 0:
        conn.execute(insert(meta).values(key=key, value=value))


def epoch(conn: Connection) -> int:
    """How often this store was restored from a copy. Nothing is begun for what is of an earlier epoch."""
    return int(get_meta(conn, EPOCH) or 0)


def _begin_epoch(conn: Connection, url: str) -> None:
    """All that the store holds is of an earlier epoch from here on, whatever its rows say: others may have written them."""
    try:
        old = max(0, epoch(conn))
    except ValueError as exc:
        raise StorageError(f"{url} is damaged: it does not say how often it was restored", url=url) from exc
    set_meta(conn, EPOCH, str(old + 1))
    for table, what in ((swap, "transfers"), (operation, "idempotency keys")):
        conn.execute(update(table).values(epoch=old))
        if conn.execute(select(table.c[0]).where(table.c.epoch.is_distinct_from(old)).limit(1)).first() is not None:
            raise StorageError(f"{url} is damaged: its {what} cannot be marked as restored", url=url)


def owner(conn: Connection) -> str | None:
    """The token of the last process that opened the store for writing."""
    return get_meta(conn, _OWNER)


def _check_role(conn: Connection, url: str, role: Role) -> None:
    other = conn.execute(select(swap.c.role).where(swap.c.role != role.value).limit(1)).scalar_one_or_none()
    if other is not None:
        option = "do it without --provider" if role.value == "provider" else "add --provider"
        raise StorageError(
            f"what is to be taken over is the store of a {other}, not of a {role.value}",
            hint=f"{option}, or name another copy",
            url=url,
        )


def claim_identity(
    conn: Connection, url: str, fingerprint: str, token: str, *, adopt: bool, role: Role | None = None
) -> str:
    """Check that this is the store itself and no copy of it, write down who owns it now, and give its instance id.

    Args:
        conn: in a transaction.
        url: for errors.
        fingerprint: what a copy does not share.
        token: of the process that opens it.
        adopt: take a copy over: it becomes a store of its own, in a new epoch.
        role: whose store it must be, if it is taken over; None: anybody's.

    Raises:
        StorageError: it is a copy, and ``adopt`` is False; or it is of the other role.
    """
    instance = get_meta(conn, _INSTANCE)
    if instance is None:
        instance = secrets.token_hex(16)
        set_meta(conn, EPOCH, "0")
    elif adopt:
        if role is not None:
            _check_role(conn, url, role)
        instance = secrets.token_hex(16)
        _begin_epoch(conn, url)
    elif (recorded := get_meta(conn, _FINGERPRINT)) != fingerprint:
        raise StorageError(
            f"the store {url} was copied or moved: it was written as {recorded}, this is {fingerprint}",
            hint="if the original is gone for good, run `layer2 restore`; two live copies of one store lose money",
            url=url,
        )
    set_meta(conn, _INSTANCE, instance)
    set_meta(conn, _FINGERPRINT, fingerprint)
    set_meta(conn, _OWNER, token)
    return instance


def bind_chain(conn: Connection, chain_id: int, first_block: bytes, url: str) -> None:
    """See ``Store.bind_chain``; ``url`` is for the error."""
    key, given = f"{_CHAIN}{chain_id}", first_block.hex()
    known = get_meta(conn, key)
    if known == given:
        return
    if known is not None and any(conn.execute(select(table.c[0]).limit(1)).first() for table in (swap, evm_tx)):
        raise ConfigurationError(
            f"the store {url} belongs to another chain with the id {chain_id}: its first block is {known}, here it is {given}",
            key="store.url",
            hint="give the endpoint of the store's chain (bob.rpc_url); for a chain that was started anew, name a new store",
        )
    set_meta(conn, key, given)


def next_preimage_time(conn: Connection, now_ms: int) -> int:
    """A time that no preimage of this store was derived from before: ``max(now_ms, last + 1)``, in Unix milliseconds."""
    last = get_meta(conn, _PREIMAGE_TIME)
    chosen = now_ms if last is None else max(now_ms, int(last) + 1)
    set_meta(conn, _PREIMAGE_TIME, str(chosen))
    return chosen
