"""A Lightning node that does not know the newest blocks does not know for how long a payment is held: nothing is locked on its word."""

import asyncio
from dataclasses import replace
from hashlib import sha256

import pytest

from layer2.errors import NodeConnectionError, NodeNotReady
from layer2.swaps import BOB_TIMING, Cancelling, Closed, Invoiced, Locked, Locking, LockStatus, Settled

PREIMAGE = b"\x09" * 32
BLOCKS = 45
"""Enough for a payment that was held with the usual CLTV to run out before the lock."""


class Behind:
    """Makes the provider's node one that has not seen the newest blocks, and says so."""

    def __init__(self, node):
        self._info = node.info
        self.on = False
        self.looks = 0
        node.info = self.info

    async def info(self):
        info = await self._info()
        self.looks += 1
        if not self.on:
            return info
        return replace(info, synced_to_chain=False, block_height=info.block_height - BLOCKS)


@pytest.fixture
async def world(make_world):
    return await make_world(timing=BOB_TIMING)


@pytest.fixture
def behind(world):
    return Behind(world.node)


async def some_time(world, response, seconds=20):
    """The swap is looked at again and again."""
    for _ in range(seconds):
        await world.clock.advance(1)
        world.engine.wake(response.id)
        for _ in range(5):
            await asyncio.sleep(0.001)


async def state_of(world, response):
    return (await world.engine.load(response.id)).state


async def test_nothing_is_locked_for_a_payment_that_only_such_a_node_gives_the_time_for(world, behind):
    response = await world.reverse()
    behind.on = True
    await world.merchant_pays(response)
    world.lightning.mine(BLOCKS)
    await some_time(world, response)
    assert isinstance(await state_of(world, response), Invoiced)
    behind.on = False
    world.engine.wake(response.id)
    swap = await world.reach(response.id, Cancelling)
    assert "too soon" in swap.state.reason
    assert world.chain.sent == []


async def test_the_lock_follows_when_it_has_caught_up_in_time(world, behind):
    response = await world.reverse()
    behind.on = True
    await world.merchant_pays(response)
    await some_time(world, response)
    behind.on = False
    await some_time(world, response, seconds=40)
    assert ("lock", response.signed_terms.terms.lock.lock_id) in world.chain.sent


async def test_the_payment_goes_back_when_the_time_to_lock_is_over(world, behind):
    response = await world.reverse()
    behind.on = True
    await world.merchant_pays(response)
    await world.clock.advance(response.signed_terms.terms.lock_by - world.clock.now_ms() // 1000 + 1)
    world.engine.wake(response.id)
    swap = await world.reach(response.id, Cancelling)
    assert "too late" in swap.state.reason
    assert world.chain.sent == []


async def test_nothing_is_signed_where_it_falls_behind_after_the_decision(world, behind):
    response = await world.reverse()
    sending = world.chain.send_lock

    async def gone(key, lock, *, not_after):
        raise NodeConnectionError("gone", request_sent=True)

    world.chain.send_lock = gone
    await world.merchant_pays(response)
    await world.reach(response.id, Locking)
    world.lightning.mine(BLOCKS)
    behind.on = True
    world.chain.send_lock = sending
    await some_time(world, response, seconds=40)
    assert isinstance(await state_of(world, response), Locking)
    assert world.chain.sent == []


async def test_what_is_locked_is_settled_all_the_same(world, behind):
    response = await world.reverse(preimage_hash=sha256(PREIMAGE).digest())
    await world.merchant_pays(response)
    await world.reach(response.id, Locking)
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Locked)
    behind.on = True
    world.set_lock(response, LockStatus.CLAIMED, PREIMAGE)
    await some_time(world, response)
    assert isinstance(await state_of(world, response), Settled | Closed)


async def test_no_offer_is_made_meanwhile(world, behind):
    behind.on = True
    invoice = await world.invoice(expiry_s=7_200)
    for asked in (world.submarine(invoice=invoice), world.reverse()):
        asking = asyncio.create_task(asked)
        while not asking.done():
            await world.clock.advance(1)
            await asyncio.sleep(0.001)
        with pytest.raises(NodeNotReady, match="not synchronised"):
            await asking
    assert world.inventory.active == 0


async def test_those_who_ask_meanwhile_wait_once_together(world, behind):
    behind.on = True
    asking = [asyncio.create_task(world.reverse()) for _ in range(50)]
    for _ in range(10):
        await world.clock.advance(1)
        await asyncio.sleep(0.01)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, NodeNotReady) for answer in answers)
    assert behind.looks < 150


async def test_the_moment_after_a_block_keeps_nobody_out(world, behind):
    behind.on = True
    asking = asyncio.create_task(world.reverse())
    await asyncio.sleep(0.01)
    behind.on = False
    while not asking.done():
        await world.clock.advance(1)
        await asyncio.sleep(0.001)
    assert (await asking).id
