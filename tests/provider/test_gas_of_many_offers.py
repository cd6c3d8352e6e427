"""Offers that are each within the hour's cap on gas do not pass it together: it is asked once more before anything is begun."""

import asyncio

import pytest

from layer2.errors import FeeLimitExceeded
from layer2.evm import verify_cooperative_refund
from layer2.lightning import InvoiceState
from layer2.swaps import Claiming, Closed, Failed, LockStatus, Paying, Settled

SWAP_GAS_WEI = 10**12
ROOM = 2


@pytest.fixture
async def capped(make_world):
    return await make_world(max_gas_per_hour_wei=ROOM * SWAP_GAS_WEI + SWAP_GAS_WEI // 2)


async def settle(world, offers):
    """Look at all of them, until each has its lock or has come to an end."""

    async def done(offer):
        swap = await world.engine.load(offer.id)
        return swap.state.final or ("lock", offer.signed_terms.terms.lock.lock_id) in world.chain.sent

    async with asyncio.timeout(20):
        while not all([await done(offer) for offer in offers]):
            await world.clock.advance(0.5)
            await asyncio.sleep(0.001)


async def ends(world, offers):
    return [(await world.engine.load(offer.id)).state for offer in offers]


async def test_payments_beyond_it_go_back_and_nothing_is_locked_for_them(capped):
    world = capped
    offers = [await world.reverse() for _ in range(5)]
    for offer in offers:
        await world.merchant_pays(offer)
    await settle(world, offers)
    assert len({lock_id for _, lock_id in world.chain.sent}) == ROOM
    gone = [offer for offer, state in zip(offers, await ends(world, offers), strict=True) if isinstance(state, Closed)]
    assert len(gone) == len(offers) - ROOM
    for offer in gone:
        state = (await world.engine.load(offer.id)).state
        assert (state.outcome, state.reason) == ("expired", "the gas for this hour is spent")
        record = await world.node.lookup_invoice(offer.signed_terms.terms.lock.preimage_hash)
        assert record.state is InvoiceState.CANCELED
    assert world.inventory.spending_swaps() == ROOM


async def test_locks_beyond_it_are_not_paid_for_and_go_back_early(capped):
    world = capped
    offers = [await world.submarine() for _ in range(5)]
    for offer in offers:
        world.set_lock(offer, LockStatus.LOCKED)
    swaps = [await world.reach(offer.id, Claiming, Settled, Failed) for offer in offers]
    dead = [swap for swap in swaps if isinstance(swap.state, Failed)]
    assert len(dead) == len(offers) - ROOM
    assert {swap.state.reason for swap in dead} == {"the gas for this hour is spent"}
    for swap in dead:
        assert verify_cooperative_refund(swap.deal.terms.lock, await world.service.sign_refund(swap.deal.id))
    assert world.inventory.spending_swaps() == ROOM


async def test_payments_that_fail_leave_the_room_that_they_had(capped):
    """Else whoever gives invoices that nobody can pay would shut others out."""
    world = capped
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    offers = [await world.submarine() for _ in range(ROOM)]
    for offer in offers:
        world.set_lock(offer, LockStatus.LOCKED)
        await world.reach(offer.id, Paying)
    async with asyncio.timeout(20):
        while world.inventory.spending_swaps() < ROOM:
            await asyncio.sleep(0.001)
    for offer in offers:
        await world.merchant.cancel_invoice(offer.signed_terms.terms.lock.preimage_hash)
    world.lightning.set_hanging(world.merchant.node_id, hanging=False)
    async with asyncio.timeout(20):
        while not all(isinstance(state, Failed) for state in await ends(world, offers)):
            await world.clock.advance(1)
            await asyncio.sleep(0.001)
    assert world.inventory.spending_swaps() == 0


@pytest.mark.parametrize("trouble", ["too little", "too dear"])
async def test_gas_that_cannot_be_paid_by_then_begins_nothing_and_tells_no_balance(world, trouble):
    offers = [await world.reverse(), await world.submarine()]
    if trouble == "too little":
        world.account.gas_short = True
    else:
        world.account.error = FeeLimitExceeded("the gas of a swap may cost 1234567 wei now", limit=1, needed=1234567)
    await world.merchant_pays(offers[0])
    world.set_lock(offers[1], LockStatus.LOCKED)
    await settle(world, offers)
    assert {state.reason for state in await ends(world, offers)} == {"the gas of this swap cannot be paid now"}
    assert world.chain.sent == []


async def test_after_an_hour_there_is_room_again(capped):
    world = capped
    offers = [await world.reverse() for _ in range(ROOM)]
    for offer in offers:
        await world.merchant_pays(offer)
    await settle(world, offers)
    await world.clock.advance(3_600)
    later = await world.reverse()
    await world.merchant_pays(later)
    await settle(world, [later])
    assert ("lock", later.signed_terms.terms.lock.lock_id) in world.chain.sent
