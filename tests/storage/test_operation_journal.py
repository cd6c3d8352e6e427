from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from layer2.errors import IdempotencyConflict, StorageError
from layer2.lightning import Decision, MemoryJournal
from layer2.storage import SqlOperationJournal, Store


@pytest.fixture(params=["memory", "store"])
async def journal(request, store):
    """What holds for the journal in memory holds for the one in the store."""
    return MemoryJournal() if request.param == "memory" else SqlOperationJournal(store)


async def test_a_key_remembers_the_first_decision(journal):
    assert await journal.begin("key", b"\x01") is None
    assert await journal.begin("key", b"\x01") is None
    assert await journal.finish("key", b"\x01", "first") == "first"
    assert await journal.finish("key", b"\x01", "second") == "first"
    assert await journal.begin("key", b"\x01") == Decision("first")
    assert await journal.begin("other", b"\x01") is None


async def test_a_key_with_other_arguments_is_a_conflict(journal):
    await journal.begin("key", b"\x01")
    await journal.finish("key", b"\x01", "first")
    with pytest.raises(IdempotencyConflict) as caught:
        await journal.begin("key", b"\x02")
    assert caught.value.key == "key"


async def test_a_key_under_which_nothing_was_decided_is_left_to_the_next_call(journal):
    """Nothing was sent under it. Whoever was slower to decide finds it taken, and sends nothing."""
    assert await journal.begin("key", b"\x01") is None
    assert await journal.begin("key", b"\x02") is None
    with pytest.raises(IdempotencyConflict):
        await journal.finish("key", b"\x01", "slow")
    assert await journal.finish("key", b"\x02", "quick") == "quick"
    assert await journal.begin("key", b"\x02") == Decision("quick")


async def test_a_decision_under_a_key_that_was_never_bound_is_refused(store):
    with pytest.raises(StorageError, match="never noted"):
        await SqlOperationJournal(store).finish("key", b"\x01", "x")


async def test_the_same_key_of_another_protocol_is_another_key(store):
    one, two = SqlOperationJournal(store, scope="lightning"), SqlOperationJournal(store, scope="bob")
    await one.begin("key", b"\x01")
    assert await two.begin("key", b"\x02") is None
    await one.finish("key", b"\x01", "one")
    await two.finish("key", b"\x02", "two")
    assert await one.begin("key", b"\x01") == Decision("one")


async def test_a_decision_survives_closing_the_store(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await SqlOperationJournal(store).begin("key", b"\x01")
        await SqlOperationJournal(store).finish("key", b"\x01", "first")
    async with await Store.open(url, clock=clock) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == Decision("first")


async def decided(journal, key, digest, outcome):
    assert await journal.begin(key, digest) is None
    await journal.finish(key, digest, outcome)


async def test_what_was_decided_before_the_store_was_restored_is_marked(url, clock):
    async with await Store.open(url, clock=clock) as store:
        journal = SqlOperationJournal(store)
        await decided(journal, "decided", b"\x01", "first")
        await journal.begin("noted", b"\x01")
    async with await Store.open(url, clock=clock, adopt=True) as store:
        journal = SqlOperationJournal(store)
        with pytest.raises(IdempotencyConflict):
            await journal.begin("decided", b"\x02")
        await decided(journal, "noted", b"\x02", "second")
        await decided(journal, "new", b"\x03", "third")
    async with await Store.open(url, clock=clock) as store:
        journal = SqlOperationJournal(store)
        assert await journal.begin("decided", b"\x01") == Decision("first", restored=True)
        assert await journal.begin("noted", b"\x02") == Decision("second")
        assert await journal.begin("new", b"\x03") == Decision("third")


async def test_a_key_cannot_say_of_itself_that_it_was_not_restored(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await decided(SqlOperationJournal(store), "key", b"\x01", "first")
        await store.run(lambda conn: conn.execute(text("UPDATE operation SET epoch = 1000000")))
    async with await Store.open(url, clock=clock, adopt=True) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == Decision("first", restored=True)


async def of_the_second_schema(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await decided(SqlOperationJournal(store), "key", b"\x01", "first")
        await store.run(lambda conn: conn.execute(text("ALTER TABLE operation DROP COLUMN epoch")))
        await store.run(lambda conn: conn.execute(text("UPDATE layer2_schema SET version_num = '0002'")))


async def test_keys_of_the_second_schema_are_taken_over(url, clock):
    await of_the_second_schema(url, clock)
    async with await Store.open(url, clock=clock) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == Decision("first")


async def test_keys_of_the_second_schema_are_marked_in_a_copy_and_in_a_store_that_was_one(databases, clock):
    """Which of them are of the copy, and which came later, is not known of a store that was restored before."""
    copy, older = databases.new(), databases.new()
    await of_the_second_schema(copy, clock)
    async with await Store.open(copy, clock=clock, adopt=True) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == Decision("first", restored=True)
    await (await Store.open(older, clock=clock)).close()
    await (await Store.open(older, clock=clock, adopt=True)).close()
    await of_the_second_schema(older, clock)
    async with await Store.open(older, clock=clock) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == Decision("first", restored=True)


@pytest.mark.parametrize("epoch", ["1000000 + rowid", "NULL"])
async def test_a_copy_whose_keys_will_not_be_marked_is_refused(clock, tmp_path, epoch):
    """Such a key would pay again. The table itself says that what does not fit is left as it is."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with await Store.open(url, clock=clock) as store:
        for number in range(2):
            await decided(SqlOperationJournal(store), f"key {number}", b"\x01", "first")
    with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
        names = ", ".join(row[1] for row in database.execute("PRAGMA table_info(operation)") if row[1] != "epoch")
        database.execute(f"CREATE TABLE other AS SELECT {names} FROM operation")
        database.execute("DROP TABLE operation")
        database.execute(f"CREATE TABLE operation ({names}, epoch UNIQUE ON CONFLICT IGNORE)")
        database.execute(f"INSERT INTO operation SELECT {names}, {epoch} FROM other")
        database.execute("DROP TABLE other")
    with pytest.raises(StorageError, match="idempotency keys cannot be marked as restored"):
        await Store.open(url, clock=clock, adopt=True)
