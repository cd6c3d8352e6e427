import asyncio

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import (
    AsyncRuntimeError,
    Expired,
    FeeLimitExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    NodeConnectionError,
    Reverted,
    StorageError,
    UnknownOutcome,
    ValidationError,
)
from layer2.evm import (
    FeeLimits,
    HttpTransport,
    MemoryTxJournal,
    RpcError,
    SubmitProgress,
    TxState,
    UnsignedTransaction,
    sign_transaction,
)
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)
RICH = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


class Tap:
    """A transport through which a test sees every request, and answers some itself."""

    def __init__(self, url):
        self.inner = HttpTransport(url)
        self.calls = []
        self.hooks = {}

    def sent(self):
        return [params[0] for method, params in self.calls if method == "eth_sendRawTransaction"]

    async def call(self, method, params):
        self.calls.append((method, params))
        hook = self.hooks.get(method)
        if hook is not None:
            return await hook(params)
        return await self.inner.call(method, params)

    async def close(self):
        await self.inner.close()


@pytest.fixture
async def tap():
    taps = []

    def make(anvil):
        taps.append(Tap(anvil.url))
        return taps[-1]

    yield make
    for made in taps:
        await made.close()


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def mined(anvil, sender, tx_hash):
    """Whether it succeeded, after as many blocks as it took."""

    async def included():
        await anvil.mine()
        return (await sender.status(tx_hash)).at_least(Depth.INCLUDED)

    await until(included)
    return (await sender.wait(tx_hash)).succeeded


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


async def test_never_more_unconfirmed_than_the_window(start_anvil, make_sender, tap):
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


async def test_a_lost_answer_leads_to_the_same_bytes_again(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    lost = []

    async def lose_once(params):
        answer = await seen.inner.call("eth_sendRawTransaction", params)
        if not lost:
            lost.append(answer)
            raise NodeConnectionError("gone", request_sent=True)
        return answer

    seen.hooks["eth_sendRawTransaction"] = lose_once
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01)
    record = await sender.submit(PAY)
    assert len(seen.sent()) >= 2
    assert len(set(seen.sent())) == 1
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


async def test_an_endpoint_that_takes_nothing_gives_an_unknown_outcome_and_is_asked_on(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)

    async def dead(params):
        raise NodeConnectionError("gone", request_sent=True)

    seen.hooks["eth_sendRawTransaction"] = dead
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01, send_attempts=2)
    with pytest.raises(UnknownOutcome) as caught:
        await sender.submit(PAY, key="k")
    assert caught.value.money_may_have_moved
    del seen.hooks["eth_sendRawTransaction"]
    assert (await sender.wait(caught.value.tx_id.hash)).succeeded
    assert (await sender.submit(PAY, key="k")).hash == caught.value.tx_id.hash
    assert len(set(seen.sent())) == 1


async def test_nonce_too_low_after_a_lost_answer_is_our_own_transaction(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    answers = []

    async def lose_once(params):
        answers.append(params)
        answer = await seen.inner.call("eth_sendRawTransaction", params)
        if len(answers) == 1:
            raise NodeConnectionError("gone", request_sent=True)
        return answer

    async def included(params):
        await until(lambda: anvil.client.balance(BOB))
        raise RpcError(-32003, "nonce too low")

    async def first_lose_then_refuse(params):
        seen.hooks["eth_sendRawTransaction"] = included
        return await lose_once(params)

    seen.hooks["eth_sendRawTransaction"] = first_lose_then_refuse
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01)
    record = await sender.submit(PAY)
    assert (await sender.wait(record.hash)).succeeded
    assert await anvil.client.balance(BOB) == 1


async def test_a_restart_sends_the_same_bytes_and_goes_on_counting(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    journal, before = MemoryTxJournal(), tap(anvil)

    async def dead(params):
        raise NodeConnectionError("gone", request_sent=False)

    before.hooks["eth_sendRawTransaction"] = dead
    first = await make_sender(anvil, transport=before, journal=journal, send_attempts=1)
    with pytest.raises(UnknownOutcome) as caught:
        await first.submit(PAY, key="k")
    await first.close()
    after = tap(anvil)
    second = await make_sender(anvil, transport=after, journal=journal)
    other = await second.submit(PAY)
    assert other.nonce == 1
    assert await mined(anvil, second, caught.value.tx_id.hash)
    assert await mined(anvil, second, other.hash)
    assert before.sent()[0] in after.sent()


async def test_a_reorganised_transaction_is_pending_again_and_sent_again(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "32")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    snapshot = await anvil.rpc("evm_snapshot")
    record = await sender.submit(PAY)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded
    sends = len(seen.sent())
    await anvil.rpc("evm_revert", snapshot)
    await anvil.rpc("evm_setAutomine", False)
    await anvil.rpc("anvil_mine", "0x1", "0x7")

    async def sent_again():
        return len(seen.sent()) > sends

    await until(sent_again)
    status = await sender.status(record.hash)
    assert (status.outcome, status.depth) == (Outcome.NONE, Depth.PENDING)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded
    assert len(set(seen.sent())) == 1


async def test_a_transaction_that_the_pool_dropped_is_sent_again(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen, resend_after_s=0.1)
    record = await sender.submit(PAY)
    await anvil.rpc("anvil_dropTransaction", "0x" + record.hash.hex())

    async def back():
        return await anvil.client.transaction(record.hash) is not None

    await until(back)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


async def foreign(anvil, nonce, **changes):
    fields = {"gas_limit": 21_000, "max_fee_per_gas": 10**11, "max_priority_fee_per_gas": 10**10, "value": 7}
    tx = UnsignedTransaction(chain_id=60808, nonce=nonce, to=BOB, **{**fields, **changes})
    return await sign_transaction(tx, LocalSigner.from_hex(RICH))


async def test_a_nonce_used_by_somebody_else_is_replaced_at_finality_only(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "2")
    sender = await make_sender(anvil)
    record = await sender.submit(PAY)
    await anvil.client.send_raw((await foreign(anvil, 0)).raw)
    await anvil.mine()

    async def seen():
        return sender._tracker.head.number == await anvil.client.block_number()

    await until(seen)
    assert not (await sender.status(record.hash)).failed
    await anvil.mine(8)
    status = await sender.wait(record.hash, Depth.FINALIZED)
    assert status.outcome is Outcome.REPLACED
    assert status.is_final
    assert (await sender.submit(PAY)).nonce == 1


async def test_a_key_used_elsewhere_is_noticed_and_not_signed_again(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal)
    await anvil.client.send_raw((await foreign(anvil, 0)).raw)
    with pytest.raises(UnknownOutcome):
        await sender.submit(PAY)

    async def caught_up():
        try:
            return (await sender.submit(PAY)).nonce
        except UnknownOutcome:
            return None

    await until(caught_up)
    assert await anvil.client.balance(BOB) == 8


async def test_a_price_that_is_passed_over_is_raised_within_the_bound(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    journal = MemoryTxJournal()
    sender = await make_sender(
        anvil, transport=seen, journal=journal, bump_after_s=0.05, limits=FeeLimits(max_fee_per_gas_wei=4 * 10**9)
    )
    record = await sender.submit(PAY, key="k")

    async def left_out():
        # A block without it: it is dropped from the pool first.
        current = await journal.get("k")
        for variant in current.variants:
            await anvil.rpc("anvil_dropTransaction", "0x" + variant.hash.hex())
        await anvil.mine()
        return len((await journal.get("k")).variants) > 2

    await until(left_out)
    current = await journal.get("k")
    for old, new in zip(current.variants, current.variants[1:], strict=False):
        assert new.max_fee_per_gas * 10 >= old.max_fee_per_gas * 11
        assert new.max_priority_fee_per_gas * 10 >= old.max_priority_fee_per_gas * 11
        assert new.max_fee_per_gas <= 4 * 10**9
    await anvil.rpc("evm_setAutomine", True)
    await anvil.rpc("evm_setIntervalMining", 1)
    status = await sender.wait(record.hash)
    assert status.succeeded
    assert status.tx_id.hash == record.hash
    assert await anvil.client.balance(BOB) == 1


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
    sender.reserved_wei = 10**16 - 1000
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


async def test_a_transaction_that_is_never_taken_leaves_no_gap(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    seen, journal = tap(anvil), MemoryTxJournal()
    both = asyncio.Event()

    async def refuse_first(params):
        del seen.hooks["eth_sendRawTransaction"]
        await both.wait()
        raise RpcError(-32000, "intrinsic gas too low")

    seen.hooks["eth_sendRawTransaction"] = refuse_first
    sender = await make_sender(anvil, transport=seen, journal=journal)
    refused = asyncio.create_task(sender.submit(PAY, key="refused"))
    while not seen.sent():
        await asyncio.sleep(0)
    second = await sender.submit(PAY)
    both.set()
    with pytest.raises(Exception, match="intrinsic") as caught:
        await refused
    assert not caught.value.money_may_have_moved
    assert (await journal.get("refused")).state is TxState.ABANDONED

    async def included():
        await anvil.mine()
        return (await sender.status(second.hash)).succeeded

    await until(included)
    assert await anvil.client.balance(BOB) == 1
    # The same key may be tried again: nobody ever had the first one.
    again = await sender.submit(PAY, key="refused")
    await anvil.mine()
    assert (await sender.wait(again.hash)).succeeded
    assert await anvil.client.balance(BOB) == 2


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
