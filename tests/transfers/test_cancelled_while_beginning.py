"""A call that ends while its transfer is being stored: what it says of the transfer is what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from layer2 import BTC, AsyncTimeout, Layer2Config, Layer2Manager, TaskCancelled, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.storage import SwapJournal

SAT = 20_000
MOMENTS = ["insert, before", "insert, after", "load, before", "load, after"]


@pytest.fixture
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as made:
        await made.initialize_all_async()
        yield made


@pytest.fixture(params=MOMENTS)
def at_moment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has a function called once, at a moment of the beginning of the next transfer; the loop then runs on for a while."""
    name, _, when = request.param.partition(", ")
    original = getattr(SwapJournal, name)

    def arm(act: Callable[[], None]) -> None:
        acted: list[bool] = []

        async def hooked(*args: Any, **kwargs: Any) -> Any:
            first = not acted
            acted.append(True)
            if first and when == "before":
                act()
                await _turns()
            result = await original(*args, **kwargs)
            if first and when == "after":
                act()
                await _turns()
            return result

        monkeypatch.setattr(SwapJournal, name, hooked)

    return arm


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def token_balance(manager: Layer2Manager) -> int:
    bob = await manager.get_protocol_async(P.BOB)
    return await bob.balance_async(BTC)


async def ends_as_said(manager: Layer2Manager, before: int, *, goes_on: bool) -> None:
    await manager.wait_idle_async(timeout=60)
    transfers = await manager.list_transfers_async(limit=5)
    states = [transfer.state for transfer in transfers]
    if goes_on:
        assert states == [TransferState.SETTLED]
        assert await token_balance(manager) < before
    else:
        assert states in ([], [TransferState.EXPIRED])
        assert await token_balance(manager) == before


async def test_cancelled_by_its_event(manager: Layer2Manager, at_moment: Any) -> None:
    before = await token_balance(manager)
    cancel = asyncio.Event()
    at_moment(cancel.set)
    with pytest.raises(TaskCancelled) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, cancel=cancel)
    assert caught.value.goes_on is not None
    assert caught.value.money_may_have_moved is caught.value.goes_on
    if caught.value.goes_on:
        assert caught.value.transfer_id is not None
    await ends_as_said(manager, before, goes_on=caught.value.goes_on)


@pytest.mark.parametrize("call", ["cross_layer_transfer_async", "start_cross_layer_transfer_async"])
async def test_cancelled_with_its_task_nothing_is_left_that_nobody_drives(
    manager: Layer2Manager, at_moment: Any, call: str
) -> None:
    before = await token_balance(manager)
    task = asyncio.ensure_future(getattr(manager, call)(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="order 1"))
    at_moment(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await manager.wait_idle_async(timeout=60)
    settled = [transfer.state for transfer in await manager.list_transfers_async(limit=5)] == [TransferState.SETTLED]
    await ends_as_said(manager, before, goes_on=settled)
    # The documented way to go on: the same key gives the same transfer, or the first.
    again = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="order 1")
    await manager.wait_idle_async(timeout=60)
    assert [transfer.id for transfer in await manager.list_transfers_async(limit=5)] == [again.id]
    assert (await manager.get_transfer_async(again.id)).state.is_final


async def test_a_limit_of_the_call_itself_never_abandons(manager: Layer2Manager) -> None:
    before = await token_balance(manager)
    for limit_s in (0.02, 0.05, 0.1, 0.2):
        key = f"within {limit_s} s" if limit_s < 0.1 else None
        with pytest.raises(AsyncTimeout) as caught:
            await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, timeout=limit_s, idempotency_key=key)
        stored = await manager.list_transfers_async(limit=20)
        if caught.value.transfer_id is None:
            assert not caught.value.money_may_have_moved
        else:
            assert caught.value.transfer_id in {transfer.id for transfer in stored}
        assert caught.value.retry_safe is (caught.value.transfer_id is None or key is not None)
    await manager.wait_idle_async(timeout=60)
    states = {transfer.state for transfer in await manager.list_transfers_async(limit=20)}
    assert states <= {TransferState.SETTLED}
    assert (await token_balance(manager) < before) == bool(states)
