"""Swaps that only wait cost next to nothing, and are looked at when it matters."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from swap_worlds import CLAIMED, LOCKED, NEVER, NOW, REFUNDED, make_deal, make_view

from layer2.errors import NodeConnectionError
from layer2.storage import Store, SwapJournal
from layer2.swaps import (
    Agreed,
    AwaitingLock,
    Closed,
    Locked,
    NoCounterparty,
    Refunding,
    Revealed,
    Role,
    Settled,
    SwapEngine,
    WaitsForBlockError,
)
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock


class Chain:
    """Shows each lock as it was told to, tells of changes when it is told to, and counts the looks."""

    def __init__(self, clock):
        self.clock = clock
        self.shown = {}
        self.looked = []
        self.silent = set()
        self.not_yet = 0
        self.news = asyncio.Queue()

    async def view(self, lock, policy, *, lock_key):
        self.looked.append(lock.lock_id)
        if lock.lock_id in self.silent:
            await asyncio.Event().wait()
        return make_view(*self.shown.get(lock.lock_id, (NEVER, NEVER, NEVER)), now=self.clock.now_ms() // 1000)

    async def next_block(self):
        news = await self.news.get()
        if isinstance(news, Exception):
            raise news
        return news

    async def send_lock(self, key, lock, *, not_after, max_gas_wei):
        if self.not_yet:
            self.not_yet -= 1
            raise WaitsForBlockError("the allowance is being included")
        self.shown[lock.lock_id] = (LOCKED, LOCKED, NEVER)

    async def send_refund(self, key, lock, *, deadline):
        self.shown[lock.lock_id] = (REFUNDED, REFUNDED, REFUNDED)


class World:
    def __init__(self, store, clock):
        self.clock = clock
        self.store = store
        self.journal = SwapJournal(store, Role.CLIENT)
        self.chain = Chain(clock)
        self.engine = None

    async def start(self):
        self.engine = SwapEngine(
            store=self.journal,
            chain=self.chain,
            node=None,
            counterparty=NoCounterparty(),
            preimages=None,
            clock=self.clock,
            poll_s=1.0,
        )
        await self.engine.start()

    async def stored(self, number, state, direction=SwapDirection.SUBMARINE):
        deal = make_deal(Role.CLIENT, direction, id=f"{number:032x}", preimage_time_ms=1)
        lock = replace(deal.terms.lock, preimage_hash=number.to_bytes(32))
        deal = replace(deal, signed=replace(deal.signed, terms=replace(deal.terms, lock=lock)))
        await self.journal.insert(deal, state, idempotency_key=None, request_digest=None, bind_hash=False)
        if isinstance(state, Locked):
            self.chain.shown[lock.lock_id] = (LOCKED, LOCKED, NEVER)
        return deal

    async def state(self, deal):
        return (await self.journal.load(deal.id)).state

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def world(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock = VirtualClock(NOW * 1000)
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        made = World(store, clock)
        yield made
        if made.engine is not None:
            await made.engine.close()


async def test_exits_are_looked_at_first(world):
    waiting = [await world.stored(number, AwaitingLock(), SwapDirection.REVERSE) for number in range(1, 100)]
    leaving = [await world.stored(number, Revealed(), SwapDirection.REVERSE) for number in range(100, 120)]
    await world.start()
    await world.clock.sleep(0.5)
    first = world.chain.looked[: len(leaving)]
    assert set(first) == {deal.terms.lock.lock_id for deal in leaving}
    assert set(world.chain.looked) == {deal.terms.lock.lock_id for deal in waiting + leaving}


async def test_a_swap_that_waits_is_looked_at_less_and_less(world):
    deal = await world.stored(1, Locked())
    await world.start()
    await world.clock.sleep(60)
    looks = len(world.chain.looked)
    # Every 5 s, the grace of the local networks' timing, after some quicker looks at the beginning.
    assert 10 <= looks <= 20
    assert isinstance(await world.state(deal), Locked)


@pytest.mark.slow
async def test_many_swaps_that_wait_share_a_bounded_number_of_looks(world):
    for number in range(1, 3001):
        await world.stored(number, Locked())
    await world.start()
    await world.clock.sleep(60)
    before = len(world.chain.looked)
    await world.clock.sleep(60)
    assert len(world.chain.looked) - before <= 2 * 100 * 60


async def test_an_event_wakes_the_swaps_of_its_lock_and_no_others(world):
    deals = [await world.stored(number, Locked()) for number in (1, 2, 3)]
    await world.start()
    await world.clock.sleep(40)
    world.chain.looked.clear()
    concerned = deals[1].terms.lock.lock_id
    claimed = replace(CLAIMED, preimage=b"\x01" * 32)
    world.chain.shown[concerned] = (claimed, claimed, NEVER)
    world.chain.news.put_nowait(frozenset({concerned}))

    async def settled():
        return isinstance(await world.state(deals[1]), Settled)

    await world.until(settled)
    # The others are looked at when their pause ends, which the virtual clock may have reached meanwhile.
    assert world.chain.looked[0] == concerned


@pytest.mark.parametrize("news", [None, NodeConnectionError("gone")], ids=["unknown", "no answer"])
async def test_where_the_chain_does_not_tell_what_changed_every_swap_is_looked_at(world, news):
    deals = [await world.stored(number, Locked()) for number in (1, 2, 3)]
    await world.start()
    await world.clock.sleep(40)
    world.chain.looked.clear()
    world.chain.news.put_nowait(news)
    await world.clock.sleep(1.5)
    assert set(world.chain.looked) == {deal.terms.lock.lock_id for deal in deals}


async def test_an_event_that_is_never_told_is_found_all_the_same(world):
    deal = await world.stored(1, Locked())
    await world.start()
    await world.clock.sleep(40)
    claimed = replace(CLAIMED, preimage=b"\x01" * 32)
    world.chain.shown[deal.terms.lock.lock_id] = (claimed, claimed, claimed)
    await world.clock.sleep(6)
    assert isinstance(await world.state(deal), Closed)


@pytest.mark.slow
async def test_a_swap_at_rest_is_looked_at_when_its_timelock_passes(world):
    deals = [await world.stored(number, Locked()) for number in range(1, 3001)]
    await world.start()
    timelock = deals[0].terms.lock.timelock
    await world.clock.sleep(timelock - NOW - 1)
    assert isinstance(await world.state(deals[0]), Locked)
    await world.clock.sleep(3)
    states = Counter(type(swap.state) for swap in world.engine.open_swaps)
    assert states[Locked] == 0
    assert set(states) <= {Refunding}


async def test_what_waits_for_a_block_is_no_fault(world, caplog):
    """It is tried at the pace of blocks, however often, and warns of nothing."""
    caplog.set_level("WARNING", "layer2")
    world.chain.not_yet = 8
    deal = await world.stored(1, Agreed())
    await world.start()
    await world.clock.sleep(10)
    assert isinstance(await world.state(deal), Locked)
    assert not caplog.records


async def test_an_exit_does_not_wait_for_swaps_that_have_no_deadline(world):
    """However many of them hang in a step."""
    for number in range(1, 200):
        stuck = await world.stored(number, Locked())
        world.chain.silent.add(stuck.terms.lock.lock_id)
    await world.start()
    await world.clock.sleep(1)
    leaving = await world.stored(500, Revealed(), SwapDirection.REVERSE)
    claimed = replace(CLAIMED, preimage=b"\x01" * 32)
    world.chain.shown[leaving.terms.lock.lock_id] = (claimed, claimed, claimed)
    world.engine.take_up(await world.journal.load(leaving.id))
    await world.clock.sleep(5)
    assert isinstance(await world.state(leaving), Closed)
