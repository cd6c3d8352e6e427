"""A channel has places for HTLCs, not for swaps: payments count in as many parts as they come."""

import asyncio
from dataclasses import replace

import pytest
from refusals import refused

from layer2.errors import NodeConnectionError
from layer2.lightning import ChannelPolicy, InvoiceState
from layer2.swaps import Closed, Locked, LockStatus

AMOUNT = 50_000


def payer_with_channels(world, count):
    """A node whose payment of ``AMOUNT`` falls into as many parts as it has channels: 2 or 4, since parts are halves of halves."""
    node = world.lightning.add_node(f"payer over {count}")
    for _ in range(count):
        world.lightning.open_channel(
            node.node_id,
            world.node.node_id,
            local_msat=AMOUNT * 1200 // count,
            remote_msat=10**9,
            policy=ChannelPolicy(cltv_delta=24),
        )
    return node


async def parts_of(world, response):
    return len((await world.node.lookup_invoice(response.signed_terms.terms.lock.preimage_hash)).htlcs)


async def wait_until(world, done):
    async with asyncio.timeout(20):
        while not await done():
            await world.clock.advance(1)
            await asyncio.sleep(0.001)


async def closed(world, response):
    async def done():
        return isinstance((await world.engine.load(response.id)).state, Closed)

    await wait_until(world, done)
    return (await world.engine.load(response.id)).state


async def locked(world, response, payer):
    async def done():
        return ("lock", response.signed_terms.terms.lock.lock_id) in world.chain.sent

    await world.merchant_pays(response, payer)
    await wait_until(world, done)
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Locked)


async def test_every_part_of_a_held_payment_takes_a_place(make_world):
    world = await make_world(max_held_per_channel=5)
    response = await world.reverse(onchain_amount=AMOUNT)
    await locked(world, response, payer_with_channels(world, 4))
    assert await parts_of(world, response) == 4
    assert world.inventory.held_parts() == 4
    await world.reverse()
    await refused(world.reverse(), "max_held")


async def test_a_payment_of_more_parts_than_there_is_room_for_goes_back_at_once(make_world):
    world = await make_world(max_held_per_channel=5)
    first, second = [await world.reverse(onchain_amount=AMOUNT) for _ in range(2)]
    await locked(world, first, payer_with_channels(world, 4))
    sent = list(world.chain.sent)
    await world.merchant_pays(second, payer_with_channels(world, 2))
    assert await parts_of(world, second) == 2
    state = await closed(world, second)
    assert state.outcome == "expired"
    assert "2 part(s), and 4 of at most 5" in state.reason
    record = await world.node.lookup_invoice(second.signed_terms.terms.lock.preimage_hash)
    assert record.state is InvoiceState.CANCELED
    assert world.chain.sent == sent
    assert world.inventory.held_parts() == 4


@pytest.mark.parametrize("smallest_msat", [999_999, 1_000_000])
async def test_a_part_that_a_closed_channel_would_not_pay_out_is_not_held(make_world, monkeypatch, smallest_msat):
    """Else the provider pays for the whole by its lock, and that part goes to the miners if the channel is closed by force."""
    world = await make_world()
    response = await world.reverse(onchain_amount=AMOUNT)
    answers, payment_hash = world.node.lookup_invoice, response.signed_terms.terms.lock.preimage_hash

    async def in_uneven_parts(asked):
        record = await answers(asked)
        if asked != payment_hash or len(record.htlcs) != 2:
            return record
        one, other = record.htlcs
        rest_msat = one.amount_msat + other.amount_msat - smallest_msat
        return replace(record, htlcs=(replace(one, amount_msat=rest_msat), replace(other, amount_msat=smallest_msat)))

    monkeypatch.setattr(world.node, "lookup_invoice", in_uneven_parts)
    payer = payer_with_channels(world, 2)
    if smallest_msat >= 1_000_000:
        await locked(world, response, payer)
        return
    await world.merchant_pays(response, payer)
    state = await closed(world, response)
    assert state.outcome == "expired"
    assert "a part below 1000 satoshi" in state.reason
    assert (await answers(payment_hash)).state is InvoiceState.CANCELED
    assert ("lock", response.signed_terms.terms.lock.lock_id) not in world.chain.sent


async def test_as_many_parts_as_there_is_room_for_are_held(make_world):
    world = await make_world(max_held_per_channel=4)
    first, second = [await world.reverse(onchain_amount=AMOUNT) for _ in range(2)]
    await locked(world, first, payer_with_channels(world, 2))
    await locked(world, second, payer_with_channels(world, 2))
    assert world.inventory.held_parts() == 4
    await refused(world.reverse(), "max_held")


async def test_the_places_are_free_again_when_the_payment_is_over(make_world):
    world = await make_world(max_held_per_channel=4)
    response = await world.reverse(onchain_amount=AMOUNT)
    await locked(world, response, payer_with_channels(world, 4))
    await refused(world.reverse(), "max_held")
    world.chain.head_offset_s = 10**6
    world.set_lock(response, LockStatus.REFUNDED)
    await closed(world, response)
    assert world.inventory.held_parts() == 0
    world.chain.head_offset_s = 0
    await world.reverse()


async def forget(world, response):
    """Leave the inventory with what it knows after a restart: the state of the swap and nothing else."""
    swap = await world.engine.load(response.id)
    world.inventory.changed(replace(swap, state=Closed(outcome="settled")))
    world.inventory.changed(swap)


async def test_what_an_earlier_process_holds_is_counted_before_anything_is_offered(make_world):
    world = await make_world(max_held_per_channel=4)
    response = await world.reverse(onchain_amount=AMOUNT)
    await locked(world, response, payer_with_channels(world, 4))
    await forget(world, response)
    assert world.inventory.held_parts() == 1  # nobody has said more yet
    await refused(world.reverse(), "max_held")
    assert world.inventory.held_parts() == 4


async def test_what_an_earlier_process_holds_is_counted_before_anything_else_is_held(make_world):
    world = await make_world(max_held_per_channel=5)
    first, second = [await world.reverse(onchain_amount=AMOUNT) for _ in range(2)]
    await locked(world, first, payer_with_channels(world, 4))
    await forget(world, first)
    await world.merchant_pays(second, payer_with_channels(world, 2))
    assert "2 part(s), and 4 of at most 5" in (await closed(world, second)).reason


async def test_while_the_node_does_not_say_how_many_parts_nothing_is_offered(make_world, monkeypatch):
    world = await make_world(max_held_per_channel=4)
    response = await world.reverse(onchain_amount=AMOUNT)
    await locked(world, response, payer_with_channels(world, 4))
    await forget(world, response)
    answers = world.node.lookup_invoice

    async def silent(payment_hash):
        if payment_hash == response.signed_terms.terms.lock.preimage_hash:
            raise NodeConnectionError("the node does not answer")
        return await answers(payment_hash)

    monkeypatch.setattr(world.node, "lookup_invoice", silent)
    with pytest.raises(NodeConnectionError):
        await world.reverse()


@pytest.mark.parametrize("others", [0, 1])
async def test_the_gas_of_what_is_under_way_is_kept_before_another_lock(make_world, others):
    """Between the offer and the lock gas may have become dear: the claims and refunds that are owed already come first."""
    world = await make_world()
    under_way = [await world.reverse(onchain_amount=AMOUNT) for _ in range(others)]
    for response in under_way:
        await locked(world, response, payer_with_channels(world, 2))
    response = await world.reverse(onchain_amount=AMOUNT)
    world.account.gas_for = 1
    payer = payer_with_channels(world, 4)
    if not others:
        await locked(world, response, payer)
        return
    await world.merchant_pays(response, payer)
    state = await closed(world, response)
    assert state.reason == "the gas of this swap cannot be paid now"
    assert ("lock", response.signed_terms.terms.lock.lock_id) not in world.chain.sent
