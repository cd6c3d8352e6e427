"""Between the decision to lock and the lock lie crashes and endpoints that do not answer: the payment is looked at once more."""

import asyncio
from dataclasses import replace

import pytest

from layer2.errors import NodeConnectionError
from layer2.lightning import decode_invoice
from layer2.swaps import Closed, Locking, OwnTransaction


@pytest.fixture
async def decided(world):
    """A provider that has decided to lock, while the chain's endpoint does not answer. Gives the offer."""
    response = await world.reverse()
    invoice = decode_invoice(response.signed_terms.terms.invoice)

    async def gone(key, lock, *, not_after):
        raise NodeConnectionError("gone", request_sent=True)

    world.chain.send_lock = gone
    paying = asyncio.create_task(
        world.merchant.pay(invoice.text, fee_limit_msat=10**6, cltv_limit=2_000, time_limit_s=30)
    )
    await world.clock.advance(2)
    world.engine.wake(response.id)
    await world.reach(response.id, Locking)
    yield response
    paying.cancel()
    await asyncio.gather(paying, return_exceptions=True)


async def answers_again(world, response):
    del world.chain.send_lock
    before = (await world.engine.load(response.id)).version
    async with asyncio.timeout(20):
        while not world.chain.sent and (await world.engine.load(response.id)).version < before + 2:
            await world.clock.advance(1)
            await asyncio.sleep(0.001)


async def test_a_payment_that_is_still_held_is_locked_for(world, decided):
    await answers_again(world, decided)
    assert ("lock", decided.signed_terms.terms.lock.lock_id) in world.chain.sent


async def test_nothing_is_locked_for_a_payment_that_went_back(world, decided):
    await world.node.cancel_invoice(decided.signed_terms.terms.lock.preimage_hash)
    await answers_again(world, decided)
    swap = await world.reach(decided.id, Closed)
    assert swap.state.outcome == "expired"
    assert world.chain.sent == []


async def test_nothing_is_locked_for_a_payment_that_expires_too_soon_by_now(world, decided):
    world.lightning.mine(40)
    await answers_again(world, decided)
    swap = await world.reach(decided.id, Closed)
    assert swap.state.outcome == "expired"
    assert world.chain.sent == []


async def test_a_lock_that_was_signed_is_sent_on_whatever_became_of_the_payment(world, decided):
    """It may be in the chain already: only the chain says how it ends."""
    look = world.chain.view

    async def signed(lock, policy, *, lock_key):
        return replace(await look(lock, policy, lock_key=lock_key), own_lock=OwnTransaction.OPEN)

    world.chain.view = signed
    await world.node.cancel_invoice(decided.signed_terms.terms.lock.preimage_hash)
    await answers_again(world, decided)
    assert ("lock", decided.signed_terms.terms.lock.lock_id) in world.chain.sent
