"""The books of a run on real nodes: what every party holds, to the millisatoshi, the token's base unit and the wei."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer2 import EvmAddress, TransferProof
from layer2.evm import encode_balance_of
from layer2.lightning import LndNode, PaymentState
from layer2.terms import SwapDirection

LNDS = ("client", "router", "provider")
_ONLY_CHANNEL_OF = {"client": "client", "router": "provider"}
"""Who opened a channel, and so pays for its commitment: the node that has this channel alone."""


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


def nonzero(column: Counter[str]) -> dict[str, int]:
    """Only who has more or less."""
    return {name: change for name, change in column.items() if change}


async def expected_msat(proofs: Iterable[TransferProof], lnds: Mapping[str, LndNode]) -> Counter[str]:
    """What settled transfers should have moved between the lnds, by their terms and the payers' records of routing fees."""
    result = Counter[str]()
    for terms in (proof.terms for proof in proofs):
        payer, payee = ("provider", "client") if terms.direction is SwapDirection.SUBMARINE else ("client", "provider")
        record = await lnds[payer].lookup_payment(terms.lock.preimage_hash)
        assert record.state is PaymentState.SUCCEEDED
        result.update({payer: -terms.invoice_amount_msat - record.fee_msat, payee: terms.invoice_amount_msat})
        result["router"] += record.fee_msat
    return result


async def _channel_msat(nodes: Any, name: str) -> int:
    held = await nodes.lnd_call(name, "GET", "/v1/balance/channels")
    own = int(held["local_balance"]["msat"]) + int(held["unsettled_local_balance"]["msat"])
    return own + (await _put_aside_msat(nodes, _ONLY_CHANNEL_OF[name]) if name in _ONLY_CHANNEL_OF else 0)


async def _put_aside_msat(nodes: Any, name: str) -> int:
    """What belongs to neither side of the only channel of a node.

    It is not taken from ``commit_fee``, to which lnd adds what the rounding of both sides to whole satoshi leaves.
    """
    (channel,) = (await nodes.lnd_call(name, "GET", "/v1/channels"))["channels"]
    held = await nodes.lnd_call(name, "GET", "/v1/balance/channels")
    sides = ("local_balance", "remote_balance", "unsettled_local_balance", "unsettled_remote_balance")
    return int(channel["capacity"]) * 1000 - sum(int(held[side]["msat"]) for side in sides)


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
    """Transactions that are not final yet."""
    fees_wei: Counter[str]
    """By account."""


def journalled(folders: Iterable[Path], holders: dict[str, EvmAddress]) -> Journalled:
    """What all stores in these folders have written down of their transactions."""
    names = {holder.raw.hex(): name for name, holder in holders.items()}
    unfinished, fees = 0, Counter[str]()
    for store in sorted(path for folder in folders for path in folder.glob("*.sqlite3")):
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT sender, state, fee_wei FROM evm_tx").fetchall()
        for sender, state, fee_wei in rows:
            unfinished += state == "open"
            fees[names[sender]] += int(fee_wei or 0)
    return Journalled(open=unfinished, fees_wei=fees)


def table(header: tuple[str, ...], rows: list[tuple[str | int | None, ...]]) -> str:
    """Columns of text: names to the left, figures to the right."""
    lines = [header, *(tuple(map(_cell, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _cell(value: str | int | None) -> str:
    if isinstance(value, int):
        return f"{value:+,}"
    return value or ""
