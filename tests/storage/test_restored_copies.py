"""A copy in the place of a store: nothing is destroyed, nothing is taken that cannot be opened, and it is known for a copy."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from contextlib import closing

import pytest

from layer2.errors import ConfigurationError, StorageError, StoreInUse, UntrustedCopy
from layer2.signers import LocalSigner
from layer2.storage import Store, contents, copy_key, restore_copy, swaps
from layer2.swaps import Role


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "layer2.db"


@pytest.fixture
def url(target):
    return f"sqlite:///{target}"


@pytest.fixture
async def copy(url, tmp_path, clock, make_swap):
    """Of a store with one swap, which got a second one later."""
    async with await Store.open(url, clock=clock) as store:
        await store.run(swaps.insert_swap, make_swap(1), at_ms=1)
        await store.backup(tmp_path / "copy.db")
        await store.run(swaps.insert_swap, make_swap(2), at_ms=2)
    return tmp_path / "copy.db"


async def test_a_store_that_is_there_is_moved_aside_and_only_if_asked(url, target, copy, clock, make_swap):
    with pytest.raises(StorageError, match="there is a store") as caught:
        await restore_copy(url, copy, clock=clock, key=None)
    assert "--replace" in caught.value.hint
    async with await Store.open(url, clock=clock) as store:
        assert (await store.run(contents)).swaps == 2
    aside = await restore_copy(url, copy, clock=clock, key=None, replace=True)
    assert aside is not None
    assert aside.parent == target.parent
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(StorageError, match="restore"):
        await Store.open(url, clock=clock)
    async with await Store.open(url, clock=clock, adopt=True) as store:
        held = await store.run(contents)
        assert (held.swaps, held.unfinished, held.newest_change_ms) == (1, 1, 1)
        assert held.restored >= 1
        (only,) = await store.run(swaps.list_swaps)
        assert only.restored
        await store.run(swaps.insert_swap, make_swap(3), at_ms=3)
    async with await Store.open(url, clock=clock) as store:
        assert {swap.id: swap.restored for swap in await store.run(swaps.list_swaps)} == {
            make_swap(1).deal.id: True,
            make_swap(3).deal.id: False,
        }
    second = await restore_copy(url, copy, clock=clock, key=None, replace=True)
    assert second not in (None, aside), "of the same second: none overwrites another"
    async with await Store.open(f"sqlite:///{aside}", clock=clock, adopt=True) as store:
        assert (await store.run(contents)).swaps == 2


def write(copy, statement):
    """As somebody does who can write the file of a copy."""
    database = sqlite3.connect(copy)
    with database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize("epoch", [1_000_000, "9e99", "'later'"])
async def test_a_copy_cannot_say_of_itself_that_it_was_not_restored(url, copy, clock, epoch):
    write(copy, f"UPDATE swap SET epoch = {epoch}")
    await restore_copy(url, copy, clock=clock, key=None, replace=True)
    async with await Store.open(url, clock=clock, adopt=True) as store:
        (only,) = await store.run(swaps.list_swaps)
        assert only.restored


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER again AFTER UPDATE ON meta BEGIN UPDATE swap SET epoch = 1000000; END",
        "CREATE VIEW other AS SELECT * FROM swap",
        "UPDATE meta SET value = 'often' WHERE key = 'epoch'",
    ],
)
async def test_a_copy_that_does_more_than_hold_rows_is_refused(url, target, copy, clock, statement):
    write(copy, statement)
    before = target.read_bytes()
    with pytest.raises(StorageError):
        await restore_copy(url, copy, clock=clock, key=None, replace=True)
    assert target.read_bytes() == before
    with pytest.raises(StorageError):
        await Store.open(f"sqlite:///{copy}", clock=clock, adopt=True)


async def test_a_copy_whose_rows_will_not_be_marked_as_restored_is_refused(url, target, copy, clock):
    """Such a swap would pay and lock again. The table itself says that what does not fit is left as it is."""
    database = sqlite3.connect(copy)
    with database:
        (table,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'swap'").fetchone()
        names = [row[1] for row in database.execute("PRAGMA table_info(swap)")]
        stubborn = table.replace("epoch INTEGER NOT NULL", "epoch INTEGER NOT NULL UNIQUE ON CONFLICT IGNORE")
        assert stubborn != table
        database.execute(stubborn.replace("swap", "other", 1))
        for number in (1, 2):
            values = {"id": f"'{number}'", "idempotency_key": "NULL", "epoch": str(1_000_000 + number)}
            chosen = ", ".join(values.get(name, name) for name in names)
            database.execute(f"INSERT INTO other SELECT {chosen} FROM swap")
        database.execute("DROP TABLE swap")
        database.execute("ALTER TABLE other RENAME TO swap")
    database.close()
    before = target.read_bytes()
    with pytest.raises(StorageError, match="cannot be marked as restored"):
        await restore_copy(url, copy, clock=clock, key=None, replace=True)
    assert target.read_bytes() == before


@pytest.fixture
async def key():
    return await copy_key(LocalSigner(b"\x01" * 32), Role.CLIENT)


@pytest.fixture
async def authenticated(url, copy, clock, key, tmp_path):
    async with await Store.open(url, clock=clock, read_only=True) as store:
        await store.backup(tmp_path / "authenticated.db", key=key)
    return tmp_path / "authenticated.db"


async def test_what_was_authenticated_is_restored_and_can_be_copied_again(url, authenticated, key, clock, tmp_path):
    await restore_copy(url, authenticated, clock=clock, key=key, replace=True)
    async with await Store.open(url, clock=clock, adopt=True) as store:
        assert (await store.run(contents)).swaps == 2
        await store.backup(tmp_path / "again.db", key=key)
        await store.backup(tmp_path / "without.db")
    assert await restore_copy(url, tmp_path / "again.db", clock=clock, key=key, replace=True)
    with pytest.raises(UntrustedCopy, match="no MAC"):
        await restore_copy(url, tmp_path / "without.db", clock=clock, key=key, replace=True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE swap SET note = 'x'",
        "UPDATE swap SET wake_at_ms = '5'",
        "DELETE FROM swap_event",
        "UPDATE swap_event SET at_ms = at_ms + 1",
        "UPDATE meta SET value = '7' WHERE key = 'epoch'",
        "INSERT INTO meta VALUES ('x', 'y')",
        "INSERT INTO operation VALUES ('bob', 'k', '00', NULL, 1, 0)",
        "DROP INDEX ix_swap_created",
        "CREATE TABLE other (a)",
        "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM swap; END",
        "UPDATE meta SET value = '00' WHERE key = 'copy_mac'",
        "DELETE FROM meta WHERE key = 'copy_mac'",
    ],
)
async def test_whatever_was_changed_in_a_copy_is_seen(url, target, authenticated, key, clock, statement):
    write(authenticated, statement)
    before = target.read_bytes()
    with pytest.raises(UntrustedCopy) as caught:
        await restore_copy(url, authenticated, clock=clock, key=key, replace=True)
    assert "--unauthenticated" in caught.value.hint
    assert target.read_bytes() == before


async def test_the_copy_of_another_account_is_not_ours(url, authenticated, clock):
    other = await copy_key(LocalSigner(b"\x02" * 32), Role.CLIENT)
    with pytest.raises(UntrustedCopy, match="another key"):
        await restore_copy(url, authenticated, clock=clock, key=other, replace=True)


async def test_a_copy_of_one_kind_of_store_is_no_copy_of_the_other(tmp_path, clock):
    """With one key for both, who can write the backups could give a provider its own client's copy, or the other way round."""
    signer = LocalSigner(b"\x01" * 32)
    async with await Store.open(f"sqlite:///{tmp_path}/client.db", clock=clock) as store:
        await store.backup(tmp_path / "copy.db", key=await copy_key(signer, Role.CLIENT))
    providers = await copy_key(signer, Role.PROVIDER)
    with pytest.raises(UntrustedCopy, match="another kind of store"):
        await restore_copy(f"sqlite:///{tmp_path}/provider.db", tmp_path / "copy.db", clock=clock, key=providers)
    assert not (tmp_path / "provider.db").exists()


async def test_a_store_whose_transfers_show_that_it_is_of_the_other_kind_is_not_taken_over(
    url, target, copy, clock, make_swap, tmp_path
):
    """Though nobody vouches for the copy."""
    before = target.read_bytes()
    for role, hint in (Role.PROVIDER, "add --provider"), (Role.CLIENT, "without --provider"):
        theirs = f"sqlite:///{tmp_path}/{role.value}.db"
        async with await Store.open(theirs, clock=clock) as store:
            await store.run(swaps.insert_swap, make_swap(7, role=role), at_ms=1)
            await store.backup(tmp_path / f"copy of {role.value}.db")
        (other,) = set(Role) - {role}
        with pytest.raises(StorageError, match=f"the store of a {role.value}") as caught:
            await restore_copy(
                url, tmp_path / f"copy of {role.value}.db", clock=clock, key=None, role=other, replace=True
            )
        assert hint in caught.value.hint
        assert target.read_bytes() == before
        with pytest.raises(StorageError, match=f"the store of a {role.value}"):
            await Store.open(theirs, clock=clock, adopt=True, role=other)
        await (await Store.open(theirs, clock=clock)).close()  # it was left as it is
    await restore_copy(url, copy, clock=clock, key=None, role=Role.CLIENT, replace=True)


async def test_where_the_store_is_lost_nothing_stands_in_the_way(url, target, copy, clock):
    target.unlink()
    target.with_name(target.name + "-wal").write_bytes(b"left over")
    assert await restore_copy(url, copy, clock=clock, key=None) is None
    async with await Store.open(url, clock=clock, adopt=True) as store:
        assert (await store.run(contents)).swaps == 1


async def test_a_copy_written_over_its_original_is_still_known_for_one(url, target, copy, clock):
    inode = target.stat().st_ino
    target.write_bytes(copy.read_bytes())
    assert target.stat().st_ino == inode
    with pytest.raises(StorageError, match="restore"):
        await Store.open(url, clock=clock)


async def test_neither_store_nor_copy_may_be_in_use(url, target, copy, clock, tmp_path):
    async with await Store.open(url, clock=clock):
        with pytest.raises(StoreInUse):
            await restore_copy(url, copy, clock=clock, key=None, replace=True)
        with pytest.raises(StoreInUse):
            await restore_copy(f"sqlite:///{tmp_path / 'other.db'}", target, clock=clock, key=None)
    assert not (tmp_path / "other.db").exists()
    assert await restore_copy(f"sqlite:///{tmp_path / 'other.db'}", target, clock=clock, key=None) is None


async def test_what_cannot_be_opened_moves_nothing(url, target, copy, clock, tmp_path):
    text, torn, foreign, newer = (tmp_path / name for name in ("text", "torn", "foreign", "newer"))
    text.write_text("this is no database" * 100)
    whole = copy.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    sqlite3.connect(foreign).execute("CREATE TABLE other (a)").connection.close()
    shutil.copy(copy, newer)
    with sqlite3.connect(newer) as database:
        database.execute("UPDATE layer2_schema SET version_num = '9999'")
    database.close()
    before = target.read_bytes()
    for bad in (text, torn, foreign, newer, tmp_path / "missing", target):
        with pytest.raises(StorageError):
            await restore_copy(url, bad, clock=clock, key=None, replace=True)
        assert target.read_bytes() == before
        assert sorted(path.name for path in target.parent.iterdir()) == ["layer2.db", "layer2.db.lock"]


async def test_a_copy_in_which_a_bit_has_turned_is_refused_before_it_is_believed(url, target, copy, clock):
    """It opens, and every query answers; only the check of the whole file sees that an index names what its table does not hold."""
    with closing(sqlite3.connect(copy)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_swap_payment_hash'").fetchone()
        (payment_hash,) = database.execute("SELECT payment_hash FROM swap").fetchone()
    content = bytearray(copy.read_bytes())
    at = content.index(payment_hash.encode(), (page - 1) * size, page * size)
    content[at] ^= 1
    copy.write_bytes(content)
    before = target.read_bytes()
    with pytest.raises(StorageError, match=r"is damaged: .*ix_swap_payment_hash") as caught:
        await restore_copy(url, copy, clock=clock, key=None, replace=True)
    assert "older copy" in caught.value.hint
    assert target.read_bytes() == before


async def test_a_place_that_cannot_be_written_to_is_a_storage_error(copy, clock, tmp_path):
    (tmp_path / "file").write_text("in the way")
    url = f"sqlite:///{tmp_path / 'file' / 'layer2.db'}"
    with pytest.raises(StorageError, match="could not be put at") as caught:
        await restore_copy(url, copy, clock=clock, key=None)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.url == url
    assert (tmp_path / "file").read_text() == "in the way"


async def test_only_files_are_restored(copy, clock):
    with pytest.raises(StorageError) as caught:
        await restore_copy("postgresql://user:secret@host/database", copy, clock=clock, key=None)
    assert "pg_restore" in caught.value.hint
    assert "secret" not in str(caught.value.url)
    for bad in ("sqlite://", "what is this"):
        with pytest.raises(ConfigurationError):
            await restore_copy(bad, copy, clock=clock, key=None)
