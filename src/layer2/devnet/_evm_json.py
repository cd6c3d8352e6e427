"""The JSON of the embedded EVM's answers (execution-apis), and the reading of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from layer2.evm._rpc_error import RpcError

if TYPE_CHECKING:
    from layer2.devnet._evm_types import Block, PoolTransaction

__all__ = [
    "LogFilter",
    "block_json",
    "data_param",
    "hex_data",
    "hex_quantity",
    "log_json",
    "quantity_param",
    "receipt_json",
    "transaction_json",
]

INVALID_PARAMS: Final = -32602
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)
_QUANTITY = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]{0,63})", re.ASCII)


def hex_data(value: bytes) -> str:
    """``0x`` and two digits a byte."""
    return "0x" + value.hex()


def hex_quantity(value: int) -> str:
    """``0x`` and the number without leading zeros."""
    return hex(value)


def data_param(value: Any, length: int | None = None) -> bytes:
    """Read a byte string, of ``length`` bytes if given.

    Raises:
        RpcError: invalid params.
    """
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise RpcError(INVALID_PARAMS, "invalid argument: a hex string with 0x prefix and an even number of digits")
    raw = bytes.fromhex(value[2:])
    if length is not None and len(raw) != length:
        raise RpcError(INVALID_PARAMS, f"invalid argument: hex string has length {2 * len(raw)}, want {2 * length}")
    return raw


def quantity_param(value: Any) -> int:
    """Read a number: canonical ``0x`` form only.

    Raises:
        RpcError: invalid params.
    """
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise RpcError(INVALID_PARAMS, "invalid argument: a hex number with 0x prefix and without leading zeros")
    return int(value, 16)


def block_json(block: Block, *, full: bool) -> dict[str, Any]:
    """A block with every field of its header, so that its hash can be recomputed."""
    header = block.header
    return {
        "hash": hex_data(block.hash),
        "parentHash": hex_data(header.parent_hash),
        "sha3Uncles": hex_data(header.uncles_hash),
        "miner": hex_data(header.coinbase),
        "stateRoot": hex_data(header.state_root),
        "transactionsRoot": hex_data(header.transaction_root),
        "receiptsRoot": hex_data(header.receipt_root),
        "logsBloom": hex_data(header.bloom.to_bytes(256)),
        "difficulty": hex_quantity(header.difficulty),
        "number": hex_quantity(block.number),
        "gasLimit": hex_quantity(header.gas_limit),
        "gasUsed": hex_quantity(header.gas_used),
        "timestamp": hex_quantity(header.timestamp),
        "extraData": hex_data(header.extra_data),
        "mixHash": hex_data(header.mix_hash),
        "nonce": hex_data(header.nonce),
        "baseFeePerGas": hex_quantity(header.base_fee_per_gas),
        "withdrawalsRoot": hex_data(header.withdrawals_root),
        "blobGasUsed": hex_quantity(header.blob_gas_used),
        "excessBlobGas": hex_quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": hex_data(header.parent_beacon_block_root),
        "requestsHash": hex_data(header.requests_hash),
        "size": hex_quantity(block.size),
        "uncles": [],
        "withdrawals": [
            {
                "index": hex_quantity(withdrawal.index),
                "validatorIndex": hex_quantity(withdrawal.validator_index),
                "address": hex_data(withdrawal.address),
                "amount": hex_quantity(withdrawal.amount),
            }
            for withdrawal in block.withdrawals
        ],
        "transactions": [
            transaction_json(tx, block=block, index=index) if full else hex_data(tx.hash)
            for index, tx in enumerate(block.transactions)
        ],
    }


def transaction_json(
    transaction: PoolTransaction, *, block: Block | None = None, index: int | None = None
) -> dict[str, Any]:
    """A transaction, pending if no block is given."""
    tx = transaction.decoded
    result: dict[str, Any] = {
        "hash": hex_data(transaction.hash),
        "type": hex_quantity(transaction.type_id),
        "blockHash": None if block is None else hex_data(block.hash),
        "blockNumber": None if block is None else hex_quantity(block.number),
        "transactionIndex": None if index is None else hex_quantity(index),
        "from": hex_data(transaction.sender),
        "to": hex_data(tx.to) if tx.to else None,
        "nonce": hex_quantity(tx.nonce),
        "gas": hex_quantity(tx.gas),
        "value": hex_quantity(tx.value),
        "input": hex_data(tx.data),
        "r": hex_quantity(tx.r),
        "s": hex_quantity(tx.s),
    }
    if transaction.type_id == 0:
        chain_id = {"chainId": hex_quantity(tx.chain_id)} if tx.chain_id is not None else {}
        return {**result, **chain_id, "v": hex_quantity(tx.v), "gasPrice": hex_quantity(tx.gas_price)}
    result |= {
        "chainId": hex_quantity(tx.chain_id),
        "v": hex_quantity(tx.y_parity),
        "yParity": hex_quantity(tx.y_parity),
        "accessList": [
            {"address": hex_data(address), "storageKeys": [hex_data(key.to_bytes(32)) for key in keys]}
            for address, keys in tx.access_list
        ],
    }
    if transaction.type_id == 1:
        return {**result, "gasPrice": hex_quantity(tx.gas_price)}
    base_fee = None if block is None else block.header.base_fee_per_gas
    price = tx.max_fee_per_gas if base_fee is None else base_fee + transaction.tip(base_fee)
    return {
        **result,
        "maxFeePerGas": hex_quantity(tx.max_fee_per_gas),
        "maxPriorityFeePerGas": hex_quantity(tx.max_priority_fee_per_gas),
        "gasPrice": hex_quantity(price),
    }


def log_json(block: Block, index: int, position: int) -> dict[str, Any]:
    """The entry at ``position`` among the logs of transaction ``index``."""
    log = block.receipts[index].logs[position]
    before = sum(len(receipt.logs) for receipt in block.receipts[:index])
    return {
        "address": hex_data(log.address),
        "topics": [hex_data(topic.to_bytes(32)) for topic in log.topics],
        "data": hex_data(log.data),
        "blockNumber": hex_quantity(block.number),
        "blockHash": hex_data(block.hash),
        "blockTimestamp": hex_quantity(block.header.timestamp),
        "transactionHash": hex_data(block.transactions[index].hash),
        "transactionIndex": hex_quantity(index),
        "logIndex": hex_quantity(before + position),
        "removed": False,
    }


def receipt_json(block: Block, index: int) -> dict[str, Any]:
    """The receipt of transaction ``index``."""
    transaction, receipt = block.transactions[index], block.receipts[index]
    base_fee = block.header.base_fee_per_gas
    before = block.receipts[index - 1].gas_used if index else 0
    created = block.created[index]
    return {
        "transactionHash": hex_data(transaction.hash),
        "transactionIndex": hex_quantity(index),
        "blockHash": hex_data(block.hash),
        "blockNumber": hex_quantity(block.number),
        "from": hex_data(transaction.sender),
        "to": hex_data(transaction.decoded.to) if transaction.decoded.to else None,
        "type": hex_quantity(transaction.type_id),
        "status": hex_quantity(int.from_bytes(receipt.state_root)),
        "cumulativeGasUsed": hex_quantity(receipt.gas_used),
        "gasUsed": hex_quantity(receipt.gas_used - before),
        "effectiveGasPrice": hex_quantity(base_fee + transaction.tip(base_fee)),
        "contractAddress": None if created is None else hex_data(created),
        "logsBloom": hex_data(receipt.bloom.to_bytes(256)),
        "logs": [log_json(block, index, position) for position in range(len(receipt.logs))],
    }


class LogFilter:
    """The address and topics of an eth_getLogs filter."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._addresses = _alternatives(fields.get("address"), 20)
        topics = fields.get("topics") or []
        if not isinstance(topics, list) or len(topics) > 4:
            raise RpcError(INVALID_PARAMS, "invalid argument: topics is a list of up to four")
        self._topics = [_alternatives(topic, 32) for topic in topics]

    def matches(self, address: bytes, topics: Sequence[int]) -> bool:
        """Whether an entry passes: every given position must hold one of its alternatives."""
        if self._addresses is not None and address not in self._addresses:
            return False
        if len(topics) < len(self._topics):
            return False
        return all(
            wanted is None or topic.to_bytes(32) in wanted for wanted, topic in zip(self._topics, topics, strict=False)
        )

    def select(self, blocks: Iterable[Block]) -> list[dict[str, Any]]:
        """All entries in ``blocks`` that pass."""
        return [
            log_json(block, index, position)
            for block in blocks
            for index, receipt in enumerate(block.receipts)
            for position, log in enumerate(receipt.logs)
            if self.matches(log.address, log.topics)
        ]


def _alternatives(value: Any, length: int) -> frozenset[bytes] | None:
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    return frozenset(data_param(item, length) for item in values) or None
