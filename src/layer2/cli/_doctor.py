"""``layer2 doctor``: is everything that is configured there, and as it must be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from layer2 import (
    BTC,
    ETH,
    InsufficientFunds,
    Layer2Config,
    Layer2Error,
    Layer2Manager,
    Layer2ProtocolType,
    NodeNotReady,
    SystemClock,
)
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode, code_for
from layer2.cli._session import reader
from layer2.cli._text import btc, ether, msat
from layer2.evm import check_htlc
from layer2.transfers import read_transfers

if TYPE_CHECKING:
    import typer

    from layer2.bob import BobClient

__all__ = ["add_to"]

_MAX_SKEW_S: Final = 300
"""A chain's head that is further from this machine's clock is old, or the clock is wrong."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", settings=False)(doctor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str
    hint: str | None = None
    code: ExitCode = ExitCode.OK


async def doctor(cli: Cli) -> ExitCode:
    """Check settings, store, nodes, contract, clock and provider, and say what to do about each fault. Changes nothing."""
    findings = []
    shown = table("Checks", "what", "", "found")
    with cli.working("checking"):
        async for finding in _examine(cli):
            findings.append(finding)
            hint = f"\n{finding.hint}" if finding.hint else ""
            style = "green" if finding.ok else "bold red"
            shown.add_row(finding.name, "ok" if finding.ok else "FAULT", finding.text + hint, style=style)
    value = [{"name": f.name, "ok": f.ok, "found": f.text, "hint": f.hint} for f in findings]
    cli.emit({"ok": all(f.ok for f in findings), "checks": value}, lambda: shown)
    return min((f.code for f in findings if not f.ok), default=ExitCode.OK)


async def _examine(cli: Cli) -> AsyncIterator[Finding]:
    try:
        config = await asyncio.to_thread(lambda: cli.config)
    except Layer2Error as error:
        yield _fault("settings", error)
        return
    yield Finding(name="settings", ok=True, text=f"network {config.network}, chain {config.chain_id}")
    yield await _check("store", lambda: _store(config))
    try:
        async with reader(cli, config, partly=True) as (manager, failed):
            failures = {} if failed is None else failed.failures
            for name, failure in sorted(failures.items()):
                yield _fault(name, failure)
            async for finding in _examine_layers(config, manager, set(failures)):
                yield finding
    except Layer2Error as error:
        yield _fault("signer", error)


async def _examine_layers(config: Layer2Config, manager: Layer2Manager, failed: set[str]) -> AsyncIterator[Finding]:
    if "bob" not in failed and (config.bob is not None or config.is_embedded):
        bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
        yield await _check("bob", lambda: _chain(bob))
        yield await _check("HTLC contract", lambda: _contract(bob))
        if config.signer is not None or config.is_embedded:
            yield await _check("account", lambda: _account(bob))
        else:
            text = "no [signer]: this configuration only reads BOB"
            yield Finding(name="account", ok=True, text=text)
    if "lightning" not in failed and (config.lightning is not None or config.is_embedded):
        yield await _check("lightning", lambda: _lightning(manager))
    if config.swap.provider_url is not None and not failed and config.signer is not None:
        yield await _check("provider", lambda: _provider(manager))
    elif not config.is_embedded:
        yield Finding(
            name="provider", ok=True, text="not asked: no swap.provider_url, or a layer or the signer is missing"
        )


async def _check(name: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(name=name, ok=True, text=await look())
    except Layer2Error as error:
        return _fault(name, error)


def _fault(name: str, error: Layer2Error) -> Finding:
    return Finding(name=name, ok=False, text=error.message, hint=error.hint, code=code_for(error))


async def _store(config: Layer2Config) -> str:
    async with read_transfers(config) as transfers:
        waiting = await transfers.unfinished()
    return f"{len(waiting)} transfer(s) unfinished"


async def _chain(bob: BobClient) -> str:
    head = await bob.rpc.header()
    if head is None:
        raise NodeNotReady("the endpoint has no block")
    skew = SystemClock().now_ms() // 1000 - head.timestamp
    if abs(skew) > _MAX_SKEW_S:
        raise NodeNotReady(
            f"the chain's head is {skew} seconds from this machine's clock",
            hint="set the clock, or choose an endpoint that follows the chain",
        )
    return f"chain {bob.chain_id}, block {head.number}, {skew} s ago"


async def _contract(bob: BobClient) -> str:
    return f"{(await check_htlc(bob.rpc, bob.htlc_contract)).address} has the code that it must have"


async def _account(bob: BobClient) -> str:
    held, gas = await bob.balance_async(BTC), await bob.balance_async(ETH)
    if gas == 0:
        raise InsufficientFunds(
            f"{bob.account} holds no ETH", hint="it needs some for gas, to claim and refund", coin="ETH", available=0
        )
    return f"{bob.account} holds {btc(held)} BTC and {ether(gas)}"


async def _lightning(manager: Layer2Manager) -> str:
    lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
    node = await lightning.node.info()
    return (
        f"node {node.node_id.hex()} on {node.network}, block {node.block_height}, "
        f"can send {msat(node.spendable_msat)} and receive {msat(node.receivable_msat)}"
    )


async def _provider(manager: Layer2Manager) -> str:
    quote = await manager.quote_cross_layer_transfer_async(
        BTC,
        100_000,
        Layer2ProtocolType.LIGHTNING,
        Layer2ProtocolType.BOB,
        payer="anyone",
    )
    return f"{quote.provider} asks {quote.fee} satoshi for 100,000 to BOB"
