"""The embedded EVM's pool, and what becomes of transactions."""

from __future__ import annotations

import pytest

from layer2 import _rlp
from layer2._crypto import CURVE_ORDER
from layer2.addresses import EvmAddress
from layer2.evm import TEST_TOKEN_ADDRESS, RpcError, encode_call, encode_transfer, load_artifact

NOBODY = EvmAddress(raw=b"\x07" * 20)


async def send(evm, raw):
    return await evm.call("eth_sendRawTransaction", [raw])


async def refusal(evm, raw):
    with pytest.raises(RpcError) as caught:
        await send(evm, raw)
    assert caught.value.code == -32000
    return caught.value.message


async def count(evm, person, tag):
    return int(await evm.call("eth_getTransactionCount", [str(person.address), tag]), 16)


class TestPool:
    async def test_a_transaction_waits_and_is_mined(self, evm, alice):
        tx_hash = await send(evm, alice.sign(NOBODY, value=9))
        assert await evm.call("eth_getTransactionReceipt", [tx_hash]) is None
        assert (await evm.call("eth_getTransactionByHash", [tx_hash]))["blockNumber"] is None
        assert (await count(evm, alice, "latest"), await count(evm, alice, "pending")) == (0, 1)
        await evm.mine()
        assert (await count(evm, alice, "latest"), await count(evm, alice, "pending")) == (1, 1)
        receipt = await evm.call("eth_getTransactionReceipt", [tx_hash])
        assert (receipt["status"], receipt["gasUsed"], receipt["to"]) == ("0x1", hex(21_000), str(NOBODY).lower())
        mined = await evm.call("eth_getTransactionByHash", [tx_hash])
        assert mined["gasPrice"] == receipt["effectiveGasPrice"]
        assert mined["blockHash"] == receipt["blockHash"]

    async def test_one_block_takes_many(self, evm, alice, bob):
        hashes = [await send(evm, person.sign(NOBODY, value=1)) for person in (alice, bob) for _ in range(4)]
        await evm.mine()
        block = await evm.call("eth_getBlockByNumber", ["latest", False])
        assert sorted(block["transactions"]) == sorted(hashes)
        assert int(block["gasUsed"], 16) == 8 * 21_000

    async def test_a_gap_in_the_nonces_holds_the_later_ones_back(self, evm, alice):
        late = await send(evm, alice.sign(NOBODY, nonce=2))
        await send(evm, alice.sign(NOBODY, nonce=0))
        assert await count(evm, alice, "pending") == 1
        await evm.mine()
        assert await evm.call("eth_getTransactionReceipt", [late]) is None
        await send(evm, alice.sign(NOBODY, nonce=1))
        assert await count(evm, alice, "pending") == 3
        await evm.mine()
        assert (await evm.call("eth_getTransactionReceipt", [late]))["transactionIndex"] == "0x1"

    async def test_better_tips_come_first(self, evm, alice, bob):
        low = await send(evm, alice.sign(NOBODY, tip=1))
        high = await send(evm, bob.sign(NOBODY, tip=10**8))
        await evm.mine()
        assert (await evm.call("eth_getBlockByNumber", ["latest", False]))["transactions"] == [high, low]

    async def test_a_price_below_the_base_fee_waits_for_better_times(self, evm, alice):
        base_fee = int((await evm.call("eth_getBlockByNumber", ["pending", False]))["baseFeePerGas"], 16)
        tx_hash = await send(evm, alice.sign(NOBODY, tip=0, max_fee=base_fee - 1))
        await evm.mine()
        assert await evm.call("eth_getTransactionReceipt", [tx_hash]) is None
        await evm.mine()
        assert await evm.call("eth_getTransactionReceipt", [tx_hash]) is not None

    async def test_what_the_block_has_no_room_for_waits(self, evm, alice):
        hashes = [await send(evm, alice.sign(NOBODY, gas=16_000_000)) for _ in range(2)]
        hashes += [await send(evm, alice.sign(NOBODY, gas=29_990_000))]
        await evm.mine()
        receipts = [await evm.call("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes]
        assert [receipt is None for receipt in receipts] == [False, False, True]
        await evm.mine()
        assert await evm.call("eth_getTransactionReceipt", [hashes[2]]) is not None

    async def test_a_dropped_transaction_can_be_sent_again(self, evm, alice):
        raw = alice.sign(NOBODY)
        tx_hash = await send(evm, raw)
        assert await evm.drop_transaction(bytes.fromhex(tx_hash[2:]))
        assert not await evm.drop_transaction(bytes.fromhex(tx_hash[2:]))
        await evm.mine()
        assert await evm.call("eth_getTransactionByHash", [tx_hash]) is None
        assert await send(evm, raw) == tx_hash

    async def test_money_that_was_spent_meanwhile_keeps_a_transaction_out(self, evm, alice):
        first = await send(evm, alice.sign(NOBODY, value=9 * 10**17))
        second = await send(evm, alice.sign(NOBODY, value=9 * 10**17))
        await evm.mine()
        assert (await evm.call("eth_getTransactionReceipt", [first]))["status"] == "0x1"
        assert await evm.call("eth_getTransactionReceipt", [second]) is None
        await evm.fund(alice.address, 10**18)
        await evm.mine()
        assert (await evm.call("eth_getTransactionReceipt", [second]))["status"] == "0x1"


class TestRefusals:
    async def test_the_same_again(self, evm, alice):
        raw = alice.sign(NOBODY)
        await send(evm, raw)
        assert await refusal(evm, raw) == "already known"
        await evm.mine()
        assert await refusal(evm, raw) == "nonce too low: next nonce 1, tx nonce 0"

    async def test_replacements_must_pay_a_tenth_more_in_both_prices(self, evm, alice):
        old = await send(evm, alice.sign(NOBODY, tip=1000, max_fee=10**7, nonce=0))
        for tip, max_fee in ((1000, 10**8), (1099, 10**8), (2000, 10**7), (2000, 10_999_999)):
            message = await refusal(evm, alice.sign(NOBODY, tip=tip, max_fee=max_fee, nonce=0))
            assert message == "replacement transaction underpriced"
        new = await send(evm, alice.sign(NOBODY, tip=1100, max_fee=11_000_000, nonce=0))
        assert await evm.call("eth_getTransactionByHash", [old]) is None
        await evm.mine()
        assert (await evm.call("eth_getBlockByNumber", ["latest", False]))["transactions"] == [new]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"value": 2 * 10**18}, "insufficient funds for gas * price + value: balance 1000000000000000000, tx cost"),
            ({"gas": 20_999}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
            ({"data": b"\x01" * 1000, "gas": 40_000}, "insufficient gas for floor data gas cost"),
            ({"gas": 30_000_001}, "exceeds block gas limit"),
            ({"chain_id": 1}, "invalid chain id for signer: have 1 want 60808"),
            ({"tip": 2 * 10**9}, "max priority fee per gas higher than max fee per gas"),
        ],
    )
    async def test_in_the_words_of_geth(self, evm, alice, changes, words):
        assert (await refusal(evm, alice.sign(NOBODY, **changes))).startswith(words)
        assert await count(evm, alice, "pending") == 0

    @pytest.mark.parametrize("raw", ["0x", "0x00", "0x02", "0x03c0", "0x7ec0", "0xc0", "0x02c0", "0xdeadbeef"])
    async def test_bytes_that_are_no_transaction(self, evm, raw):
        assert (await refusal(evm, raw)).startswith("rlp: ")

    async def test_bytes_after_the_transaction(self, evm, alice):
        assert (await refusal(evm, alice.sign(NOBODY) + "00")).startswith("rlp: ")

    async def test_the_mirrored_signature(self, evm, alice):
        fields = _rlp.decode(bytes.fromhex(alice.sign(NOBODY)[4:]))
        fields[9] = b"" if fields[9] else b"\x01"
        fields[11] = _rlp.encode_int(CURVE_ORDER - int.from_bytes(fields[11]))
        assert await refusal(evm, "0x02" + _rlp.encode(fields).hex()) == "invalid transaction v, r, s values"


class TestReceipts:
    async def test_a_revert_costs_gas_and_leaves_no_log(self, evm, alice):
        tx_hash = await send(evm, alice.sign(TEST_TOKEN_ADDRESS, encode_transfer(NOBODY, 1)))
        await evm.mine()
        receipt = await evm.call("eth_getTransactionReceipt", [tx_hash])
        assert (receipt["status"], receipt["logs"]) == ("0x0", [])
        assert int(await evm.call("eth_getBalance", [str(alice.address), "latest"]), 16) == 10**18 - int(
            receipt["gasUsed"], 16
        ) * int(receipt["effectiveGasPrice"], 16)

    async def test_a_deployment_names_its_contract(self, evm, alice):
        artifact = load_artifact("test_token")
        tx_hash = await send(evm, alice.sign(None, artifact.bytecode, gas=3_000_000))
        await evm.mine()
        receipt = await evm.call("eth_getTransactionReceipt", [tx_hash])
        assert receipt["to"] is None
        code = await evm.call("eth_getCode", [receipt["contractAddress"], "latest"])
        assert code == "0x" + artifact.runtime_bytecode.hex()

    async def test_transactions_without_a_type(self, evm, alice):
        protected = await send(evm, alice.sign_legacy(NOBODY, value=1))
        anywhere = await send(evm, alice.sign_legacy(NOBODY, value=2, chain_id=None))
        await evm.mine()
        assert await evm.call("eth_getBalance", [str(NOBODY), "latest"]) == "0x3"
        assert (await evm.call("eth_getTransactionByHash", [protected]))["chainId"] == hex(60808)
        assert "chainId" not in await evm.call("eth_getTransactionByHash", [anywhere])
        assert (await evm.call("eth_getTransactionReceipt", [protected]))["type"] == "0x0"

    async def test_positions_count_through_the_block(self, evm, alice, bob):
        mint = encode_call("mint(address,uint256)", NOBODY, 5)
        for person in (alice, bob, alice):
            await send(evm, person.sign(TEST_TOKEN_ADDRESS, mint))
        await evm.mine()
        receipts = await evm.call("eth_getBlockReceipts", ["latest"])
        assert [receipt["transactionIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
        assert [receipt["logs"][0]["logIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
        used = [int(receipt["gasUsed"], 16) for receipt in receipts]
        assert [int(receipt["cumulativeGasUsed"], 16) for receipt in receipts] == [sum(used[:n]) for n in (1, 2, 3)]
