"""The steps of a transfer: all of them, in order, for readers of any speed, and an end as soon as it is decided."""

from __future__ import annotations

import asyncio

import pytest

from layer2 import BTC, Layer2Manager, TransferEvent
from layer2 import Layer2ProtocolType as P

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000
WAYS = [(P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)]


def check(steps: list[TransferEvent]) -> None:
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].state.is_final


@pytest.mark.parametrize("way", WAYS)
async def test_they_end_when_it_is_decided_not_when_nothing_is_watched_any_more(
    manager: Layer2Manager, way: tuple[P, P]
) -> None:
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, *way)
    steps = [step async for step in transfer.events()]
    check(steps)
    assert [step.detail for step in steps if step.state.is_final] == ["Settled"]
    await manager.wait_idle_async()
    after = [step async for step in transfer.events()]
    check(after)
    assert after[-1].detail == "Closed"


async def test_a_slow_reader_misses_none(manager: Layer2Manager) -> None:
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    quick = asyncio.ensure_future(anext(transfer.events()))
    steps = []
    async for step in transfer.events():
        steps.append(step)
        if step.version == 1:
            await transfer.result_async()
    check(steps)
    assert await quick == steps[0]
