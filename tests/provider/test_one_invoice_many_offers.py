"""Several offers for one invoice: consent to the refund of one must never be consent to the refund of another's lock.

Whoever asks twice and locks once would otherwise have its lock back early while its invoice is paid.
"""

import asyncio
from dataclasses import replace

import pytest
from refusals import refused

from layer2.errors import SwapRefused
from layer2.evm import verify_cooperative_refund
from layer2.lightning import PaymentState
from layer2.swaps import DEVNET_TIMING, Failed, LockStatus, Paying


def lock_of(response):
    return response.signed_terms.terms.lock


async def test_consent_for_a_dead_offer_is_no_consent_for_the_lock_that_is_paid_for(world):
    """The theft: two offers, one lock, a held payment; the second offer is dead because the first has the hash."""
    text = await world.invoice()
    first, second = await world.submarine(invoice=text), await world.submarine(invoice=text)
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    world.set_lock(first, LockStatus.LOCKED)
    await world.reach(first.id, Paying)
    world.set_lock(second, LockStatus.LOCKED)
    await world.reach(second.id, Failed)
    signature = await world.service.sign_refund(second.id)
    assert verify_cooperative_refund(lock_of(second), signature)
    assert not verify_cooperative_refund(lock_of(first), signature)


async def test_an_offer_after_a_dead_one_has_another_lock(world):
    """Consent that was given before must not be good for what is promised later."""
    text = await world.invoice(expiry_s=4_000)
    first = await world.submarine(invoice=text)
    await world.clock.advance(DEVNET_TIMING.lock_window_s + 200)
    world.engine.wake(first.id)
    await world.reach(first.id, Failed)
    world.set_lock(first, LockStatus.LOCKED)
    signature = await world.service.sign_refund(first.id)
    second = await world.submarine(invoice=text)
    assert lock_of(second).lock_id != lock_of(first).lock_id
    assert not verify_cooperative_refund(lock_of(second), signature)


async def test_every_offer_for_an_invoice_has_a_lock_of_its_own(world):
    text = await world.invoice()
    responses = [await world.submarine(invoice=text) for _ in range(40)]
    assert len({lock_of(response).lock_id for response in responses}) == 40
    shortest = min(lock_of(response).timelock for response in responses)
    assert lock_of(responses[0]).timelock == shortest


async def test_no_consent_while_another_swap_on_the_same_lock_lives(world):
    """Also where a store has two of them, from before no two were made."""
    response = await world.submarine()
    deal = (await world.engine.load(response.id)).deal
    terms = replace(deal.terms, swap_id="ab" * 16)
    await world.engine.begin(replace(deal, id="ab" * 16, signed=replace(deal.signed, terms=terms)), bind_hash=False)
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    world.set_lock(response, LockStatus.LOCKED)
    world.engine.wake("ab" * 16)
    ends = [await world.reach(swap_id, Paying, Failed) for swap_id in (response.id, "ab" * 16)]
    (dead,) = [swap for swap in ends if isinstance(swap.state, Failed)]
    with pytest.raises(SwapRefused) as caught:
        await world.service.sign_refund(dead.deal.id)
    assert caught.value.rule == "not_failed"


async def test_no_consent_without_a_lock_as_deep_as_the_terms_say(world):
    """Consent to what is not locked could be kept for an offer of a later life, which knows nothing of it."""
    response = await world.submarine(invoice=await world.invoice(expiry_s=4_000))
    await world.clock.advance(DEVNET_TIMING.lock_window_s + 200)
    world.engine.wake(response.id)
    await world.reach(response.id, Failed)
    await refused(world.service.sign_refund(response.id), "not_locked")
    world.chain.shallow.add(lock_of(response).lock_id)
    world.set_lock(response, LockStatus.LOCKED)
    await refused(world.service.sign_refund(response.id), "not_locked")
    world.chain.shallow.clear()
    assert verify_cooperative_refund(lock_of(response), await world.service.sign_refund(response.id))


async def test_a_lock_that_the_contract_knows_is_offered_to_nobody(make_world):
    """A store that was lost had made the offer, and may have consented to its refund."""
    lost, world = await make_world(), await make_world()
    text = await lost.invoice(expiry_s=4_000)
    first = await lost.submarine(invoice=text)
    world.set_lock(first, LockStatus.LOCKED)
    second = await world.submarine(invoice=text)
    assert lock_of(second).lock_id != lock_of(first).lock_id


async def test_no_consent_while_the_node_pays_what_the_store_calls_dead(world):
    """A restored copy may have called it dead for its time alone, while a payment of its lost life is under way."""
    text = await world.invoice()
    response = await world.submarine(invoice=text)
    world.chain.head_offset_s = 10_000
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Failed)
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    paying = asyncio.create_task(world.node.pay(text, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=60))
    while (await world.node.lookup_payment(lock_of(response).preimage_hash)).state is PaymentState.NONE:
        await asyncio.sleep(0)
    await refused(world.service.sign_refund(response.id), "not_failed")
    paying.cancel()
