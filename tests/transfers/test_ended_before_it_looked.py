"""A call under a key may end before it has looked what there is of it: what an earlier call began is not denied."""

from __future__ import annotations

import asyncio

import pytest

from layer2 import BTC, AsyncTimeout, Layer2Manager, TaskCancelled
from layer2 import Layer2ProtocolType as P

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000


def fired() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_a_cancelled_call_tells_what_goes_on_under_its_key(manager: Layer2Manager) -> None:
    begun = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="order 7")
    with pytest.raises(TaskCancelled) as caught:
        await manager.cross_layer_transfer_async(
            BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="order 7", cancel=fired()
        )
    error = caught.value
    assert error.transfer_id == begun.id
    assert error.goes_on is True
    assert error.money_may_have_moved
    assert begun.id in str(error)
    assert "nothing" not in str(error)
    await begun.result_async()


@pytest.mark.parametrize("timeout", [0, 1e-9])
async def test_a_call_without_time_tells_what_goes_on_under_its_key(manager: Layer2Manager, timeout: float) -> None:
    key = f"order {timeout}"
    begun = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key=key)
    with pytest.raises(AsyncTimeout) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key=key, timeout=timeout)
    error = caught.value
    assert error.transfer_id == begun.id
    assert error.money_may_have_moved
    assert error.retry_safe
    assert begun.id in str(error)
    assert "nothing" not in str(error)
    await begun.result_async()


async def test_what_nobody_began_is_not_begun(manager: Layer2Manager) -> None:
    with pytest.raises(TaskCancelled) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="new", cancel=fired())
    assert caught.value.goes_on is False
    assert not caught.value.money_may_have_moved
    assert "more time" not in str(caught.value)


async def test_a_wait_that_is_ended_does_not_deny_what_it_waits_for(manager: Layer2Manager) -> None:
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    with pytest.raises(TaskCancelled) as cancelled:
        await transfer.result_async(cancel=fired())
    with pytest.raises(AsyncTimeout) as late:
        await transfer.result_async(timeout=0)
    for error in (cancelled.value, late.value):
        assert "nothing was sent" not in str(error)
        assert transfer.id in str(error)
    await transfer.result_async()


async def test_a_cancelled_layer_call_under_a_key_knows_nothing_of_an_earlier_one(manager: Layer2Manager) -> None:
    bob = await manager.get_protocol_async(P.BOB)
    to = f"0x{'11' * 20}"
    await bob.transfer_asset_async(BTC, 5, to, idempotency_key="once")
    with pytest.raises(TaskCancelled) as caught:
        await bob.transfer_asset_async(BTC, 5, to, idempotency_key="once", cancel=fired())
    assert caught.value.goes_on is None
