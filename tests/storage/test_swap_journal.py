from __future__ import annotations

import pytest

from layer2.errors import IdempotencyConflict, NotFound, StorageError
from layer2.storage import StaleVersion, SwapJournal, swaps
from layer2.swaps import HashTakenError, every_unfinished
from layer2.swaps._effects import PayInvoice, SendLock
from layer2.swaps._observations import CancelRequested
from layer2.swaps._states import Abandoned, Agreed, Locking, Offered, Paying, Revealed, Role


@pytest.fixture
def clients(store):
    return SwapJournal(store, Role.CLIENT)


@pytest.fixture
def providers(store):
    return SwapJournal(store, Role.PROVIDER)


async def insert(journal, deal, *, key=None, digest=None, bind_hash=False):
    state = Agreed() if deal.role is Role.CLIENT else Offered()
    return await journal.insert(deal, state, idempotency_key=key, request_digest=digest, bind_hash=bind_hash)


async def move(journal, swap, state, *effects, bind_hash=None, version=None):
    return await journal.transition(
        swap.id,
        expected_version=version or swap.version,
        state=state,
        seen=CancelRequested(),
        effects=effects,
        bind_hash=bind_hash,
    )


async def test_a_swap_is_given_back_as_it_stands_after_each_step(clients, make_deal, clock):
    deal = make_deal(1)
    swap = await insert(clients, deal)
    assert (swap.deal, swap.state, swap.version, swap.created_at_ms) == (deal, Agreed(), 1, clock.now)
    clock.now += 5
    moved = await move(clients, swap, Locking(), SendLock(not_after=1))
    assert (moved.state, moved.version, moved.updated_at_ms) == (Locking(), 2, clock.now)
    assert [each.effect for each in moved.effects] == [SendLock(not_after=1)]
    assert await clients.load(deal.id) == moved
    assert [each.state_after for each in await clients.events(deal.id)] == ["agreed", "locking"]
    with pytest.raises(StaleVersion):
        await move(clients, swap, Locking(), version=1)


async def test_the_same_request_gives_the_same_swap(clients, make_deal):
    first = await insert(clients, make_deal(1), key="key", digest="a")
    assert await insert(clients, make_deal(2), key="key", digest="a") == first
    assert await clients.by_key("key") == first
    with pytest.raises(IdempotencyConflict):
        await insert(clients, make_deal(2), key="key", digest="b")
    assert await clients.by_key("none") is None


async def test_a_hash_that_is_taken_is_told_in_the_words_of_the_engine(clients, providers, make_deal):
    same = b"\x11" * 32
    await insert(clients, make_deal(1, payment_hash=same), bind_hash=True)
    with pytest.raises(HashTakenError):
        await insert(clients, make_deal(2, payment_hash=same), bind_hash=True)
    other = await insert(providers, make_deal(3, role=Role.PROVIDER, payment_hash=same))
    with pytest.raises(HashTakenError):
        await move(providers, other, Paying(), PayInvoice(), bind_hash=same)
    assert await providers.load(other.id) == other
    assert await clients.hash_known(same)
    assert not await clients.hash_known(b"\x12" * 32)


async def test_unfinished_swaps_of_the_role_come_in_pages(clients, providers, make_deal):
    for number in range(1, 6):
        await insert(clients, make_deal(number))
    await insert(providers, make_deal(6, role=Role.PROVIDER))
    await move(clients, await clients.load(make_deal(2).id), Abandoned(reason="gone"))
    await move(clients, await clients.load(make_deal(4).id), Revealed())
    first = await clients.unfinished(exits=False, after=None, limit=2)
    rest = await clients.unfinished(exits=False, after=first[-1].id, limit=2)
    assert [int(each.id, 16) for each in first + rest] == [1, 3, 5]
    assert [each.id for each in await clients.unfinished(exits=True, after=None, limit=2)] == [make_deal(4).id]
    assert [int(each.id, 16) async for each in every_unfinished(clients)] == [4, 1, 3, 5]
    assert [int(each.id, 16) async for each in every_unfinished(providers)] == [6]
    assert [int(each.id, 16) for each in await clients.page(kinds=None, limit=10, after=None)] == [5, 4, 3, 2, 1]


async def test_a_request_that_was_begun_is_remembered_whatever_becomes_of_the_swap(clients, make_deal):
    swap = await insert(clients, make_deal(1))
    swap = await move(clients, swap, Paying(), PayInvoice())
    assert [each.begun for each in swap.effects] == [False]
    await clients.mark_begun(swap.id, "pay", begun=True)
    swap = await move(clients, swap, Paying(), PayInvoice())
    assert [each.begun for each in swap.effects] == [True]
    swap = await move(clients, swap, Locking())
    swap = await move(clients, swap, Paying(), PayInvoice())
    assert [each.begun for each in swap.effects] == [True]
    await clients.mark_begun(swap.id, "pay", begun=False)
    assert [each.begun for each in (await clients.load(swap.id)).effects] == [False]
    with pytest.raises(NotFound):
        await clients.mark_begun(swap.id, "claim", begun=True)


async def test_the_newest_proof_is_kept(clients, make_deal):
    swap = await insert(clients, make_deal(1))
    assert await clients.proof(swap.id) is None
    await clients.put_proof(swap.id, b"\x01" * 32, "{}")
    await clients.put_proof(swap.id, b"\x02" * 32, '{"again":1}')
    assert await clients.proof(swap.id) == '{"again":1}'
    with pytest.raises(StorageError):
        await clients.put_proof("f" * 32, b"\x01" * 32, "{}")


async def test_preimage_times_are_taken_from_the_store(clients, store, clock):
    assert await clients.next_preimage_time() == clock.now
    assert await store.run(swaps.next_preimage_time, clock.now) == clock.now + 1
