"""An idempotency key stands for what a call was given: another default in the settings does not make it another call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layer2 import BTC, IdempotencyConflict, Layer2Config, Layer2Manager, Transfer
from layer2 import Layer2ProtocolType as P

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000


async def start(config: Layer2Config, *, max_fee: int | None) -> Transfer:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        return await manager.start_cross_layer_transfer_async(
            BTC, SAT, P.BOB, P.LIGHTNING, max_fee=max_fee, idempotency_key="order 1"
        )


def with_another_bound(config: Layer2Config) -> Layer2Config:
    return config.with_changes(swap=replace(config.swap, max_fee_base=config.swap.max_fee_base + 100))


async def test_another_default_bound_is_not_another_call(config: Layer2Config) -> None:
    first = await start(config, max_fee=None)
    assert (await start(with_another_bound(config), max_fee=None)).id == first.id


async def test_a_bound_that_was_given_is_part_of_the_call(config: Layer2Config) -> None:
    first = await start(config, max_fee=700)
    assert (await start(with_another_bound(config), max_fee=700)).id == first.id
    with pytest.raises(IdempotencyConflict) as caught:
        await start(config, max_fee=701)
    # Whoever takes another key at once pays twice.
    assert "same arguments" in (caught.value.hint or "")
    assert "a second time" in (caught.value.hint or "")


async def test_a_store_that_noted_the_default_as_if_it_had_been_given(config: Layer2Config) -> None:
    first = await start(config, max_fee=config.swap.max_fee(SAT))
    assert (await start(config, max_fee=None)).id == first.id
