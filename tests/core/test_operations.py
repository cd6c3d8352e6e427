"""Slots, limits, cancellation and life of ``Operations``."""

import asyncio
import contextlib
import os

import pytest

from layer2._operations import Operations, leave_slot, slot_again
from layer2.errors import AsyncRuntimeError, AsyncTimeout, ConfigurationError, TaskCancelled, ValidationError
from layer2.transactions import TxId

TX = TxId(layer="bob", hash=bytes(32))


async def opened(**options) -> Operations:
    operations = Operations(**options)
    operations.open()
    return operations


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_gives_back_the_result_and_raises_the_operation_s_own_error():
    operations = await opened()

    async def good():
        return 7

    async def bad():
        raise LookupError("mine")

    assert await operations.run(good, what="good") == 7
    with pytest.raises(LookupError, match="mine"):
        await operations.run(bad, what="bad")
    with pytest.raises(LookupError, match="mine"):
        await operations.run(bad, what="bad", cancel=asyncio.Event())
    assert operations.running == 0


async def test_never_more_at_once_than_slots_and_all_are_served_in_order():
    operations = await opened(max_concurrency=3)
    now = most = 0
    order = []

    async def one(i):
        nonlocal now, most
        now += 1
        most = max(most, now)
        order.append(i)
        await asyncio.sleep(0)
        now -= 1
        return i

    results = await asyncio.gather(*(operations.run(lambda i=i: one(i), what="one") for i in range(2000)))
    assert results == list(range(2000))
    assert most == 3
    assert order == results


async def test_exits_do_not_queue_behind_user_traffic():
    operations = await opened(max_concurrency=1)
    release = asyncio.Event()
    users = [asyncio.create_task(operations.run(release.wait, what="user")) for _ in range(5)]
    await settle()
    assert operations.queued == 4

    async def claim():
        return "claimed"

    assert await operations.run(claim, what="claim", exit=True) == "claimed"
    release.set()
    await asyncio.gather(*users)


@pytest.mark.parametrize("turns", range(8))
async def test_a_slot_that_was_left_is_given_back_once_wherever_its_task_is_cancelled(turns):
    operations, running = Operations(max_concurrency=1), 0
    operations.open()

    async def held():
        leave_slot()
        while True:
            await asyncio.sleep(0)
            async with slot_again():
                await asyncio.sleep(0)

    async def alone():
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1

    async with asyncio.timeout(20):
        waiting = asyncio.create_task(operations.run(held, what="paying"))
        others = [asyncio.create_task(operations.run(alone, what="asking")) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.gather(*others, *(operations.run(alone, what="asking") for _ in range(3)))


async def test_what_awaits_other_operations_has_no_default_limit():
    operations = Operations(default_timeout_ms=10)
    operations.open()
    assert await operations.run(lambda: asyncio.sleep(0.1, 1), what="waiting", slot=False) == 1
    with pytest.raises(AsyncTimeout):
        await operations.run(lambda: asyncio.sleep(0.1, 1), what="waiting", slot=False, timeout=0.01)
    with pytest.raises(AsyncTimeout):
        await operations.run(lambda: asyncio.sleep(0.1, 1), what="asking")


async def test_what_awaits_other_operations_holds_no_slot():
    operations = await opened(max_concurrency=1)

    async def inner():
        return 1

    async def transfer():
        return await operations.run(inner, what="inner")

    assert await operations.run(transfer, what="transfer", slot=False, timeout=5) == 1


async def test_a_nested_operation_in_the_same_task_shares_the_slot_but_a_spawned_task_does_not():
    operations = await opened(max_concurrency=1)
    spawned = []

    async def inner():
        return operations.queued

    async def outer():
        spawned.append(asyncio.create_task(operations.run(inner, what="spawned")))
        await settle()
        assert operations.queued == 1
        return await operations.run(inner, what="inner")

    assert await operations.run(outer, what="outer", timeout=5) == 1
    assert await spawned[0] == 0


async def test_default_limit_counts_from_the_slot_and_not_while_queueing():
    operations = await opened(max_concurrency=1, default_timeout_ms=40)
    release = asyncio.Event()
    blocker = asyncio.create_task(operations.run(release.wait, what="blocker", timeout=None))
    await settle()

    async def quick():
        return "done"

    queued = asyncio.create_task(operations.run(quick, what="quick"))
    await asyncio.sleep(0.1)
    assert not queued.done()
    release.set()
    assert await queued == "done"
    await blocker
    with pytest.raises(AsyncTimeout, match=r"0\.04 s"):
        await operations.run(asyncio.Event().wait, what="hangs")


async def test_an_explicit_limit_covers_queueing_and_says_that_nothing_was_sent():
    operations = await opened(max_concurrency=1)
    release = asyncio.Event()
    blocker = asyncio.create_task(operations.run(release.wait, what="blocker", timeout=None))
    await settle()
    calls = []

    async def never():
        calls.append(1)

    with pytest.raises(AsyncTimeout) as caught:
        await operations.run(never, what="submit", timeout=0.01, tx_id=TX)
    assert not calls
    assert not caught.value.money_may_have_moved
    assert caught.value.retry_safe
    assert isinstance(caught.value, TimeoutError)
    release.set()
    await blocker


async def test_a_limit_that_passes_in_the_operation_carries_the_id_known_by_then():
    operations = await opened()
    known = []

    async def submit():
        known.append(TX)
        await asyncio.Event().wait()

    with pytest.raises(AsyncTimeout) as caught:
        await operations.run(submit, what="submit", timeout=0.01, tx_id=lambda: known[0] if known else None)
    assert caught.value.tx_id == TX
    assert caught.value.money_may_have_moved
    assert not caught.value.retry_safe
    with pytest.raises(AsyncTimeout) as caught:
        await operations.run(submit, what="submit", timeout=0.01, repeatable=True)
    assert caught.value.money_may_have_moved
    assert caught.value.retry_safe
    with pytest.raises(AsyncTimeout) as caught:
        await operations.run(asyncio.Event().wait, what="read", timeout=0, moves_money=False)
    assert caught.value.retry_safe


async def test_a_timeout_that_the_operation_raises_itself_is_not_renamed():
    operations = await opened()

    async def own():
        raise TimeoutError("the socket's")

    async def inner_limit():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    for factory in (own, inner_limit):
        with pytest.raises(TimeoutError) as caught:
            await operations.run(factory, what="own", timeout=5)
        assert not isinstance(caught.value, AsyncTimeout)


async def test_a_result_that_is_there_when_the_limit_passes_is_given_back():
    operations = await opened()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"

    assert await operations.run(stubborn, what="stubborn", timeout=0.01) == "saved"
    await asyncio.sleep(0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "5", -0.1])
async def test_refuses_what_is_no_time_limit(timeout):
    operations = await opened()
    with pytest.raises(ValidationError, match="timeout"):
        await operations.run(asyncio.Event().wait, what="x", timeout=timeout)


async def test_cancel_event_set_before_begins_nothing():
    operations = await opened()
    cancel = asyncio.Event()
    cancel.set()
    calls = []

    async def never():
        calls.append(1)

    with pytest.raises(TaskCancelled) as caught:
        await operations.run(never, what="submit", cancel=cancel, tx_id=TX)
    assert calls == []
    assert caught.value.goes_on is False
    assert not caught.value.money_may_have_moved


async def test_cancel_event_ends_a_queueing_call_and_a_running_one():
    operations = await opened(max_concurrency=1)
    first, second = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(operations.run(asyncio.Event().wait, what="running", cancel=first, tx_id=TX))
    await settle()
    queued = asyncio.create_task(operations.run(asyncio.Event().wait, what="queued", cancel=second, tx_id=TX))
    await settle()
    second.set()
    with pytest.raises(TaskCancelled) as caught:
        await queued
    assert caught.value.goes_on is False
    first.set()
    with pytest.raises(TaskCancelled) as caught:
        await running
    assert caught.value.goes_on is True
    assert caught.value.tx_id == TX
    assert caught.value.money_may_have_moved


@pytest.mark.parametrize("with_cancel", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_the_task_s_own_cancellation_at_every_await_stays_a_cancellation_and_frees_the_slot(turns, with_cancel):
    operations = await opened(max_concurrency=1)
    cancel = asyncio.Event() if with_cancel else None

    async def steps():
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    before = asyncio.all_tasks()
    task = asyncio.create_task(operations.run(steps, what="steps", cancel=cancel, timeout=60))
    await settle(turns)
    task.cancel()
    try:
        assert await task == "done"
    except asyncio.CancelledError:
        assert task.cancelled()
    assert operations.running == 0
    assert asyncio.all_tasks() == before
    assert await operations.run(steps, what="after", timeout=5) == "done"


@pytest.mark.parametrize("turns", range(8))
async def test_cancel_event_at_every_await_gives_the_result_or_taskcancelled(turns):
    operations = await opened(max_concurrency=1)
    cancel = asyncio.Event()

    async def steps():
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    before = asyncio.all_tasks()
    task = asyncio.create_task(operations.run(steps, what="steps", cancel=cancel))
    await settle(turns)
    cancel.set()
    with contextlib.suppress(TaskCancelled):
        assert await task == "done"
    assert operations.running == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_a_queueing_task_passes_the_slot_on(turns):
    operations = await opened(max_concurrency=1)
    release = asyncio.Event()

    async def hold():
        await release.wait()

    blocker = asyncio.create_task(operations.run(hold, what="blocker"))
    await settle()
    leaver = asyncio.create_task(operations.run(hold, what="leaver"))
    stayer = asyncio.create_task(operations.run(hold, what="stayer"))
    await settle()
    release.set()
    await settle(turns)
    leaver.cancel()
    await asyncio.wait([leaver])
    await asyncio.wait_for(stayer, 5)
    await blocker
    assert operations.running == 0


async def test_a_cancellation_together_with_the_cancel_event_is_the_task_s_own():
    operations = await opened()
    cancel = asyncio.Event()
    task = asyncio.create_task(operations.run(asyncio.Event().wait, what="x", cancel=cancel))
    await settle()
    cancel.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_exception_group_comes_out_even_if_the_operation_fails_while_cancelled():
    operations = await opened()
    cancel = asyncio.Event()

    async def fails_on_the_way_out():
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("while leaving")

    task = asyncio.create_task(operations.run(fails_on_the_way_out, what="x", cancel=cancel))
    await settle()
    cancel.set()
    with pytest.raises(LookupError, match="while leaving"):
        await task


async def test_refuses_use_before_open_and_after_close():
    operations = Operations()
    with pytest.raises(AsyncRuntimeError, match="not initialised"):
        await operations.run(asyncio.Event().wait, what="submit")
    operations.open()
    operations.open()
    await operations.close_async()
    await operations.close_async()
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await operations.run(asyncio.Event().wait, what="submit")
    with pytest.raises(AsyncRuntimeError, match="closed"):
        operations.open()


async def test_refuses_another_event_loop():
    operations = await opened()

    async def elsewhere():
        await operations.run(asyncio.Event().wait, what="submit")

    with pytest.raises(AsyncRuntimeError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))


async def test_refuses_after_fork(monkeypatch):
    operations = await opened()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(AsyncRuntimeError, match="fork"):
        await operations.run(asyncio.Event().wait, what="submit")


async def test_close_ends_queueing_calls_at_once_and_running_ones_after_the_grace():
    operations = await opened(max_concurrency=1)
    running = asyncio.create_task(operations.run(asyncio.Event().wait, what="running", timeout=None))
    watched = asyncio.create_task(
        operations.run(asyncio.Event().wait, what="watched", timeout=None, cancel=asyncio.Event())
    )
    await settle()
    await operations.close_async(grace_s=0.01)
    with pytest.raises(AsyncRuntimeError, match="nothing was sent") as caught:
        await watched
    assert caught.value.retry_safe
    with pytest.raises(AsyncRuntimeError, match="close_async") as caught:
        await running
    assert caught.value.money_may_have_moved


async def test_close_lets_running_operations_end_and_may_be_called_from_inside_one():
    operations = await opened()
    release = asyncio.Event()
    running = asyncio.create_task(operations.run(release.wait, what="running"))
    await settle()

    async def closer():
        await operations.close_async(grace_s=30)
        return "closed"

    closing = asyncio.create_task(operations.run(closer, what="closer", timeout=30))
    await settle()
    release.set()
    assert await running is True
    assert await closing == "closed"


@pytest.mark.parametrize("key", ["max_concurrency", "default_timeout_ms", "exit_slots"])
def test_refuses_limits_below_one(key):
    with pytest.raises(ConfigurationError) as caught:
        Operations(**{key: 0})
    assert caught.value.key == key
