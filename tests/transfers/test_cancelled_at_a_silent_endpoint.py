"""Whether a transfer that is cancelled goes on is for the chain to tell: where it does not answer, the limits of the call hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from layer2 import BTC, AsyncTimeout, Event, Layer2Config, Layer2Manager, TaskCancelled
from layer2 import Layer2ProtocolType as P

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000
STUCK_S = 20


@asynccontextmanager
async def silent_once_agreed(config: Layer2Config) -> AsyncIterator[tuple[Layer2Manager, asyncio.Event]]:
    """A manager whose endpoint answers no more once terms are signed; the event is set then."""
    async with Layer2Manager(config.with_changes(default_timeout_ms=2_000)) as manager:
        await manager.initialize_all_async()
        network = manager.embedded_network
        assert network is not None
        answer, agreed, heard = network.evm.call, asyncio.Event(), asyncio.Event()
        heard.set()

        async def call(method: str, params: list[object]) -> object:
            await heard.wait()
            return await answer(method, params)

        def fall_silent(event: Event) -> None:
            if event.code == "transfer.agreed":
                heard.clear()
                agreed.set()

        network.evm.call = call  # type: ignore[method-assign]
        manager.on_event(fall_silent)
        try:
            yield manager, agreed
        finally:
            network.evm.call = answer  # type: ignore[method-assign]
            heard.set()


@pytest.mark.parametrize("timeout_s", [3, None])
async def test_a_cancelled_call_ends_and_does_not_know(config: Layer2Config, timeout_s: float | None) -> None:
    async with silent_once_agreed(config) as (manager, agreed):
        with pytest.raises(TaskCancelled) as caught:
            async with asyncio.timeout(STUCK_S):
                await manager.cross_layer_transfer_async(
                    BTC, SAT, P.BOB, P.LIGHTNING, cancel=agreed, timeout=timeout_s, idempotency_key="order 1"
                )
    error = caught.value
    assert error.goes_on is None
    assert (error.transfer_id is not None, error.money_may_have_moved, error.retry_safe) == (True, True, True)


async def test_a_handle_can_be_cancelled_within_a_limit(config: Layer2Config) -> None:
    async with silent_once_agreed(config) as (manager, _):
        transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        with pytest.raises(AsyncTimeout) as caught:
            async with asyncio.timeout(STUCK_S):
                await transfer.cancel_async(timeout=1)
    assert caught.value.transfer_id == transfer.id
