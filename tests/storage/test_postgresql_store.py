from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import psycopg
import pytest
from fault_wire import Wire
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import OperationalError

from layer2.errors import StorageError, StoreInUse
from layer2.storage import SqlTxJournal, Store, SwapJournal, _postgresql, _runner
from layer2.storage._meta import get_meta, set_meta
from layer2.storage._postgresql import PostgresqlBackend
from layer2.swaps import Role


@pytest.fixture
def databases(postgres_databases):
    return postgres_databases


def server_pid(conn):
    return conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()


async def end_session(server, pid):
    """Cut the store's connection from the server's side, and wait until its lock is free."""

    def cut():
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,))

    await asyncio.to_thread(cut)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_lost_connection_is_made_anew_when_nobody_took_over(url, clock, postgres_server, read_only):
    async with await Store.open(url, clock=clock) as writer:
        await writer.run(set_meta, "key", "value")
    async with await Store.open(url, clock=clock, read_only=read_only) as store:
        before = await store.run(server_pid)
        await end_session(postgres_server, before)
        assert await store.run(get_meta, "key") == "value"
        assert await store.run(server_pid) != before
        if not read_only:
            with pytest.raises(StoreInUse):
                await Store.open(url, clock=clock)


async def test_a_server_that_takes_nothing_any_more_is_an_error_and_no_wait_without_end(url, clock, monkeypatch):
    monkeypatch.setattr(_postgresql, "SILENCE_MS", 1000)
    on_socket = make_url(url)
    async with Wire(Path(on_socket.query["host"]) / ".s.PGSQL.5432") as wire:
        over_tcp = on_socket.difference_update_query(["host"]).set(host="127.0.0.1", port=wire.port)
        async with await Store.open(over_tcp.render_as_string(hide_password=False), clock=clock) as store:

            def write(conn):
                wire.stall()
                # More than the buffers on the way hold, so that something is not acknowledged.
                set_meta(conn, "key", "x" * 100_000_000)

            with pytest.raises(StorageError):
                await store.run(write)
            wire.mend()


async def test_a_connection_lost_within_a_transaction_is_an_error_and_then_made_anew(url, clock, postgres_server):
    async with await Store.open(url, clock=clock) as store:
        with pytest.raises(StorageError) as caught:
            await store.run(lambda conn: conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert not isinstance(caught.value, StoreInUse)
        await store.run(set_meta, "key", "value")
        assert await store.run(get_meta, "key") == "value"


async def test_a_process_that_another_took_over_from_writes_nothing_any_more(url, clock, postgres_server):
    async with await Store.open(url, clock=clock) as old:
        await end_session(postgres_server, await old.run(server_pid))
        async with await Store.open(url, clock=clock) as new:
            with pytest.raises(StoreInUse, match="layer2 process"):
                await old.run(set_meta, "key", "zombie")
            await new.run(set_meta, "key", "new")
        for _ in range(2):
            with pytest.raises(StoreInUse, match="took it over"):
                await old.run(set_meta, "key", "zombie")
    async with await Store.open(url, clock=clock, read_only=True) as reader:
        assert await reader.run(get_meta, "key") == "new"


async def test_whoever_asks_learns_that_another_took_over_and_it_stays_so(url, clock, postgres_server):
    async with await Store.open(url, clock=clock) as old:
        journals = SqlTxJournal(old), SwapJournal(old, Role.CLIENT).store
        for asked in (old, *journals):
            await asked.still_ours()
        await old.still_ours(certain=True)
        told = asyncio.create_task(old.until_lost())
        await end_session(postgres_server, await old.run(server_pid))
        async with await Store.open(url, clock=clock):
            for asked in (old, *journals):
                with pytest.raises(StoreInUse):
                    await asked.still_ours()
        assert isinstance(await told, StoreInUse)
        with pytest.raises(StoreInUse):
            await old.run(get_meta, "key")


async def test_a_server_that_does_not_answer_has_not_taken_anything_over(url, clock, postgres_server, monkeypatch):
    async with await Store.open(url, clock=clock) as store:
        await end_session(postgres_server, await store.run(server_pid))
        monkeypatch.setattr(store._session._engine, "connect", _unreachable)
        await store.still_ours()
        for asked in (store.still_ours(certain=True), store.run(get_meta, "key")):
            with pytest.raises(StorageError) as caught:
                await asked
            assert not isinstance(caught.value, StoreInUse)


async def test_a_server_that_hangs_keeps_nobody_waiting(url, clock, monkeypatch):
    async with await Store.open(url, clock=clock) as store:
        released = threading.Event()

        def hang(*, certain):
            released.wait()

        monkeypatch.setattr(store._session, "still_ours", hang)
        monkeypatch.setattr(_runner, "OWNER_LIMIT_S", 0.01)
        await store.still_ours()
        released.set()
        assert await store.run(get_meta, "key") is None


def _unreachable():
    raise OperationalError("", None, OSError("no route to host"))


async def test_a_holder_that_hides_its_name_is_still_a_holder(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await store.run(lambda conn: conn.exec_driver_sql("SET application_name = ''"))
        with pytest.raises(StoreInUse, match="another process"):
            await Store.open(url, clock=clock)


async def test_two_schemas_of_one_database_are_two_stores(postgres_databases, clock):
    async with (
        await Store.open(postgres_databases.new(), clock=clock) as one,
        await Store.open(postgres_databases.new(), clock=clock) as two,
    ):
        await one.run(set_meta, "key", "one")
        assert await two.run(get_meta, "key") is None
        assert one.info.instance_id != two.info.instance_id


async def test_a_schema_that_does_not_exist_is_refused(postgres_server, clock):
    with pytest.raises(StorageError, match="create the schema"):
        await Store.open(f"{postgres_server}&options=-csearch_path%3Dnowhere", clock=clock)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_does_not_sync_is_refused(url, clock, monkeypatch, setting):
    class Answer:
        def scalar_one(self):
            return "off"

    ask = Connection.exec_driver_sql

    def show(self, statement):
        return Answer() if statement == f"SHOW {setting}" else ask(self, statement)

    monkeypatch.setattr(Connection, "exec_driver_sql", show)
    with pytest.raises(StorageError, match=setting):
        await Store.open(url, clock=clock)


async def test_a_pooler_that_changes_sessions_is_noticed(url, clock, monkeypatch):
    async with await Store.open(url, clock=clock) as store:
        backend = store._session._backend
        assert isinstance(backend, PostgresqlBackend)
        monkeypatch.setattr(backend, "_backend_pid", 1)
        with pytest.raises(StorageError, match="pooler"):
            await store.run(set_meta, "key", "value")
    async with await Store.open(url, clock=clock) as store:
        assert await store.run(get_meta, "key") is None


async def test_the_server_that_does_not_answer_is_a_storage_error(clock):
    with pytest.raises(StorageError):
        await Store.open("postgresql://127.0.0.1:1/none", clock=clock)


@pytest.mark.parametrize("prefix", ["postgresql://", "postgresql+psycopg://"])
async def test_both_spellings_of_the_url_are_one_store(url, clock, prefix):
    async with await Store.open(url.replace("postgresql://", prefix), clock=clock):
        with pytest.raises(StoreInUse):
            await Store.open(url, clock=clock)


async def test_a_role_without_privileges_but_its_own_database_is_enough(postgres_server, clock):
    name = f"plain{os.urandom(4).hex()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    try:
        url = postgres_server.replace("postgres:@", f"{name}:@").replace("/postgres?", f"/{name}?")
        async with await Store.open(url, clock=clock) as store:
            await store.run(set_meta, "key", "value")
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {name}")
