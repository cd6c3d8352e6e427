"""What is checked before a payment, what limits it gets, and what its record means: no input, no output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from layer2.assets import BTC, AssetId
from layer2.errors import (
    AmountError,
    AssetError,
    Expired,
    InsufficientFunds,
    InvoiceError,
    Layer2Error,
    NoRoute,
    PaymentFailed,
)
from layer2.lightning._invoice import PREFIXES, Feature, Invoice
from layer2.lightning._node import NodeInfo, PaymentRecord, PaymentState
from layer2.transactions import Depth, LightningPayment, Outcome, TxId, TxStatus

__all__ = [
    "LAYER",
    "PaymentLimits",
    "check_asset",
    "check_payable",
    "failure_of",
    "limits_of",
    "payment_msat",
    "same_network",
    "status_of",
    "tx_id_of",
]

LAYER: Final = "lightning"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLimits:
    """Limits of a payment that names none of its own."""

    fee_ppm: int = 10_000
    """Millionths of the amount that routing may cost; added to ``fee_base_msat``."""
    fee_base_msat: int = 500_000
    cltv_limit: int = 1_008
    """Longest total time lock of a route, in blocks."""
    time_limit_s: int = 60
    """For how long new attempts are started."""
    min_remaining_s: int = 10
    """An invoice that expires sooner is not paid: it could expire on the way."""

    def fee_limit_msat(self, amount_msat: int) -> int:
        """The bound on the routing fee for an amount."""
        return self.fee_base_msat + amount_msat * self.fee_ppm // 1_000_000


def check_asset(asset_id: AssetId) -> None:
    """Lightning moves bitcoin.

    Raises:
        AssetError: another asset.
    """
    if asset_id != BTC:
        raise AssetError(f"{asset_id} has no form on Lightning, which moves BTC", field="asset_id")


def payment_msat(invoice: Invoice, amount_sat: int) -> int:
    """The amount to pay where the caller says ``amount_sat``: it must be the invoice's, rounded up to whole satoshi.

    Raises:
        AmountError: the invoice asks for another amount.
    """
    if invoice.amount_msat is None:
        return amount_sat * 1000
    if amount_sat != invoice.amount_sat:
        raise AmountError(
            f"the invoice asks for {invoice.amount_msat} msat, which is paid with amount {invoice.amount_sat}, not {amount_sat}",
            field="amount",
        )
    return invoice.amount_msat


def same_network(invoice: Invoice, network: str) -> bool:
    """Whether an invoice is for this Bitcoin network. The two test networks share one prefix, so their invoices look the same."""
    return PREFIXES[invoice.network] == PREFIXES.get(network)


def check_payable(invoice: Invoice, amount_msat: int | None, node: NodeInfo, now_s: int, limits: PaymentLimits) -> int:
    """What to pay, in msat, if the invoice can be paid by this node now.

    Raises:
        InvoiceError: for another network, the node's own, an AMP invoice, no amount, or another amount than the invoice's.
        Expired: it has expired, or will before a payment could arrive.
    """
    if not same_network(invoice, node.network):
        raise InvoiceError(
            f"the invoice is for {invoice.network}, the node is on {node.network}", field="invoice", position=2
        )
    if invoice.payee == node.node_id:
        raise InvoiceError("the invoice is this node's own: a node cannot pay itself", field="invoice")
    if Feature.AMP in invoice.features:
        raise InvoiceError(
            "the invoice requires AMP, with which no payment can be proved", field="invoice", hint="ask for a plain one"
        )
    if now_s >= invoice.expires_at:
        raise Expired("the invoice has expired", expired_at=invoice.expires_at, hint="ask for a new one")
    if now_s + limits.min_remaining_s > invoice.expires_at:
        raise Expired(
            f"the invoice expires in {invoice.expires_at - now_s} s: too soon to be paid safely",
            expired_at=invoice.expires_at,
            hint="ask for a new one",
        )
    if invoice.amount_msat is None:
        if amount_msat is None:
            raise InvoiceError("the invoice names no amount", field="amount_msat", hint="say how much to pay")
        if amount_msat <= 0:
            raise AmountError(f"the amount must be positive, not {amount_msat}", field="amount_msat")
        return amount_msat
    if amount_msat is not None and amount_msat != invoice.amount_msat:
        raise InvoiceError(f"the invoice asks for {invoice.amount_msat} msat, not {amount_msat}", field="amount_msat")
    return invoice.amount_msat


def limits_of(payment: LightningPayment, amount_msat: int, defaults: PaymentLimits) -> dict[str, int]:
    """The limits of a payment, as ``LightningNode.pay`` takes them."""
    fee = payment.fee_limit_msat
    return {
        "fee_limit_msat": defaults.fee_limit_msat(amount_msat) if fee is None else fee,
        "cltv_limit": payment.cltv_limit or defaults.cltv_limit,
        "time_limit_s": payment.time_limit_s or defaults.time_limit_s,
    }


def tx_id_of(payment_hash: bytes) -> TxId:
    """The id of a payment: its hash."""
    return TxId(layer=LAYER, hash=payment_hash)


def status_of(record: PaymentRecord) -> TxStatus:
    """What a payment's record means: in flight is PENDING, an outcome is FINALIZED, and no record says nothing."""
    tx_id = tx_id_of(record.payment_hash)
    match record.state:
        case PaymentState.NONE:
            return TxStatus(
                tx_id=tx_id, outcome=Outcome.UNKNOWN, depth=Depth.NONE, reason="the node has no record of this payment"
            )
        case PaymentState.IN_FLIGHT:
            return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)
        case PaymentState.SUCCEEDED:
            return TxStatus(
                tx_id=tx_id,
                outcome=Outcome.SUCCEEDED,
                depth=Depth.FINALIZED,
                fee=record.fee_msat,
                preimage=record.preimage,
            )
        case PaymentState.FAILED:
            return TxStatus(
                tx_id=tx_id, outcome=Outcome.FAILED, depth=Depth.FINALIZED, reason=record.failure_reason or "error"
            )


def failure_of(status: TxStatus) -> Layer2Error:
    """The error for a payment that failed for certain."""
    match status.reason:
        case "no_route":
            return NoRoute(
                "no route within the fee and time-lock limits",
                hint="try again later, or allow a higher fee; a fee limit of 0 means routes without any fee",
            )
        case "insufficient_balance":
            return InsufficientFunds("the node's channels cannot send this much", coin="BTC")
        case reason:
            return PaymentFailed(f"the payment failed: {reason}", reason=reason, tx_id=status.tx_id)
