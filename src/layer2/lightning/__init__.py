"""The Lightning layer: invoices and the interface to nodes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.lightning._bolt11 import decode_invoice
    from layer2.lightning._bolt11_encode import UnsignedInvoice, encode_invoice, sign_invoice
    from layer2.lightning._faults import FaultyLightningNode, LightningFault
    from layer2.lightning._invoice import FallbackAddress, Feature, Invoice, RouteHop
    from layer2.lightning._journal import Decision, MemoryJournal, OperationJournal
    from layer2.lightning._lnd import HtlcResolution, LndNode
    from layer2.lightning._lnurl_pay import LnurlClient
    from layer2.lightning._lnurl_text import decode_lnurl
    from layer2.lightning._memory import MemoryNode
    from layer2.lightning._memory_network import MemoryLightning
    from layer2.lightning._memory_route import ChannelPolicy
    from layer2.lightning._network import LightningNetwork
    from layer2.lightning._node import (
        HeldHtlc,
        InvoiceRecord,
        InvoiceState,
        LightningNode,
        NodeInfo,
        PaymentRecord,
        PaymentState,
    )
    from layer2.lightning._payment_rules import PaymentLimits

__all__ = [
    "ChannelPolicy",
    "Decision",
    "FallbackAddress",
    "FaultyLightningNode",
    "Feature",
    "HeldHtlc",
    "HtlcResolution",
    "Invoice",
    "InvoiceRecord",
    "InvoiceState",
    "LightningFault",
    "LightningNetwork",
    "LightningNode",
    "LndNode",
    "LnurlClient",
    "MemoryJournal",
    "MemoryLightning",
    "MemoryNode",
    "NodeInfo",
    "OperationJournal",
    "PaymentLimits",
    "PaymentRecord",
    "PaymentState",
    "RouteHop",
    "UnsignedInvoice",
    "decode_invoice",
    "decode_lnurl",
    "encode_invoice",
    "sign_invoice",
]

_HOME = {
    "ChannelPolicy": "_memory_route",
    "Decision": "_journal",
    "FallbackAddress": "_invoice",
    "FaultyLightningNode": "_faults",
    "Feature": "_invoice",
    "HeldHtlc": "_node",
    "HtlcResolution": "_lnd",
    "Invoice": "_invoice",
    "InvoiceRecord": "_node",
    "InvoiceState": "_node",
    "LightningFault": "_faults",
    "LightningNetwork": "_network",
    "LightningNode": "_node",
    "LndNode": "_lnd",
    "LnurlClient": "_lnurl_pay",
    "MemoryJournal": "_journal",
    "MemoryLightning": "_memory_network",
    "MemoryNode": "_memory",
    "NodeInfo": "_node",
    "OperationJournal": "_journal",
    "PaymentLimits": "_payment_rules",
    "PaymentRecord": "_node",
    "PaymentState": "_node",
    "RouteHop": "_invoice",
    "UnsignedInvoice": "_bolt11_encode",
    "decode_invoice": "_bolt11",
    "decode_lnurl": "_lnurl_text",
    "encode_invoice": "_bolt11_encode",
    "sign_invoice": "_bolt11_encode",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
