"""``layer2 invoice``: create, decode, look up, watch."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from layer2 import InvoiceError, Layer2ProtocolType, SystemClock, ValidationError
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode
from layer2.cli._session import reader
from layer2.cli._text import clean, msat, utc
from layer2.lightning import InvoiceRecord, InvoiceState, decode_invoice

if TYPE_CHECKING:
    from rich.table import Table

    from layer2 import Layer2Config
    from layer2.lightning import Invoice

__all__ = ["app"]

app = typer.Typer(name="invoice", help="Make, read and watch Lightning invoices.", no_args_is_help=True)


def _lightning_only(config: Layer2Config) -> Layer2Config:
    return config if config.is_embedded else config.with_changes(bob=None, signer=None)


@command(app, "decode", settings=False)
def decode(cli: Cli, text: Annotated[str, typer.Argument(metavar="INVOICE")]) -> None:
    """Check an invoice's checksum and signature and show what it says. Asks nobody."""
    invoice = decode_invoice(text)
    expired = invoice.is_expired(SystemClock().now_ms() // 1000)
    value = {**json.loads(invoice.to_json()), "expires_at": invoice.expires_at, "expired": expired}
    cli.emit(value, lambda: _invoice_table(invoice, expired=expired))


def _invoice_table(invoice: Invoice, *, expired: bool) -> Table:
    shown = table("Invoice", "", "")
    shown.add_row("network", invoice.network)
    shown.add_row("amount", "any" if invoice.amount_msat is None else msat(invoice.amount_msat))
    if invoice.description is not None:
        shown.add_row("description", clean(invoice.description))
    if invoice.description_hash is not None:
        shown.add_row("description hash", invoice.description_hash.hex())
    shown.add_row("payee", invoice.payee.hex())
    shown.add_row("payment hash", invoice.payment_hash.hex())
    shown.add_row("made", utc(invoice.timestamp) if invoice.timestamp < 2**37 else str(invoice.timestamp))
    expires = utc(invoice.expires_at) if invoice.expires_at < 2**37 else f"{invoice.expiry_s} s after it was made"
    shown.add_row("expires", f"{expires}{' (EXPIRED)' if expired else ''}")
    shown.add_row("final CLTV delta", f"{invoice.min_final_cltv_delta} blocks")
    shown.add_row("features", ", ".join(map(str, invoice.features)) or "none")
    shown.add_row("route hints", str(len(invoice.route_hints)))
    return shown


@command(app, "create")
async def create(
    cli: Cli,
    amount: Annotated[int, typer.Argument(help="Satoshi; 0 leaves it to the payer.", min=0)],
    memo: Annotated[str, typer.Option(help="What the payer is shown.")] = "",
    expiry: Annotated[int, typer.Option(help="Seconds until it expires.", min=1)] = 3600,
) -> None:
    """Make an invoice on your Lightning node."""
    async with reader(cli, _lightning_only(cli.config)) as (manager, _):
        lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
        with cli.working("making the invoice"):
            record = await lightning.create_invoice_async(amount_msat=amount * 1000, memo=memo, expiry_s=expiry)
    cli.emit({"invoice": record.text, **_record_json(record)})
    cli.say(record.text)
    cli.say(f"payment hash {record.payment_hash.hex()}, expires {utc(record.expires_at)}")


@command(app, "lookup")
async def lookup(
    cli: Cli, which: Annotated[str, typer.Argument(metavar="HASH|INVOICE", help="Payment hash, or the invoice.")]
) -> None:
    """Show how an invoice of your node stands."""
    payment_hash = _payment_hash(which)
    async with reader(cli, _lightning_only(cli.config)) as (manager, _):
        lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
        with cli.working("looking up the invoice"):
            record = await lightning.lookup_invoice_async(payment_hash)
    cli.emit(_record_json(record), lambda: _record_table(record))


@command(app, "watch")
async def watch(
    cli: Cli, which: Annotated[str, typer.Argument(metavar="HASH|INVOICE", help="Payment hash, or the invoice.")]
) -> ExitCode:
    """Follow an invoice of your node until it is paid or can never be; with --json a line for each change."""
    payment_hash = _payment_hash(which)
    async with reader(cli, _lightning_only(cli.config)) as (manager, _):
        lightning = await manager.get_protocol_async(Layer2ProtocolType.LIGHTNING)
        record = await lightning.lookup_invoice_async(payment_hash)
        async with aclosing(lightning.watch_invoice_async(payment_hash)) as records:
            async for record in records:
                cli.emit(_record_json(record))
                cli.say(f"{record.state.value}: {msat(record.received_msat)} received")
    return ExitCode.OK if record.state is InvoiceState.SETTLED else ExitCode.REFUSED


def _payment_hash(text: str) -> bytes:
    plain = text.strip().lower()
    if plain.startswith("ln"):
        try:
            return decode_invoice(plain).payment_hash
        except InvoiceError as error:
            error.field = "which"
            raise
    try:
        payment_hash = bytes.fromhex(plain)
    except ValueError:
        payment_hash = b""
    if len(payment_hash) != 32:
        raise ValidationError("give a payment hash (64 hexadecimal digits) or the invoice", field="which")
    return payment_hash


def _record_json(record: InvoiceRecord) -> dict[str, object]:
    return {
        "payment_hash": record.payment_hash.hex(),
        "state": record.state.value,
        "amount_msat": str(record.amount_msat),
        "received_msat": str(record.received_msat),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "hold": record.is_hold,
    }


def _record_table(record: InvoiceRecord) -> Table:
    shown = table(None, "", "")
    shown.add_row("payment hash", record.payment_hash.hex())
    shown.add_row("state", record.state.value)
    shown.add_row("asked", msat(record.amount_msat) if record.amount_msat else "any")
    shown.add_row("received", msat(record.received_msat))
    shown.add_row("expires", utc(record.expires_at))
    return shown
