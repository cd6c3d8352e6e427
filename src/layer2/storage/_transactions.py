"""The journal of signed EVM transactions (``layer2.evm.TxJournal``) in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, insert, select, text, update

from layer2.addresses import EvmAddress
from layer2.errors import StorageError
from layer2.evm._journal import SignedVariant, TxRecord, TxState
from layer2.storage._tables import evm_tx, evm_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layer2.storage._runner import Store

__all__ = ["SqlTxJournal"]


class SqlTxJournal:
    """``TxJournal`` on a ``Store``. Variants are never removed: any of them may be the one that a block holds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def still_ours(self) -> None:
        """See ``Store.still_ours``."""
        await self._store.still_ours()

    async def get(self, key: str) -> TxRecord | None:
        """The record with this idempotency key."""
        return await self._store.run(_get, key)

    async def by_hash(self, tx_hash: bytes) -> TxRecord | None:
        """The record of which ``tx_hash`` is a variant."""
        return await self._store.run(_by_hash, tx_hash)

    async def put_new(self, record: TxRecord) -> None:
        """Add a record with version 1.

        Raises:
            StorageError: its key, its nonce or the hash of a variant is taken, or the version is not 1.
        """
        await self._store.run(_put_new, record)

    async def update(self, record: TxRecord, *, expected_version: int) -> TxRecord:
        """Put ``record`` in place of the one with its key, and give it back with version ``expected_version + 1``.

        Raises:
            StorageError: there is none, it has another version, a variant that was stored is missing, or another record that is not
                abandoned has its nonce.
        """
        return await self._store.run(_update, record, expected_version)

    async def open_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """Records in state OPEN, by nonce."""
        return await self._store.run(_open_records, chain_id, sender)

    async def abandoned_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """Records in state ABANDONED, by nonce, but for those whose nonce a record in state FINAL has."""
        return await self._store.run(_abandoned_records, chain_id, sender)

    async def in_force(self, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
        """The record that is not abandoned and has this nonce; there is one at most."""
        return await self._store.run(_in_force, chain_id, sender, nonce)

    async def last_nonce(self, chain_id: int, sender: EvmAddress) -> int | None:
        """The highest nonce of a record that is not abandoned; None if there is none."""
        return await self._store.run(_last_nonce, chain_id, sender)


def _get(conn: Connection, key: str) -> TxRecord | None:
    return next(iter(_records(conn, select(evm_tx).where(evm_tx.c.key == key))), None)


def _by_hash(conn: Connection, tx_hash: bytes) -> TxRecord | None:
    query = select(evm_tx).join(evm_variant).where(evm_variant.c.hash == tx_hash.hex())
    return next(iter(_records(conn, query)), None)


def _put_new(conn: Connection, record: TxRecord) -> None:
    if record.version != 1 or not record.variants:
        raise StorageError(f"a new transaction has version 1 and a signed form, unlike {record.key!r}")
    if conn.execute(select(evm_tx.c.key).where(evm_tx.c.key == record.key)).first() is not None:
        raise StorageError(f"there is a transaction with the key {record.key!r} already")
    _check_nonce(conn, record)
    conn.execute(
        insert(evm_tx),
        {
            "key": record.key,
            "request_digest": record.request_digest.hex(),
            "chain_id": record.chain_id,
            "sender": record.sender.raw.hex(),
            **_changing(record, version=1),
        },
    )
    _add_variants(conn, record, 0)


def _update(conn: Connection, record: TxRecord, expected_version: int) -> TxRecord:
    before = _get(conn, record.key)
    if before is None or before.version != expected_version:
        raise StorageError(f"the transaction {record.key!r} was changed by somebody else")
    kept = len(before.variants)
    same = _fixed(record) == _fixed(before)
    if before.state is not TxState.ABANDONED:
        same &= (record.nonce, record.exit, record.created_ms) == (before.nonce, before.exit, before.created_ms)
    if record.variants[:kept] != before.variants or not same:
        raise StorageError(f"the transaction {record.key!r} may gain signed forms and a state, nothing else")
    if before.state is TxState.ABANDONED:
        _check_nonce(conn, record)
    conn.execute(
        update(evm_tx)
        .where(evm_tx.c.key == record.key, evm_tx.c.version == expected_version)
        .values(**_changing(record, version=expected_version + 1))
    )
    _add_variants(conn, record, kept)
    updated = _get(conn, record.key)
    assert updated is not None
    return updated


def _check_nonce(conn: Connection, record: TxRecord) -> None:
    holder = _in_force(conn, record.chain_id, record.sender, record.nonce)
    if holder is not None and record.state is not TxState.ABANDONED:
        raise StorageError(f"nonce {record.nonce} is taken by the transaction {holder.key!r}")


def _fixed(record: TxRecord) -> tuple[object, ...]:
    return (record.request_digest, record.chain_id, record.sender)


def _changing(record: TxRecord, *, version: int) -> dict[str, Any]:
    return {
        "nonce": record.nonce,
        "exit": record.exit,
        "created_at_ms": record.created_ms,
        "state": record.state.value,
        "not_after": record.not_after,
        "deadline": record.deadline,
        "price_bound_wei": _text(record.price_bound_wei),
        "tip_bound_wei": _text(record.tip_bound_wei),
        "sent": record.sent,
        "final_hash": _hex(record.final_hash),
        "block_number": record.block_number,
        "block_hash": _hex(record.block_hash),
        "succeeded": record.succeeded,
        "fee_wei": _text(record.fee_wei),
        "version": version,
    }


def _add_variants(conn: Connection, record: TxRecord, kept: int) -> None:
    added = [
        {
            "hash": variant.hash.hex(),
            "tx_key": record.key,
            "ordinal": ordinal,
            "raw": variant.raw.hex(),
            "max_fee_per_gas": str(variant.max_fee_per_gas),
            "max_priority_fee_per_gas": str(variant.max_priority_fee_per_gas),
        }
        for ordinal, variant in enumerate(record.variants[kept:], start=kept)
    ]
    if added:
        conn.execute(insert(evm_variant), added)


def _open_records(conn: Connection, chain_id: int, sender: EvmAddress) -> list[TxRecord]:
    query = select(evm_tx).where(
        evm_tx.c.chain_id == chain_id, evm_tx.c.sender == sender.raw.hex(), evm_tx.c.state == TxState.OPEN.value
    )
    return _records(conn, query.order_by(evm_tx.c.nonce))


def _abandoned_records(conn: Connection, chain_id: int, sender: EvmAddress) -> list[TxRecord]:
    holder = evm_tx.alias()
    used = select(holder.c.key).where(
        holder.c.chain_id == evm_tx.c.chain_id,
        holder.c.sender == evm_tx.c.sender,
        holder.c.nonce == evm_tx.c.nonce,
        holder.c.state == TxState.FINAL.value,
    )
    query = select(evm_tx).where(
        evm_tx.c.chain_id == chain_id,
        evm_tx.c.sender == sender.raw.hex(),
        evm_tx.c.state == TxState.ABANDONED.value,
        ~used.exists(),
    )
    return _records(conn, query.order_by(evm_tx.c.nonce))


def _in_force(conn: Connection, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
    query = select(evm_tx).where(
        evm_tx.c.chain_id == chain_id,
        evm_tx.c.sender == sender.raw.hex(),
        evm_tx.c.nonce == nonce,
        evm_tx.c.state != text(f"'{TxState.ABANDONED.value}'"),  # as the index has it, so that it is used
    )
    return next(iter(_records(conn, query)), None)


def _last_nonce(conn: Connection, chain_id: int, sender: EvmAddress) -> int | None:
    # Ordered instead of max(): so the partial index on nonces in force answers with its last entry.
    found: int | None = conn.execute(
        select(evm_tx.c.nonce)
        .where(
            evm_tx.c.chain_id == chain_id,
            evm_tx.c.sender == sender.raw.hex(),
            evm_tx.c.state != TxState.ABANDONED.value,
        )
        .order_by(evm_tx.c.nonce.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found


def _records(conn: Connection, query: Select[Any]) -> list[TxRecord]:
    rows = conn.execute(query).all()
    variants: dict[str, list[SignedVariant]] = {}
    found = conn.execute(
        select(evm_variant)
        .where(evm_variant.c.tx_key.in_([row.key for row in rows]))
        .order_by(evm_variant.c.tx_key, evm_variant.c.ordinal)
    )
    for each in found:
        variants.setdefault(each.tx_key, []).append(
            SignedVariant(
                raw=bytes.fromhex(each.raw),
                hash=bytes.fromhex(each.hash),
                max_fee_per_gas=int(each.max_fee_per_gas),
                max_priority_fee_per_gas=int(each.max_priority_fee_per_gas),
            )
        )
    return [_record(row, tuple(variants.get(row.key, ()))) for row in rows]


def _record(row: Row[Any], variants: tuple[SignedVariant, ...]) -> TxRecord:
    if not variants:
        raise StorageError(f"the transaction {row.key!r} has no signed form", hint="restore a backup")
    return TxRecord(
        key=row.key,
        request_digest=bytes.fromhex(row.request_digest),
        chain_id=row.chain_id,
        sender=EvmAddress(raw=bytes.fromhex(row.sender)),
        nonce=row.nonce,
        variants=variants,
        state=TxState(row.state),
        exit=row.exit,
        not_after=row.not_after,
        deadline=row.deadline,
        price_bound_wei=None if row.price_bound_wei is None else int(row.price_bound_wei),
        tip_bound_wei=None if row.tip_bound_wei is None else int(row.tip_bound_wei),
        sent=row.sent,
        final_hash=None if row.final_hash is None else bytes.fromhex(row.final_hash),
        block_number=row.block_number,
        block_hash=None if row.block_hash is None else bytes.fromhex(row.block_hash),
        succeeded=row.succeeded,
        fee_wei=None if row.fee_wei is None else int(row.fee_wei),
        created_ms=row.created_at_ms,
        version=row.version,
    )


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
