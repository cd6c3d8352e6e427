"""The virtual clock moves time, and nothing else does."""

import asyncio

import pytest

from layer2.errors import ValidationError
from layer2.testing import VirtualClock


async def test_sleepers_wake_in_order_at_their_own_time():
    clock = VirtualClock(start_ms=1_000)
    log = []

    async def sleeper(name, *naps):
        for nap in naps:
            await clock.sleep(nap)
            log.append((name, clock.monotonic_s()))

    tasks = [asyncio.create_task(sleeper("a", 2, 2)), asyncio.create_task(sleeper("b", 1, 1, 1))]
    await clock.advance(3)
    assert log == [("b", 1.0), ("a", 2.0), ("b", 2.0), ("b", 3.0)]
    assert clock.now_ms() == 4_000
    assert clock.sleeping == 1
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert log[-1] == ("a", 4.0)
    assert clock.monotonic_s() == 13


async def test_a_cancelled_sleeper_is_forgotten():
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(1)
    task.cancel()
    await asyncio.wait([task])
    assert clock.sleeping == 0
    assert not await clock.advance_to_next()


async def test_autojump_runs_a_long_story_at_once():
    clock = VirtualClock()

    async def day():
        for _ in range(24):
            await clock.sleep(3600)
        return clock.monotonic_s()

    async with clock.autojump():
        assert await asyncio.gather(day(), day()) == [86_400, 86_400]
        assert await day() == 2 * 86_400
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()


async def test_autojump_leaves_threads_time_to_work():
    clock = VirtualClock()

    async def story():
        first = asyncio.create_task(clock.sleep(100))
        await asyncio.to_thread(lambda: None)
        await clock.sleep(1)
        return first.done()

    async with clock.autojump(idle_s=0.05):
        assert await story() is False


async def test_the_wall_clock_can_jump_without_waking_anybody():
    clock = VirtualClock(start_ms=0)
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(0)
    clock.jump_wall_clock(-60)
    assert (clock.now_ms(), clock.monotonic_s()) == (-60_000, 0)
    assert not task.done()
    await clock.advance(5)
    await task
    with pytest.raises(ValidationError):
        await clock.advance(-1)


async def test_sleeping_no_time_only_yields():
    clock = VirtualClock()
    await clock.sleep(0)
    assert await clock.advance_to_next() is False
