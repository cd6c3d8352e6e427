from dataclasses import fields, replace

import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import UnknownOutcome
from layer2.evm import EvmClient, HttpTransport, RpcError, SignedVariant, TxRecord, TxState
from layer2.storage import SqlTxJournal, Store
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)


@pytest.fixture
async def journal(tmp_path):
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", clock=SystemClock())
    yield SqlTxJournal(store)
    await store.close()


async def test_every_field_of_a_record_survives(journal):
    variant = SignedVariant(raw=b"raw", hash=b"\x01" * 32, max_fee_per_gas=2**100, max_priority_fee_per_gas=1)
    record = TxRecord(
        key="k",
        request_digest=b"\x02" * 32,
        chain_id=60808,
        sender=BOB,
        nonce=7,
        variants=(variant,),
        exit=True,
        not_after=5,
        deadline=6,
        price_bound_wei=2**100,
        tip_bound_wei=2**90,
        sent=True,
        created_ms=9,
    )
    await journal.put_new(record)
    assert await journal.get("k") == record
    final = replace(
        record,
        state=TxState.FINAL,
        final_hash=variant.hash,
        block_number=3,
        block_hash=b"\x03" * 32,
        succeeded=False,
        fee_wei=2**100,
    )
    stored = await journal.update(final, expected_version=1)
    assert stored == await journal.get("k") == replace(final, version=2)
    assert all(getattr(stored, field.name) is not None for field in fields(stored))


async def test_a_transaction_goes_through_to_final_in_the_store(start_anvil, make_sender, journal):
    anvil = await start_anvil()
    sender = await make_sender(anvil, journal=journal)
    record = await sender.submit(PAY, key="k", exit=True, not_after=2**40)
    await sender.wait(record.hash)
    await anvil.mine(3)
    assert (await sender.wait(record.hash, Depth.FINALIZED)).is_final

    while (stored := await journal.get("k")).state is not TxState.FINAL:
        await sender.wait(record.hash, Depth.FINALIZED)
    assert stored.succeeded
    assert stored.fee_wei > 0
    assert stored.sent
    assert stored.final_hash == record.hash


async def test_what_is_final_stays_so_when_the_endpoint_forgets(start_anvil, make_sender, journal):
    anvil = await start_anvil()
    first = await make_sender(anvil, journal=journal)
    record = await first.submit(PAY, key="k")
    await first.wait(record.hash)
    await anvil.mine(3)
    while (await journal.get("k")).state is not TxState.FINAL:
        await first.wait(record.hash, Depth.FINALIZED)
    await first.close()
    other_chain = await start_anvil()
    second = await make_sender(other_chain, journal=journal)
    status = await second.status(record.hash)
    assert (status.outcome, status.depth) == (Outcome.SUCCEEDED, Depth.FINALIZED)


async def test_a_refused_transaction_can_be_asked_for_again_with_its_key(start_anvil, make_sender, journal):
    anvil = await start_anvil()

    class RefusesOnce:
        inner = HttpTransport(anvil.url)
        refused = False

        async def call(self, method, params):
            if method == "eth_sendRawTransaction" and not self.refused:
                self.refused = True
                raise RpcError(-32000, "intrinsic gas too low")
            return await self.inner.call(method, params)

        async def close(self):
            await self.inner.close()

    transport = RefusesOnce()
    sender = await make_sender(anvil, journal=journal, transport=transport)
    with pytest.raises(UnknownOutcome, match="intrinsic"):
        await sender.submit(PAY, key="k")
    again = await sender.submit(PAY, key="k")
    assert again.nonce == 0
    assert (await sender.wait(again.hash)).succeeded
    assert await EvmClient(transport).balance(BOB) == 1
    await transport.close()
