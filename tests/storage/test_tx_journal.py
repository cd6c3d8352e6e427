from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import text

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import StorageError
from layer2.evm._journal import MemoryTxJournal, SignedVariant, TxRecord, TxState
from layer2.storage import SqlTxJournal, Store

SENDER = EvmAddress(raw=b"\x0a" * 20)
OTHER = EvmAddress(raw=b"\x0b" * 20)
CHAIN = 60808


def variant(number: int) -> SignedVariant:
    return SignedVariant(
        raw=b"\x02" + bytes([number]) * 40,
        hash=number.to_bytes(32),
        max_fee_per_gas=2**64 + number,
        max_priority_fee_per_gas=number,
    )


def record(key: str, nonce: int, number: int, **fields) -> TxRecord:
    plain = TxRecord(
        key=key,
        request_digest=b"\x01" * 32,
        chain_id=CHAIN,
        sender=SENDER,
        nonce=nonce,
        variants=(variant(number),),
        created_ms=1_800_000_000_000,
    )
    return replace(plain, **fields)


@pytest.fixture(params=["memory", "store"])
async def journal(request, store):
    """What holds for the journal in memory holds for the one in the store."""
    return MemoryTxJournal() if request.param == "memory" else SqlTxJournal(store)


@pytest.fixture
async def sql_journal(store):
    return SqlTxJournal(store)


async def test_a_record_is_found_by_its_key_and_by_each_of_its_hashes(journal):
    full = record("a", 7, 1, exit=True, not_after=1_800_000_060, deadline=1_800_000_900, sent=True)
    await journal.put_new(full)
    bumped = replace(full, variants=(*full.variants, variant(2)))
    assert await journal.update(bumped, expected_version=1) == replace(bumped, version=2)
    for number in (1, 2):
        assert await journal.by_hash(variant(number).hash) == replace(bumped, version=2)
    assert await journal.get("a") == replace(bumped, version=2)
    assert await journal.get("b") is None
    assert await journal.by_hash(b"\x09" * 32) is None


async def test_a_final_record_is_not_open_and_keeps_its_block(journal):
    await journal.put_new(record("a", 7, 1))
    final = replace(
        record("a", 7, 1), state=TxState.FINAL, final_hash=variant(1).hash, block_number=2**40, block_hash=b"\x0c" * 32
    )
    await journal.update(final, expected_version=1)
    assert await journal.get("a") == replace(final, version=2)
    assert list(await journal.open_records(CHAIN, SENDER)) == []
    assert await journal.last_nonce(CHAIN, SENDER) == 7


async def test_open_records_come_by_nonce_for_one_account_of_one_chain(journal):
    for key, nonce in (("c", 10), ("a", 9), ("b", 11)):
        await journal.put_new(record(key, nonce, nonce))
    await journal.put_new(record("x", 9, 20, sender=OTHER))
    await journal.put_new(record("y", 9, 21, chain_id=1))
    assert [each.key for each in await journal.open_records(CHAIN, SENDER)] == ["a", "c", "b"]
    assert [each.key for each in await journal.open_records(CHAIN, OTHER)] == ["x"]
    assert list(await journal.open_records(5, SENDER)) == []


async def test_a_key_and_a_nonce_in_force_are_taken(journal):
    await journal.put_new(record("a", 7, 1))
    with pytest.raises(StorageError, match="key"):
        await journal.put_new(record("a", 8, 2))
    with pytest.raises(StorageError, match="nonce"):
        await journal.put_new(record("b", 7, 3))
    with pytest.raises(StorageError):
        await journal.put_new(record("c", 9, 4, version=2))
    assert await journal.last_nonce(CHAIN, SENDER) == 7


async def test_the_nonce_of_an_abandoned_record_is_free_again(journal):
    await journal.put_new(record("a", 7, 1))
    await journal.put_new(record("b", 8, 2))
    await journal.update(replace(record("b", 8, 2), state=TxState.ABANDONED), expected_version=1)
    assert await journal.last_nonce(CHAIN, SENDER) == 7
    await journal.put_new(record("c", 8, 3))
    assert await journal.last_nonce(CHAIN, SENDER) == 8
    assert [each.key for each in await journal.open_records(CHAIN, SENDER)] == ["a", "c"]


async def test_an_abandoned_record_is_listed_until_another_is_final_at_its_nonce(journal):
    for key, nonce, number in (("b", 8, 2), ("a", 7, 1)):
        await journal.put_new(record(key, nonce, number))
        await journal.update(replace(record(key, nonce, number), state=TxState.ABANDONED), expected_version=1)
    await journal.put_new(record("x", 7, 5, sender=OTHER))
    await journal.put_new(record("c", 8, 3))
    assert [each.key for each in await journal.abandoned_records(CHAIN, SENDER)] == ["a", "b"]
    assert await journal.in_force(CHAIN, SENDER, 7) is None
    assert (await journal.in_force(CHAIN, SENDER, 8)).key == "c"
    with pytest.raises(StorageError, match="nonce 8 is taken"):
        await journal.update(record("b", 8, 2), expected_version=2)
    await journal.update(
        replace(record("c", 8, 3), state=TxState.FINAL, final_hash=variant(3).hash), expected_version=1
    )
    assert [each.key for each in await journal.abandoned_records(CHAIN, SENDER)] == ["a"]
    await journal.update(record("a", 7, 1), expected_version=2)
    assert list(await journal.abandoned_records(CHAIN, SENDER)) == []
    assert (await journal.in_force(CHAIN, SENDER, 7)).key == "a"


async def test_nothing_was_sent_from_an_unknown_account(journal):
    assert await journal.last_nonce(CHAIN, OTHER) is None


async def test_an_update_from_an_old_version_or_of_nothing_is_refused(journal):
    await journal.put_new(record("a", 7, 1))
    await journal.update(replace(record("a", 7, 1), sent=True), expected_version=1)
    for key, version in (("a", 1), ("a", 3), ("none", 1)):
        with pytest.raises(StorageError, match="changed"):
            await journal.update(record(key, 7, 1), expected_version=version)
    assert (await journal.get("a")).version == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": 8},
        {"chain_id": 1},
        {"sender": OTHER},
        {"request_digest": b"\x02" * 32},
        {"exit": True},
        {"created_ms": 1},
        {"variants": ()},
        {"variants": (variant(2),)},
        {"variants": (variant(2), variant(1))},
    ],
)
async def test_what_was_signed_can_never_be_changed_or_dropped(sql_journal, changed):
    await sql_journal.put_new(record("a", 7, 1))
    with pytest.raises(StorageError):
        await sql_journal.update(replace(record("a", 7, 1), **changed), expected_version=1)
    assert await sql_journal.get("a") == record("a", 7, 1)


async def test_an_abandoned_record_does_not_come_back_over_the_one_that_took_its_nonce(sql_journal):
    await sql_journal.put_new(record("a", 7, 1))
    await sql_journal.update(replace(record("a", 7, 1), state=TxState.ABANDONED), expected_version=1)
    await sql_journal.put_new(record("b", 7, 2))
    with pytest.raises(StorageError):
        await sql_journal.update(record("a", 7, 1), expected_version=2)
    assert (await sql_journal.get("a")).state is TxState.ABANDONED


async def test_a_signed_form_belongs_to_one_record(sql_journal):
    await sql_journal.put_new(record("a", 7, 1))
    with pytest.raises(StorageError):
        await sql_journal.put_new(record("b", 8, 1))
    assert await sql_journal.get("b") is None


async def test_a_record_without_a_signed_form_is_refused(sql_journal, store):
    with pytest.raises(StorageError, match="signed form"):
        await sql_journal.put_new(record("a", 7, 1, variants=()))
    await sql_journal.put_new(record("a", 7, 1))
    await store.run(lambda conn: conn.execute(text("DELETE FROM evm_variant")))
    with pytest.raises(StorageError, match="no signed form"):
        await sql_journal.get("a")


async def test_records_survive_closing_the_store(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await SqlTxJournal(store).put_new(record("a", 2**40, 1))
    async with await Store.open(url, clock=clock) as store:
        assert await SqlTxJournal(store).get("a") == record("a", 2**40, 1)


async def test_a_journal_of_the_first_schema_is_read_and_gets_what_it_lacks(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    old = record("old", 7, 1, exit=True)
    async with await Store.open(url, clock=SystemClock()) as store:
        await SqlTxJournal(store).put_new(old)
    with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
        database.execute("ALTER TABLE evm_tx DROP COLUMN tip_bound_wei")
        database.execute("ALTER TABLE operation DROP COLUMN epoch")
        database.execute("UPDATE layer2_schema SET version_num = '0001'")
    async with await Store.open(url, clock=SystemClock()) as store:
        journal = SqlTxJournal(store)
        assert await journal.get("old") == old
        new = record("new", 8, 2, tip_bound_wei=2**70)
        await journal.put_new(new)
        assert await journal.get("new") == new
