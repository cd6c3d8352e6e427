"""``layer2 transfers``: list, show, resume; and ``layer2 run``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from layer2 import NotFound, ProofError, Transfer, TransferState, ValidationError
from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.cli._exit import ExitCode
from layer2.cli._follow import finish
from layer2.cli._proof_files import ProofFiles, check_place, write_proof
from layer2.cli._session import GONE, driver, reader, unfinished
from layer2.cli._text import utc
from layer2.cli._views import event_json, state_line, transfer_json, transfer_table, transfers_table
from layer2.connect import token_of
from layer2.transfers import read_transfers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from layer2.proofs import TransferProof

__all__ = ["add_run_to", "app"]


class _OrList(TyperGroup):
    """A group that lists where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command that is meant."""
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        # Completion parses without meaning to run: there the commands are what is asked for.
        return super().parse_args(ctx, args if named or ctx.resilient_parsing else ["list", *args])


app = typer.Typer(name="transfers", cls=_OrList, help="List, show and go on with transfers; alone, it lists.")


def add_run_to(parent: typer.Typer) -> None:
    """Add ``run``, which stands at the top."""
    command(parent, "run")(run)


@command(app, "list")
async def list_transfers(
    cli: Cli,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option(help="Only those older than this one.")] = None,
) -> None:
    """List transfers, newest first. Works beside a running service."""
    wanted = None
    if state is not None:
        if state not in set(TransferState):
            raise ValidationError(f"{state} is no state", field="state", hint=f"one of {', '.join(TransferState)}")
        wanted = TransferState(state)
    async with read_transfers(cli.config) as transfers:
        found = await transfers.page(state=wanted, limit=limit, after=after)
    if not found:
        forgets = ": the embedded network forgets them when a command ends" if cli.config.is_embedded else ""
        cli.say(f"no transfers{forgets}")
        cli.emit([])
        return
    cli.emit([transfer_json(transfer) for transfer in found], lambda: transfers_table(found))


@command(app, "show")
async def show(
    cli: Cli,
    transfer_id: Annotated[str, typer.Argument(metavar="ID")],
    proof: Annotated[
        Path | None, typer.Option(help="Write the proof of a settled transfer to this file; asks your endpoint.")
    ] = None,
) -> None:
    """Show one transfer and its history. Works beside a running service."""
    if proof is not None:
        await check_place(proof)
    async with read_transfers(cli.config) as transfers:
        transfer = await transfers.get(transfer_id)
        events = [event async for event in transfers.transfer_events(transfer_id)]
        files = None if proof is None else await _write_kept(cli, transfers.proof, transfer, proof)
    value = {**transfer_json(transfer), "events": [event_json(event) for event in events]}
    if files is not None:
        value["proof_file"] = str(files.proof)
    cli.emit(value, lambda: transfer_table(transfer))
    for event in events:
        reason = f": {event.reason}" if event.reason else ""
        cli.say(f"  {utc(event.at_ms // 1000)}  {state_line(event.state)}{reason}")
    if transfer.state is TransferState.AWAITING_PAYMENT and transfer.invoice is not None:
        cli.say(f"invoice to be paid: {transfer.invoice}")
    if files is not None:
        cli.say(f"proof: {files.proof}; check it with: layer2 proof verify {files.proof}")


async def _write_kept(
    cli: Cli, proof_of: Callable[[str], Awaitable[TransferProof]], transfer: Transfer, path: Path
) -> ProofFiles:
    """Write the proof that the store has, if the chain still has its blocks."""
    config = cli.config
    if config.is_embedded:
        raise NotFound(f"no proof of transfer {transfer.id} can be checked any more: {GONE}")
    try:
        proof = await proof_of(transfer.id)
        async with reader(cli, config.with_changes(lightning=None, signer=None)) as (manager, _):
            with cli.working("checking the proof"):
                return await write_proof(manager, proof, path, decimals=token_of(config).decimals)
    except (NotFound, ProofError) as error:
        error.hint = f"layer2 transfers resume {transfer.id} makes it, once the transfer is settled"
        raise


@command(app, "resume")
async def resume(
    cli: Cli,
    transfer_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one's outcome.")] = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="Stay until nothing is unfinished.")] = False,
) -> ExitCode:
    """Take up what is unfinished: all of it is looked at and driven; without --until-done, for as long as a step takes."""
    async with driver(cli) as manager:
        if transfer_id is not None:
            transfer = await manager.get_transfer_async(transfer_id)
            decided = transfer.state.is_final
            while until_done or decided:
                await finish(cli, transfer)
                transfer = await manager.get_transfer_async(transfer_id)
                if transfer.state.is_final:
                    break  # else a reorganisation has taken the last step back meanwhile
            return await _report(cli, [transfer])
        waiting = await unfinished(manager)
        if until_done:
            with cli.working(f"{len(waiting)} unfinished"):
                await manager.wait_idle_async()
        return await _report(cli, [await manager.get_transfer_async(transfer.id) for transfer in waiting])


async def _report(cli: Cli, transfers: list[Transfer]) -> ExitCode:
    if not transfers:
        cli.say("nothing is unfinished")
        cli.emit([])
        return ExitCode.OK
    cli.emit([transfer_json(transfer) for transfer in transfers], lambda: transfers_table(transfers))
    states = {transfer.state for transfer in transfers}
    if any(not state.is_final for state in states):
        return ExitCode.UNFINISHED
    if TransferState.REFUNDED in states:
        return ExitCode.REFUNDED
    return ExitCode.REFUSED if TransferState.EXPIRED in states else ExitCode.OK


async def run(cli: Cli) -> None:
    """Drive what is unfinished, and whatever comes, until it is stopped."""
    lost = asyncio.Event()
    async with driver(cli) as manager:

        def show_event(event: object) -> None:
            code, message = getattr(event, "code", ""), getattr(event, "message", "")
            cli.emit({"event": str(code), "message": str(message)})
            cli.say(str(message))
            if code == "swap.store_lost":
                lost.set()

        stop = manager.on_event(show_event)
        try:
            count = len(await unfinished(manager))
            cli.emit({"event": "ready", "unfinished": count})
            end = GONE if cli.config.is_embedded else "what is unfinished goes on next time"
            cli.say(f"running; {count} unfinished. Ctrl-C stops it: {end}.")
            await lost.wait()
            # Raises what a supervisor can act on: another process goes on with them.
            await manager.wait_idle_async()
        finally:
            stop()
