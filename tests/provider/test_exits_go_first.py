"""Offers cost strangers nothing, so looking at them must hold up nobody for whom money is moving."""

import asyncio

from layer2.swaps import Locked, Locking, LockStatus, Settling

OFFERS = 40
"""More than are looked at at a time."""


async def test_a_claim_is_seen_while_no_offer_can_be_looked_at(world):
    """A payment that is not settled before it expires goes back to a client that has claimed the lock."""
    response = await world.reverse()
    lock = response.signed_terms.terms.lock
    await world.merchant_pays(response)
    await world.reach(response.id, Locking)
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Locked)
    honest = world.chain.view
    stuck = asyncio.Event()

    async def view(seen, policy, *, lock_key):
        if seen.lock_id != lock.lock_id:
            stuck.set()
            await asyncio.Event().wait()
        return await honest(seen, policy, lock_key=lock_key)

    offers = [await world.submarine() for _ in range(OFFERS)]
    world.chain.view = view
    for offer in offers:
        world.engine.wake(offer.id)
    await stuck.wait()
    world.set_lock(response, LockStatus.CLAIMED, bytes(range(3, 35)))
    await world.reach(response.id, Settling)


async def test_only_offers_are_looked_at_the_way_that_strangers_can_fill(world):
    response = await world.reverse()
    offer = await world.submarine()
    lock_id = response.signed_terms.terms.lock.lock_id
    await world.merchant_pays(response)
    await world.reach(response.id, Locking)
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Locked)
    await world.clock.advance(2)
    assert lock_id in world.chain.looked_at
    assert world.chain.offers.looked_at == {offer.signed_terms.terms.lock.lock_id}
