from __future__ import annotations

import stat

import pytest

from layer2.errors import AsyncRuntimeError, StorageError
from layer2.storage import Store, swaps
from layer2.storage._meta import get_meta, set_meta


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'data' / 'layer2.db'}"


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_copy_of_a_store_in_use_holds_what_was_committed(sqlite_url, tmp_path, clock, make_swap, read_only):
    copy = tmp_path / "copy.db"
    async with await Store.open(sqlite_url, clock=clock) as store:
        await store.run(swaps.insert_swap, make_swap(1), at_ms=1)
        if read_only:
            async with await Store.open(sqlite_url, clock=clock, read_only=True) as reader:
                await reader.backup(copy)
        else:
            await store.backup(copy)
        await store.run(swaps.insert_swap, make_swap(2), at_ms=2)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with pytest.raises(StorageError, match="restore"):
        await Store.open(f"sqlite:///{copy}", clock=clock)
    async with await Store.open(f"sqlite:///{copy}", clock=clock, adopt=True) as restored:
        (only,) = await restored.run(swaps.list_swaps)
        assert (only.id, only.restored) == (make_swap(1).deal.id, True)
        assert await restored.run(swaps.verify_history, only.id) == 1


async def test_a_copy_replaces_nothing(sqlite_url, tmp_path, clock):
    (tmp_path / "copy.db").write_text("precious")
    async with await Store.open(sqlite_url, clock=clock) as store:
        with pytest.raises(StorageError, match="already"):
            await store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


async def test_a_copy_that_fails_leaves_no_file(sqlite_url, tmp_path, clock, monkeypatch):
    def no_sync(folder):
        raise OSError(28, "No space left on device")

    async with await Store.open(sqlite_url, clock=clock) as store:
        monkeypatch.setattr("layer2.storage._sqlite.sync_folder", no_sync)
        with pytest.raises(StorageError, match="No space left"):
            await store.backup(tmp_path / "copy.db")
        with pytest.raises(StorageError):
            await store.backup(tmp_path / "no" / "folder" / "copy.db")
        await store.run(set_meta, "key", "value")
        assert await store.run(get_meta, "key") == "value"
    assert not (tmp_path / "copy.db").exists()
    with pytest.raises(AsyncRuntimeError):
        await store.backup(tmp_path / "copy.db")


async def test_a_store_that_does_not_say_whose_it_is_gives_no_copy(sqlite_url, tmp_path, clock):
    """The copy could not be marked as one, and two live copies of one store lose money."""
    async with await Store.open(sqlite_url, clock=clock) as store:
        await store.run(lambda conn: conn.exec_driver_sql("DELETE FROM meta WHERE key = 'fingerprint'"))
        with pytest.raises(StorageError, match="does not say whose it is"):
            await store.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


async def test_a_store_on_a_server_names_the_means_to_copy_it(postgres_databases, tmp_path, clock):
    async with await Store.open(postgres_databases.new(), clock=clock) as store:
        with pytest.raises(StorageError, match="pg_dump"):
            await store.backup(tmp_path / "copy.db")
