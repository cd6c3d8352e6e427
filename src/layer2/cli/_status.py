"""``layer2 status`` and ``layer2 balance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2 import BTC, ETH, Layer2Error, Layer2ProtocolType, Transfer
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode, code_for
from layer2.cli._session import reader
from layer2.cli._text import btc, ether, msat, utc
from layer2.cli._views import transfer_json
from layer2.transfers import read_transfers

if TYPE_CHECKING:
    import typer
    from rich.table import Table

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "status")(status)
    command(app, "balance")(balance)


async def status(cli: Cli) -> None:
    """Show what is configured and what is unfinished. Asks no node, and works beside a running service."""
    config = cli.config
    async with read_transfers(config) as transfers:
        waiting = await transfers.unfinished()
    deadlines = [transfer.act_by for transfer in waiting if transfer.act_by is not None]
    layers = [
        name
        for name, section in (("bob", config.bob), ("lightning", config.lightning))
        if section is not None or config.is_embedded
    ]
    value = {
        "network": config.network,
        "chain_id": config.chain_id,
        "layers": layers,
        "signer": config.signer is not None or config.is_embedded,
        "provider": config.swap.provider_url is not None or config.is_embedded,
        "unfinished": [transfer_json(transfer) for transfer in waiting],
        "run_again_by": min(deadlines, default=None),
    }

    def settings() -> Table:
        shown = table("Settings", "", "")
        shown.add_row("network", f"{config.network} (chain {config.chain_id})")
        shown.add_row("layers", ", ".join(layers) or "none")
        shown.add_row("account on BOB", "configured" if value["signer"] else "none")
        shown.add_row("swap provider", "configured" if value["provider"] else "none")
        return shown

    cli.emit(value, settings)
    if not layers or not (value["signer"] or value["provider"]):
        cli.say("layer2 doctor says what is missing, and what to do about it")
    if not waiting:
        cli.say("nothing is unfinished")
        return
    cli.emit_people(lambda: _waiting(waiting))
    if deadlines:
        cli.note(f"unless it runs already, layer2 must run again by {utc(min(deadlines))}: layer2 run")


def _waiting(transfers: list[Transfer]) -> Table:
    shown = table("Unfinished: under way, or not final yet", "transfer", "state", "must run again by")
    for transfer in transfers:
        state = f"{transfer.state.value}, not final yet" if transfer.state.is_final else transfer.state.value
        shown.add_row(transfer.id, state, "-" if transfer.act_by is None else utc(transfer.act_by))
    return shown


async def balance(cli: Cli) -> ExitCode:
    """Show what you hold on each layer. Works beside a running service."""
    value: dict[str, dict[str, object]] = {}
    shown = table("Balances", "layer", "what", "amount", "where", right=("amount",))
    async with reader(cli, partly=True) as (manager, failed):
        with cli.working("asking the layers"):
            failures = dict(failed.failures) if failed is not None else {}
            if cli.config.bob is not None or cli.config.is_embedded:
                try:
                    bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
                    held, gas = await bob.balance_async(BTC), await bob.balance_async(ETH)
                    token = bob.registry.form(BTC, bob.chain_id).contract
                    value["bob"] = {
                        "account": str(bob.account),
                        "btc": str(held),
                        "eth_wei": str(gas),
                        "token": str(token),
                    }
                    shown.add_row("bob", "BTC", btc(held), f"token {token}")
                    shown.add_row("bob", "ETH", ether(gas), f"account {bob.account}")
                except Layer2Error as error:
                    failures["bob"] = error
            if cli.config.lightning is not None or cli.config.is_embedded:
                try:
                    lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
                    node = await lightning.node.info()
                    value["lightning"] = {
                        "node_id": node.node_id.hex(),
                        "spendable_msat": str(node.spendable_msat),
                        "receivable_msat": str(node.receivable_msat),
                    }
                    shown.add_row("lightning", "can send", msat(node.spendable_msat), f"node {node.node_id.hex()}")
                    shown.add_row("lightning", "can receive", msat(node.receivable_msat), "")
                except Layer2Error as error:
                    failures["lightning"] = error
    value.update({name: {"error": str(failure)} for name, failure in failures.items()})
    cli.emit(value, lambda: shown)
    for name, failure in failures.items():
        cli.note(f"{name}: {failure}")
    return min((code_for(failure) for failure in failures.values()), default=ExitCode.OK)
