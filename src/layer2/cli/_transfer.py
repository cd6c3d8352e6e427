"""``layer2 transfer``: move value from one layer to another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from layer2 import BTC, Layer2ProtocolType, Transfer, ValidationError
from layer2.assets import check_amount
from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.cli._confirm import confirm
from layer2.cli._exit import ExitCode
from layer2.cli._follow import begun, finish
from layer2.cli._proof_files import check_place, write_proof
from layer2.cli._session import GONE, writer
from layer2.cli._text import sat, utc
from layer2.cli._views import quote_json, quote_table, transfer_json
from layer2.connect import token_of
from layer2.transfers import read_transfers

if TYPE_CHECKING:
    from layer2 import Layer2Manager, TransferProof
    from layer2.transfers import Payer

__all__ = ["add_to"]

_AGAIN: Final = "the same command again begins another transfer"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "transfer")(transfer)


async def transfer(
    cli: Cli,
    source: Annotated[str, typer.Argument(help="bob or lightning")],
    destination: Annotated[str, typer.Argument(help="lightning or bob")],
    amount: Annotated[int, typer.Argument(help="Satoshi that are to arrive.")],
    recipient: Annotated[
        str | None, typer.Option("--to", help="Invoice, Lightning address, LNURL or account; yourself if left out.")
    ] = None,
    max_fee: Annotated[int | None, typer.Option(help="Most satoshi for provider and routing.", min=0)] = None,
    anyone: Annotated[bool, typer.Option("--anyone", help="Show an invoice that anyone may pay.")] = False,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same one never begins a second transfer.")
    ] = None,
    proof: Annotated[Path | None, typer.Option(help="Write the proof to this file.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait; the transfer goes on after them.")] = None,
    quote_only: Annotated[bool, typer.Option("--quote", help="Show the price and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> ExitCode:
    """Move satoshi from one layer to the other, and prove it."""
    payer: Payer = "anyone" if anyone else "self"
    check_amount(amount)
    _check_layers(source, destination)
    _check_timeout(timeout)
    if proof is not None:
        await check_place(proof)
    async with writer(cli) as manager:
        known = None if key is None or quote_only else await _begun_under(cli, key)
        if known is None:
            with cli.working("asking for the price"):
                quote = await manager.quote_cross_layer_transfer_async(
                    BTC, amount, source, destination, recipient=recipient, max_fee=max_fee, payer=payer
                )
            if quote_only:
                cli.emit(quote_json(quote), lambda: quote_table(quote))
                return ExitCode.OK
            cli.emit_people(lambda: quote_table(quote))
            question = f"Move {sat(amount)} from {source} to {destination} for at most {sat(quote.fee)} and gas?"
            if not await asyncio.to_thread(confirm, cli, question, yes=yes):
                cli.say("nothing was sent")
                return ExitCode.REFUSED
        else:
            cli.step(f"{key} is the key of a transfer begun at {utc(known.created_at_ms // 1000)}: it is followed")
        moved = await manager.start_cross_layer_transfer_async(
            BTC, amount, source, destination, recipient=recipient, max_fee=max_fee, idempotency_key=key, payer=payer
        )
        cli.go_on_unread(f"transfer {moved.id} goes on")
        _announce(cli, moved, anyone=anyone)
        resume, held = f"layer2 transfers resume {moved.id} --until-done", key
        if cli.config.is_embedded:
            resume, held = GONE, None
        with begun(f"{resume}; {_AGAIN}", key=held), cli.working("moving"):
            found = await finish(cli, moved, timeout_s=timeout, stream=True)
        written = GONE if cli.config.is_embedded else f"layer2 transfers show {moved.id} --proof FILE"
        with begun(f"it is settled; for its proof: {written}; {_AGAIN}", key=held):
            await _finish(cli, manager, moved, found, proof)
    return ExitCode.OK


async def _begun_under(cli: Cli, key: str) -> Transfer | None:
    """The key's transfer, which has its price and its consent: it needs neither the provider nor anybody to confirm it."""
    async with read_transfers(cli.config) as transfers:
        return await transfers.by_key(key)


async def _finish(cli: Cli, manager: Layer2Manager, moved: Transfer, found: TransferProof, proof: Path | None) -> None:
    files = None
    if proof is not None:
        files = await write_proof(manager, found, proof, decimals=token_of(cli.config).decimals)
    result = await manager.get_transfer_async(moved.id)
    cli.emit({"transfer": transfer_json(result), "proof_file": None if files is None else str(files.proof)})
    cli.say(f"settled: {sat(result.quote.amount)} arrived on {result.quote.destination}", style="bold green")
    if files is not None:
        cli.say(f"proof: {files.proof}; check it with: layer2 proof verify {files.proof}")


def _check_timeout(timeout_s: float | None) -> None:
    """Before anything is begun."""
    if timeout_s is not None and not timeout_s >= 0:  # NaN compares with nothing
        raise ValidationError(f"timeout must be seconds, 0 or more, not {timeout_s}", field="--timeout")


def _check_layers(source: str, destination: str) -> None:
    """Before anything is connected."""
    known = [kind.value for kind in Layer2ProtocolType]
    for name, layer in (("source", source), ("destination", destination)):
        if layer not in known:
            raise ValidationError(f"{layer!r:.40} is no layer", field=name, hint=f"one of {', '.join(known)}")
    if source == destination:
        raise ValidationError("source and destination are the same layer", field="destination", hint="use: layer2 pay")


def _announce(cli: Cli, transfer: Transfer, *, anyone: bool) -> None:
    shown = transfer_json(transfer)
    if anyone:
        shown["invoice"] = transfer.invoice
    if cli.json_output:
        cli.emit({"begun": shown})
    cli.say(f"transfer {transfer.id}")
    if anyone:
        cli.say(f"invoice: {transfer.invoice}")
