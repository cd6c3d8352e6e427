"""Collecting proofs from an endpoint that may lack methods, lag, or lie."""

from dataclasses import replace

import pytest

from layer2._crypto import keccak256
from layer2.errors import NodeConnectionError, NotFound, UnexpectedReply
from layer2.evm._htlc import storage_slot
from layer2.evm._rpc_error import RpcError
from layer2.proofs import collect_header, collect_lock_proof, collect_receipt_proof, collect_storage_proof
from layer2.proofs._headers import HEADER_FIELDS


def hexed(raw):
    return "0x" + raw.hex()


class Node:
    """An endpoint over one made-up block. ``change(method, answer)`` may make it lie."""

    def __init__(self, made, chain, *, without=(), change=None):
        self.made, self.chain, self.without = made, chain, without
        self.change = change or (lambda method, answer: answer)
        self.asked = []
        self.hashes = [keccak256(bytes([n])) for n in range(len(chain.receipts))]
        self.tx_hash = self.hashes[chain.index]

    async def __call__(self, method, params):
        self.asked.append(method)
        if method in self.without:
            raise RpcError(-32601, f"the method {method} does not exist")
        answers = {
            "eth_getBlockByHash": self.block_by_hash,
            "eth_getBlockByNumber": self.block_by_number,
            "eth_getTransactionReceipt": self.transaction_receipt,
            "eth_getBlockReceipts": self.block_receipts,
            "eth_getProof": self.slot_proof,
        }
        return self.change(method, answers[method](*params))

    def block(self):
        header = self.chain.header
        fields = {
            name: hexed(value) if isinstance(value, bytes) else hex(value) for name, value in header.fields.items()
        }
        assert len(fields) == len(HEADER_FIELDS)
        return {**fields, "hash": hexed(header.hash), "transactions": [hexed(tx) for tx in self.hashes]}

    def receipt(self, index):
        receipt = self.chain.receipts[index]
        return {
            "type": hex(receipt.type),
            "status": hex(receipt.status),
            "cumulativeGasUsed": hex(receipt.cumulative_gas_used),
            "logsBloom": hexed(receipt.bloom),
            "logs": [
                {
                    "address": hexed(log.address),
                    "topics": [hexed(topic) for topic in log.topics],
                    "data": hexed(log.data),
                }
                for log in receipt.logs
            ],
            "transactionHash": hexed(self.hashes[index]),
            "transactionIndex": hex(index),
            "blockHash": hexed(self.chain.header.hash),
        }

    def block_by_hash(self, block, full):
        assert full is False
        return self.block() if block == hexed(self.chain.header.hash) else None

    def block_by_number(self, number, full):
        assert full is False
        return self.block() if number in ("latest", "safe", hex(self.chain.header.number)) else None

    def transaction_receipt(self, tx_hash):
        known = [hexed(tx) for tx in self.hashes]
        return self.receipt(known.index(tx_hash)) if tx_hash in known else None

    def block_receipts(self, block):
        assert block == hexed(self.chain.header.hash)
        return [self.receipt(index) for index in range(len(self.hashes))]

    def slot_proof(self, address, slots, block):
        assert block == hex(self.chain.header.number)
        account = self.chain.contract
        entries = []
        for slot in slots:
            key = keccak256(bytes.fromhex(slot[2:]))
            value = next((v for s, v in self.chain.slots.items() if keccak256(s) == key), 0)
            entries.append(
                {"key": slot, "value": hex(value), "proof": [hexed(node) for node in self.chain.storage.prove(key)]}
            )
        return {
            "address": address,
            "nonce": hex(account.nonce),
            "balance": hex(account.balance_wei),
            "storageHash": hexed(account.storage_root),
            "codeHash": hexed(account.code_hash),
            "accountProof": [hexed(node) for node in self.chain.state.prove(keccak256(self.made.CONTRACT.raw))],
            "storageProof": entries,
        }


@pytest.fixture(scope="module")
def terms(made):
    return made.make_terms()


@pytest.fixture(scope="module")
def chain(made, terms):
    return made.claimed_chain(terms)


@pytest.fixture(scope="module")
def true(made, terms, chain):
    return made.make_proof(terms, chain)


async def test_both_proofs_of_a_claim_are_collected_and_verify(made, terms, chain, true):
    node = Node(made, chain)
    storage = await collect_lock_proof(node, terms.lock)
    receipt = await collect_receipt_proof(node, chain_id=terms.lock.chain_id, tx_hash=node.tx_hash)
    assert (storage, receipt) == (true.storage, true.receipt)
    assert made.verify(made.make_proof(terms, storage=storage, receipt=receipt)).ok


@pytest.mark.parametrize("block", [77, "safe", "latest"])
async def test_a_slot_is_proved_at_any_block_the_caller_names(made, terms, chain, block):
    slot = storage_slot(terms.lock.lock_id)
    node = Node(made, chain)
    by_name = await collect_storage_proof(node, chain_id=60808, address=made.CONTRACT, slot=slot, block=block)
    by_hash = await collect_lock_proof(node, terms.lock, block=chain.header.hash)
    assert by_name == by_hash
    assert (await collect_header(node, block)) == chain.header


async def test_without_block_receipts_they_come_one_by_one(made, chain):
    for node in (
        Node(made, chain, without=("eth_getBlockReceipts",)),
        Node(made, chain, change=lambda method, answer: None if method == "eth_getBlockReceipts" else answer),
    ):
        proof = await collect_receipt_proof(node, chain_id=60808, tx_hash=node.tx_hash)
        assert proof.evaluate().receipt == chain.receipts[chain.index]
        assert node.asked.count("eth_getTransactionReceipt") == 1 + len(chain.receipts)


async def test_an_error_among_the_single_receipts_comes_out_as_itself(made, chain):
    calls = 0

    def fail_late(method, answer):
        nonlocal calls
        calls += method == "eth_getTransactionReceipt"
        if calls == 9:
            raise NodeConnectionError("the connection broke")
        return answer

    node = Node(made, chain, without=("eth_getBlockReceipts",), change=fail_late)
    with pytest.raises(NodeConnectionError, match="broke"):
        await collect_receipt_proof(node, chain_id=60808, tx_hash=node.tx_hash)


async def test_what_is_not_there_is_not_found(made, terms, chain):
    node = Node(made, chain)
    with pytest.raises(NotFound, match="not in a block"):
        await collect_receipt_proof(node, chain_id=60808, tx_hash=bytes(32))
    for block in (78, "finalized", bytes(32)):
        with pytest.raises(NotFound, match="no block"):
            await collect_lock_proof(node, terms.lock, block=block)


async def test_an_endpoint_without_proofs_says_so_itself(made, terms, chain):
    with pytest.raises(RpcError, match="does not exist"):
        await collect_lock_proof(Node(made, chain, without=("eth_getProof",)), terms.lock)


async def test_another_block_than_the_one_asked_for_is_refused(made, chain):
    node = Node(made, chain)
    block = node.block()

    async def stubborn(method, params):
        return block

    for asked in (78, bytes(32)):
        with pytest.raises(UnexpectedReply, match="the endpoint gave 77"):
            await collect_header(stubborn, asked)


def edit(method, **changes):
    """Change fields of the answers to one method; of each element where the answer is a list."""

    def change(asked, answer):
        if asked != method:
            return answer
        return [part | changes for part in answer] if isinstance(answer, list) else answer | changes

    return change


def instead(method, made_of):
    return lambda asked, answer: made_of(answer) if asked == method else answer


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (edit("eth_getBlockByHash", stateRoot="0x" + "11" * 32), "do not hash to its hash"),
        (edit("eth_getBlockByHash", number="77"), "number is not"),
        (instead("eth_getBlockByHash", lambda block: "block"), "other than an object"),
        (instead("eth_getTransactionReceipt", lambda receipt: [receipt]), "other than an object"),
        (edit("eth_getTransactionReceipt", blockHash=None), "blockHash is not"),
        (edit("eth_getTransactionReceipt", transactionIndex="0x7f"), "another transaction"),
        (edit("eth_getTransactionReceipt", transactionIndex="0xffff"), "another transaction"),
        (edit("eth_getBlockReceipts", status="0x0"), "do not rebuild"),
        (edit("eth_getBlockReceipts", logsBloom=None), "logsBloom is not"),
        (instead("eth_getBlockReceipts", lambda receipts: receipts[:-1]), "do not rebuild"),
        (instead("eth_getBlockReceipts", lambda receipts: receipts + receipts[:1]), "do not rebuild"),
        (instead("eth_getBlockReceipts", lambda receipts: [None] * 130), "other than an object"),
        (instead("eth_getBlockReceipts", lambda receipts: {"1": 2}), "are not a list"),
        (instead("eth_getBlockReceipts", lambda receipts: receipts * 200), "are not a list of at most"),
    ],
)
async def test_receipts_that_are_not_the_blocks_are_refused(made, chain, change, match):
    node = Node(made, chain, change=change)
    with pytest.raises(UnexpectedReply, match=match):
        await collect_receipt_proof(node, chain_id=60808, tx_hash=node.tx_hash)


async def test_a_block_without_a_list_of_transactions_is_refused(made, chain):
    for transactions in (None, ["0x"] * 20_001):
        change = edit("eth_getBlockByHash", transactions=transactions)
        node = Node(made, chain, without=("eth_getBlockReceipts",), change=change)
        with pytest.raises(UnexpectedReply, match="no list of at most"):
            await collect_receipt_proof(node, chain_id=60808, tx_hash=node.tx_hash)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (instead("eth_getProof", lambda answer: None), "other than an object"),
        (edit("eth_getProof", accountProof=[]), "ends after 0 nodes"),
        (edit("eth_getProof", storageProof=[]), "about other slots"),
        (edit("eth_getProof", nonce="0x99"), "not what its nodes prove"),
        (edit("eth_getProof", storageProof=[{"key": "0x1", "value": "0x0", "proof": []}]), "ends after 0 nodes"),
        (instead("eth_getProof", lambda answer: answer | {"storageProof": answer["storageProof"] * 2}), None),
    ],
)
async def test_a_slot_that_is_not_proved_is_refused(made, terms, chain, change, match):
    node = Node(made, chain, change=change)
    if match is None:
        assert (await collect_lock_proof(node, terms.lock)).evaluate()
        return
    with pytest.raises(UnexpectedReply, match=match):
        await collect_lock_proof(node, terms.lock)


async def test_a_proof_of_another_block_than_the_header_is_refused(made, terms, chain):
    """A reorg between the two questions must not give a proof."""
    other = made.claimed_chain(replace(terms, lock=replace(terms.lock, timelock=1_800_200_000)))
    before, after = Node(made, chain), Node(made, other)

    async def call(method, params):
        return await (after if method == "eth_getProof" else before)(method, params)

    with pytest.raises(UnexpectedReply, match="does not hash to the root"):
        await collect_lock_proof(call, terms.lock)
