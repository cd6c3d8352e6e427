import asyncio
from dataclasses import replace

import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import NodeConnectionError, NodeNotReady, UnknownOutcome
from layer2.evm import FeeLimits, MemoryTxJournal, TxState
from layer2.transactions import Depth, EvmCall

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)


async def test_an_exit_passes_user_traffic_whose_endpoint_hangs(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    held = asyncio.Event()

    async def hang(params):
        held.set()
        await asyncio.Event().wait()

    seen.hooks["eth_estimateGas"] = hang
    sender = await make_sender(anvil, transport=seen)
    estimating = asyncio.create_task(sender.submit(EvmCall(to=BOB)))
    await held.wait()
    record = await sender.submit(PAY, key="exit", exit=True)
    assert (await sender.wait(record.hash)).succeeded
    estimating.cancel()
    await asyncio.gather(estimating, return_exceptions=True)


async def test_exits_go_by_deadline(start_anvil, make_sender, mined):
    anvil = await start_anvil("--no-mining")
    sender = await make_sender(anvil, max_unconfirmed_per_key=1)
    first = await sender.submit(PAY)
    late = asyncio.create_task(sender.submit(PAY, key="late", exit=True, deadline=2**40))
    soon = asyncio.create_task(sender.submit(PAY, key="soon", exit=True, deadline=2**35))
    user = asyncio.create_task(sender.submit(PAY))
    while len(sender._queue) < 3:
        await asyncio.sleep(0)
    await mined(anvil, sender, first.hash)
    for task in (soon, late, user):
        await mined(anvil, sender, (await task).hash)
    assert [task.result().nonce for task in (soon, late, user)] == [1, 2, 3]


async def grown_price(anvil, make_sender, until, deadline):
    """The price of an exit's second variant, in percent of its first."""
    journal = MemoryTxJournal()
    sender = await make_sender(
        anvil, journal=journal, bump_after_s=0.01, limits=FeeLimits(exit_max_fee_per_gas_wei=10**15)
    )
    key = f"exit {deadline}"
    await sender.submit(PAY, key=key, exit=True, deadline=deadline)

    async def raised():
        for variant in (await journal.get(key)).variants:
            await anvil.rpc("anvil_dropTransaction", "0x" + variant.hash.hex())
        await anvil.mine()
        return len((await journal.get(key)).variants) > 1

    await until(raised)
    await sender.close()
    first, second = (await journal.get(key)).variants[:2]
    return second.max_fee_per_gas * 100 // first.max_fee_per_gas


async def test_an_exits_price_grows_faster_near_its_deadline(start_anvil, make_sender, until):
    now_s = SystemClock().now_ms() // 1000
    calm = await grown_price(await start_anvil("--no-mining"), make_sender, until, now_s + 100_000)
    urgent = await grown_price(await start_anvil("--no-mining"), make_sender, until, now_s + 30)
    assert 110 <= calm < 130
    assert urgent > 150


async def test_user_transactions_in_front_of_an_exit_are_raised_with_it(start_anvil, make_sender, until):
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, bump_after_s=0.01)
    await sender.submit(PAY, key="first")
    await sender.submit(PAY, key="second")
    await sender.submit(PAY, key="exit", exit=True, deadline=1)

    async def all_raised():
        records = [await journal.get(key) for key in ("first", "second", "exit")]
        for record in records:
            for variant in record.variants:
                await anvil.rpc("anvil_dropTransaction", "0x" + variant.hash.hex())
        await anvil.mine()
        return all(len(record.variants) > 1 for record in records)

    await until(all_raised)


async def test_a_replica_that_lags_is_no_reorganisation(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    record = await sender.submit(PAY)
    await sender.wait(record.hash)
    await anvil.mine()
    answers = []

    async def lagging(params):
        if params[0] == "latest" and len(answers) < 2:
            answers.append(params)
            return await seen.inner.call("eth_getBlockByNumber", ["0x0", False])
        if len(answers) == 1 and params[0] not in ("safe", "finalized"):
            return None
        return await seen.inner.call("eth_getBlockByNumber", params)

    sends = len(seen.sent())
    seen.hooks["eth_getBlockByNumber"] = lagging
    await sender._look()
    assert sender._pool.by_hash(record.hash) is None or sender._pool.by_hash(record.hash).inclusion is not None
    assert len(seen.sent()) == sends


async def test_an_endpoint_that_fails_for_a_while_does_not_end_the_following(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    record = await sender.submit(PAY)
    failures = []

    async def away(params):
        failures.append(params)
        raise NodeConnectionError("away", request_sent=True)

    seen.hooks["eth_getBlockByNumber"] = away

    async def failed():
        return len(failures) >= 3

    await until(failed)
    del seen.hooks["eth_getBlockByNumber"]
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


async def test_a_bounded_price_in_front_of_an_exit_does_not_hold_it_back(start_anvil, make_sender, until):
    """A nonce is included only after those below it: the exit would wait for a transaction that is too cheap by its caller's wish."""
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, bump_after_s=0.01)
    bound = 3 * 10**9
    await sender.submit(replace(PAY, max_fee_per_gas_wei=bound), key="bounded")
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(2 * bound))
    await anvil.mine()
    await sender.submit(PAY, key="exit", exit=True)

    async def included():
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(2 * bound))
        await anvil.mine()
        record = await journal.get("exit")
        return (await sender.status(record.hash)).at_least(Depth.INCLUDED)

    await until(included)
    assert len((await journal.get("bounded")).variants) > 1


async def test_the_price_that_its_caller_bounds_is_kept_where_no_exit_waits(start_anvil, make_sender, until):
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, bump_after_s=0.01)
    bound = 3 * 10**9
    exit_ = await sender.submit(PAY, key="exit", exit=True)
    await sender.submit(replace(PAY, max_fee_per_gas_wei=bound), key="bounded")

    async def raised():
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(2 * bound))
        for variant in (await journal.get("exit")).variants:
            await anvil.rpc("anvil_dropTransaction", "0x" + variant.hash.hex())
        await anvil.mine()
        return len((await journal.get("exit")).variants) > 2

    await until(raised)
    assert all(variant.max_fee_per_gas <= bound for variant in (await journal.get("bounded")).variants)
    assert exit_.nonce == 0


async def test_who_asks_again_while_it_is_sent_again_in_vain_is_answered(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen, send_attempts=1, resend_after_s=0.01)
    sending, fails = asyncio.Event(), asyncio.Event()

    async def fail(params):
        sending.set()
        await fails.wait()
        raise NodeConnectionError("it does not answer", endpoint="anvil")

    fails.set()
    seen.hooks["eth_sendRawTransaction"] = fail
    with pytest.raises(UnknownOutcome):
        await sender.submit(PAY, key="exit", exit=True)
    fails.clear()
    sending.clear()
    await sending.wait()
    asking = asyncio.create_task(sender.submit(PAY, key="exit", exit=True))
    while not sender._pool.by_key("exit")._waiters:
        await asyncio.sleep(0)
    fails.set()
    with pytest.raises(UnknownOutcome):
        async with asyncio.timeout(20):
            await asking


async def test_an_exit_whose_turn_does_not_come_is_given_back(start_anvil, make_sender):
    anvil = await start_anvil("--no-mining")
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal, max_unconfirmed_per_key=1, turn_timeout_s=0.1)
    await sender.submit(PAY)
    with pytest.raises(NodeNotReady, match="1 of the account's transactions"):
        await sender.submit(PAY, key="exit", exit=True)
    assert await journal.get("exit") is None
    assert len(sender._queue) == 0 or sender._queue.take(exits=True) is None


class Shifted(SystemClock):
    """A clock that a test puts forward."""

    ahead_s = 0

    def now_ms(self):
        return super().now_ms() + self.ahead_s * 1000


@pytest.mark.parametrize("request_sent", [False, None])
async def test_what_no_endpoint_was_shown_is_not_sent_when_it_is_late(
    start_anvil, make_sender, tap, until, request_sent
):
    anvil = await start_anvil()
    seen = tap(anvil)
    journal, clock = MemoryTxJournal(), Shifted()
    sender = await make_sender(
        anvil, transport=seen, journal=journal, clock=clock, send_attempts=1, resend_after_s=0.01
    )

    async def refuse(params):
        raise NodeConnectionError("nobody listens", endpoint="anvil", request_sent=request_sent)

    seen.hooks["eth_sendRawTransaction"] = refuse
    not_after = clock.now_ms() // 1000 + 1000
    with pytest.raises(UnknownOutcome):
        await sender.submit(PAY, key="exit", exit=True, not_after=not_after)
    clock.ahead_s = 2000
    del seen.hooks["eth_sendRawTransaction"]
    shown = request_sent is not False

    async def decided():
        record = await journal.get("exit")
        if record.state is TxState.ABANDONED:
            return True
        return (await sender.status(record.hash)).at_least(Depth.INCLUDED)

    await until(decided)
    record = await journal.get("exit")
    assert record.shown is shown
    assert (record.state is TxState.ABANDONED) is not shown
