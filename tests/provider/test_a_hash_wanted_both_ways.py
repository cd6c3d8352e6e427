"""One payment hash asked for in both directions: an offer that nobody paid keeps no invoice from being paid, and money binds once.

Whoever sees an invoice could otherwise ask a provider for a swap the other way on its hash, pay nothing, and so keep that provider
from paying the invoice for ever.
"""

import asyncio

import pytest
from refusals import refused

from layer2.errors import SwapRefused
from layer2.lightning import ChannelPolicy, InvoiceState, decode_invoice
from layer2.provider import Hashes
from layer2.swaps import Claiming, Closed, Failed, Invoiced, Locking, LockStatus, Paying, Settled


def hash_of(text):
    return decode_invoice(text).payment_hash


async def grow_old(world):
    await world.clock.advance(world.idle_s + 1)


async def asked_while_time_passes(world, asked):
    """What comes of a request that may have to wait for an offer to give way."""
    asking = asyncio.ensure_future(asked)
    async with asyncio.timeout(20):
        while not asking.done():
            await world.clock.advance(0.5)
            await asyncio.sleep(0.001)
    return await asking


@pytest.fixture
async def blocked(world):
    """An invoice on whose hash somebody has asked for a hold invoice that nobody pays: its text, and that offer."""
    text = await world.invoice()
    return text, await world.reverse(preimage_hash=hash_of(text))


@pytest.fixture
def payer(world):
    """Somebody else with a channel to the provider: a node pays no hash that it has an invoice on."""
    node = world.lightning.add_node("payer")
    world.lightning.open_channel(
        node.node_id, world.node.node_id, local_msat=10**9, remote_msat=10**9, policy=ChannelPolicy(cltv_delta=24)
    )
    return node


async def paid_for(world, offer):
    world.set_lock(offer, LockStatus.LOCKED)
    return await world.reach(offer.id, Claiming, Settled)


async def test_an_unpaid_offer_gives_way_and_the_invoice_is_paid(world, blocked):
    text, in_the_way = blocked
    await grow_old(world)
    offer = await asked_while_time_passes(world, world.submarine(invoice=text))
    # Before the offer was made, not some time after it.
    assert (await world.node.lookup_invoice(hash_of(text))).state is InvoiceState.CANCELED
    state = (await world.engine.load(in_the_way.id)).state
    assert isinstance(state, Closed)
    assert state.outcome == "expired"
    await paid_for(world, offer)


async def test_for_a_moment_it_is_left_in_peace_and_the_refusal_says_for_how_long(world, blocked):
    text, in_the_way = blocked
    refusal = await refused(world.submarine(invoice=text), "hash_offered")
    assert f"ask again in {world.idle_s} s" in refusal.message
    assert isinstance((await world.engine.load(in_the_way.id)).state, Invoiced)


async def test_it_does_not_give_way_to_what_is_refused_all_the_same(world, blocked):
    text, in_the_way = blocked
    await grow_old(world)
    world.claimed_at[hash_of(text)] = 10**12
    await refused(world.submarine(invoice=text), "hash")
    await world.clock.advance(2)
    assert isinstance((await world.engine.load(in_the_way.id)).state, Invoiced)


async def test_an_offer_that_has_expired_is_not_in_the_way(world, blocked):
    text, in_the_way = blocked
    async with asyncio.timeout(20):
        while not (await world.engine.load(in_the_way.id)).state.final:
            await world.clock.advance(1)
            await asyncio.sleep(0.001)
    await paid_for(world, await world.submarine(invoice=text))


async def test_a_hash_is_asked_for_that_way_once_only(world, blocked):
    """Else the same stranger could come again and again."""
    text, _ = blocked
    await grow_old(world)
    offer = await asked_while_time_passes(world, world.submarine(invoice=text))
    await refused(world.reverse(preimage_hash=hash_of(text)), "hash")
    await paid_for(world, offer)


async def test_a_payment_that_is_held_does_not_give_way(world, blocked, payer):
    text, in_the_way = blocked
    await grow_old(world)
    await world.merchant_pays(in_the_way, payer)
    await world.reach(in_the_way.id, Locking)
    await refused(world.submarine(invoice=text), "hash")
    assert (await world.node.lookup_invoice(hash_of(text))).state is InvoiceState.ACCEPTED


async def test_a_payment_that_comes_while_it_gives_way_goes_back_or_stops_that(world, blocked, payer, monkeypatch):
    """The look at the open invoice and its cancellation are two: between them somebody pays."""
    text, in_the_way = blocked
    cancel = world.node.cancel_invoice

    async def late(payment_hash):
        if (await world.node.lookup_invoice(payment_hash)).state is InvoiceState.OPEN:
            await world.merchant_pays(in_the_way, payer)
        await cancel(payment_hash)

    monkeypatch.setattr(world.node, "cancel_invoice", late)
    await grow_old(world)
    offer = await asked_while_time_passes(world, world.submarine(invoice=text))
    assert (await world.node.lookup_invoice(hash_of(text))).state is InvoiceState.CANCELED
    assert world.chain.sent == []
    await paid_for(world, offer)


async def test_an_invoice_that_cannot_be_closed_lets_nothing_through(world, blocked, monkeypatch):
    text, _ = blocked

    async def keeps_it_open(payment_hash):
        del payment_hash

    monkeypatch.setattr(world.node, "cancel_invoice", keeps_it_open)
    await grow_old(world)
    await refused(world.submarine(invoice=text), "hash")


async def test_what_was_locked_for_keeps_its_hash_for_ever(world, blocked, payer):
    """Its money came back, but the hash had its one decision."""
    text, in_the_way = blocked
    await world.merchant_pays(in_the_way, payer)
    await world.reach(in_the_way.id, Locking)
    world.chain.head_offset_s = 10**6
    async with asyncio.timeout(20):
        while not (await world.engine.load(in_the_way.id)).state.final:
            await world.clock.advance(1)
            await asyncio.sleep(0.001)
    world.chain.head_offset_s = 0
    assert (await world.node.lookup_invoice(hash_of(text))).state is InvoiceState.CANCELED
    await refused(world.submarine(invoice=text), "hash")


async def test_an_invoice_of_the_node_that_no_swap_knows_of_is_not_paid_for(world):
    """It may be of a life of the store that was lost."""
    text = await world.invoice()
    await world.node.create_hold_invoice(
        payment_hash=hash_of(text), amount_msat=50_000_000, memo="", expiry_s=600, cltv_delta=80
    )
    await refused(world.submarine(invoice=text), "hash")
    await world.node.cancel_invoice(hash_of(text))
    await refused(world.submarine(invoice=text), "hash")


async def test_requests_both_ways_at_once_get_one_offer(world):
    for _ in range(5):
        text = await world.invoice()
        asked = world.submarine(invoice=text), world.reverse(preimage_hash=hash_of(text))
        made = await asyncio.gather(*asked, return_exceptions=True)
        refusals = [each for each in made if isinstance(each, SwapRefused)]
        assert len(refusals) == 1
        assert refusals[0].rule in ("hash", "hash_offered")


@pytest.mark.parametrize("first", ["held", "locked"])
async def test_where_both_are_open_all_the_same_money_binds_the_hash_once(world, payer, monkeypatch, first):
    """In a store from before one gave way to the other."""

    async def anything(*_, **__):
        return

    monkeypatch.setattr(Hashes, "check_submarine", anything)
    monkeypatch.setattr(Hashes, "check_one_way", anything)
    text = await world.invoice()
    reverse = await world.reverse(preimage_hash=hash_of(text))
    submarine = await world.submarine(invoice=text)
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    if first == "held":
        await world.merchant_pays(reverse, payer)
        await world.reach(reverse.id, Locking)
        world.set_lock(submarine, LockStatus.LOCKED)
        dead = await world.reach(submarine.id, Failed)
        assert "another swap" in dead.state.reason
        assert len(await world.service.sign_refund(submarine.id)) == 65
    else:
        world.set_lock(submarine, LockStatus.LOCKED)
        await world.reach(submarine.id, Paying)
        await world.merchant_pays(reverse, payer)
        async with asyncio.timeout(20):
            while not (await world.engine.load(reverse.id)).state.final:
                await world.clock.advance(0.5)
                await asyncio.sleep(0.001)
        assert "another swap" in (await world.engine.load(reverse.id)).state.reason
        assert (await world.node.lookup_invoice(hash_of(text))).state is InvoiceState.CANCELED
        assert world.chain.sent == []
