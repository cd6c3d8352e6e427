from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest
from sqlalchemy import text

from layer2.errors import AsyncRuntimeError, ConfigurationError, NodeConnectionError, StorageError
from layer2.storage import Store
from layer2.storage._meta import get_meta, set_meta


def put(conn, value):
    set_meta(conn, "test", value)


def get(conn):
    return get_meta(conn, "test")


async def test_what_a_function_wrote_is_there_once_run_returns(store):
    await store.run(put, "one")
    assert await store.run(get) == "one"


async def test_what_a_function_wrote_before_it_raised_is_gone(store):
    def fails(conn, value, *, error):
        set_meta(conn, "test", value)
        raise error

    await store.run(put, "one")
    with pytest.raises(ZeroDivisionError):
        await store.run(fails, "two", error=ZeroDivisionError())
    assert await store.run(get) == "one"


async def test_errors_of_this_package_pass_unchanged_even_if_they_are_os_errors(store):
    error = NodeConnectionError("no")

    def fails(conn):
        raise error

    with pytest.raises(NodeConnectionError) as caught:
        await store.run(fails)
    assert caught.value is error


async def test_an_operating_system_error_becomes_a_storage_error(store):
    def fails(conn):
        raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error") as caught:
        await store.run(fails)
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_database_error_names_the_store_and_keeps_the_cause_but_not_the_values(store):
    with pytest.raises(StorageError) as caught:
        await store.run(
            lambda conn: conn.execute(text("INSERT INTO meta (key, nothing) VALUES ('k', :v)"), {"v": "canary"})
        )
    assert caught.value.__cause__ is not None
    assert caught.value.url == store.info.url
    assert "canary" not in f"{caught.value} {caught.value.__cause__}"
    await store.run(put, "goes on")
    assert await store.run(get) == "goes on"


async def test_transactions_run_one_by_one_in_the_order_of_the_calls(store):
    order = []
    await asyncio.gather(*(store.run(lambda conn, n=n: order.append(n)) for n in range(50)))
    assert order == list(range(50))


async def test_what_was_written_survives_closing_and_opening(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await store.run(put, "kept")
        first = store.info.instance_id
    async with await Store.open(url, clock=clock) as store:
        assert await store.run(get) == "kept"
        assert store.info.instance_id == first
        assert store.info.durability


async def test_a_cancelled_caller_leaves_a_begun_transaction_to_its_end(store):
    begun, go_on = threading.Event(), threading.Event()

    def slow(conn):
        set_meta(conn, "test", "done")
        begun.set()
        assert go_on.wait(30)

    task = asyncio.create_task(store.run(slow))
    await asyncio.to_thread(begun.wait, 30)
    queued = asyncio.create_task(store.run(put, "never"))
    await asyncio.sleep(0)
    for each in (task, queued):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    go_on.set()
    assert await store.run(get) == "done"


async def test_a_failure_that_nobody_waits_for_any_more_is_logged(store, caplog):
    begun, go_on = threading.Event(), threading.Event()

    def fails(conn):
        begun.set()
        assert go_on.wait(30)
        conn.execute(text("SELECT nothing FROM nowhere"))

    task = asyncio.create_task(store.run(fails))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with caplog.at_level(logging.ERROR, logger="layer2.storage"):
        go_on.set()
        assert await store.run(get) is None
    assert [(each.event_code, each.exc_info[0]) for each in caplog.records] == [
        ("storage.failed_unobserved", StorageError)
    ]


async def test_closing_waits_for_what_was_begun_and_is_idempotent(url, clock):
    store = await Store.open(url, clock=clock)
    writing = asyncio.create_task(store.run(put, "last"))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    await writing
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await store.run(get)
    async with await Store.open(url, clock=clock) as again:
        assert await again.run(get) == "last"


async def test_a_cancelled_open_gives_the_store_back(url, clock, monkeypatch):
    from layer2.storage import _session

    begun, go_on = threading.Event(), threading.Event()
    migrate = _session.migrate
    others = set(threading.enumerate())

    def slow(conn, where):
        begun.set()
        assert go_on.wait(30)
        migrate(conn, where)

    monkeypatch.setattr(_session, "migrate", slow)
    task = asyncio.create_task(Store.open(url, clock=clock))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    for worker in set(threading.enumerate()) - others:
        if not worker.name.startswith("layer2-store"):
            continue
        await asyncio.to_thread(worker.join, 30)
    await (await Store.open(url, clock=clock)).close()


async def test_a_store_does_not_work_in_a_forked_child(store, monkeypatch):
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(AsyncRuntimeError, match="fork"):
            await store.run(get)
        await store.close()
    assert await store.run(get) is None


@pytest.mark.parametrize(
    "url",
    ["mysql://host/x", "sqlite+aiosqlite:///x", "sqlite:///x?mode=ro", "postgresql+asyncpg://h/x", "no url at all"],
)
async def test_other_databases_are_refused(url, clock):
    with pytest.raises(ConfigurationError):
        await Store.open(url, clock=clock)


async def test_a_store_in_memory_runs_inline_without_a_thread(clock, no_blocking_calls):
    no_blocking_calls.deactivate()
    before = threading.active_count()
    async with await Store.open("sqlite://", clock=clock, inline=True) as store:
        thread = await store.run(lambda conn: threading.current_thread())
        await store.run(put, "x")
        assert await store.run(get) == "x"
        assert thread is threading.current_thread()
        assert threading.active_count() == before
    await store.close()
    with pytest.raises(AsyncRuntimeError):
        await store.run(get)


async def test_two_stores_in_memory_have_nothing_in_common(clock):
    async with (
        await Store.open("sqlite://", clock=clock) as one,
        await Store.open("sqlite:///:memory:", clock=clock) as two,
    ):
        await one.run(put, "x")
        assert await two.run(get) is None


async def test_a_password_in_the_url_is_shown_nowhere(clock):
    with pytest.raises(StorageError) as caught:
        await Store.open("postgresql://me:canary@127.0.0.1:1/db", clock=clock)
    assert "canary" not in f"{caught.value!r} {caught.value} {caught.value.url} {caught.value.__cause__}"
