import asyncio

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import NodeConnectionError
from layer2.evm import FeeLimits, MemoryTxJournal
from layer2.transactions import EvmCall

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
