"""Transfers, quotes and events as JSON and as tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from layer2 import Layer2ProtocolType, Transfer, TransferEvent, TransferQuote, TransferState
from layer2.cli._cli import table
from layer2.cli._text import clean, ether, sat, utc

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "event_json",
    "event_line",
    "quote_json",
    "quote_table",
    "state_line",
    "transfer_json",
    "transfer_table",
    "transfers_table",
]

_MEANING = {
    TransferState.AGREED: "terms are signed; nothing was sent",
    TransferState.AWAITING_PAYMENT: "the invoice waits to be paid",
    TransferState.PAYING: "the Lightning payment is under way",
    TransferState.LOCKING: "the lock is being included",
    TransferState.LOCKED: "the lock stands; the provider is to pay",
    TransferState.CLAIMING: "the preimage is out; the claim is being included",
    TransferState.SETTLED: "settled",
    TransferState.REFUNDING: "the money is on its way back",
    TransferState.REFUNDED: "the money is back, less gas",
    TransferState.EXPIRED: "ended before anything was bound",
    TransferState.NEEDS_ATTENTION: "somebody must look at it",
}


def quote_json(quote: TransferQuote) -> dict[str, Any]:
    """The quote; amounts as decimal strings."""
    value: dict[str, Any] = json.loads(quote.to_json())
    return value


def transfer_json(transfer: Transfer) -> dict[str, Any]:
    """A transfer. Its invoice stands in it only while somebody has to be shown it."""
    waits = transfer.state is TransferState.AWAITING_PAYMENT
    return {
        "id": transfer.id,
        "state": transfer.state.value,
        "final": transfer.state.is_final,
        "reason": transfer.reason,
        "source": transfer.quote.source,
        "destination": transfer.quote.destination,
        "asset": transfer.quote.asset.name,
        "amount": str(transfer.quote.amount),
        "fee": str(transfer.quote.fee),
        "token": str(transfer.quote.token),
        "invoice": transfer.invoice if waits else None,
        "created_at_ms": transfer.created_at_ms,
        "updated_at_ms": transfer.updated_at_ms,
        "run_again_by": transfer.act_by,
    }


def event_json(event: TransferEvent) -> dict[str, Any]:
    """One step of a transfer."""
    value: dict[str, Any] = json.loads(event.to_json())
    return value


def event_line(event: TransferEvent) -> str:
    """One step of a transfer, in a sentence."""
    text = _MEANING.get(event.state, event.state.value)
    return f"{text}: {event.reason}" if event.reason else text


def state_line(state: TransferState) -> str:
    """A state's name and, where that says more, its meaning."""
    meaning = _MEANING.get(state, state.value)
    return state.value if meaning == state.value else f"{state.value}: {meaning}"


def quote_table(quote: TransferQuote) -> Table:
    """The price, and what it takes."""
    shown = table(f"{quote.source} -> {quote.destination}", "", "", "", right=("",))
    shown.add_row("arrives", sat(quote.amount), str(quote.asset))
    if quote.rounding_msat:
        shown.add_row("rounding", f"{quote.rounding_msat} msat", "part of the amount above the invoice")
    for fee in quote.fees:
        amount = ether(fee.amount) if fee.coin == "ETH" else sat(fee.amount)
        shown.add_row(f"fee: {fee.name}", amount, "at most" if fee.is_limit else "")
    if all(fee.name != "routing" for fee in quote.fees):
        shown.add_row("fee: routing", sat(0), _who_routes(quote))
    for need in quote.requires:
        amount = ether(need.amount) if need.coin == "ETH" else sat(need.amount)
        shown.add_row(f"needed on {need.layer}", amount, need.coin)
    shown.add_row("takes", f"{quote.seconds_expected} s", f"at worst {quote.seconds_worst} s until a refund is final")
    shown.add_row("depth", f"{quote.depth_policy.depth.name.lower()}", f"{quote.depth_policy.confirmations} block(s)")
    shown.add_row("token", str(quote.token), "")
    shown.add_row("HTLC contract", str(quote.htlc_contract), "")
    shown.add_row("provider", str(quote.provider), "")
    shown.add_row("price holds until", utc(quote.expires_at), "")
    return shown


def _who_routes(quote: TransferQuote) -> str:
    """Why there is no routing fee of our own."""
    if quote.destination == Layer2ProtocolType.LIGHTNING:
        return "the provider pays it out of its fee"
    own_node = any(need.layer == Layer2ProtocolType.LIGHTNING for need in quote.requires)
    return "at most" if own_node else "whoever pays the invoice pays it"


def transfer_table(transfer: Transfer) -> Table:
    """One transfer in full."""
    shown = table(f"Transfer {transfer.id}", "", "")
    shown.add_row("state", state_line(transfer.state))
    if transfer.reason:
        shown.add_row("reason", clean(transfer.reason))
    shown.add_row("from, to", f"{transfer.quote.source} -> {transfer.quote.destination}")
    shown.add_row("amount", sat(transfer.quote.amount))
    shown.add_row("fee", sat(transfer.quote.fee))
    shown.add_row("token", str(transfer.quote.token))
    shown.add_row("begun", utc(transfer.created_at_ms // 1000))
    shown.add_row("last change", utc(transfer.updated_at_ms // 1000))
    shown.add_row("must run again by", "-" if transfer.act_by is None else utc(transfer.act_by))
    return shown


def transfers_table(transfers: list[Transfer]) -> Table:
    """Many transfers, a line each."""
    shown = table(None, "transfer", "from", "to", "amount", "fee", "state", "run again by", right=("amount", "fee"))
    for transfer in transfers:
        quote = transfer.quote
        by = "-" if transfer.act_by is None else utc(transfer.act_by)
        shown.add_row(
            transfer.id, quote.source, quote.destination, sat(quote.amount), sat(quote.fee), transfer.state.value, by
        )
    return shown
