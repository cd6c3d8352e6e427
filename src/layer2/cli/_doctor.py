"""``layer2 doctor``: is everything that is configured there, and as it must be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
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


class State(StrEnum):
    """What became of a check."""

    OK = "ok"
    NOT_SET = "not set"
    """It is not configured, and need not be."""
    NOT_ASKED = "not asked"
    """What it needs is missing or at fault."""
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    text: str
    state: State = State.OK
    hint: str | None = None
    code: ExitCode = ExitCode.OK


_STYLES: Final = {State.OK: "green", State.FAULT: "bold red"}


async def doctor(cli: Cli) -> ExitCode:
    """Check settings, store, nodes, contract, clock and provider, and say what to do about each fault. Changes nothing.

    What is not set is no fault, unless nothing at all could be paid or received without it.
    """
    findings = []
    shown = table("Checks", "what", "", "found")
    with cli.working("checking"):
        async for finding in _examine(cli):
            findings.append(finding)
            hint = f"\n-> {finding.hint}" if finding.hint else ""
            mark = "FAULT" if finding.state is State.FAULT else finding.state.value
            shown.add_row(finding.name, mark, finding.text + hint, style=_STYLES.get(finding.state, "yellow"))
    faults = [finding for finding in findings if finding.state is State.FAULT]
    following = next((f.hint for f in [*faults, *findings] if f.hint is not None), None)
    checks = [
        {"name": f.name, "ok": f.state is not State.FAULT, "state": f.state.value, "found": f.text, "hint": f.hint}
        for f in findings
    ]
    cli.emit({"ok": not faults, "checks": checks, "next": following}, lambda: shown)
    if not faults:
        cli.say("all that is set works")
    if following is not None:
        cli.say(f"next: {following}")
    return min((f.code for f in faults), default=ExitCode.OK)


async def _examine(cli: Cli) -> AsyncIterator[Finding]:
    try:
        config = await asyncio.to_thread(lambda: cli.config)
    except Layer2Error as error:
        yield _fault("settings", error)
        return
    yield Finding(name="settings", text=f"network {config.network}, chain {config.chain_id}")
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
    if config.bob is None and config.lightning is None and not config.is_embedded:
        hint = "fill in [bob], [lightning] or both; layer2 init writes a file with all of them"
        yield _missing("layers", "none is set: there is nothing to pay with", hint, needed=True)
        return
    has_account = config.signer is not None or config.is_embedded
    if config.bob is not None or config.is_embedded:
        if "bob" not in failed:
            bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
            yield await _check("bob", lambda: _chain(bob))
            yield await _check("HTLC contract", lambda: _contract(bob))
            if has_account:
                yield await _check("account", lambda: _account(bob))
        if not has_account:
            hint = (
                "layer2 keystore new makes a key and shows the [signer] section for it; the account needs ETH for gas"
            )
            yield _missing("account", "no [signer]: BOB is only read", hint, needed=config.lightning is None)
    else:
        yield _missing("bob", "no [bob]", "add [bob] and [signer] to move value between BOB and Lightning")
    if config.lightning is not None or config.is_embedded:
        if "lightning" not in failed:
            yield await _check("lightning", lambda: _lightning(manager))
    else:
        yield _missing(
            "lightning",
            "no [lightning]: invoices of others can be paid, and others can pay",
            "add it to use an lnd of your own",
        )
    yield await _examine_provider(
        config, manager, able=not failed and has_account and "bob" in manager.health().protocols
    )


async def _examine_provider(config: Layer2Config, manager: Layer2Manager, *, able: bool) -> Finding:
    if config.swap.provider_url is None and not config.is_embedded:
        hint = "set swap.provider_url to a provider that you choose, or run one: layer2 provider serve"
        return _missing("provider", "no swap.provider_url: no transfers between layers", hint)
    if not able:
        return Finding(
            name="provider", text="it needs BOB, an account and every layer that is set", state=State.NOT_ASKED
        )
    return await _check("provider", lambda: _provider(manager))


def _missing(name: str, text: str, hint: str, *, needed: bool = False) -> Finding:
    if needed:
        return Finding(name=name, text=text, hint=hint, state=State.FAULT, code=ExitCode.CONFIGURATION)
    return Finding(name=name, text=text, hint=hint, state=State.NOT_SET)


async def _check(name: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(name=name, text=await look())
    except Layer2Error as error:
        return _fault(name, error)


def _fault(name: str, error: Layer2Error) -> Finding:
    return Finding(name=name, text=error.message, hint=error.hint, state=State.FAULT, code=code_for(error))


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
