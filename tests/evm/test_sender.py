import asyncio

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import (
    AsyncRuntimeError,
    Expired,
    FeeLimitExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    Reverted,
    StorageError,
    ValidationError,
)
from layer2.evm import (
    FeeLimits,
    MemoryTxJournal,
    SubmitProgress,
    UnsignedTransaction,
    sign_transaction,
)
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)
RICH = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


async def test_a_call_is_sent_included_and_final(start_anvil, make_sender):
    anvil = await start_anvil()
    sender = await make_sender(anvil)
    record = await sender.submit(EvmCall(to=BOB, value_wei=5))
    status = await sender.wait(record.hash)
    assert status.outcome is Outcome.SUCCEEDED
    assert status.at_least(Depth.INCLUDED)
    assert await anvil.client.balance(BOB) == 5
    await anvil.mine(3)
    status = await sender.wait(record.hash, Depth.FINALIZED)
    assert status.is_final
    assert status.fee > 0


@pytest.mark.slow
async def test_ten_thousand_submissions_at_once_all_arrive_once(start_anvil, make_sender):
    anvil = await start_anvil("--no-mining", "--balance", "100000", "--gas-limit", "1000000000")
    await anvil.rpc("evm_setIntervalMining", 1)
    sender = await make_sender(anvil, max_unconfirmed_per_key=2_000)
    records = await asyncio.gather(*(sender.submit(PAY) for _ in range(10_000)))
    assert len({record.hash for record in records}) == 10_000
    assert sorted(record.nonce for record in records) == list(range(10_000))
    await asyncio.gather(*(sender.wait(record.hash) for record in records[-10:]))
    assert await anvil.client.balance(BOB) == 10_000


async def test_never_more_unconfirmed_than_the_window(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen, max_unconfirmed_per_key=6, exit_reserve=2)
    tasks = [asyncio.create_task(sender.submit(PAY)) for _ in range(10)]
    await asyncio.gather(*tasks[:4])
    exits = [asyncio.create_task(sender.submit(PAY, key=f"exit {n}", exit=True)) for n in range(3)]
    nonces = sorted(record.nonce for record in await asyncio.gather(*exits[:2]))
    assert nonces == [4, 5]
    assert len(set(seen.sent())) == 6
    await anvil.mine()
    await exits[2]
    # Exits first: the one that waited has the first nonce that came free.
    assert exits[2].result().nonce == 6

    async def all_sent():
        await anvil.mine()
        return all(task.done() for task in tasks)

    await until(all_sent)
    assert sorted(task.result().nonce for task in tasks) == [0, 1, 2, 3, *range(7, 13)]


async def test_the_bytes_are_in_the_journal_before_they_are_sent(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen, journal = tap(anvil), MemoryTxJournal()
    journalled = []

    async def send(params):
        records = await journal.open_records(60808, sender.account)
        journalled.append(any(bytes.fromhex(params[0][2:]) == record.latest.raw for record in records))
        return await seen.inner.call("eth_sendRawTransaction", params)

    seen.hooks["eth_sendRawTransaction"] = send
    sender = await make_sender(anvil, transport=seen, journal=journal)
    await sender.submit(PAY)
    assert journalled == [True]


async def test_a_journal_that_cannot_write_stops_the_transaction(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)

    class Full(MemoryTxJournal):
        async def put_new(self, record):
            raise StorageError("no space left")

    sender = await make_sender(anvil, transport=seen, journal=Full())
    with pytest.raises(StorageError):
        await sender.submit(PAY)
    assert seen.sent() == []


async def test_the_same_key_attaches_and_another_call_conflicts(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    records = await asyncio.gather(*(sender.submit(PAY, key="rent") for _ in range(20)))
    assert len({record.hash for record in records}) == 1
    await sender.wait(records[0].hash)
    assert (await sender.submit(PAY, key="rent")).hash == records[0].hash
    with pytest.raises(IdempotencyConflict) as caught:
        await sender.submit(EvmCall(to=BOB, value_wei=2), key="rent")
    assert caught.value.key == "rent"
    assert await anvil.client.balance(BOB) == 1


async def foreign(anvil, nonce, **changes):
    fields = {"gas_limit": 21_000, "max_fee_per_gas": 10**11, "max_priority_fee_per_gas": 10**10, "value": 7}
    tx = UnsignedTransaction(chain_id=60808, nonce=nonce, to=BOB, **{**fields, **changes})
    return await sign_transaction(tx, LocalSigner.from_hex(RICH))


async def test_too_little_ether_is_refused_before_anything_is_journalled(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen, journal = tap(anvil), MemoryTxJournal()
    sender = await make_sender(anvil, transport=seen, journal=journal, signer=LocalSigner(b"\x05" * 32))
    await anvil.rpc("anvil_setBalance", str(sender.account), hex(1000))
    with pytest.raises(InsufficientFunds) as caught:
        await sender.submit(PAY, key="k")
    assert (caught.value.coin, caught.value.available) == ("ETH", 1000)
    assert caught.value.needed > 1000
    assert not caught.value.money_may_have_moved
    assert await journal.get("k") is None
    await anvil.rpc("anvil_setBalance", str(sender.account), hex(10**18))
    assert (await sender.wait((await sender.submit(PAY, key="k")).hash)).succeeded


async def test_many_at_once_cannot_spend_the_same_ether_twice(start_anvil, make_sender):
    anvil = await start_anvil("--no-mining")
    sender = await make_sender(anvil, signer=LocalSigner(b"\x05" * 32))
    await anvil.rpc("anvil_setBalance", str(sender.account), hex(10**18))
    call = EvmCall(to=BOB, value_wei=3 * 10**17, gas_limit=21_000)
    results = await asyncio.gather(*(sender.submit(call) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, InsufficientFunds) for result in results) == 3
    await anvil.mine()
    sent = [result for result in results if not isinstance(result, Exception)]
    assert [(await sender.wait(record.hash)).succeeded for record in sent] == [True] * 3


async def test_what_is_reserved_for_exits_is_left_to_them(start_anvil, make_sender):
    anvil = await start_anvil()
    sender = await make_sender(anvil, signer=LocalSigner(b"\x05" * 32))
    await anvil.rpc("anvil_setBalance", str(sender.account), hex(10**16))
    sender.reserved_wei = lambda: 10**16 - 1000
    with pytest.raises(InsufficientFunds):
        await sender.submit(PAY)
    assert (await sender.wait((await sender.submit(PAY, key="exit", exit=True)).hash)).succeeded


@pytest.mark.parametrize("limits", [FeeLimits(max_gas_cost_wei=1000), FeeLimits(max_fee_per_gas_wei=1000)], ids=str)
async def test_a_price_above_a_bound_is_refused(start_anvil, make_sender, limits):
    sender = await make_sender(await start_anvil(), limits=limits)
    with pytest.raises(FeeLimitExceeded) as caught:
        await sender.submit(PAY)
    assert caught.value.limit == 1000
    assert caught.value.needed > 1000


async def test_the_callers_own_price_bound_counts(start_anvil, make_sender):
    sender = await make_sender(await start_anvil())
    with pytest.raises(FeeLimitExceeded):
        await sender.submit(EvmCall(to=BOB, gas_limit=21_000, max_fee_per_gas_wei=5))


async def test_a_call_that_reverts_is_not_sent(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    await anvil.rpc("anvil_setCode", str(BOB), "0x60006000fd")
    sender = await make_sender(anvil, transport=seen)
    with pytest.raises(Reverted):
        await sender.submit(EvmCall(to=BOB))
    assert seen.sent() == []
    record = await sender.submit(EvmCall(to=BOB, gas_limit=50_000))
    status = await sender.wait(record.hash)
    assert status.outcome is Outcome.FAILED
    assert not status.is_final


async def test_after_its_time_it_is_not_sent(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    with pytest.raises(Expired):
        await sender.submit(PAY, key="late", not_after=1)
    assert seen.sent() == []
    record = await sender.submit(PAY, key="late", not_after=2**40)
    assert (await sender.wait(record.hash)).succeeded


async def test_an_exit_is_never_estimated(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    with pytest.raises(ValidationError, match="gas limit"):
        await sender.submit(EvmCall(to=BOB, data=b"secret"), key="claim", exit=True)
    await sender.submit(EvmCall(to=BOB, data=b"secret", gas_limit=50_000), key="claim", exit=True)
    shown = [params for method, params in seen.calls if b"secret".hex() in str(params)]
    assert len(shown) == 1


async def test_a_cancelled_submission_that_waits_is_never_sent(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, max_unconfirmed_per_key=1)
    await sender.submit(PAY)
    progress = SubmitProgress()
    waiting = asyncio.create_task(
        sender.submit(EvmCall(to=BOB, value_wei=1000, gas_limit=21_000), key="w", progress=progress)
    )
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not progress.begun
    await anvil.mine()
    last = await sender.submit(PAY)
    await anvil.mine()
    await sender.wait(last.hash)
    assert await anvil.client.balance(BOB) == 2
    assert await journal.get("w") is None


async def test_close_fails_what_waits_and_keeps_what_is_journalled(start_anvil, make_sender):
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, max_unconfirmed_per_key=1)
    sent = await sender.submit(PAY)
    waiting = asyncio.create_task(sender.submit(PAY))
    while not len(sender._queue):
        await asyncio.sleep(0)
    await sender.close()
    await sender.close()
    with pytest.raises(AsyncRuntimeError) as caught:
        await waiting
    assert not caught.value.money_may_have_moved
    with pytest.raises(AsyncRuntimeError):
        await sender.submit(PAY)
    assert [record.hash for record in await journal.open_records(60808, sender.account)] == [sent.hash]


async def test_a_transaction_signed_elsewhere_is_followed_too(start_anvil, make_sender):
    anvil = await start_anvil()
    sender = await make_sender(anvil)
    signed = await foreign(anvil, 0)
    record = await sender.submit_signed(signed.raw)
    assert record.hash == signed.hash
    assert (await sender.submit_signed(signed.raw)).hash == signed.hash
    assert (await sender.wait(record.hash)).succeeded
    assert (await sender.submit(PAY)).nonce == 1
    with pytest.raises(ValidationError, match="nonce 0"):
        await sender.submit_signed((await foreign(anvil, 0, value=9)).raw)


async def test_unknown_transactions_are_unknown_not_failed(start_anvil, make_sender):
    sender = await make_sender(await start_anvil())
    status = await sender.status(b"\x01" * 32)
    assert (status.outcome, status.depth) == (Outcome.UNKNOWN, Depth.NONE)
    assert not status.failed
