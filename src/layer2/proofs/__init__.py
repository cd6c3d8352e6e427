"""Proofs that verify with no network and no store, long after the nodes that served them are gone.

What each proves, to whom, and under which trust is written down in docs/proofs.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.proofs._collect import (
        collect_header,
        collect_lock_proof,
        collect_receipt_proof,
        collect_storage_proof,
    )
    from layer2.proofs._evm import (
        Account,
        EvmReceiptProof,
        EvmStorageProof,
        ProvenReceipt,
        ProvenSlot,
    )
    from layer2.proofs._headers import BlockHeader
    from layer2.proofs._lightning import LightningPaymentProof
    from layer2.proofs._proof import Proof, parse_proof, transfer_proof_schema
    from layer2.proofs._receipts import Log, Receipt
    from layer2.proofs._report import Check, CheckResult, Report
    from layer2.proofs._transfer import Fee, TransferExpectations, TransferProof
    from layer2.proofs._verify import NOT_PROVED, verify_transfer_proof

__all__ = [
    "NOT_PROVED",
    "Account",
    "BlockHeader",
    "Check",
    "CheckResult",
    "EvmReceiptProof",
    "EvmStorageProof",
    "Fee",
    "LightningPaymentProof",
    "Log",
    "Proof",
    "ProvenReceipt",
    "ProvenSlot",
    "Receipt",
    "Report",
    "TransferExpectations",
    "TransferProof",
    "collect_header",
    "collect_lock_proof",
    "collect_receipt_proof",
    "collect_storage_proof",
    "parse_proof",
    "transfer_proof_schema",
    "verify_transfer_proof",
]

_HOME = {
    "NOT_PROVED": "_verify",
    "Account": "_evm",
    "BlockHeader": "_headers",
    "Check": "_report",
    "CheckResult": "_report",
    "EvmReceiptProof": "_evm",
    "EvmStorageProof": "_evm",
    "Fee": "_transfer",
    "LightningPaymentProof": "_lightning",
    "Log": "_receipts",
    "Proof": "_proof",
    "ProvenReceipt": "_evm",
    "ProvenSlot": "_evm",
    "Receipt": "_receipts",
    "Report": "_report",
    "TransferExpectations": "_transfer",
    "TransferProof": "_transfer",
    "collect_header": "_collect",
    "collect_lock_proof": "_collect",
    "collect_receipt_proof": "_collect",
    "collect_storage_proof": "_collect",
    "parse_proof": "_proof",
    "transfer_proof_schema": "_proof",
    "verify_transfer_proof": "_verify",
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
