"""The execution API of an EVM node, typed: every answer is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from layer2._values import Bytes, Uint, Value
from layer2.addresses import EvmAddress
from layer2.errors import NodeError, Reverted, UnexpectedReply, ValidationError
from layer2.evm._abi import decode_revert
from layer2.evm._fields import (
    as_address,
    as_data,
    as_hash,
    as_list,
    as_object,
    as_quantity,
    data,
    opt_quantity,
    quantity,
)
from layer2.evm._rpc import RpcTransport, exit_lane
from layer2.evm._rpc_error import RpcError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BlockRef", "EvmClient", "FeeHistory", "Header", "Log", "Receipt", "translate_rpc_error"]

BlockRef: TypeAlias = int | bytes | Literal["latest", "safe", "finalized", "pending", "earliest"]
"""A block by its number, its hash, or a head."""

_NARROWER = ("range", "too many", "more than", "limit", "timeout", "timed out", "too large", "exceed", "response size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is used of a block's header. ``fields`` is the node's answer as it came, for proofs."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    gas_limit: int
    gas_used: int
    base_fee_per_gas: int | None
    state_root: bytes
    extra_data: bytes
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Value):
    """An event, with where it stands."""

    address: EvmAddress
    topics: tuple[Bytes, ...]
    data: Bytes
    block_number: int
    block_hash: Bytes
    tx_hash: Bytes
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Value):
    """What became of a transaction in one block; only meaningful while that block is canonical."""

    tx_hash: Bytes
    block_number: int
    block_hash: Bytes
    index: int
    succeeded: bool
    gas_used: int
    fee_wei: Uint
    """All that it cost: execution, and on the OP Stack the L1 and operator fees."""
    contract: EvmAddress | None
    logs: tuple[Log, ...]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeHistory:
    """``eth_feeHistory``: base fees (the next block's is last) and, for each block that was not empty, a tip."""

    base_fees: tuple[int, ...]
    tips: tuple[int, ...]


def translate_rpc_error(error: RpcError, what: str) -> NodeError | Reverted:
    """What the endpoint's error means for ``what`` was asked."""
    revert = _revert_data(error.data)
    if error.code == 3 or revert or "revert" in error.message.lower():
        reason = decode_revert(revert) or error.message[:200]
        return Reverted(f"{what}: the call reverts: {reason}", reason=reason, data=revert)
    if error.code == -32601:
        return NodeError(f"{what}: the endpoint does not offer this", code=error.code, retry_safe=True)
    return NodeError(f"{what}: {error.message[:200]}", code=error.code)


def _revert_data(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value.get("data")
    try:
        return as_data(value, "data")
    except UnexpectedReply:
        return b""


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except RpcError as error:
        raise translate_rpc_error(error, what) from error


class EvmClient:
    """Typed calls over one transport. Every method may raise ``NodeError`` (or a subclass) besides what it names."""

    def __init__(self, transport: RpcTransport, *, max_log_range: int = 2_000) -> None:
        self.transport = transport
        self._max_log_range = max_log_range
        lane = exit_lane(transport)
        self._exits = self if lane is transport else EvmClient(lane, max_log_range=max_log_range)

    @property
    def exits(self) -> EvmClient:
        """The same endpoint over the lane for claims, refunds and re-sends."""
        return self._exits

    async def request(self, method: str, *params: Any) -> Any:
        """Any method, with parameters and result as JSON values.

        Raises:
            NodeError: an error answer; Reverted: the EVM refused.
        """
        with _translated(method):
            return await self.transport.call(method, params)

    async def chain_id(self) -> int:
        """The chain that the endpoint serves."""
        return as_quantity(await self.request("eth_chainId"), "chain id")

    async def block_number(self) -> int:
        """Height of ``latest``."""
        return as_quantity(await self.request("eth_blockNumber"), "block number")

    async def header(self, block: BlockRef = "latest") -> Header | None:
        """A block's header; None if the endpoint has no such block (or no such head yet).

        Raises:
            UnexpectedReply: another block than the one asked for, or malformed.
        """
        method = "eth_getBlockByHash" if isinstance(block, bytes) else "eth_getBlockByNumber"
        answer = await self.request(method, _block_param(block), False)
        if answer is None:
            return None
        header = _read_header(as_object(answer, "block"))
        if (isinstance(block, bytes) and header.hash != block) or (isinstance(block, int) and header.number != block):
            raise UnexpectedReply(f"asked for block {_block_param(block)}, got {header.number}")
        return header

    async def balance(self, account: EvmAddress, block: BlockRef = "latest") -> int:
        """Native coin of an account, in wei."""
        return as_quantity(await self.request("eth_getBalance", str(account), _state_param(block)), "balance")

    async def nonce(self, account: EvmAddress, block: BlockRef = "latest") -> int:
        """How many transactions of the account are in the chain up to ``block``: the next nonce."""
        return as_quantity(await self.request("eth_getTransactionCount", str(account), _state_param(block)), "nonce")

    async def code(self, account: EvmAddress, block: BlockRef = "latest") -> bytes:
        """The contract code at an address; empty for none."""
        return as_data(await self.request("eth_getCode", str(account), _state_param(block)), "code")

    async def storage_at(self, account: EvmAddress, slot: bytes, block: BlockRef = "latest") -> int:
        """The value of a storage slot; 0 also where there is no such account."""
        answer = await self.request("eth_getStorageAt", str(account), data(slot), _state_param(block))
        value = as_data(answer, "storage value")
        if len(value) > 32:
            raise UnexpectedReply("the value of a storage slot has at most 32 bytes")
        return int.from_bytes(value)

    async def call(
        self,
        to: EvmAddress | None,
        call_data: bytes,
        *,
        block: BlockRef = "latest",
        sender: EvmAddress | None = None,
        value_wei: int = 0,
    ) -> bytes:
        """What a call would return at ``block``.

        Raises:
            Reverted: the call reverts there.
        """
        fields = _call_fields(to, call_data, sender, value_wei)
        return as_data(await self.request("eth_call", fields, _state_param(block)), "call result")

    async def estimate_gas(
        self, to: EvmAddress | None, call_data: bytes, *, sender: EvmAddress, value_wei: int = 0
    ) -> int:
        """Gas that the call needs now, without a margin.

        Raises:
            Reverted: it would revert.
        """
        fields = _call_fields(to, call_data, sender, value_wei)
        return as_quantity(await self.request("eth_estimateGas", fields), "gas estimate")

    async def gas_price(self) -> int:
        """The endpoint's price for legacy transactions, in wei per gas."""
        return as_quantity(await self.request("eth_gasPrice"), "gas price")

    async def fee_history(self, blocks: int = 10, percentile: int = 50) -> FeeHistory:
        """Base fees and tips of the last ``blocks`` blocks."""
        answer = as_object(
            await self.request("eth_feeHistory", quantity(blocks), "latest", [percentile]), "fee history"
        )
        base = tuple(as_quantity(fee, "baseFeePerGas") for fee in as_list(answer.get("baseFeePerGas"), "baseFeePerGas"))
        if not base:
            raise UnexpectedReply("a fee history without base fees")
        ratios = as_list(answer.get("gasUsedRatio") or [], "gasUsedRatio")
        rewards = as_list(answer.get("reward") or [], "reward")
        tips = tuple(
            as_quantity(as_list(row, "reward")[0], "reward")
            for row, ratio in zip(rewards, ratios, strict=False)
            if ratio and row
        )
        return FeeHistory(base_fees=base, tips=tips)

    async def send_raw(self, raw: bytes) -> bytes:
        """Hand a signed transaction to the node. Returns the hash that the node gives it.

        Raises:
            RpcError: the node's refusal, untranslated: what it means depends on what was sent before.
        """
        return as_hash(await self.transport.call("eth_sendRawTransaction", [data(raw)]), "transaction hash")

    async def transaction(self, tx_hash: bytes) -> Mapping[str, Any] | None:
        """A transaction as the endpoint knows it, pending or included; None says only that this endpoint does not."""
        answer = await self.request("eth_getTransactionByHash", data(tx_hash))
        if answer is None:
            return None
        fields = as_object(answer, "transaction")
        if as_hash(fields.get("hash"), "hash") != tx_hash:
            raise UnexpectedReply("asked for one transaction, got another")
        return fields

    async def receipt(self, tx_hash: bytes) -> Receipt | None:
        """The receipt, None if the endpoint has none. Its block may have been reorganised away: compare ``block_hash``."""
        answer = await self.request("eth_getTransactionReceipt", data(tx_hash))
        if answer is None:
            return None
        receipt = _read_receipt(as_object(answer, "receipt"))
        if receipt.tx_hash != tx_hash:
            raise UnexpectedReply("asked for one receipt, got another")
        return receipt

    async def proof(self, account: EvmAddress, slots: Sequence[bytes], block: BlockRef) -> Mapping[str, Any]:
        """``eth_getProof`` (EIP-1186) as it came. Full nodes answer near the tip only."""
        answer = await self.request("eth_getProof", str(account), [data(slot) for slot in slots], _block_param(block))
        return as_object(answer, "proof")

    async def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        address: EvmAddress | None = None,
        topics: Sequence[bytes | None] = (),
    ) -> AsyncIterator[list[Log]]:
        """Events of blocks ``from_block`` to ``to_block``, both included, in order, one list for each range asked.

        Ranges are halved where the endpoint finds them too wide.
        """
        if from_block < 0:
            raise ValidationError("a range of blocks starts at 0 or above", field="from_block")
        span = self._max_log_range
        start = from_block
        while start <= to_block:
            end = min(start + span - 1, to_block)
            found = await self.logs_between(start, end, address=address, topics=topics)
            if found is None:
                span = (end - start + 1) // 2
                continue
            yield found
            start = end + 1
            span = min(span * 2, self._max_log_range)

    async def logs_between(
        self, first: int, last: int, *, address: EvmAddress | None = None, topics: Sequence[bytes | None] = ()
    ) -> list[Log] | None:
        """Events of blocks ``first`` to ``last``, asked for at once; None if the endpoint finds more than one block too many."""
        criteria: dict[str, Any] = {"topics": [None if topic is None else data(topic) for topic in topics]}
        if address is not None:
            criteria["address"] = str(address)
        blocks = {"fromBlock": quantity(first), "toBlock": quantity(last)}
        try:
            answer = await self.transport.call("eth_getLogs", [{**criteria, **blocks}])
        except RpcError as error:
            if first == last or not any(word in error.message.lower() for word in _NARROWER):
                raise translate_rpc_error(error, "eth_getLogs") from error
            return None
        found = [_read_log(as_object(log, "log")) for log in as_list(answer, "logs")]
        if any(not first <= log.block_number <= last for log in found):
            raise UnexpectedReply("eth_getLogs gave events from outside the blocks asked for")
        return found

    async def close(self) -> None:
        """Close the transport."""
        await self.transport.close()


def _call_fields(to: EvmAddress | None, call_data: bytes, sender: EvmAddress | None, value_wei: int) -> dict[str, str]:
    fields = {"data": data(call_data)}
    if to is not None:
        fields["to"] = str(to)
    if sender is not None:
        fields["from"] = str(sender)
    if value_wei:
        fields["value"] = quantity(value_wei)
    return fields


def _block_param(block: BlockRef) -> str:
    if isinstance(block, bytes):
        return data(block)
    return quantity(block) if isinstance(block, int) else block


def _state_param(block: BlockRef) -> str | dict[str, Any]:
    """EIP-1898: state at a hash, and only if that block is canonical."""
    return {"blockHash": data(block), "requireCanonical": True} if isinstance(block, bytes) else _block_param(block)


def _read_header(fields: Mapping[str, Any]) -> Header:
    return Header(
        number=as_quantity(fields.get("number"), "number"),
        hash=as_hash(fields.get("hash"), "hash"),
        parent_hash=as_hash(fields.get("parentHash"), "parentHash"),
        timestamp=as_quantity(fields.get("timestamp"), "timestamp"),
        gas_limit=as_quantity(fields.get("gasLimit"), "gasLimit"),
        gas_used=as_quantity(fields.get("gasUsed"), "gasUsed"),
        base_fee_per_gas=opt_quantity(fields, "baseFeePerGas"),
        state_root=as_hash(fields.get("stateRoot"), "stateRoot"),
        extra_data=as_data(fields.get("extraData"), "extraData"),
        fields=fields,
    )


def _read_log(fields: Mapping[str, Any]) -> Log:
    if fields.get("removed"):
        raise UnexpectedReply("an event that a reorganisation removed was given as one of the chain")
    return Log(
        address=as_address(fields.get("address"), "address"),
        topics=tuple(as_hash(topic, "topic") for topic in as_list(fields.get("topics"), "topics")),
        data=as_data(fields.get("data"), "data"),
        block_number=as_quantity(fields.get("blockNumber"), "blockNumber"),
        block_hash=as_hash(fields.get("blockHash"), "blockHash"),
        tx_hash=as_hash(fields.get("transactionHash"), "transactionHash"),
        log_index=as_quantity(fields.get("logIndex"), "logIndex"),
    )


def _read_receipt(fields: Mapping[str, Any]) -> Receipt:
    status = as_quantity(fields.get("status"), "status")
    if status > 1:
        raise UnexpectedReply(f"status: {status} is neither 0 nor 1")
    gas_used = as_quantity(fields.get("gasUsed"), "gasUsed")
    contract = fields.get("contractAddress")
    return Receipt(
        tx_hash=as_hash(fields.get("transactionHash"), "transactionHash"),
        block_number=as_quantity(fields.get("blockNumber"), "blockNumber"),
        block_hash=as_hash(fields.get("blockHash"), "blockHash"),
        index=as_quantity(fields.get("transactionIndex"), "transactionIndex"),
        succeeded=status == 1,
        gas_used=gas_used,
        fee_wei=gas_used * (opt_quantity(fields, "effectiveGasPrice") or 0) + _rollup_fees(fields, gas_used),
        contract=None if contract is None else as_address(contract, "contractAddress"),
        logs=tuple(_read_log(as_object(log, "log")) for log in as_list(fields.get("logs"), "logs")),
        fields=fields,
    )


def _rollup_fees(fields: Mapping[str, Any], gas_used: int) -> int:
    """L1 fee, and the operator fee: from Isthmus ``gas * scalar / 1e6 + constant``; from Jovian ``gas * scalar * 100 + constant``.

    Receipts of Jovian blocks are told by their DA footprint field.
    """
    l1_fee = opt_quantity(fields, "l1Fee") or 0
    scalar = opt_quantity(fields, "operatorFeeScalar") or 0
    constant = opt_quantity(fields, "operatorFeeConstant") or 0
    jovian = fields.get("daFootprintGasScalar") is not None
    return l1_fee + (gas_used * scalar * 100 if jovian else gas_used * scalar // 1_000_000) + constant
