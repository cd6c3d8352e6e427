"""What nobody has locked or paid for is held softly: it gives way when others ask, and never at the cost of who has acted."""

import asyncio

import pytest

from layer2.errors import InsufficientFunds, NodeConnectionError, SwapRefused
from layer2.lightning import InvoiceState, PaymentState
from layer2.swaps import Failed, Invoiced, Locking, LockStatus, Offered, Paying

GREEDY, MODEST, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"


async def state_of(world, response):
    return (await world.engine.load(response.id)).state


async def ended(world, response):
    """The final state, a few looks later."""
    for _ in range(50):
        state = await state_of(world, response)
        if state.final:
            return state
        await world.clock.advance(1)
    raise AssertionError(f"still {state}")


async def grow_old(world):
    await world.clock.advance(world.idle_s + 1)


async def test_the_oldest_unpaid_invoice_of_whoever_has_most_gives_way(make_world):
    world = await make_world(max_held_per_channel=3)
    first, second = await world.reverse(GREEDY), await world.reverse(GREEDY)
    await world.clock.advance(1)
    modest = await world.reverse(MODEST)
    await grow_old(world)
    await world.reverse(OTHER)
    assert (await ended(world, first)).outcome == "expired"
    record = await world.node.lookup_invoice(first.signed_terms.terms.lock.preimage_hash)
    assert record.state is InvoiceState.CANCELED
    assert isinstance(await state_of(world, second), Invoiced)
    assert isinstance(await state_of(world, modest), Invoiced)


async def test_whoever_asks_for_much_drives_out_only_itself(make_world):
    world = await make_world(max_held_per_channel=3)
    modest = await world.reverse(MODEST)
    greedy = [await world.reverse(GREEDY) for _ in range(2)]
    await grow_old(world)
    await world.reverse(GREEDY)
    assert isinstance(await state_of(world, modest), Invoiced)
    assert (await ended(world, greedy[0])).outcome == "expired"


async def test_whoever_has_as_much_as_others_replaces_its_own(make_world):
    world = await make_world(max_held_per_channel=2)
    other = await world.reverse(OTHER)
    own = await world.reverse(MODEST)
    await grow_old(world)
    await world.reverse(MODEST)
    assert (await ended(world, own)).outcome == "expired"
    assert isinstance(await state_of(world, other), Invoiced)


async def test_an_offer_is_left_in_peace_for_a_while(make_world):
    world = await make_world(max_held_per_channel=1)
    fresh = await world.reverse(GREEDY)
    await world.clock.advance(world.idle_s - 1)
    with pytest.raises(SwapRefused) as caught:
        await world.reverse(OTHER)
    assert caught.value.rule == "max_held"
    assert isinstance(await state_of(world, fresh), Invoiced)


async def test_what_an_address_asked_for_beyond_its_first_offer_has_no_peace(make_world):
    """Else one address takes every place at no cost, and keeps it by asking again when its offers may give way."""
    world = await make_world(max_held_per_channel=4)
    for turn in range(5):
        with pytest.raises(SwapRefused):
            while True:
                await world.reverse(GREEDY)
        await world.reverse(f"198.51.100.{turn}")
        await grow_old(world)


async def test_what_an_address_binds_beyond_its_first_offer_has_no_peace(make_world):
    """A few large offers keep others out as well as many small ones do."""
    world = await make_world(max_amount=10**10, max_unsafe_total=10**12)
    first, second = [await world.submarine(GREEDY, invoice=await world.invoice(48_000_000_000)) for _ in range(2)]
    await world.submarine(OTHER, invoice=await world.invoice(10_000_000_000))
    await world.reach(first.id, Failed)
    assert isinstance(await state_of(world, second), Offered)


async def test_who_has_more_than_others_cannot_take_their_places_from_them(make_world):
    world = await make_world(max_held_per_channel=4)
    modest = [await world.reverse(MODEST) for _ in range(2)]
    greedy = [await world.reverse(GREEDY) for _ in range(2)]
    with pytest.raises(SwapRefused):
        await world.reverse(GREEDY)
    for response in (*modest, *greedy):
        assert isinstance(await state_of(world, response), Invoiced)


async def test_an_offer_that_takes_nothing_of_what_is_short_is_left_alone(make_world):
    world = await make_world(max_held_per_channel=2)
    many = [await world.submarine(MODEST) for _ in range(3)]
    oldest = await world.reverse(GREEDY)
    await world.reverse(GREEDY)
    await world.reverse(OTHER)
    assert (await ended(world, oldest)).outcome == "expired"
    for response in many:
        assert isinstance(await state_of(world, response), Offered)


async def test_offers_of_nobody_in_particular_keep_their_peace(make_world):
    """After a restart nobody knows who asked for what: those may be many."""
    world = await make_world(max_held_per_channel=2)
    unknown = [await world.reverse() for _ in range(2)]
    with pytest.raises(SwapRefused):
        await world.reverse(OTHER)
    for response in unknown:
        assert isinstance(await state_of(world, response), Invoiced)


async def test_two_caps_at_once_are_made_room_for(make_world):
    """Small offers of one address take the places, a large one of another takes the value."""
    world = await make_world(max_held_per_channel=5, max_locked_total=1_000_000)
    small = [await world.reverse(GREEDY, onchain_amount=1_000) for _ in range(3)]
    large = [await world.reverse(MODEST, onchain_amount=490_000) for _ in range(2)]
    await world.reverse(OTHER, onchain_amount=400_000)
    assert (await ended(world, small[0])).outcome == "expired"
    assert (await ended(world, large[0])).outcome == "expired"
    for response in (*small[1:], large[1]):
        assert isinstance(await state_of(world, response), Invoiced)


async def test_no_offer_is_driven_out_in_vain(make_world):
    """What is paid for keeps its room; taking back the rest would not be enough."""
    world = await make_world(max_locked_total=100_000)
    paid = await world.reverse(GREEDY, onchain_amount=60_000)
    await world.merchant_pays(paid)
    await world.reach(paid.id, Locking)
    idle = await world.reverse(GREEDY, onchain_amount=40_000)
    await grow_old(world)
    with pytest.raises(SwapRefused) as caught:
        await world.reverse(OTHER, onchain_amount=50_000)
    assert caught.value.rule == "max_locked"
    assert isinstance(await state_of(world, idle), Invoiced)


async def test_unlocked_offers_give_their_part_of_the_channels_back(make_world):
    world = await make_world(max_amount=10**10, max_unsafe_total=10**12)
    idle = await world.submarine(GREEDY, invoice=await world.invoice(60_000_000_000))
    await grow_old(world)
    await world.submarine(OTHER, invoice=await world.invoice(60_000_000_000))
    swap = await world.reach(idle.id, Failed)
    assert "taken back" in swap.state.reason


async def test_a_lock_that_comes_after_all_is_refunded_at_once_and_never_paid_for(make_world):
    world = await make_world(max_unsafe_total=80_000)
    late = await world.submarine(GREEDY)
    await grow_old(world)
    await world.submarine(OTHER)
    await world.reach(late.id, Failed)
    world.set_lock(late, LockStatus.LOCKED)
    assert len(await world.service.sign_refund(late.id)) == 65
    payment_hash = late.signed_terms.terms.lock.preimage_hash
    assert (await world.node.lookup_payment(payment_hash)).state is PaymentState.NONE


async def test_an_offer_whose_lock_is_there_already_is_kept(make_world):
    """It is not deep enough to be paid for yet, but its client has acted."""
    world = await make_world(max_unsafe_total=80_000)
    locked = await world.submarine(GREEDY)
    world.chain.shallow.add(locked.signed_terms.terms.lock.lock_id)
    world.set_lock(locked, LockStatus.LOCKED)
    await grow_old(world)
    with pytest.raises(SwapRefused) as caught:
        await world.submarine(OTHER)
    assert caught.value.rule == "max_unsafe"
    assert isinstance(await state_of(world, locked), Offered)
    world.chain.shallow.clear()
    world.engine.wake(locked.id)
    await world.reach(locked.id, Paying)


async def test_an_offer_that_is_kept_makes_nobody_wait(make_world, monkeypatch):
    """Others stand behind whoever waits for it: it is looked at once, and its client has acted."""
    monkeypatch.setattr("layer2.provider._room._WITHDRAW_LIMIT_S", 3_600)
    world = await make_world(max_unsafe_total=80_000)
    locked = await world.submarine(GREEDY)
    world.chain.shallow.add(locked.signed_terms.terms.lock.lock_id)
    world.set_lock(locked, LockStatus.LOCKED)
    await grow_old(world)
    withdraw, asked = world.engine.withdraw, []

    def counted(swap_id):
        asked.append(swap_id)
        return withdraw(swap_id)

    monkeypatch.setattr(world.engine, "withdraw", counted)
    async with asyncio.timeout(20):
        for _ in range(3):
            with pytest.raises(SwapRefused):
                await world.submarine(OTHER)
    assert asked == [locked.id]


async def test_an_offer_that_cannot_be_looked_at_is_kept(make_world, monkeypatch):
    """A silent node says nothing of whether somebody acted."""
    monkeypatch.setattr("layer2.provider._room._WITHDRAW_LIMIT_S", 0.2)
    world = await make_world(max_held_per_channel=1)
    kept = await world.reverse(GREEDY)
    await grow_old(world)

    async def silent(payment_hash):
        raise NodeConnectionError("no answer")

    honest = world.node.lookup_invoice

    async def lookup(payment_hash):
        # The new offer's own hash is looked up too; only the old one's invoice cannot be seen.
        return await (silent if payment_hash == kept.signed_terms.terms.lock.preimage_hash else honest)(payment_hash)

    monkeypatch.setattr(world.node, "lookup_invoice", lookup)
    with pytest.raises(SwapRefused):
        await world.reverse(OTHER)
    assert isinstance(await state_of(world, kept), Invoiced)


async def test_a_payment_that_arrives_while_the_offer_is_taken_back_returns_to_its_payer(make_world, monkeypatch):
    world = await make_world(max_held_per_channel=1)
    idle = await world.reverse(GREEDY)
    await grow_old(world)
    paid_hash = idle.signed_terms.terms.lock.preimage_hash
    honest = world.node.cancel_invoice

    async def cancel(payment_hash):
        # The decision is written, the invoice is still open: that is when the payment comes.
        await world.merchant_pays(idle)
        await honest(payment_hash)

    monkeypatch.setattr(world.node, "cancel_invoice", cancel)
    await world.reverse(OTHER)
    assert (await ended(world, idle)).outcome == "expired"
    assert (await world.merchant.lookup_payment(paid_hash)).state is PaymentState.FAILED
    assert world.chain.sent == []


async def test_gas_for_offers_that_nobody_takes_up_is_soft_too(make_world):
    world = await make_world()
    world.account.gas_for = 2
    idle = [await world.submarine(origin) for origin in (GREEDY, MODEST)]
    with pytest.raises(InsufficientFunds):
        await world.submarine(OTHER)
    await grow_old(world)
    await world.submarine(OTHER)
    await world.reach(idle[0].id, Failed)
    assert isinstance(await state_of(world, idle[1]), Offered)


async def test_what_gives_way_is_searched_for_in_memory(make_world):
    world = await make_world()
    world.account.gas_for = 40
    for number in range(40):
        await world.submarine(f"192.0.2.{number % 4}")
    await grow_old(world)
    before = world.account.gas_read
    await world.submarine("198.51.100.1")
    assert world.account.gas_read == before + 2  # at the request, and when its turn had come
