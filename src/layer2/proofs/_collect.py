"""Collecting proofs from an endpoint: the only file of this package that talks to one.

Whatever an endpoint answers is checked as a verifier would check it before it becomes a proof, so a proof that leaves
here shows what it says of its block. Whether the block is one of the chain is not asked here.

Full nodes serve ``eth_getProof`` for recent blocks only: collect right after the claim, keep the proof until its block is
final, and collect again if that block goes in a reorg.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from layer2.addresses import EvmAddress
from layer2.errors import NodeError, NotFound, ProofError, UnexpectedReply
from layer2.evm._htlc import storage_slot
from layer2.evm._rpc_error import RpcError
from layer2.proofs._evm import EvmReceiptProof, EvmStorageProof, read_proof_answer
from layer2.proofs._format import require
from layer2.proofs._headers import BlockHeader
from layer2.proofs._hexadecimal import data, quantity
from layer2.proofs._receipts import Receipt, receipt_key, receipts_trie_entries
from layer2.proofs._trie import Trie
from layer2.terms import Lock

__all__ = ["Call", "collect_header", "collect_lock_proof", "collect_receipt_proof", "collect_storage_proof"]

Call: TypeAlias = Callable[[str, list[Any]], Awaitable[Any]]
"""Sends one JSON-RPC request and gives its result. An error object of the endpoint is raised as ``RpcError``."""

MAX_RECEIPTS: Final = 20_000
"""Most receipts of one block that are looked at."""
_PARALLEL: Final = 16
"""Receipts asked for at a time where the endpoint does not give a block's receipts at once."""


async def collect_header(call: Call, block: int | bytes | str = "latest") -> BlockHeader:
    """The header of a block by number, hash or tag (``latest``, ``safe``, ``finalized``).

    Raises:
        NotFound: the endpoint has no such block. UnexpectedReply: the answer is not a block, or not that block.
    """
    if isinstance(block, bytes):
        answer = await call("eth_getBlockByHash", ["0x" + block.hex(), False])
    else:
        answer = await call("eth_getBlockByNumber", [hex(block) if isinstance(block, int) else block, False])
    if answer is None:
        raise NotFound(f"the endpoint has no block {_name(block)}")
    try:
        header = BlockHeader.from_json_rpc(_mapping(answer))
    except ProofError as error:
        raise UnexpectedReply(f"block {_name(block)}: {error.message}") from error
    if block not in (header.hash, header.number) and not isinstance(block, str):
        raise UnexpectedReply(f"asked for block {_name(block)}, the endpoint gave {header.number}")
    return header


async def collect_receipt_proof(call: Call, *, chain_id: int, tx_hash: bytes) -> EvmReceiptProof:
    """Proof of the receipt of a mined transaction.

    The block's receipts come from ``eth_getBlockReceipts`` or, where an endpoint has not got that, one by one.

    Raises:
        NotFound: the transaction is not in a block.
        UnexpectedReply: the receipts are not those of the block.
    """
    answer = await call("eth_getTransactionReceipt", ["0x" + tx_hash.hex()])
    if answer is None:
        raise NotFound(f"transaction 0x{tx_hash.hex()} is not in a block")
    try:
        block_hash = data(_mapping(answer).get("blockHash"), "blockHash", 32)
        index = quantity(_mapping(answer).get("transactionIndex"), "transactionIndex")
    except ProofError as error:
        raise UnexpectedReply(f"the receipt of 0x{tx_hash.hex()}: {error.message}") from error
    header = await collect_header(call, block_hash)
    answers = await _block_receipts(call, header)
    try:
        named = data(answers[index].get("transactionHash"), "transactionHash", 32) if index < len(answers) else None
        require(named == tx_hash, "another transaction is at the place that the receipt names")
        trie = Trie(receipts_trie_entries([Receipt.from_json_rpc(receipt) for receipt in answers]))
        require(trie.root == header.receipts_root, "they do not rebuild the receipts root of the block")
        proof = EvmReceiptProof(chain_id=chain_id, header=header.rlp, index=index, proof=trie.prove(receipt_key(index)))
        proof.evaluate()
    except ProofError as error:
        raise UnexpectedReply(f"the receipts of block {header.number}: {error.message}") from error
    return proof


async def _block_receipts(call: Call, header: BlockHeader) -> list[Mapping[str, Any]]:
    name = "0x" + header.hash.hex()
    try:
        answers = await call("eth_getBlockReceipts", [name])
    except (RpcError, NodeError):
        # Unknown to this endpoint, or not by hash: nothing is lost, as any wrong answer would fail at the root.
        answers = None
    if not answers:
        answers = await _receipts_one_by_one(call, name)
    if not isinstance(answers, list) or len(answers) > MAX_RECEIPTS:
        raise UnexpectedReply(f"the receipts of block {header.number} are not a list of at most {MAX_RECEIPTS}")
    return [_mapping(answer) for answer in answers]


async def _receipts_one_by_one(call: Call, block: str) -> list[Any]:
    answer = _mapping(await call("eth_getBlockByHash", [block, False]))
    hashes = answer.get("transactions")
    if not isinstance(hashes, list) or len(hashes) > MAX_RECEIPTS:
        raise UnexpectedReply(f"block {block} has no list of at most {MAX_RECEIPTS} transactions")
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(tx_hash: Any) -> Any:
        async with slots:
            return await call("eth_getTransactionReceipt", [tx_hash])

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(tx_hash)) for tx_hash in hashes]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def collect_storage_proof(
    call: Call, *, chain_id: int, address: EvmAddress, slot: bytes, block: int | bytes | str = "latest"
) -> EvmStorageProof:
    """Proof of the value of a slot after a block.

    Raises:
        NotFound: the endpoint has no such block. UnexpectedReply: the answer does not prove what it says of that block,
            as when a reorg came between the two questions: ask again.
        RpcError: the endpoint serves no proofs, or none of that block.
    """
    header = await collect_header(call, block)
    answer = await call("eth_getProof", [str(address), ["0x" + slot.hex()], hex(header.number)])
    try:
        proven = read_proof_answer(_mapping(answer), header.state_root, address.raw)
        require(set(proven.slots) == {slot}, "the answer is about other slots")
        proof = EvmStorageProof(
            chain_id=chain_id,
            header=header.rlp,
            address=address,
            slot=slot,
            value=proven.slots[slot].value,
            account_proof=proven.account_proof,
            storage_proof=proven.slots[slot].proof,
        )
        proof.evaluate()
    except ProofError as error:
        raise UnexpectedReply(f"the proof of a slot at block {header.number}: {error.message}") from error
    return proof


async def collect_lock_proof(call: Call, lock: Lock, *, block: int | bytes | str = "latest") -> EvmStorageProof:
    """Proof of the state of a lock after a block. See ``collect_storage_proof``."""
    return await collect_storage_proof(
        call, chain_id=lock.chain_id, address=lock.contract, slot=storage_slot(lock.lock_id), block=block
    )


def _mapping(answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise UnexpectedReply("the endpoint answered with something other than an object")
    return answer


def _name(block: int | bytes | str) -> str:
    return "0x" + block.hex() if isinstance(block, bytes) else str(block)
