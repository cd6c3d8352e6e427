"""``layer2 pay``: pay somebody on one layer."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from layer2 import BTC, AmountError, EvmAddress, InvoiceText, Layer2ProtocolType, LightningPayment, parse_address
from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.cli._confirm import confirm
from layer2.cli._exit import ExitCode
from layer2.cli._follow import begun
from layer2.cli._session import writer
from layer2.cli._text import sat
from layer2.lightning import decode_invoice

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "pay")(pay)


async def pay(
    cli: Cli,
    recipient: Annotated[str, typer.Argument(help="Invoice, Lightning address, LNURL, node id, or account on BOB.")],
    amount: Annotated[int | None, typer.Option(help="Satoshi; an invoice may say it itself.", min=1)] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same one never pays twice.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> ExitCode:
    """Pay on the recipient's layer: Lightning from your node, BOB from your account. To pay across, see `layer2 transfer`."""
    address = parse_address(recipient)
    if isinstance(address, InvoiceText):
        said = decode_invoice(address.text).amount_sat
        if said is not None and amount not in (None, said):
            raise AmountError(f"the invoice is over {said} satoshi, not {amount}", field="amount")
        amount = said if said is not None else amount
    if amount is None:
        raise AmountError("say how much", field="amount", hint="--amount SATOSHI")
    layer = Layer2ProtocolType.BOB if isinstance(address, EvmAddress) else Layer2ProtocolType.LIGHTNING
    question = f"Pay {sat(amount)} on {layer.value}?"
    if not await asyncio.to_thread(confirm, cli, question, yes=yes):
        cli.say("nothing was sent")
        return ExitCode.REFUSED
    config = cli.config
    if layer is Layer2ProtocolType.LIGHTNING and not config.is_embedded:
        config = config.with_changes(bob=None, signer=None)
    async with writer(cli, config) as manager:
        protocol = await manager.get_protocol_async(str(layer))
        cli.go_on_unread("the payment goes on")
        with cli.working("paying"):
            if isinstance(address, InvoiceText) and decode_invoice(address.text).amount_msat is not None:
                payment = LightningPayment(invoice=address.text, idempotency_key=key)
                status = await protocol.submit_transaction_async(payment, timeout=None)
                tx_id = status.tx_id
            else:
                tx_id = await protocol.transfer_asset_async(BTC, amount, address, idempotency_key=key, timeout=None)
                with begun(f"look for {tx_id} at your node first: the same command again pays a second time", key=key):
                    status = await protocol.wait_for_transaction_async(tx_id)
    cli.emit({"tx_id": str(tx_id), "outcome": status.outcome.value, "depth": status.depth.name.lower()})
    cli.say(f"{status.outcome.value}: {tx_id}" + (f" ({status.reason})" if status.reason else ""))
    if status.succeeded:
        return ExitCode.OK
    return ExitCode.REFUSED if status.failed else ExitCode.UNFINISHED
