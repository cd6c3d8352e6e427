"""Calls, estimates, logs, proofs and refusals of the embedded EVM, and its life as an object."""

from __future__ import annotations

import asyncio
import sys

import pytest

from layer2._crypto import sha256
from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedEvm
from layer2.errors import AsyncRuntimeError, ConfigurationError
from layer2.evm import (
    CREATE2_PROXY,
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    TRANSFER_EVENT,
    RpcError,
    decode_revert,
    decode_state,
    decode_uint,
    encode_approve,
    encode_balance_of,
    encode_call,
    encode_claim,
    encode_lock,
    encode_transfer,
    encode_word,
    event_topic,
)
from layer2.proofs import collect_lock_proof, collect_receipt_proof, collect_storage_proof
from layer2.terms import Lock
from layer2.testing import VirtualClock

NOBODY = EvmAddress(raw=b"\x07" * 20)
MINT = encode_call("mint(address,uint256)", NOBODY, 5)
TRANSFER_TOPIC = "0x" + event_topic(TRANSFER_EVENT).hex()


async def send(evm, *raws):
    hashes = [await evm.call("eth_sendRawTransaction", [raw]) for raw in raws]
    await evm.mine()
    return hashes


def message(data, to=TEST_TOKEN_ADDRESS, **more):
    return {"to": str(to), "data": "0x" + data.hex(), **more}


class TestCalls:
    async def test_a_call_sees_the_block_that_it_names(self, evm, alice):
        await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT))
        await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT))
        call = message(encode_balance_of(NOBODY))
        first = await evm.call("eth_getBlockByNumber", ["0x1", False])
        for tag, balance in (("earliest", 0), ("0x1", 5), ({"blockHash": first["hash"]}, 5), ("latest", 10)):
            assert decode_uint(bytes.fromhex((await evm.call("eth_call", [call, tag]))[2:])) == balance

    async def test_a_call_changes_nothing(self, evm):
        await evm.call("eth_call", [message(MINT), "latest"])
        await evm.call("eth_call", [message(MINT), "pending"])
        balance = await evm.call("eth_call", [message(encode_balance_of(NOBODY)), "latest"])
        assert int(balance, 16) == 0

    async def test_a_revert_carries_its_data_as_geth_sends_it(self, evm):
        with pytest.raises(RpcError) as caught:
            await evm.call("eth_call", [message(encode_transfer(NOBODY, 1)), "latest"])
        assert (caught.value.code, caught.value.message) == (3, "execution reverted: balance too low")
        assert decode_revert(bytes.fromhex(caught.value.data[2:])) == "balance too low"
        with pytest.raises(RpcError) as estimated:
            await evm.call("eth_estimateGas", [message(encode_transfer(NOBODY, 1))])
        assert (estimated.value.code, estimated.value.data) == (3, caught.value.data)

    async def test_value_that_the_caller_does_not_have(self, evm):
        with pytest.raises(RpcError, match="insufficient funds for gas"):
            await evm.call("eth_call", [{"from": str(NOBODY), "to": str(NOBODY), "value": "0x1"}, "latest"])

    async def test_too_little_gas(self, evm):
        with pytest.raises(RpcError, match="intrinsic gas too low"):
            await evm.call("eth_call", [message(MINT, gas="0x5208"), "latest"])
        with pytest.raises(RpcError, match="out of gas"):
            await evm.call("eth_call", [message(MINT, gas=hex(30_000)), "latest"])

    async def test_an_account_without_code_answers_nothing(self, evm):
        assert await evm.call("eth_call", [message(MINT, to=NOBODY), "latest"]) == "0x"

    async def test_op_stack_fee_contracts_say_that_data_costs_nothing(self, evm):
        oracle = EvmAddress(raw=bytes.fromhex("420000000000000000000000000000000000000f"))
        assert int(await evm.call("eth_call", [message(b"\x01\x02\x03\x04", to=oracle), "latest"]), 16) == 0

    async def test_an_estimate_is_enough_and_hardly_more(self, evm, alice):
        estimate = int(await evm.call("eth_estimateGas", [message(MINT, **{"from": str(alice.address)})]), 16)
        with pytest.raises(RpcError, match="out of gas"):
            await evm.call("eth_call", [message(MINT, gas=hex(estimate * 99 // 100)), "latest"])
        (tx_hash,) = await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT, gas=estimate))
        receipt = await evm.call("eth_getTransactionReceipt", [tx_hash])
        assert receipt["status"] == "0x1"
        assert int(receipt["gasUsed"], 16) <= estimate

    async def test_an_estimate_covers_the_floor_price_of_data(self, evm, alice):
        data = b"\xff" * 3000
        call = {"from": str(alice.address), "to": str(NOBODY), "data": "0x" + data.hex()}
        estimate = int(await evm.call("eth_estimateGas", [call]), 16)
        assert estimate == 21_000 + 40 * 3000
        await send(evm, alice.sign(NOBODY, data, gas=estimate))

    async def test_a_plain_transfer_is_estimated_exactly(self, evm, alice):
        call = {"from": str(alice.address), "to": str(NOBODY), "value": "0x1"}
        assert await evm.call("eth_estimateGas", [call]) == hex(21_000)


class TestFees:
    async def test_prices_are_those_of_the_next_block(self, evm):
        await evm.mine()
        pending = await evm.call("eth_getBlockByNumber", ["pending", False])
        tip = int(await evm.call("eth_maxPriorityFeePerGas", []), 16)
        assert int(await evm.call("eth_gasPrice", []), 16) == int(pending["baseFeePerGas"], 16) + tip

    async def test_the_history_ends_with_the_block_to_come(self, evm, alice):
        await send(evm, alice.sign(NOBODY, tip=7), alice.sign(TEST_TOKEN_ADDRESS, MINT, tip=3))
        await evm.mine(2)
        history = await evm.call("eth_feeHistory", ["0x3", "latest", [0, 100]])
        blocks = [await evm.call("eth_getBlockByNumber", [tag, False]) for tag in ("0x1", "0x2", "0x3", "pending")]
        assert history["oldestBlock"] == "0x1"
        assert history["baseFeePerGas"] == [block["baseFeePerGas"] for block in blocks]
        assert history["reward"] == [["0x3", "0x7"], ["0x0", "0x0"], ["0x0", "0x0"]]
        assert len(history["gasUsedRatio"]) == 3
        assert "reward" not in await evm.call("eth_feeHistory", [2, "0x2"])


class TestLogs:
    async def find(self, evm, **fields):
        logs = await evm.call("eth_getLogs", [{"fromBlock": "earliest", **fields}])
        return [int(log["blockNumber"], 16) for log in logs]

    async def test_filters(self, evm, alice):
        await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT))
        await send(evm, alice.sign(TEST_TOKEN_ADDRESS, encode_approve(NOBODY, 1)))
        await evm.mine()
        nobody, other = "0x" + encode_word(NOBODY).hex(), "0x" + "11" * 32
        token = str(TEST_TOKEN_ADDRESS)
        assert await self.find(evm) == [1, 2]
        assert await self.find(evm, address=token) == [1, 2]
        assert await self.find(evm, address=[str(NOBODY), token.lower()]) == [1, 2]
        assert await self.find(evm, address=str(NOBODY)) == []
        assert await self.find(evm, topics=[TRANSFER_TOPIC]) == [1]
        assert await self.find(evm, topics=[[other, TRANSFER_TOPIC], None, [nobody]]) == [1]
        assert await self.find(evm, topics=[None, None, nobody]) == [1, 2]
        assert await self.find(evm, topics=[None, None, None, None]) == []
        assert await self.find(evm, topics=[[], None, other]) == []
        assert await self.find(evm, toBlock="0x1") == [1]
        assert await self.find(evm, fromBlock="0x2") == [2]
        assert await self.find(evm, fromBlock="latest") == []
        assert await self.find(evm, fromBlock="0x2", toBlock="0x99") == [2]

    async def test_by_the_hash_of_a_block_that_was_replaced_or_never_was(self, evm, alice):
        await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT))
        block = await evm.call("eth_getBlockByNumber", ["latest", False])
        await evm.reorganise(1, transactions="drop")
        assert await self.find(evm) == []
        assert len(await evm.call("eth_getLogs", [{"blockHash": block["hash"]}])) == 1
        with pytest.raises(RpcError, match="unknown block"):
            await evm.call("eth_getLogs", [{"blockHash": "0x" + "ab" * 32}])

    @pytest.mark.parametrize(
        "fields",
        [
            {"fromBlock": "0x2", "toBlock": "0x1"},
            {"address": "0x12"},
            {"topics": ["0x12"]},
            {"topics": [None] * 5},
            {"topics": "0x"},
            {"fromBlock": "0x1", "blockHash": "0x" + "ab" * 32},
            {"fromBlock": 1},
        ],
    )
    async def test_filters_that_make_no_sense(self, evm, fields):
        await evm.mine(2)
        with pytest.raises(RpcError) as caught:
            await evm.call("eth_getLogs", [fields])
        assert caught.value.code == -32602


class TestProofs:
    async def test_receipts_of_a_block_with_many(self, evm, alice, bob):
        raws = [person.sign(TEST_TOKEN_ADDRESS, MINT) for person in (alice, bob) for _ in range(9)]
        raws.append(bob.sign_legacy(NOBODY))
        for tx_hash in await send(evm, *raws):
            proof = await collect_receipt_proof(evm.call, chain_id=60808, tx_hash=bytes.fromhex(tx_hash[2:]))
            proven = proof.verify({proof.block_hash})
            assert proven.receipt.succeeded

    async def test_a_lock_through_its_life(self, evm, alice):
        preimage = sha256(b"proved")
        lock = Lock(
            chain_id=60808,
            contract=HTLC_ADDRESS,
            preimage_hash=sha256(preimage),
            amount=5,
            token=TEST_TOKEN_ADDRESS,
            claimer=NOBODY,
            refunder=alice.address,
            timelock=1_750_000_000 + 86_400,
        )
        await send(
            evm,
            alice.sign(TEST_TOKEN_ADDRESS, encode_call("mint(address,uint256)", alice.address, 5)),
            alice.sign(TEST_TOKEN_ADDRESS, encode_approve(HTLC_ADDRESS, 5)),
        )
        await send(evm, alice.sign(HTLC_ADDRESS, encode_lock(lock)))
        await send(evm, alice.sign(HTLC_ADDRESS, encode_claim(lock, preimage)))
        states = []
        for height in (1, 2, 3):
            proof = await collect_lock_proof(evm.call, lock, block=height)
            states.append(decode_state(proof.verify({proof.block_hash}).value, lock.preimage_hash).phase.value)
        assert states == ["never", "locked", "claimed"]

    async def test_many_slots_and_accounts_that_are_not_there(self, evm, alice):
        people = [EvmAddress(raw=bytes([n]) * 20) for n in range(1, 40)]
        mints = [encode_call("mint(address,uint256)", person, 2**200 + n) for n, person in enumerate(people)]
        await send(evm, *(alice.sign(TEST_TOKEN_ADDRESS, mint) for mint in mints))
        for address, slot in ((TEST_TOKEN_ADDRESS, 0), (TEST_TOKEN_ADDRESS, 99), (NOBODY, 0), (alice.address, 1)):
            proof = await collect_storage_proof(evm.call, chain_id=60808, address=address, slot=slot.to_bytes(32))
            stored = await evm.call("eth_getStorageAt", [str(address), hex(slot), "latest"])
            assert proof.verify({proof.block_hash}).value == int(stored, 16)
        assert int(await evm.call("eth_getStorageAt", [str(TEST_TOKEN_ADDRESS), "0x0", "latest"]), 16) > 0

    async def test_a_slot_is_that_of_the_block_asked_for_also_after_a_reorganisation(self, evm, alice):
        async def supply(block_hash):
            block = {"blockHash": block_hash}
            stored = await evm.call("eth_getStorageAt", [str(TEST_TOKEN_ADDRESS), "0x0", block])
            proof = await evm.call("eth_getProof", [str(TEST_TOKEN_ADDRESS), ["0x0"], block])
            assert int(proof["storageProof"][0]["value"], 16) == int(stored, 16)
            return int(stored, 16)

        blocks = [await evm.call("eth_getBlockByNumber", ["latest", False])]
        for _ in range(3):
            await send(evm, alice.sign(TEST_TOKEN_ADDRESS, MINT))
            blocks.append(await evm.call("eth_getBlockByNumber", ["latest", False]))
        assert [await supply(block["hash"]) for block in blocks] == [0, 5, 10, 15]
        await evm.reorganise(2, transactions="drop")
        head = await evm.call("eth_getBlockByNumber", ["latest", False])
        assert [await supply(block["hash"]) for block in (*blocks, head)] == [0, 5, 10, 15, 5]


class TestManyAtOnce:
    async def test_each_gets_its_own_answer_or_error(self, evm):
        await evm.mine(20)
        asked = [evm.call("eth_getBlockByNumber", [hex(height), False]) for height in range(20)]
        refused = [evm.call(f"eth_unknown{number}", []) for number in range(20)]
        pairs = [each for pair in zip(asked, refused, strict=True) for each in pair]
        answers = await asyncio.gather(*pairs, return_exceptions=True)
        assert [int(block["number"], 16) for block in answers[::2]] == list(range(20))
        assert [f"eth_unknown{number} " in error.message for number, error in enumerate(answers[1::2])] == [True] * 20

    async def test_those_that_wait_when_it_is_closed_do_not_wait_for_ever(self):
        evm = EmbeddedEvm(block_time_s=None)
        await evm.start()
        waiting = [asyncio.create_task(evm.call("eth_chainId", [])) for _ in range(50)]
        await asyncio.sleep(0)
        await evm.aclose()
        await asyncio.wait(waiting)
        assert all(task.cancelled() or task.result() == "0xed88" for task in waiting)
        with pytest.raises(AsyncRuntimeError):
            await evm.call("eth_chainId", [])


class TestInterface:
    async def test_who_is_asked(self, evm):
        assert await evm.call("eth_chainId", []) == hex(60808)
        assert await evm.call("net_version", []) == "60808"
        assert await evm.call("eth_syncing", []) is False
        assert "layer2" in await evm.call("web3_clientVersion", [])
        assert await evm.call("eth_blockNumber", []) == "0x0"

    @pytest.mark.parametrize(
        ("method", "params", "code"),
        [
            ("eth_mine", [], -32601),
            ("handle", [], -32601),
            ("eth_getBalance", [], -32602),
            ("eth_chainId", ["0x1"], -32602),
            ("eth_getBalance", ["0x12", "latest"], -32602),
            ("eth_getBalance", [5, "latest"], -32602),
            ("eth_getBalance", ["0x" + "11" * 20, "newest"], -32602),
            ("eth_getBlockByNumber", ["0x01", False], -32602),
            ("eth_getBlockByNumber", [1, False], -32602),
            ("eth_getProof", ["0x" + "11" * 20, "0x0", "latest"], -32602),
            ("eth_getStorageAt", ["0x" + "11" * 20, "0x" + "1" * 65, "latest"], -32602),
            ("eth_call", ["0x", "latest"], -32602),
            ("eth_call", [{"to": "0x12"}, "latest"], -32602),
            ("eth_sendRawTransaction", ["0xabc"], -32602),
            ("eth_getLogs", ["0x"], -32602),
        ],
    )
    async def test_requests_that_are_wrong(self, evm, method, params, code):
        with pytest.raises(RpcError) as caught:
            await evm.call(method, params)
        assert caught.value.code == code

    async def test_many_may_ask_at_once(self, evm, alice, bob):
        raws = [person.sign(NOBODY) for person in (alice, bob) for _ in range(5)]
        hashes = await asyncio.gather(*(evm.call("eth_sendRawTransaction", [raw]) for raw in raws))
        await asyncio.gather(*(evm.mine() for _ in range(3)))
        receipts = await asyncio.gather(*(evm.call("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes))
        assert all(receipt["status"] == "0x1" for receipt in receipts)

    async def test_before_the_start_and_after_the_end_it_refuses(self, clock):
        evm = EmbeddedEvm(clock=clock, block_time_s=None)
        with pytest.raises(AsyncRuntimeError):
            await evm.call("eth_chainId", [])
        async with evm:
            await evm.start()
            assert await evm.mine() == 1
        for refused in (evm.call("eth_chainId", []), evm.mine(), evm.fund(NOBODY, 1), evm.reorganise(1)):
            with pytest.raises(AsyncRuntimeError):
                await refused
        await evm.aclose()

    async def test_a_bare_chain_has_none_of_the_contracts(self, clock):
        async with EmbeddedEvm(clock=clock, block_time_s=None, preinstalled=False, chain_id=7) as evm:
            for address in (HTLC_ADDRESS, TEST_TOKEN_ADDRESS, CREATE2_PROXY):
                assert await evm.call("eth_getCode", [str(address), "latest"]) == "0x"
            assert await evm.call("eth_chainId", []) == "0x7"

    async def test_a_missing_package_is_named(self, clock, monkeypatch):
        monkeypatch.setitem(sys.modules, "layer2.devnet._evm_methods", None)
        with pytest.raises(ConfigurationError, match=r"layer2\[devnet\]"):
            await EmbeddedEvm(clock=clock).start()

    @pytest.mark.parametrize("block_time_s", [0, -1])
    def test_blocks_take_time(self, block_time_s):
        with pytest.raises(ConfigurationError):
            EmbeddedEvm(block_time_s=block_time_s)

    async def test_mining_that_broke_is_not_hidden(self):
        class BrokenClock(VirtualClock):
            broken = False

            def now_ms(self) -> int:
                if self.broken:
                    raise OSError("the clock broke")
                return super().now_ms()

        clock = BrokenClock()
        evm = EmbeddedEvm(clock=clock, block_time_s=1)
        await evm.start()
        clock.broken = True
        await clock.advance(1)
        with pytest.raises(AsyncRuntimeError, match="mines no more") as caught:
            while True:
                await evm.call("eth_chainId", [])
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(OSError, match="the clock broke"):
            await evm.aclose()
