"""A write of which nobody knows whether it was made, because the reading back fails too."""

import asyncio

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import StorageError, StoreInUse, UnknownOutcome
from layer2.evm import MemoryTxJournal, TxState
from layer2.transactions import EvmCall

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)
PAY_MORE = EvmCall(to=BOB, value_wei=10, gas_limit=21_000)


class Failing(MemoryTxJournal):
    """Loses the answer to one write, made or not, and cannot be read until it is ``up`` again."""

    def __init__(self):
        super().__init__()
        self.lose = None
        self.made = True
        self.up = True
        self.lost = False

    async def still_ours(self):
        if self.lost:
            raise StoreInUse.by("another process", "postgresql://somewhere")

    async def _write(self, kind, writing):
        if self.lose != kind:
            return await writing
        self.lose = None
        if self.made:
            await writing
        else:
            writing.close()
        self.up = False
        raise StorageError("the connection was lost at the commit")

    async def put_new(self, record):
        return await self._write("put_new", super().put_new(record))

    async def update(self, record, *, expected_version):
        return await self._write("update", super().update(record, expected_version=expected_version))

    async def get(self, key):
        if not self.up:
            raise StorageError("the database is away")
        return await super().get(key)


async def test_a_record_that_was_written_after_all_is_taken_up_and_nobody_has_its_nonce(
    start_anvil, make_sender, tap, mined
):
    anvil = await start_anvil()
    seen, journal = tap(anvil), Failing()
    sender = await make_sender(anvil, transport=seen, journal=journal)
    journal.lose = "put_new"
    with pytest.raises(StorageError) as caught:
        await sender.submit(PAY, key="first")
    assert caught.value.money_may_have_moved
    with pytest.raises(StorageError):
        await sender.submit(PAY_MORE)
    assert seen.sent() == []
    journal.up = True
    second = await sender.submit(PAY_MORE)
    first = await sender.submit(PAY, key="first")
    assert (first.nonce, second.nonce) == (0, 1)
    assert await mined(anvil, sender, first.hash)
    assert await mined(anvil, sender, second.hash)
    assert await anvil.client.balance(BOB) == 11


async def test_a_transaction_that_another_process_has_by_now_may_have_moved_money(start_anvil, make_sender, tap):
    """It is in the journal, from which whoever took that over sends it. Under another key it would be paid twice."""
    anvil = await start_anvil()
    seen, journal = tap(anvil), Failing()
    sender = await make_sender(anvil, transport=seen, journal=journal)
    journal.lost = True
    with pytest.raises(UnknownOutcome) as caught:
        await sender.submit(PAY, key="first")
    assert caught.value.money_may_have_moved
    assert caught.value.tx_id.hash == (await journal.get("first")).hash
    assert isinstance(caught.value.__cause__, StoreInUse)
    assert seen.sent() == []


async def test_a_record_in_doubt_is_sent_also_if_nobody_asks_again(start_anvil, make_sender, until):
    """As after a restart: it is signed and in the journal."""
    anvil = await start_anvil()
    journal = Failing()
    sender = await make_sender(anvil, journal=journal)
    journal.lose = "put_new"
    with pytest.raises(StorageError):
        await sender.submit(PAY)
    journal.up = True

    async def paid():
        await anvil.mine()
        return await anvil.client.balance(BOB) == 1

    await until(paid)


async def test_a_record_that_was_not_written_leaves_its_nonce_free(start_anvil, make_sender, mined):
    anvil = await start_anvil()
    journal = Failing()
    sender = await make_sender(anvil, journal=journal)
    journal.lose, journal.made = "put_new", False
    with pytest.raises(StorageError):
        await sender.submit(PAY)
    journal.up = True
    record = await sender.submit(PAY_MORE)
    assert record.nonce == 0
    assert await mined(anvil, sender, record.hash)
    assert await anvil.client.balance(BOB) == 10


@pytest.mark.parametrize("made", [True, False], ids=["made", "not made"])
async def test_a_record_whose_change_was_in_doubt_goes_on_to_its_end(start_anvil, make_sender, until, made):
    """Its version here would otherwise stay behind the journal's, and no later change could be written before a restart."""
    anvil = await start_anvil()
    journal = Failing()
    sender = await make_sender(anvil, journal=journal)
    journal.lose, journal.made = "update", made
    # Where there is a last moment, that it is sent is written before it is.
    submitting = asyncio.create_task(sender.submit(PAY, key="k", exit=True, not_after=2**40))
    await asyncio.wait([submitting])
    assert isinstance(submitting.exception(), StorageError)
    journal.up = True

    async def final():
        await anvil.mine()
        record = await journal.get("k")
        return record.state is TxState.FINAL

    await until(final)
    assert (await journal.get("k")).succeeded
    assert await anvil.client.balance(BOB) == 1
