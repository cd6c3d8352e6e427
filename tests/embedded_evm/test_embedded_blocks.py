"""Blocks of the embedded EVM: headers that hash, tags, timestamps, mining, reorganisations."""

from __future__ import annotations

import pytest

from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedEvm
from layer2.evm import RpcError
from layer2.proofs import collect_header

NOBODY = EvmAddress(raw=b"\x07" * 20)


async def number(evm, tag="latest"):
    return int((await evm.call("eth_getBlockByNumber", [tag, False]))["number"], 16)


class TestHeaders:
    async def test_every_block_hashes_from_its_json_and_links_to_its_parent(self, evm, alice):
        await evm.call("eth_sendRawTransaction", [alice.sign(NOBODY, value=1)])
        await evm.mine(2)
        await evm.fund(NOBODY, 10**18)
        headers = [await collect_header(evm.call, height) for height in range(4)]
        assert [header.parent_hash for header in headers[1:]] == [header.hash for header in headers[:-1]]
        for header in headers:
            assert (await collect_header(evm.call, header.hash)).hash == header.hash

    async def test_the_chain_has_pragues_history_of_block_hashes(self, evm):
        await evm.mine(3)
        history = "0x0000f90827f1c53a10cb7a02335b175320002935"
        for height in range(3):
            block = await evm.call("eth_getBlockByNumber", [hex(height), False])
            assert await evm.call("eth_getStorageAt", [history, hex(height), "latest"]) == block["hash"]

    async def test_full_blocks_carry_their_transactions(self, evm, alice):
        tx_hash = await evm.call("eth_sendRawTransaction", [alice.sign(NOBODY, value=1)])
        await evm.mine()
        short = await evm.call("eth_getBlockByNumber", ["latest", False])
        full = await evm.call("eth_getBlockByHash", [short["hash"], True])
        assert short["transactions"] == [tx_hash]
        assert full["transactions"] == [await evm.call("eth_getTransactionByHash", [tx_hash])]


class TestTags:
    async def test_safe_and_finalized_follow_at_their_distance(self, evm):
        evm.safe_lag_blocks, evm.finalized_lag_blocks = 2, 5
        assert [await number(evm, tag) for tag in ("latest", "safe", "finalized", "earliest")] == [0, 0, 0, 0]
        await evm.mine(7)
        assert [await number(evm, tag) for tag in ("latest", "safe", "finalized", "earliest")] == [7, 5, 2, 0]
        evm.safe_lag_blocks = 100
        assert await number(evm, "safe") == 0

    async def test_pending_is_the_block_to_come(self, evm, alice):
        tx_hash = await evm.call("eth_sendRawTransaction", [alice.sign(NOBODY)])
        latest = await evm.call("eth_getBlockByNumber", ["latest", False])
        pending = await evm.call("eth_getBlockByNumber", ["pending", False])
        assert (pending["number"], pending["hash"]) == ("0x1", None)
        assert pending["parentHash"] == latest["hash"]
        assert pending["transactions"] == [tx_hash]

    async def test_blocks_that_are_not_there(self, evm):
        assert await evm.call("eth_getBlockByNumber", ["0x5", False]) is None
        assert await evm.call("eth_getBlockByHash", ["0x" + "ab" * 32, False]) is None
        assert await evm.call("eth_getBlockReceipts", ["0x5"]) is None
        with pytest.raises(RpcError, match="header not found"):
            await evm.call("eth_getBalance", [str(NOBODY), "0x5"])


class TestMining:
    async def test_timestamps_follow_the_clock_and_never_stand_still(self, evm, clock):
        clock.jump_wall_clock(1000)
        await evm.mine(2)
        blocks = [await collect_header(evm.call, height) for height in (0, 1, 2)]
        assert [header.timestamp - blocks[0].timestamp for header in blocks] == [0, 1000, 1001]
        await evm.mine(2, timestamp=blocks[2].timestamp + 5000)
        await evm.mine(timestamp=1)
        blocks = [await collect_header(evm.call, height) for height in (3, 4, 5)]
        assert [header.timestamp - blocks[0].timestamp for header in blocks] == [0, 1, 2]

    async def test_blocks_come_by_the_clock(self, clock):
        async with EmbeddedEvm(clock=clock, block_time_s=2) as evm:
            for height in range(1, 4):
                await clock.advance(2)
                header = await collect_header(evm.call)
                assert (header.number, header.timestamp) == (height, 1_750_000_000 + 2 * height)
            await clock.advance(1.5)
            assert await number(evm) == 3

    async def test_automine_gives_each_transaction_its_block(self, clock, alice):
        async with EmbeddedEvm(clock=clock, automine=True, balances={alice.address: 10**18}) as evm:
            for height in (1, 2):
                tx_hash = await evm.call("eth_sendRawTransaction", [alice.sign(NOBODY)])
                receipt = await evm.call("eth_getTransactionReceipt", [tx_hash])
                assert int(receipt["blockNumber"], 16) == height

    async def test_coins_can_be_credited(self, evm):
        await evm.fund(NOBODY, 3 * 10**18)
        await evm.fund(NOBODY, 1)
        assert int(await evm.call("eth_getBalance", [str(NOBODY), "latest"]), 16) == 3 * 10**18 + 10**9
        assert int(await evm.call("eth_getBalance", [str(NOBODY), "0x1"]), 16) == 3 * 10**18


class TestReorganisations:
    async def sent(self, evm, alice):
        tx_hash = await evm.call("eth_sendRawTransaction", [alice.sign(NOBODY, value=5)])
        await evm.mine(2)
        return tx_hash

    async def test_included_again_in_another_block(self, evm, alice):
        tx_hash = await self.sent(evm, alice)
        before = await evm.call("eth_getTransactionReceipt", [tx_hash])
        await evm.reorganise(2)
        after = await evm.call("eth_getTransactionReceipt", [tx_hash])
        assert after["blockNumber"] == before["blockNumber"]
        assert after["blockHash"] != before["blockHash"]
        assert int(await evm.call("eth_getBalance", [str(NOBODY), "latest"]), 16) == 5
        # As at a node, the replaced block can still be asked for by its hash, and says that it has the transaction.
        old = await evm.call("eth_getBlockByHash", [before["blockHash"], False])
        assert old["transactions"] == [tx_hash]
        with pytest.raises(RpcError, match="not currently canonical"):
            await evm.call("eth_getBalance", [str(NOBODY), {"blockHash": old["hash"], "requireCanonical": True}])

    async def test_back_in_the_pool(self, evm, alice):
        tx_hash = await self.sent(evm, alice)
        await evm.reorganise(2, transactions="wait")
        assert await evm.call("eth_getTransactionReceipt", [tx_hash]) is None
        assert (await evm.call("eth_getTransactionByHash", [tx_hash]))["blockHash"] is None
        assert await evm.call("eth_getTransactionCount", [str(alice.address), "latest"]) == "0x0"
        assert await evm.call("eth_getTransactionCount", [str(alice.address), "pending"]) == "0x1"
        await evm.mine()
        assert (await evm.call("eth_getTransactionReceipt", [tx_hash]))["blockNumber"] == "0x3"

    async def test_dropped_until_somebody_sends_it_again(self, evm, alice):
        raw = alice.sign(NOBODY, value=5)
        tx_hash = await evm.call("eth_sendRawTransaction", [raw])
        await evm.mine()
        await evm.reorganise(1, transactions="drop")
        await evm.mine()
        assert await evm.call("eth_getTransactionByHash", [tx_hash]) is None
        assert await evm.call("eth_getBalance", [str(NOBODY), "latest"]) == "0x0"
        assert await evm.call("eth_sendRawTransaction", [raw]) == tx_hash

    async def test_height_timestamps_and_credits_stay(self, evm):
        await evm.fund(NOBODY, 10**18)
        await evm.mine(2)
        before = [await collect_header(evm.call, height) for height in range(4)]
        await evm.reorganise(3)
        after = [await collect_header(evm.call, height) for height in range(4)]
        assert [old.timestamp for old in before] == [new.timestamp for new in after]
        assert before[0].hash == after[0].hash
        assert not {old.hash for old in before[1:]} & {new.hash for new in after[1:]}
        assert int(await evm.call("eth_getBalance", [str(NOBODY), "latest"]), 16) == 10**18

    async def test_the_same_depth_twice_gives_other_blocks_again(self, evm):
        await evm.mine(2)
        seen = set()
        for _ in range(3):
            seen.add((await collect_header(evm.call)).hash)
            await evm.reorganise(2)
        assert len(seen) == 3

    @pytest.mark.parametrize("depth", [0, -1, 3])
    async def test_the_genesis_block_stays(self, evm, depth):
        await evm.mine(2)
        with pytest.raises(ValueError, match="cannot replace"):
            await evm.reorganise(depth)
        assert await number(evm) == 2
