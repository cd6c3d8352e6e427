"""From lnd's JSON to records: 64-bit numbers are strings, bytes are base64 except in payments, zero values stand for nothing."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from layer2._crypto import sha256
from layer2.errors import UnexpectedReply
from layer2.lightning._node import HeldHtlc, InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState

__all__ = ["invoice_record", "invoice_terms", "node_info", "payment_record"]

_PAYMENT_STATES: Final = {
    "INITIATED": PaymentState.IN_FLIGHT,
    "IN_FLIGHT": PaymentState.IN_FLIGHT,
    "SUCCEEDED": PaymentState.SUCCEEDED,
    "FAILED": PaymentState.FAILED,
}
_REASON_PREFIX: Final = "FAILURE_REASON_"


def node_info(info: dict[str, Any], balance: dict[str, Any]) -> NodeInfo:
    """From ``getinfo`` and ``balance/channels``."""
    try:
        chains = info["chains"]
        return NodeInfo(
            node_id=bytes.fromhex(info["identity_pubkey"]),
            alias=str(info["alias"]),
            network=str(chains[0]["network"]),
            block_height=int(info["block_height"]),
            synced_to_chain=info["synced_to_chain"] is True,
            version=str(info["version"]).split(" ")[0],
            spendable_msat=int(balance["local_balance"]["msat"]),
            receivable_msat=int(balance["remote_balance"]["msat"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise UnexpectedReply("lnd's information about itself has another shape than expected") from exc


def payment_record(payment: dict[str, Any]) -> PaymentRecord:
    """From a ``lnrpc.Payment``. A preimage is believed only if it is that of the hash.

    Raises:
        UnexpectedReply: another shape, a state that is not known, or SUCCEEDED without the preimage.
    """
    try:
        payment_hash = bytes.fromhex(payment["payment_hash"])
        state = _PAYMENT_STATES[payment["status"]]
        htlcs = payment.get("htlcs", [])
        in_flight = [htlc["route"] for htlc in htlcs if htlc["status"] == "IN_FLIGHT"]
        preimage = bytes.fromhex(payment["payment_preimage"]) if state is PaymentState.SUCCEEDED else None
        if preimage is not None and sha256(preimage) != payment_hash:
            raise UnexpectedReply("lnd says that a payment succeeded, with a preimage that is not the hash's")
        reason = str(payment.get("failure_reason", "")).removeprefix(_REASON_PREFIX).lower()
        return PaymentRecord(
            payment_hash=payment_hash,
            state=state,
            amount_msat=int(payment["value_msat"]),
            fee_msat=int(payment["fee_msat"]),
            preimage=preimage,
            failure_reason=(reason or "error") if state is PaymentState.FAILED else None,
            highest_expiry_height=max((int(route["total_time_lock"]) for route in in_flight), default=None),
            in_flight_msat=sum(int(route.get("total_amt_msat", 0)) for route in in_flight),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UnexpectedReply("lnd's record of a payment has another shape than expected") from exc


def invoice_record(invoice: dict[str, Any]) -> InvoiceRecord:
    """From a ``lnrpc.Invoice``. lnd marks hold invoices only by not having the preimage, so that is known until they are settled.

    Raises:
        UnexpectedReply: another shape, or a state that is not known.
    """
    try:
        state = InvoiceState(str(invoice["state"]).lower())
        created_at = int(invoice["creation_date"])
        preimage = _bytes(invoice.get("r_preimage"))
        htlcs = tuple(
            HeldHtlc(
                amount_msat=int(htlc["amt_msat"]),
                expiry_height=int(htlc["expiry_height"]),
                accept_height=int(htlc["accept_height"]),
            )
            for htlc in invoice.get("htlcs", [])
            if htlc["state"] in ("ACCEPTED", "SETTLED")
        )
        held = sum(htlc.amount_msat for htlc in htlcs) if state is InvoiceState.ACCEPTED else 0
        return InvoiceRecord(
            payment_hash=_bytes(invoice["r_hash"]) or b"",
            text=str(invoice["payment_request"]),
            state=state,
            amount_msat=int(invoice["value_msat"]),
            received_msat=held or int(invoice["amt_paid_msat"]),
            created_at=created_at,
            expires_at=created_at + int(invoice["expiry"]),
            is_hold=preimage is None,
            htlcs=htlcs,
            preimage=preimage,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UnexpectedReply("lnd's record of an invoice has another shape than expected") from exc


def invoice_terms(invoice: dict[str, Any]) -> tuple[object, ...]:
    """What two requests for the same invoice must agree on: amount, memo, description hash, expiry, CLTV delta."""
    try:
        return (
            int(invoice["value_msat"]),
            str(invoice["memo"]),
            _bytes(invoice.get("description_hash")) or b"",
            int(invoice["expiry"]),
            int(invoice["cltv_expiry"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UnexpectedReply("lnd's record of an invoice has another shape than expected") from exc


def _bytes(text: object) -> bytes | None:
    """Standard base64; nothing and all zeros mean that there is none."""
    if not text:
        return None
    if not isinstance(text, str):
        raise TypeError("base64 is text")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    return data if any(data) else None
