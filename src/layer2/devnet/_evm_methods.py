"""The JSON-RPC methods of the embedded EVM (execution-apis), with geth's answers and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from layer2.devnet._evm_chain import EvmChain
from layer2.devnet._evm_json import (
    INVALID_PARAMS,
    LogFilter,
    block_json,
    data_param,
    hex_data,
    hex_quantity,
    quantity_param,
    receipt_json,
    transaction_json,
)
from layer2.devnet._evm_pool import SERVER_ERROR, floor_gas
from layer2.devnet._evm_types import GAS_LIMIT, Block, EvmMessage
from layer2.evm._abi import decode_revert
from layer2.evm._rpc_error import RpcError

__all__ = ["EvmMethods"]

METHOD_NOT_FOUND: Final = -32601
REVERTED: Final = 3
MAX_CALL_GAS: Final = 50_000_000
MAX_FEE_HISTORY_BLOCKS: Final = 1024
TIP_WEI: Final = 10**6


class EvmMethods:
    """``handle`` answers a request; synchronous and for the chain's one thread."""

    def __init__(self, chain: EvmChain, now_s: Callable[[], int], lags: Callable[[], tuple[int, int]]) -> None:
        self.chain = chain
        self._now_s = now_s
        self._lags = lags

    def handle(self, method: str, params: Sequence[Any]) -> Any:
        """The ``result``.

        Raises:
            RpcError: no such method, wrong parameters, or what the method itself refuses.
        """
        function = _METHODS.get(method)
        if function is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        try:
            return function(self, *params)
        except TypeError as exc:
            if exc.__traceback__ is not None and exc.__traceback__.tb_next is None:
                raise RpcError(INVALID_PARAMS, f"wrong number of arguments for {method}: {len(params)}") from exc
            raise

    def _find(self, tag: Any) -> Block | None:
        """The block of a number, a name or an EIP-1898 object; None if there is none (yet). ``pending`` gives the head."""
        blocks = self.chain.blocks
        if isinstance(tag, dict):
            if "blockHash" in tag:
                block = self.chain.by_hash.get(data_param(tag["blockHash"], 32))
                if block is not None and tag.get("requireCanonical") and not self._is_canonical(block):
                    raise RpcError(SERVER_ERROR, "hash is not currently canonical")
                return block
            tag = tag.get("blockNumber")
        head = len(blocks) - 1
        safe_lag, finalized_lag = self._lags()
        match tag:
            case "latest" | "pending":
                number = head
            case "safe":
                number = max(0, head - safe_lag)
            case "finalized":
                number = max(0, head - finalized_lag)
            case "earliest":
                number = 0
            case _:
                number = quantity_param(tag)
        return blocks[number] if number <= head else None

    def _state_block(self, tag: Any) -> Block:
        block = self._find(tag)
        if block is None:
            raise RpcError(SERVER_ERROR, "header not found")
        return block

    def _is_canonical(self, block: Block) -> bool:
        blocks = self.chain.blocks
        return block.number < len(blocks) and blocks[block.number] is block

    def chain_id(self) -> str:
        return hex_quantity(self.chain.chain_id)

    def net_version(self) -> str:
        return str(self.chain.chain_id)

    def client_version(self) -> str:
        return "layer2-embedded/py-evm/prague"

    def syncing(self) -> bool:
        return False

    def block_number(self) -> str:
        return hex_quantity(self.chain.head.number)

    def block_by_number(self, tag: Any, full: bool = False) -> dict[str, Any] | None:
        if tag == "pending":
            return self._pending_block(full=full)
        block = self._find(tag)
        return None if block is None else block_json(block, full=full)

    def _pending_block(self, *, full: bool) -> dict[str, Any]:
        header = self.chain.next_header(self._now_s())
        nonce_of = self.chain.accounts(self.chain.head).get_nonce
        waiting = list(self.chain.pool.executable(nonce_of, header.base_fee_per_gas))
        fields = block_json(Block(header, (), (), (), (), 0), full=full)
        fields |= dict.fromkeys(("hash", "nonce", "miner", "stateRoot", "logsBloom", "size"))
        fields["transactions"] = [transaction_json(tx) if full else hex_data(tx.hash) for tx in waiting]
        return fields

    def block_by_hash(self, block_hash: Any, full: bool = False) -> dict[str, Any] | None:
        block = self.chain.by_hash.get(data_param(block_hash, 32))
        return None if block is None else block_json(block, full=full)

    def balance(self, address: Any, tag: Any = "latest") -> str:
        return hex_quantity(self.chain.accounts(self._state_block(tag)).get_balance(data_param(address, 20)))

    def transaction_count(self, address: Any, tag: Any = "latest") -> str:
        account = data_param(address, 20)
        nonce = self.chain.accounts(self._state_block(tag)).get_nonce(account)
        return hex_quantity(self.chain.pool.next_nonce(account, nonce) if tag == "pending" else nonce)

    def code(self, address: Any, tag: Any = "latest") -> str:
        return hex_data(self.chain.accounts(self._state_block(tag)).get_code(data_param(address, 20)))

    def storage_at(self, address: Any, slot: Any, tag: Any = "latest") -> str:
        place = data_param(address, 20), int.from_bytes(_slot_param(slot))
        value = self.chain.storage(*place, self._state_block(tag))
        return hex_data(value.to_bytes(32))

    def proof(self, address: Any, slots: Any, tag: Any = "latest") -> dict[str, Any]:
        account = data_param(address, 20)
        if not isinstance(slots, list):
            raise RpcError(INVALID_PARAMS, "invalid argument 1: a list of storage keys")
        proof = self.chain.prove(account, [_slot_param(slot) for slot in slots], self._state_block(tag))
        return {
            "address": hex_data(account),
            "balance": hex_quantity(proof.balance),
            "nonce": hex_quantity(proof.nonce),
            "codeHash": hex_data(proof.code_hash),
            "storageHash": hex_data(proof.storage_root),
            "accountProof": [hex_data(node) for node in proof.account_nodes],
            "storageProof": [
                {"key": slot, "value": hex_quantity(value), "proof": [hex_data(node) for node in nodes]}
                for slot, (value, nodes) in zip(slots, proof.slots, strict=True)
            ],
        }

    def eth_call(self, fields: Any, tag: Any = "latest") -> str:
        message, block = _message(fields, MAX_CALL_GAS), self._state_block(tag)
        computation = self._execute(message, block, tag)
        if computation.is_error:
            raise _execution_error(computation)
        return hex_data(computation.output)

    def _execute(self, message: EvmMessage, block: Block, tag: Any) -> Any:
        return self.chain.execute(message, block, pending_timestamp=self._now_s() if tag == "pending" else None)

    def estimate_gas(self, fields: Any, tag: Any = "pending") -> str:
        """The least gas with which it succeeds, found by halving."""
        message, block = _message(fields, GAS_LIMIT), self._state_block(tag)
        computation = self._execute(message, block, tag)
        if computation.is_error:
            raise _execution_error(computation)
        high, low = message.gas, floor_gas(message.data) - 1
        if self._succeeds(message, low + 1, block, tag):
            return hex_quantity(low + 1)
        # A try with what was used, and a 64th more for calls that pass on all but a 64th, nearly always bounds it at once.
        guess = computation.get_gas_used() * 65 // 63 + 64_000
        while high - low > 1:
            middle = guess if low < guess < high else (low + high) // 2
            guess = 0
            if self._succeeds(message, middle, block, tag):
                high = middle
            else:
                low = middle
            if (high - low) * 1000 < high:
                break
        return hex_quantity(high)

    def _succeeds(self, message: EvmMessage, gas: int, block: Block, tag: Any) -> bool:
        tried = EvmMessage(sender=message.sender, to=message.to, value=message.value, data=message.data, gas=gas)
        try:
            return not self._execute(tried, block, tag).is_error
        except RpcError:
            return False

    def gas_price(self) -> str:
        return hex_quantity(self.chain.next_header(self._now_s()).base_fee_per_gas + TIP_WEI)

    def max_priority_fee(self) -> str:
        return hex_quantity(TIP_WEI)

    def fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        wanted = min(quantity_param(count) if isinstance(count, str) else int(count), MAX_FEE_HISTORY_BLOCKS)
        last = self._state_block(newest)
        blocks = self.chain.blocks[max(0, last.number + 1 - wanted) : last.number + 1]
        following = last.number + 1
        after = (
            self.chain.blocks[following].header
            if following < len(self.chain.blocks)
            else self.chain.next_header(self._now_s())
        )
        fees = [block.header.base_fee_per_gas for block in blocks] + [after.base_fee_per_gas]
        result: dict[str, Any] = {
            "oldestBlock": hex_quantity(blocks[0].number if blocks else last.number),
            "baseFeePerGas": [hex_quantity(fee) for fee in fees],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            result["reward"] = [_rewards(block, percentiles) for block in blocks]
        return result

    def send_raw_transaction(self, raw: Any) -> str:
        return hex_data(self.chain.submit(data_param(raw)).hash)

    def transaction_by_hash(self, tx_hash: Any) -> dict[str, Any] | None:
        key = data_param(tx_hash, 32)
        place = self.chain.places.get(key)
        if place is not None:
            block = self.chain.blocks[place[0]]
            return transaction_json(block.transactions[place[1]], block=block, index=place[1])
        waiting = self.chain.pool.get(key)
        return None if waiting is None else transaction_json(waiting)

    def transaction_receipt(self, tx_hash: Any) -> dict[str, Any] | None:
        place = self.chain.places.get(data_param(tx_hash, 32))
        return None if place is None else receipt_json(self.chain.blocks[place[0]], place[1])

    def block_receipts(self, tag: Any) -> list[dict[str, Any]] | None:
        is_hash = isinstance(tag, str) and len(tag) == 66
        block = self._find({"blockHash": tag} if is_hash else tag)
        return None if block is None else [receipt_json(block, index) for index in range(len(block.receipts))]

    def logs(self, fields: Any) -> list[dict[str, Any]]:
        if not isinstance(fields, dict):
            raise RpcError(INVALID_PARAMS, "invalid argument 0: a filter object")
        log_filter = LogFilter(fields)
        if "blockHash" in fields:
            if fields.get("fromBlock") or fields.get("toBlock"):
                raise RpcError(INVALID_PARAMS, "cannot specify both BlockHash and FromBlock/ToBlock, choose one")
            block = self.chain.by_hash.get(data_param(fields["blockHash"], 32))
            if block is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            return log_filter.select([block])
        first = self._bound(fields.get("fromBlock") or "latest")
        last = self._bound(fields.get("toBlock") or "latest")
        if first > last:
            raise RpcError(INVALID_PARAMS, "invalid block range params")
        return log_filter.select(self.chain.blocks[first : last + 1])

    def _bound(self, tag: Any) -> int:
        block = self._find(tag)
        return quantity_param(tag) if block is None else block.number


def _slot_param(value: Any) -> bytes:
    if isinstance(value, str) and len(value) == 66:
        return data_param(value, 32)
    return quantity_param(value).to_bytes(32)


def _message(fields: Any, gas_cap: int) -> EvmMessage:
    if not isinstance(fields, dict):
        raise RpcError(INVALID_PARAMS, "invalid argument 0: a transaction object")
    data = fields.get("input", fields.get("data"))
    gas = fields.get("gas")
    return EvmMessage(
        sender=data_param(fields["from"], 20) if fields.get("from") else bytes(20),
        to=data_param(fields["to"], 20) if fields.get("to") else b"",
        value=quantity_param(fields["value"]) if fields.get("value") else 0,
        data=data_param(data) if data else b"",
        gas=min(quantity_param(gas), gas_cap) if gas else gas_cap,
    )


def _execution_error(computation: Any) -> RpcError:
    from eth.exceptions import OutOfGas, Revert

    error = computation.error
    if isinstance(error, Revert):
        reason = decode_revert(computation.output)
        text = f"execution reverted: {reason}" if reason else "execution reverted"
        return RpcError(REVERTED, text, hex_data(computation.output))
    if isinstance(error, OutOfGas):
        return RpcError(SERVER_ERROR, "out of gas")
    return RpcError(SERVER_ERROR, f"{type(error).__name__}: {error}")


def _rewards(block: Block, percentiles: Sequence[float]) -> list[str]:
    base_fee = block.header.base_fee_per_gas
    used = [
        receipt.gas_used - (block.receipts[index - 1].gas_used if index else 0)
        for index, receipt in enumerate(block.receipts)
    ]
    tips = sorted((tx.tip(base_fee), gas) for tx, gas in zip(block.transactions, used, strict=True))
    rewards = []
    for percentile in percentiles:
        threshold, total, reward = block.header.gas_used * percentile / 100, 0, 0
        for tip, gas in tips:
            total, reward = total + gas, tip
            if total >= threshold:
                break
        rewards.append(hex_quantity(reward))
    return rewards


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "eth_blockNumber": EvmMethods.block_number,
    "eth_call": EvmMethods.eth_call,
    "eth_chainId": EvmMethods.chain_id,
    "eth_estimateGas": EvmMethods.estimate_gas,
    "eth_feeHistory": EvmMethods.fee_history,
    "eth_gasPrice": EvmMethods.gas_price,
    "eth_getBalance": EvmMethods.balance,
    "eth_getBlockByHash": EvmMethods.block_by_hash,
    "eth_getBlockByNumber": EvmMethods.block_by_number,
    "eth_getBlockReceipts": EvmMethods.block_receipts,
    "eth_getCode": EvmMethods.code,
    "eth_getLogs": EvmMethods.logs,
    "eth_getProof": EvmMethods.proof,
    "eth_getStorageAt": EvmMethods.storage_at,
    "eth_getTransactionByHash": EvmMethods.transaction_by_hash,
    "eth_getTransactionCount": EvmMethods.transaction_count,
    "eth_getTransactionReceipt": EvmMethods.transaction_receipt,
    "eth_maxPriorityFeePerGas": EvmMethods.max_priority_fee,
    "eth_sendRawTransaction": EvmMethods.send_raw_transaction,
    "eth_syncing": EvmMethods.syncing,
    "net_version": EvmMethods.net_version,
    "web3_clientVersion": EvmMethods.client_version,
}
