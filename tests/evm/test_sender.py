import asyncio

from layer2.addresses import EvmAddress
from layer2.evm import FeeLimits
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)


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


async def test_ten_thousand_submissions_at_once_all_arrive_once(start_anvil, make_sender):
    anvil = await start_anvil("--no-mining", "--balance", "100000", "--gas-limit", "1000000000")
    await anvil.rpc("evm_setIntervalMining", 1)
    sender = await make_sender(anvil, max_unconfirmed_per_key=2_000, limits=FeeLimits(max_gas_cost_wei=10**18))
    call = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)
    records = await asyncio.gather(*(sender.submit(call) for _ in range(10_000)))
    assert len({record.hash for record in records}) == 10_000
    assert sorted(record.nonce for record in records) == list(range(10_000))
    await asyncio.gather(*(sender.wait(record.hash) for record in records[-10:]))
    assert await anvil.client.balance(BOB) == 10_000
