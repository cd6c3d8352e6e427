"""The books of a run on real nodes: what every party holds, to the millisatoshi, the token's base unit and the wei."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer2 import EvmAddress
from layer2.evm import encode_balance_of

LNDS = ("client", "router", "provider")


@dataclass(frozen=True)
class Balances:
    block: int
    msat: Counter[str]
    """Of each lnd: what its channels hold for it, with the commitment fees that its opener has put aside."""
    tokens: Counter[str]
    wei: Counter[str]


async def balances(nodes: Any, token: EvmAddress, holders: dict[str, EvmAddress]) -> Balances:
    """What everybody holds. Only meaningful while nothing is in flight."""
    block = int(await nodes.evm_rpc("eth_blockNumber"), 16)
    msat = Counter({name: await _channel_msat(nodes, name) for name in LNDS})
    tokens: Counter[str] = Counter()
    wei: Counter[str] = Counter()
    for name, holder in holders.items():
        call = {"to": str(token), "data": "0x" + encode_balance_of(holder).hex()}
        tokens[name] = int(await nodes.evm_rpc("eth_call", call, hex(block)), 16)
        wei[name] = int(await nodes.evm_rpc("eth_getBalance", str(holder), hex(block)), 16)
    return Balances(block=block, msat=msat, tokens=tokens, wei=wei)


def changes(before: Counter[str], after: Counter[str]) -> Counter[str]:
    """``after - before``; unlike the operator it keeps what became less."""
    result = Counter(after)
    result.subtract(before)
    return result


async def _channel_msat(nodes: Any, name: str) -> int:
    held = await nodes.lnd_call(name, "GET", "/v1/balance/channels")
    channels = (await nodes.lnd_call(name, "GET", "/v1/channels"))["channels"]
    put_aside_sat = sum(int(channel["commit_fee"]) for channel in channels if channel["initiator"])
    return int(held["local_balance"]["msat"]) + int(held["unsettled_local_balance"]["msat"]) + put_aside_sat * 1000


async def nothing_in_flight(nodes: Any) -> bool:
    """Whether no channel of any lnd holds a payment."""
    for name in LNDS:
        channels = (await nodes.lnd_call(name, "GET", "/v1/channels"))["channels"]
        if any(channel["pending_htlcs"] for channel in channels):
            return False
    return True


async def routing_fees_earned_msat(nodes: Any, name: str, since_s: int) -> int:
    """What a node was paid for forwarding, by its own record."""
    query = {"start_time": str(since_s), "num_max_events": 50_000}
    reply = await nodes.lnd_call(name, "POST", "/v1/switch", query)
    return sum(int(event["fee_msat"]) for event in reply["forwarding_events"])


@dataclass(frozen=True)
class Spent:
    fees_wei: Counter[str]
    """By account, from the receipts of all its transactions."""
    transactions: Counter[str]
    calls: Counter[bytes]
    """Successful calls of a contract, by selector."""


async def spent(nodes: Any, contract: EvmAddress, holders: dict[str, EvmAddress], first: int, last: int) -> Spent:
    """What transactions of the accounts in the blocks ``first`` to ``last`` cost."""
    names = {str(holder).lower(): name for name, holder in holders.items()}
    fees: Counter[str] = Counter()
    count: Counter[str] = Counter()
    calls: Counter[bytes] = Counter()
    for number in range(first, last + 1):
        block = await nodes.evm_rpc("eth_getBlockByNumber", hex(number), True)
        inputs = {tx["hash"]: bytes.fromhex(tx["input"][2:]) for tx in block["transactions"]}
        for receipt in await nodes.evm_rpc("eth_getBlockReceipts", hex(number)) if inputs else ():
            name = names.get(receipt["from"].lower())
            if name is None:
                continue
            fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
            fees[name] += fee + int(receipt.get("l1Fee") or "0x0", 16)
            count[name] += 1
            if receipt["status"] == "0x1" and (receipt["to"] or "").lower() == str(contract).lower():
                calls[inputs[receipt["transactionHash"]][:4]] += 1
    return Spent(fees_wei=fees, transactions=count, calls=calls)


@dataclass(frozen=True)
class Journalled:
    open: int
    fees_wei: int


def journalled(store: Path) -> Journalled:
    """What a store has written down of its transactions."""
    if not store.exists():
        return Journalled(open=0, fees_wei=0)
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT state, fee_wei FROM evm_tx").fetchall()
    return Journalled(
        open=sum(state == "open" for state, _ in rows), fees_wei=sum(int(fee) for _, fee in rows if fee is not None)
    )


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns of text: names to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
