"""``layer2 contract``: deploy the HTLC contract, and check that it is what it must be."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from layer2 import EvmAddress, Layer2ProtocolType
from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.cli._confirm import confirm
from layer2.cli._exit import ExitCode
from layer2.cli._session import reader, writer
from layer2.evm import HTLC_ADDRESS, Deployment, check_htlc, deploy_htlc

__all__ = ["app"]

app = typer.Typer(name="contract", help="The HTLC contract on BOB.", no_args_is_help=True)


@command(app, "check")
async def check(
    cli: Cli, address: Annotated[str | None, typer.Argument(help="Where, if not where it is on every chain.")] = None
) -> None:
    """Check that the contract stands there with just the code that this version knows."""
    config = cli.config
    configured = None if config.bob is None else config.bob.htlc_contract
    where = EvmAddress.parse(address) if address is not None else configured or HTLC_ADDRESS
    if not config.is_embedded:
        config = config.with_changes(lightning=None, signer=None)
    async with reader(cli, config) as (manager, _):
        bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
        with cli.working("reading the contract"):
            found = await check_htlc(bob.rpc, where)
        chain_id = bob.chain_id
    _show(cli, found, chain_id)


@command(app, "deploy")
async def deploy(cli: Cli, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> ExitCode:
    """Deploy the contract if it is not there. It takes ETH for gas and gives nobody any right over it."""
    config = cli.config if cli.config.is_embedded else cli.config.with_changes(lightning=None)
    async with writer(cli, config) as manager:
        bob = await manager.get_protocol_async(Layer2ProtocolType.BOB)
        question = f"Deploy to chain {bob.chain_id} from {bob.account}?"
        if not await bob.rpc.code(HTLC_ADDRESS) and not await asyncio.to_thread(confirm, cli, question, yes=yes):
            cli.say("nothing was sent")
            return ExitCode.REFUSED
        with cli.working("deploying"):
            found = await deploy_htlc(bob.rpc, bob.sender)
        _show(cli, found, bob.chain_id)
    return ExitCode.OK


def _show(cli: Cli, found: Deployment, chain_id: int) -> None:
    tx_id = None if found.tx_hash is None else f"0x{found.tx_hash.hex()}"
    value = {
        "chain_id": chain_id,
        "address": str(found.address),
        "code_hash": f"0x{found.code_hash.hex()}",
        "transaction": tx_id,
    }
    cli.emit(value)
    cli.say(f"the HTLC contract stands at {found.address} on chain {chain_id}, code hash 0x{found.code_hash.hex()}")
    if tx_id is not None:
        cli.say(f"deployed by {tx_id}")
