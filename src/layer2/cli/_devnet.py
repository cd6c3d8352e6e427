"""``layer2 devnet``: a network of real nodes on this machine, to try things out on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layer2.cli._cli import Cli, table
from layer2.cli._command import command

if TYPE_CHECKING:
    from rich.table import Table

    from layer2.devnet import RealNetwork

__all__ = ["app"]

app = typer.Typer(name="devnet", help="A local network of real nodes.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """A local network of real nodes."""


@command(app, "up", settings=False)
def up(
    cli: Cli,
    directory: Annotated[Path | None, typer.Option(help="Where keys, stores and the settings file go.")] = None,
) -> Coroutine[Any, Any, None]:
    """Start btcd, three lnd, anvil and a provider, fund them, and keep them until Ctrl-C.

    The embedded network needs no starting: it lives in the process that uses it (network = "embedded").
    """
    from layer2.devnet import RealNetwork

    return _keep(cli, RealNetwork(directory=directory, progress=cli.step))


async def _keep(cli: Cli, devnet: RealNetwork) -> None:
    async with devnet as network:
        config = await network.client_config()
        file = network.directory / "layer2.toml"
        await asyncio.to_thread(_write, file, config.to_toml())
        value = {
            "event": "ready",
            "config": str(file),
            "bob": {"rpc_url": network.nodes.evm_url, "chain_id": network.nodes.evm_chain_id},
            "lightning": {name: network.nodes.lnd(name).rest_url for name in ("client", "router", "provider")},
            "provider_url": network.provider.url,
            "token": str(network.token.contract),
            "htlc_contract": str(network.contract),
        }
        cli.emit(value, lambda: _endpoints(network))
        cli.say(f"settings for it: {file}")
        cli.say(f"try:  layer2 balance --config {file}")
        cli.say(f"      layer2 transfer bob lightning 100000 --config {file}")
        cli.say("Ctrl-C ends the network and throws its coins away.")
        await asyncio.Event().wait()


def _write(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def _endpoints(network: RealNetwork) -> Table:
    shown = table("The network", "what", "where", "credentials")
    shown.add_row("BOB (anvil)", network.nodes.evm_url, str(network.client.key_file))
    for name in ("client", "router", "provider"):
        lnd = network.nodes.lnd(name)
        shown.add_row(f"lnd {name}", lnd.rest_url, str(lnd.macaroon_path))
    shown.add_row("provider", network.provider.url, "")
    shown.add_row("token (BTC)", str(network.token.contract), "")
    shown.add_row("HTLC contract", str(network.contract), "")
    return shown
