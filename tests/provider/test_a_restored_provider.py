"""A provider that comes back from a copy of its store does not undo what it has done since the copy was taken."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from layer2.lightning import InvoiceState, PaymentState
from layer2.storage import Store, SwapJournal
from layer2.swaps import (
    DEVNET_TIMING,
    Claiming,
    Closed,
    Locked,
    Locking,
    LockStatus,
    NoCounterparty,
    Paying,
    Refunding,
    Role,
    SwapEngine,
)


@asynccontextmanager
async def second_life(world, copy):
    store = await Store.open(f"sqlite:///{copy}", clock=world.clock, adopt=True)
    engine = SwapEngine(
        store=SwapJournal(store, Role.PROVIDER),
        chain=world.chain,
        node=world.node,
        counterparty=NoCounterparty(),
        preimages=None,
        clock=world.clock,
        poll_s=1.0,
    )
    await engine.start()
    yield engine
    await engine.close()
    await store.close()


async def reach(engine, swap_id, *kinds):
    async with asyncio.timeout(20):
        swap = await engine.wait_for(swap_id, lambda state: isinstance(state, (*kinds, Closed)))
    assert swap.restored
    return swap


def lock_of(response):
    return response.signed_terms.terms.lock


async def copied(world, path):
    """A copy of the store as it is now."""
    await world.store.backup(path)
    return path


async def state_of_invoice(world, response):
    return (await world.node.lookup_invoice(lock_of(response).preimage_hash)).state


async def paid_after_the_copy(world, path):
    """A reverse offer that is paid after the copy was taken, and of which the copy is opened too late to lock."""
    response = await world.reverse()
    copy = await copied(world, path)
    await world.merchant_pays(response)
    await world.reach(response.id, Locking)
    await world.engine.close()
    await world.clock.advance(DEVNET_TIMING.invoice_expiry_s + DEVNET_TIMING.payment_time_limit_s + 2)
    return response, copy


async def test_a_payment_is_held_while_the_lock_of_the_lost_life_stands(world, tmp_path):
    response, copy = await paid_after_the_copy(world, tmp_path / "copy.sqlite3")
    world.set_lock(response, LockStatus.LOCKED)
    async with second_life(world, copy) as engine:
        await reach(engine, response.id, Locked)
        assert await state_of_invoice(world, response) is InvoiceState.ACCEPTED
        world.chain.head_offset_s = lock_of(response).timelock - world.clock.now_ms() // 1000 + 1
        engine.wake(response.id)
        await reach(engine, response.id, Refunding)
        assert await state_of_invoice(world, response) is InvoiceState.ACCEPTED


async def test_a_payment_is_held_until_the_lock_of_the_lost_life_can_never_come(world, tmp_path):
    response, copy = await paid_after_the_copy(world, tmp_path / "copy.sqlite3")
    before = list(world.chain.sent)
    async with second_life(world, copy) as engine:
        await reach(engine, response.id, Locking)
        assert await state_of_invoice(world, response) is InvoiceState.ACCEPTED
        assert world.chain.sent == before
        world.chain.head_offset_s = lock_of(response).timelock - world.clock.now_ms() // 1000 + 1
        async with asyncio.timeout(20):
            while not isinstance((await engine.load(response.id)).state, Closed):
                await world.clock.advance(1)
                await asyncio.sleep(0.001)
        assert await state_of_invoice(world, response) is InvoiceState.CANCELED


@pytest.mark.parametrize("offers", [1, 2])
async def test_a_payment_of_the_lost_life_is_waited_for_and_its_lock_claimed(world, tmp_path, offers):
    """Also where two offers were made for the invoice: the copy does not know which was paid for."""
    text = await world.invoice()
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    responses = [await world.submarine(invoice=text) for _ in range(offers)]
    copy = await copied(world, tmp_path / "copy.sqlite3")
    paid = responses[-1]
    world.set_lock(paid, LockStatus.LOCKED)
    await world.reach(paid.id, Paying)
    payment_hash = lock_of(paid).preimage_hash
    async with asyncio.timeout(20):
        while (await world.node.lookup_payment(payment_hash)).state is not PaymentState.IN_FLIGHT:
            await asyncio.sleep(0.001)
    await world.engine.close()
    world.chain.head_offset_s = 10_000  # too late to pay, if it had not been paid
    async with second_life(world, copy) as engine:
        await reach(engine, paid.id, Paying)
        world.lightning.set_hanging(world.merchant.node_id, hanging=False)
        engine.wake(paid.id)
        await reach(engine, paid.id, Claiming)
        async with asyncio.timeout(20):
            while ("claim", lock_of(paid).lock_id) not in world.chain.sent:
                await world.clock.advance(1)
                await asyncio.sleep(0.001)
