"""JSON-RPC in front of the simulated EVM chain, for a process whose sender and client are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from layer2._crypto import keccak256
from layer2.errors import ValidationError
from layer2.evm import (
    RpcError,
    decode_transaction,
    encode_approve,
    encode_lock,
    encode_refund,
    encode_status,
    encode_transfer,
    selector,
    storage_slot,
)
from layer2.swaps import LockReading, LockStatus
from layer2.terms import Lock
from layer2.testing._simulation_blocks import NEVER, Block, LockCall, Transaction
from layer2.testing._simulation_chain import BASE_FEE_WEI
from layer2.testing._simulation_ports import seen_head

if TYPE_CHECKING:
    from layer2.evm import SignedTransaction
    from layer2.testing._simulation_process import Life, SimulatedProcess

__all__ = ["SimulatedEndpoint", "call_of"]

_WORD: Final = 32
_STATUS: Final = {LockStatus.NEVER: 0, LockStatus.LOCKED: 1, LockStatus.REFUNDED: 2}
_GAS_USED: Final = 21_000
_TIP_WEI: Final = 1_000_000
_CLAIM: Final = selector("claim(bytes32,uint256,address,address,address,uint256)")
_ALLOWANCE: Final = selector("allowance(address,address)")


def call_of(signed: SignedTransaction, locks: Sequence[Lock], key: str) -> Transaction:
    """What a signed transaction does on the simulated chain."""
    tx, account = signed.transaction, signed.sender.raw
    made = Transaction(key=key, account=account, call=LockCall.OTHER, lock=None, nonce=tx.nonce, raw=signed.raw)
    made.max_fee_wei = tx.max_fee_per_gas
    if tx.to is None or not tx.data:
        return made
    if any(tx.data == encode_approve(lock.contract, 2**256 - 1) for lock in locks):
        made.call = LockCall.APPROVE
    for lock in locks:
        if tx.to != lock.contract:
            continue
        call = _lock_call(lock, tx.data)
        if call is not None:
            made.call, made.lock = call, lock
        if call is LockCall.CLAIM:
            made.preimage = tx.data[4:36]
        if call is LockCall.REFUND_EARLY:
            v, r, s = (tx.data[at : at + _WORD] for at in (4 + 6 * _WORD, 4 + 7 * _WORD, 4 + 8 * _WORD))
            made.signature = r + s + v[-1:]
    return made


def _lock_call(lock: Lock, data: bytes) -> LockCall | None:
    body = encode_lock(lock)[4:]
    if data == encode_lock(lock):
        return LockCall.LOCK
    if data == encode_refund(lock):
        return LockCall.REFUND
    if data[:4] == _CLAIM and data[36:] == body[_WORD:]:
        return LockCall.CLAIM
    if len(data) > len(body) + 4 and data[4 : 4 + len(body)] == body:
        return LockCall.REFUND_EARLY
    return None


class SimulatedEndpoint:
    """Implements ``RpcTransport`` for one life of a process. Its heads lag; what it says of a block by its hash is so."""

    def __init__(self, process: SimulatedProcess, life: Life) -> None:
        self._process = process
        self._life = life
        self._chain = process.chain
        self._locks = [deal.terms.lock for deal in process.watchman.deals.values()]
        self._slots = {storage_slot(lock.lock_id): lock.lock_id for lock in self._locks}
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_blockNumber": lambda: _quantity(seen_head(process)[1].number),
            "eth_chainId": lambda: _quantity(self._locks[0].chain_id),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBalance": lambda account, block: _quantity(self._state(block).wei[_raw(account)]),
            "eth_getTransactionCount": self._count,
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": lambda _fields: _quantity(_GAS_USED),
            "eth_feeHistory": self._fee_history,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
        }

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """See ``RpcTransport``."""
        sends = method == "eth_sendRawTransaction"
        if not sends:
            self._process.watchman.shows(self._process, f"{method} {params}")
        return await self._process.gate.call(self._life, method, lambda: self._methods[method](*params), act=sends)

    async def close(self) -> None:
        """Nothing is open."""

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _at(self, tag: Any) -> tuple[Block, int] | None:
        """A block and its number by tag, number or hash, in the branch of the head that is seen."""
        if isinstance(tag, Mapping):
            return self._by_hash(_raw(tag["blockHash"]))
        now, head = seen_head(self._process)
        chain = self._chain
        match tag:
            case "latest" | "pending":
                return head, head.number
            case "safe":
                return (block := chain.safe(head, now)), block.number
            case "finalized":
                return (block := chain.finalized(head, now)), block.number
        number = int(tag, 16)
        return None if number > head.number else (head.up_to(number), number)

    def _by_hash(self, wanted: bytes) -> tuple[Block, int] | None:
        found = self._chain.served.get(wanted)
        if found is None or self._chain.head.up_to(found[0].number) is not found[0]:
            return None
        return found

    def _state(self, tag: Any) -> Block:
        found = self._at(tag)
        if found is None:
            raise RpcError(-32000, "header not found")
        return found[0]

    def _block_by_number(self, tag: str, _full: bool) -> dict[str, Any] | None:
        found = self._at(tag)
        return None if found is None else self._header(*found)

    def _block_by_hash(self, wanted: str, _full: bool) -> dict[str, Any] | None:
        found = self._by_hash(_raw(wanted))
        return None if found is None else self._header(*found)

    def _header(self, block: Block, number: int) -> dict[str, Any]:
        parent = block.up_to(number - 1)
        self._chain.served[block.hash_at(number)] = (block, number)
        return {
            "number": _quantity(number),
            "hash": _hex(block.hash_at(number)),
            "parentHash": _hex(parent.hash_at(number - 1)),
            "timestamp": _quantity(block.timestamp),
            "gasLimit": _quantity(60_000_000),
            "gasUsed": _quantity(0),
            "baseFeePerGas": _quantity(self._chain.base_fee()),
            "stateRoot": _hex(bytes(_WORD)),
            "extraData": "0x",
        }

    # -- state ---------------------------------------------------------------------------------------------------------

    def _count(self, account: str, tag: Any) -> str:
        return _quantity(self._state(tag).nonces.get(_raw(account), 0))

    def _storage(self, _contract: str, slot: str, tag: Any) -> str:
        return _word(_value(self._state(tag).locks.get(self._slots[_raw(slot)], NEVER)))

    def _call(self, fields: Mapping[str, str], tag: Any) -> str:
        data, block = _raw(fields["data"]), self._state(tag)
        for lock in self._locks:
            if data == encode_status(lock.lock_id):
                return _word(_value(block.locks.get(lock.lock_id, NEVER)))
            if data == encode_lock(lock):
                account = _raw(fields["from"])
                if account not in block.approved or block.tokens[account] < lock.amount:
                    _revert("the token does not move")
                if block.timestamp >= lock.timelock or lock.lock_id in block.locks:
                    _revert("the lock is used, or too late")
                return "0x"
            if data == encode_transfer(lock.claimer, lock.amount):
                return _word(1)
            if data[:4] == _ALLOWANCE:
                return _word((2**256 - 1) * (data[16:36] in block.approved))
        return _revert("nothing is known of such a call")

    def _fee_history(self, count: str, _newest: str, _percentiles: Sequence[int]) -> dict[str, Any]:
        blocks = int(count, 16)
        return {
            "baseFeePerGas": [_quantity(BASE_FEE_WEI)] * blocks + [_quantity(self._chain.base_fee())],
            "gasUsedRatio": [0.5] * blocks,
            "reward": [[_quantity(_TIP_WEI)]] * blocks,
        }

    # -- transactions --------------------------------------------------------------------------------------------------

    def _send(self, raw: str) -> str:
        signed = decode_transaction(_raw(raw))
        chain, tx = self._chain, self._chain.forms.get(signed.hash)
        self._process.watchman.shown(self._process, signed, tx)
        if tx is None or tx.nonce is None:
            raise RpcError(-32000, "rlp: not a transaction")
        if tx.nonce < seen_head(self._process)[1].nonces.get(tx.account, 0):
            raise RpcError(-32000, "nonce too low")
        pooled = chain.pooled(tx.account)
        if tx in pooled:
            raise RpcError(-32000, "already known")
        if any(tx.max_fee_wei * 10 < other.max_fee_wei * 11 for other in pooled if other.nonce == tx.nonce):
            raise RpcError(-32000, "replacement transaction underpriced")
        chain.send(tx)
        return _hex(signed.hash)

    def _transaction(self, tx_hash: str) -> dict[str, Any] | None:
        known = self._chain.forms.get(_raw(tx_hash))
        if known is None:
            return None
        home = self._home(known)
        if home is None and known not in self._chain.pooled(known.account):
            return None
        tx = decode_transaction(known.raw).transaction
        return {
            "hash": tx_hash,
            "from": _hex(known.account),
            "to": None if tx.to is None else str(tx.to),
            "input": _hex(tx.data),
            "nonce": _quantity(tx.nonce),
            "value": _quantity(tx.value),
            "blockHash": None if home is None else _hex(home.hash_at(home.number)),
        }

    def _home(self, tx: Transaction) -> Block | None:
        head = seen_head(self._process)[1]
        return next((block for block in reversed(tx.blocks) if head.up_to(block.number) is block), None)

    def _receipt(self, tx_hash: str) -> dict[str, Any] | None:
        known = self._chain.forms.get(_raw(tx_hash))
        home = None if known is None else self._home(known)
        if known is None or home is None:
            return None
        self._header(home, home.number)
        return {
            "transactionHash": tx_hash,
            "blockNumber": _quantity(home.number),
            "blockHash": _hex(home.hash_at(home.number)),
            "transactionIndex": "0x0",
            "status": _quantity(int(home.included[known])),
            "gasUsed": _quantity(_GAS_USED),
            "effectiveGasPrice": _quantity(BASE_FEE_WEI),
            "contractAddress": None,
            "logs": self._logs_of(home, known),
        }

    def _logs(self, criteria: Mapping[str, Any]) -> list[dict[str, Any]]:
        first, last = int(criteria["fromBlock"], 16), int(criteria["toBlock"], 16)
        block: Block | None = seen_head(self._process)[1].up_to(last)
        found: list[dict[str, Any]] = []
        while block is not None and block.number >= first:
            for tx in block.included:
                found = self._logs_of(block, tx) + found
            block = block.parent
        return found

    def _logs_of(self, block: Block, tx: Transaction) -> list[dict[str, Any]]:
        if tx.lock is None or not block.included[tx]:
            return []
        return [
            {
                "address": str(tx.lock.contract),
                "topics": [_hex(keccak256(tx.call.encode())), _hex(tx.lock.lock_id)],
                "data": "0x",
                "blockNumber": _quantity(block.number),
                "blockHash": _hex(block.hash_at(block.number)),
                "transactionHash": _hex(keccak256(tx.raw or tx.key.encode())),
                "logIndex": "0x0",
            }
        ]


def _value(reading: LockReading) -> int:
    return int.from_bytes(reading.preimage) if reading.preimage is not None else _STATUS[reading.status]


def _revert(reason: str) -> NoReturn:
    raise RpcError(3, f"execution reverted: {reason}", "0x")


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _word(value: int) -> str:
    return _hex(value.to_bytes(_WORD))


def _quantity(value: int) -> str:
    return hex(value)


def _raw(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValidationError("hexadecimal text begins with 0x", field="params")
    return bytes.fromhex(text[2:])
