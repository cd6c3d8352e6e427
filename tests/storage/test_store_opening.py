from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from layer2.errors import StorageError, StoreInUse
from layer2.storage import Store, swaps
from layer2.storage._meta import get_meta, set_meta
from layer2.storage._session import Session
from layer2.storage._sqlite import SqliteBackend

HOLD = """
import asyncio, sys
from layer2._clock import SystemClock
from layer2.errors import StoreInUse
from layer2.storage import Store

async def main():
    try:
        store = await Store.open(sys.argv[1], clock=SystemClock())
    except StoreInUse as error:
        print("in use:", error.holder, flush=True)
        return
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


def start_holder(url):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'data' / 'layer2.db'}"


def path_of(url):
    return Path(url.removeprefix("sqlite:///"))


async def test_one_process_has_the_store_and_the_other_is_told_who(url, clock, no_blocking_calls):
    no_blocking_calls.deactivate()
    async with await Store.open(url, clock=clock):
        with pytest.raises(StoreInUse) as caught:
            await Store.open(url, clock=clock)
        assert f"process {os.getpid()} " in caught.value.holder
        assert "read-only" in caught.value.hint
        other = start_holder(url)
        assert f"process {os.getpid()} " in other.communicate(timeout=60)[0]
    await (await Store.open(url, clock=clock)).close()


async def test_a_killed_process_leaves_the_store_free(url, clock, no_blocking_calls):
    no_blocking_calls.deactivate()
    holder = start_holder(url)
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreInUse, match=f"process {holder.pid} "):
            await Store.open(url, clock=clock)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=60)
    for _ in range(100):
        try:
            store = await Store.open(url, clock=clock)
        except StoreInUse:  # PostgreSQL notices the closed socket a moment later
            continue
        break
    await store.close()


async def test_two_names_of_one_file_are_one_store(sqlite_url, tmp_path, clock):
    async with await Store.open(sqlite_url, clock=clock):
        (tmp_path / "link").symlink_to(tmp_path / "data")
        with pytest.raises(StoreInUse):
            await Store.open(f"sqlite:///{tmp_path / 'link' / 'layer2.db'}", clock=clock)


async def test_only_the_owner_can_read_the_files(sqlite_url, clock, make_swap):
    old = os.umask(0)
    try:
        async with await Store.open(sqlite_url, clock=clock) as store:
            await store.run(swaps.insert_swap, make_swap(1), at_ms=1)
            folder = path_of(sqlite_url).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            names = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    finally:
        os.umask(old)
    assert set(names) == {"layer2.db", "layer2.db-wal", "layer2.db-shm", "layer2.db.lock"}
    assert set(names.values()) == {0o600}


async def test_a_readable_file_is_closed_to_others(sqlite_url, clock):
    await (await Store.open(sqlite_url, clock=clock)).close()
    path_of(sqlite_url).chmod(0o644)
    await (await Store.open(sqlite_url, clock=clock)).close()
    assert stat.S_IMODE(path_of(sqlite_url).stat().st_mode) == 0o600


async def test_a_lock_file_that_cannot_be_made_is_a_storage_error(tmp_path, clock):
    (tmp_path / "layer2.db.lock").mkdir()
    with pytest.raises(StorageError) as caught:
        await Store.open(f"sqlite:///{tmp_path / 'layer2.db'}", clock=clock)
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value, StoreInUse)


async def test_a_file_system_without_locks_is_a_storage_error(sqlite_url, clock, monkeypatch):
    def no_locks(fd, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StorageError, match="not supported"):
        await Store.open(sqlite_url, clock=clock)


async def test_a_holder_without_a_name_is_still_a_holder(sqlite_url, clock):
    async with await Store.open(sqlite_url, clock=clock):
        os.truncate(f"{path_of(sqlite_url)}.lock", 0)
        with pytest.raises(StoreInUse, match="another process"):
            await Store.open(sqlite_url, clock=clock)


FORK_AND_DIE = """
import os, sys
from layer2.storage._session import Session

Session(sys.argv[1], read_only=False, adopt=False).open()
says, hears = os.pipe()
if os.fork() == 0:
    os.write(hears, b"here")
    sys.stdin.read()
    os._exit(0)
os.read(says, 4)
os._exit(0)
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(sqlite_url):
    command = [sys.executable, "-W", "ignore", "-c", FORK_AND_DIE, sqlite_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as parent:  # its child lives as long as this pipe
        assert parent.wait(60) == 0
        again = Session(sqlite_url, read_only=False, adopt=False)
        again.open()
        again.close()


def test_a_child_just_forked_does_not_keep_the_lock_of_a_parent_that_closes(sqlite_url):
    session = Session(sqlite_url, read_only=False, adopt=False)
    session.open()
    lock = Path(f"{path_of(sqlite_url)}.lock").resolve()
    (held,) = [entry.name for entry in Path("/proc/self/fd").iterdir() if entry.resolve() == lock]
    childs = os.dup(int(held))  # what a child has until its first instructions have run
    try:
        session.close()
        again = Session(sqlite_url, read_only=False, adopt=False)
        again.open()
        again.close()
    finally:
        os.close(childs)


def test_a_child_that_closes_what_it_inherited_does_not_fail(sqlite_url):
    from layer2.storage import _sqlite

    session = Session(sqlite_url, read_only=False, adopt=False)
    session.open()
    _sqlite._forget_in_child()
    session.close()
    session.close()
    with pytest.raises(StorageError, match="closed"):
        session.run(get_meta, "key")


async def test_readers_work_beside_the_writer_and_cannot_write(url, clock, make_swap):
    async with await Store.open(url, clock=clock) as store:
        await store.run(swaps.insert_swap, make_swap(1), at_ms=1)
        async with await Store.open(url, clock=clock, read_only=True) as reader:
            assert reader.info.read_only
            assert reader.info.instance_id is None
            assert [each.id for each in await reader.run(swaps.list_swaps)] == [make_swap(1).deal.id]
            with pytest.raises(StorageError):
                await reader.run(set_meta, "key", "value")
            await store.run(swaps.insert_swap, make_swap(2), at_ms=2)
            assert len(await reader.run(swaps.list_swaps)) == 2


async def test_readers_work_without_a_writer(url, clock):
    await (await Store.open(url, clock=clock)).close()
    async with await Store.open(url, clock=clock, read_only=True) as reader:
        assert await reader.run(swaps.list_swaps) == []


async def test_a_reader_makes_nothing(databases, clock, tmp_path):
    url = databases.new()
    with pytest.raises(StorageError):
        await Store.open(url, clock=clock, read_only=True)
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


async def test_a_reader_refuses_an_older_schema(url, clock, monkeypatch):
    await (await Store.open(url, clock=clock)).close()
    monkeypatch.setattr("alembic.script.ScriptDirectory.get_current_head", lambda self: "later")
    with pytest.raises(StorageError, match="older version"):
        await Store.open(url, clock=clock, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_store_from_the_future_is_refused(url, clock, read_only):
    async with await Store.open(url, clock=clock) as store:
        await store.run(lambda conn: conn.execute(text("UPDATE layer2_schema SET version_num = '9999'")))
    with pytest.raises(StorageError, match="newer version of layer2"):
        await Store.open(url, clock=clock, read_only=read_only)


async def test_a_database_of_something_else_is_left_alone(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await store.run(lambda conn: conn.execute(text("DROP TABLE layer2_schema")))
    with pytest.raises(StorageError, match="something else"):
        await Store.open(url, clock=clock)


async def test_the_migrations_make_exactly_what_the_tables_say(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect

    from layer2.storage._tables import metadata

    def compare(conn):
        context = MigrationContext.configure(
            conn, opts={"version_table": "layer2_schema", "compare_type": True, "compare_server_default": True}
        )
        found = inspect(conn)
        indexes = {
            (table, index["name"], index["unique"] in (True, 1), tuple(index["column_names"]))
            for table in metadata.tables
            for index in found.get_indexes(table)
        }
        return compare_metadata(context, metadata), indexes

    differences, indexes = await store.run(compare)
    assert differences == []
    for table in metadata.tables.values():
        for index in table.indexes:
            assert (table.name, index.name, bool(index.unique), tuple(each.name for each in index.columns)) in indexes


async def test_a_copy_is_refused_until_it_is_adopted(sqlite_url, tmp_path, clock, make_swap):
    async with await Store.open(sqlite_url, clock=clock) as store:
        await store.run(swaps.insert_swap, make_swap(1), at_ms=1)
        original = store.info.instance_id
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copy = f"sqlite:///{tmp_path / 'copy' / 'layer2.db'}"
    with pytest.raises(StorageError, match="restore"):
        await Store.open(copy, clock=clock)
    async with await Store.open(copy, clock=clock, adopt=True) as store:
        assert store.info.instance_id != original
        assert (await store.run(swaps.load_swap, make_swap(1).deal.id)).restored
        await store.run(swaps.insert_swap, make_swap(2), at_ms=2)
        assert not (await store.run(swaps.load_swap, make_swap(2).deal.id)).restored
    await (await Store.open(copy, clock=clock)).close()
    async with await Store.open(sqlite_url, clock=clock) as store:
        assert not (await store.run(swaps.load_swap, make_swap(1).deal.id)).restored


async def test_a_copy_put_in_the_place_of_the_original_is_refused(sqlite_url, clock):
    await (await Store.open(sqlite_url, clock=clock)).close()
    path = path_of(sqlite_url)
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    with pytest.raises(StorageError, match="restore"):
        await Store.open(sqlite_url, clock=clock)


async def test_the_same_file_on_another_machine_is_refused(sqlite_url, clock, monkeypatch):
    await (await Store.open(sqlite_url, clock=clock)).close()
    monkeypatch.setattr("layer2.storage._sqlite.host_id", lambda: "elsewhere")
    with pytest.raises(StorageError, match="restore"):
        await Store.open(sqlite_url, clock=clock)


async def test_a_store_with_another_fingerprint_is_refused(url, clock):
    async with await Store.open(url, clock=clock) as store:
        await store.run(set_meta, "fingerprint", "another")
    with pytest.raises(StorageError, match="restore"):
        await Store.open(url, clock=clock)
    async with await Store.open(url, clock=clock, adopt=True) as store:
        assert await store.run(get_meta, "fingerprint") != "another"


def test_the_host_is_known_by_its_machine_id_or_else_its_name(monkeypatch, tmp_path):
    from layer2.storage import _host

    machine = tmp_path / "machine-id"
    monkeypatch.setattr(_host, "_MACHINE_ID", machine)
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert _host.host_id() == "box"
    machine.write_text("")
    assert _host.host_id() == "box"
    machine.write_text("0123456789abcdef\n")
    first = _host.host_id()
    assert first != "box"
    assert "0123456789abcdef" not in first
    machine.write_text("fedcba9876543210\n")
    assert _host.host_id() != first


async def test_settings_that_the_database_does_not_accept_are_refused(sqlite_url, clock, monkeypatch):
    monkeypatch.setattr(SqliteBackend, "_configure", lambda self, connection, record: None)
    with pytest.raises(StorageError, match="journal_mode"):
        await Store.open(sqlite_url, clock=clock)


async def test_what_durability_rests_on_is_reported(store):
    found = store.info.durability
    if store.info.url.startswith("sqlite"):
        assert found == {"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "30000"}
    else:
        assert (found["fsync"], found["synchronous_commit"], found["full_page_writes"]) == ("on", "on", "on")


async def test_a_full_disk_is_an_error_and_not_the_end(sqlite_url, clock):
    async with await Store.open(sqlite_url, clock=clock) as store:
        pages = await store.run(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
        await store.run(lambda conn: conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}").all())
        with pytest.raises(StorageError, match="full"):
            await store.run(set_meta, "big", "x" * 100_000)
        assert await store.run(get_meta, "big") is None
        await store.run(set_meta, "small", "x")
        assert await store.run(get_meta, "small") == "x"


async def test_a_transaction_that_cannot_begin_is_an_error_and_not_the_end(sqlite_url, clock):
    """Some other program that writes to the file, which the lock of the store does not keep out."""
    async with await Store.open(sqlite_url, clock=clock) as store:
        await store.run(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout = 0").all())
        with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="locked") as caught:
                await store.run(set_meta, "key", "x")
            assert caught.value.url == sqlite_url
            other.execute("ROLLBACK")
        assert await store.run(get_meta, "key") is None
        await store.run(set_meta, "key", "later")
        assert await store.run(get_meta, "key") == "later"


async def test_a_transaction_that_sqlite_gave_up_is_not_taken_for_committed(sqlite_url, clock):
    async with await Store.open(sqlite_url, clock=clock) as store:

        def lost(conn):
            set_meta(conn, "lost", "x")
            conn.exec_driver_sql("ROLLBACK")

        with pytest.raises(StorageError, match="by itself"):
            await store.run(lost)
        assert await store.run(get_meta, "lost") is None


async def test_a_commit_that_fails_leaves_nothing_behind(url, clock):
    def fails_at_the_end(conn):
        set_meta(conn, "lost", "x")
        if conn.dialect.name == "sqlite":
            conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            conn.execute(text("INSERT INTO used_hash VALUES ('a', 'no swap', 'client', 1)"))
        else:
            conn.execute(text("CREATE TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
            conn.execute(text("INSERT INTO late VALUES (1), (1)"))

    async with await Store.open(url, clock=clock) as store:
        with pytest.raises(StorageError):
            await store.run(fails_at_the_end)
        assert await store.run(get_meta, "lost") is None
        await store.run(set_meta, "kept", "x")
    async with await Store.open(url, clock=clock) as store:
        assert (await store.run(get_meta, "lost"), await store.run(get_meta, "kept")) == (None, "x")


async def test_a_standby_opens_the_store_when_its_holder_lets_go(url, clock):
    holder = await Store.open(url, clock=clock)
    waits = []

    class Waiting(type(clock)):
        async def sleep(self, seconds):
            waits.append(seconds)
            if len(waits) == 2:
                await holder.close()

    async with await Store.open(url, clock=Waiting(), standby=True) as store:
        assert await store.run(get_meta, "epoch") == "0"
    assert len(waits) >= 2


async def test_a_file_that_is_no_database_is_refused(sqlite_url, clock):
    path_of(sqlite_url).parent.mkdir()
    path_of(sqlite_url).write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError):
        await Store.open(sqlite_url, clock=clock)


async def test_a_store_that_nobody_took_over_is_still_ours(store):
    for certain in (False, True):
        await store.still_ours(certain=certain)
