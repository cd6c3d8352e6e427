"""A manager is closed once and for all: whoever is cancelled meanwhile, however many ask for it, and not from elsewhere."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path

import pytest

from layer2 import BTC, AsyncRuntimeError, HealthState, Layer2Config, Layer2Manager, StoreConfig, SystemClock
from layer2 import Layer2ProtocolType as P
from layer2.storage import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
async def test_cancelled_and_asked_for_again(config: Layer2Config, steps: int) -> None:
    before = asyncio.all_tasks()
    manager = Layer2Manager(config)
    await manager.initialize_all_async()
    closing = asyncio.create_task(manager.close_async())
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    ended = await asyncio.gather(closing, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError | None)
    await manager.close_async()
    assert manager.health().state is HealthState.CLOSED
    assert asyncio.all_tasks() == before
    async with Layer2Manager(config) as after:
        await after.initialize_all_async()


async def test_two_at_once_both_wait_for_the_end(config: Layer2Config) -> None:
    before = asyncio.all_tasks()
    manager = Layer2Manager(config)
    await manager.initialize_all_async()
    first = asyncio.create_task(manager.close_async())
    await asyncio.sleep(0)
    await manager.close_async()
    assert asyncio.all_tasks() - {first} == before
    async with Layer2Manager(config):
        await first


async def test_from_another_loop_it_is_refused_and_nothing_ends(config: Layer2Config) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        bob, lightning = await manager.get_protocol_async(P.BOB), await manager.get_protocol_async(P.LIGHTNING)
        for close in (manager.close_async, bob.close_async, lightning.close_async):
            with pytest.raises(AsyncRuntimeError, match="close_async: the manager belongs to another event loop"):
                await asyncio.to_thread(lambda close=close: asyncio.run(close()))
        assert manager.health().state is HealthState.OK
        assert await bob.balance_async(BTC) > 0
        await lightning.create_invoice_async(amount_msat=1_000)
    await asyncio.to_thread(lambda: asyncio.run(manager.close_async()))


async def test_after_a_fork_it_is_refused(config: Layer2Config) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        with warnings.catch_warnings():
            # That forking beside threads is unwise is just what the refusal is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                manager.close_async().send(None)
            except AsyncRuntimeError as error:
                os._exit(0 if "fork" in str(error) else 3)
            except BaseException:  # noqa: BLE001 - the child of a test must not go on as a test
                os._exit(4)
            os._exit(5)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert manager.health().state is HealthState.OK


async def test_a_loop_that_ends_meanwhile_ends_it(tmp_path: Path) -> None:
    config = Layer2Config(network="devnet", store=StoreConfig(url=f"sqlite:///{tmp_path / 'journal.db'}"))

    async def left() -> None:
        manager = Layer2Manager(config)
        await manager.__aenter__()
        closing = asyncio.create_task(manager.close_async())
        for _ in range(2):
            await asyncio.sleep(0)
        closing.cancel()

    await asyncio.to_thread(lambda: asyncio.run(left()))
    async with asyncio.timeout(10):
        # The store's own thread gives the lock up a moment later.
        await (await Store.open(config.store_url, clock=SystemClock(), standby=True)).close()


async def test_whoever_follows_a_transfer_is_told(config: Layer2Config) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        transfer = await manager.start_cross_layer_transfer_async(BTC, 20_000, P.LIGHTNING, P.BOB, payer="anyone")
        steps = transfer.events()
        first = await anext(steps)

        async def follow() -> None:
            async for _ in steps:
                pass

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        with pytest.raises(AsyncRuntimeError, match="closed"):
            await following
    async with Layer2Manager(config) as after:
        await after.initialize_all_async()
        again = await after.get_transfer_async(transfer.id)
        assert await anext(again.events()) == first
