from __future__ import annotations

import pytest

from layer2.errors import IdempotencyConflict, StorageError
from layer2.lightning import MemoryJournal
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
    assert await journal.begin("key", b"\x01") == "first"
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
    assert await journal.begin("key", b"\x02") == "quick"


async def test_a_decision_under_a_key_that_was_never_bound_is_refused(store):
    with pytest.raises(StorageError, match="never noted"):
        await SqlOperationJournal(store).finish("key", b"\x01", "x")


async def test_the_same_key_of_another_protocol_is_another_key(store):
    one, two = SqlOperationJournal(store, scope="lightning"), SqlOperationJournal(store, scope="bob")
    await one.begin("key", b"\x01")
    assert await two.begin("key", b"\x02") is None
    await one.finish("key", b"\x01", "one")
    await two.finish("key", b"\x02", "two")
    assert await one.begin("key", b"\x01") == "one"


async def test_a_decision_survives_closing_the_store(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await SqlOperationJournal(store).begin("key", b"\x01")
        await SqlOperationJournal(store).finish("key", b"\x01", "first")
    async with await Store.open(url, clock=clock) as store:
        assert await SqlOperationJournal(store).begin("key", b"\x01") == "first"
