"""``layer2 demo``: value crosses both ways, each crossing is proved, and each proof verified offline."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from layer2 import BTC, ETH, Layer2ProtocolType, SystemClock
from layer2.cli._cli import Cli, program, table
from layer2.cli._command import command
from layer2.cli._demo_stage import Stage, embedded_stage, real_stage
from layer2.cli._exit import ExitCode
from layer2.cli._follow import finish
from layer2.cli._proof import verify_file
from layer2.cli._proof_files import write_proof
from layer2.cli._text import btc, ether, msat, sat

if TYPE_CHECKING:
    from rich.table import Table

    from layer2 import Layer2Manager, TransferQuote

__all__ = ["add_to"]

AMOUNT: Final = 100_000
PRICE_MSAT: Final = 25_000_500
"""Of what the third party sells; not a whole number of satoshi, to show the rounding."""
BOB, LIGHTNING = Layer2ProtocolType.BOB, Layer2ProtocolType.LIGHTNING


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", settings=False)(demo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balances:
    """What the user holds on both layers."""

    bob_sat: int
    gas_wei: int
    lightning_msat: int
    token: str
    """The contract that BTC is on BOB."""

    def as_json(self) -> dict[str, str]:
        """As decimal strings."""
        return {
            "bob_btc": str(self.bob_sat),
            "token": self.token,
            "bob_eth_wei": str(self.gas_wei),
            "lightning_msat": str(self.lightning_msat),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One of the transfers."""

    name: str
    title: str
    source: Layer2ProtocolType
    destination: Layer2ProtocolType
    amount: int
    recipient: str | None = None


def demo(
    cli: Cli,
    real: Annotated[bool, typer.Option("--real", help="On real nodes: btcd, three lnd, anvil.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the proofs.")] = Path("layer2-demo"),
) -> Coroutine[Any, Any, ExitCode]:
    """Move satoshi from BOB to Lightning and back, pay a third party, prove all of it. Nothing of value is touched."""
    return _perform(cli, real_stage(cli) if real else embedded_stage(cli), out)


async def _perform(cli: Cli, entering: AbstractAsyncContextManager[Stage], out: Path) -> ExitCode:
    async with entering as stage:
        for line in stage.real:
            cli.say(f"real:       {line}")
        for line in stage.simulated:
            cli.say(f"SIMULATED:  {line}")
        before = await _balances(stage.manager)
        cli.emit_people(lambda: _balance_table("Before", before, None))
        transfers = [await _play(cli, stage, act, out) for act in await _acts(stage)]
        with cli.working("waiting until everything is final"):
            await stage.manager.wait_idle_async()
        after = await _balances(stage.manager)
        cli.emit_people(lambda: _balance_table("After", after, before))
    value = {
        "network": "embedded" if stage.simulated else "real",
        "real": stage.real,
        "simulated": stage.simulated,
        "before": before.as_json(),
        "after": after.as_json(),
        "transfers": transfers,
    }
    cli.emit(value)
    cli.say("The nodes are gone. Verify the proofs again, with the network off:")
    for shown in transfers:
        cli.say(f"  {shown['verify']}")
    cli.say("or trust nothing that lies beside them, and name the block and the token yourself:")
    for shown in transfers:
        cli.say(f"  {shown['verify_with_own_anchors']}")
    return ExitCode.OK if all(shown["verified"] for shown in transfers) else ExitCode.NOT_VERIFIED


async def _acts(stage: Stage) -> list[Act]:
    bill = await stage.merchant.create_invoice(amount_msat=PRICE_MSAT, memo="layer2 demo", expiry_s=600)
    return [
        Act(
            name="1-bob-to-lightning",
            title=f"BOB -> Lightning: {sat(AMOUNT)} to your own node",
            source=BOB,
            destination=LIGHTNING,
            amount=AMOUNT,
        ),
        Act(
            name="2-lightning-to-bob",
            title=f"Lightning -> BOB: {sat(AMOUNT)} to your own account",
            source=LIGHTNING,
            destination=BOB,
            amount=AMOUNT,
        ),
        Act(
            name="3-invoice-of-a-third-party",
            title=f"BOB -> Lightning: a third party's invoice over {msat(PRICE_MSAT)}",
            source=BOB,
            destination=LIGHTNING,
            amount=-(-PRICE_MSAT // 1000),
            recipient=bill.text,
        ),
    ]


async def _play(cli: Cli, stage: Stage, act: Act, out: Path) -> dict[str, Any]:
    clock = SystemClock()
    cli.say(act.title, style="bold")
    begun_at = clock.now_ms()
    with cli.working("moving"):
        transfer = await stage.manager.start_cross_layer_transfer_async(
            BTC, act.amount, act.source, act.destination, recipient=act.recipient
        )
        proof = await finish(cli, transfer)
    took_ms = clock.now_ms() - begun_at
    files = await write_proof(stage.manager, proof, out / f"{act.name}.json", decimals=BTC.decimals)
    report = await asyncio.to_thread(verify_file, files.proof)
    done = await stage.manager.get_transfer_async(transfer.id)
    fee = f"the provider's fee is {sat(_charged(done.quote))}; the balances show routing and gas"
    cli.say(f"  settled in {took_ms / 1000:.1f} s; {fee}", style="green")
    words = "verified offline, every check that applies holds" if report.ok else "DOES NOT VERIFY"
    cli.say(f"  proof: {files.proof}, {words}", style="green" if report.ok else "bold red")
    verify = f"{program()} proof verify {shlex.quote(str(files.proof))}"
    own = " ".join(f"--trust-block 0x{block.hash.hex()}" for block in proof.blocks)
    return {
        "id": transfer.id,
        "title": act.title,
        "source": act.source.value,
        "destination": act.destination.value,
        "amount": str(act.amount),
        "fee": str(_charged(done.quote)),
        "milliseconds": took_ms,
        "proof_file": str(files.proof),
        "verified": report.ok,
        "verify": verify,
        "verify_with_own_anchors": f"{verify} {own} --token {proof.terms.lock.token}",
    }


async def _balances(manager: Layer2Manager) -> Balances:
    bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
    lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
    return Balances(
        bob_sat=await bob.balance_async(BTC),
        gas_wei=await bob.balance_async(ETH),
        lightning_msat=(await lightning.node.info()).spendable_msat,
        token=str(bob.registry.form(BTC, bob.chain_id).contract),
    )


def _balance_table(title: str, now: Balances, before: Balances | None) -> Table:
    shown = table(title, "layer", "what", "amount", "change", right=("amount", "change"))
    old = now if before is None else before
    shown.add_row("BOB", f"BTC ({now.token})", btc(now.bob_sat), sat(now.bob_sat - old.bob_sat))
    shown.add_row("BOB", "ETH", ether(now.gas_wei), ether(now.gas_wei - old.gas_wei))
    shown.add_row("Lightning", "can send", msat(now.lightning_msat), msat(now.lightning_msat - old.lightning_msat))
    return shown


def _charged(quote: TransferQuote) -> int:
    """What the provider takes, in the asset's base unit; limits of what others may take are no part of it."""
    return sum(fee.amount for fee in quote.fees if fee.coin == quote.asset.name and not fee.is_limit)
