"""Proof of a Lightning payment: the payee's signed invoice, and the preimage of its payment hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from layer2._crypto import sha256
from layer2._values import Bytes
from layer2.errors import InvoiceError, ProofError
from layer2.proofs._format import ProofValue, require, require_bytes

if TYPE_CHECKING:
    from layer2.lightning import Invoice

__all__ = ["LightningPaymentProof"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningPaymentProof(ProofValue):
    """The payee gave out the preimage of the invoice that it signed.

    A payee does so when it is paid. That is its own interest and nothing more: the proof does not show who paid, nor how
    much, and a payee that hands its preimage around has proofs made for it.
    """

    invoice: str = field(repr=False)
    preimage: Bytes = field(repr=False)
    version: Literal[1] = 1
    kind: Literal["lightning_payment"] = "lightning_payment"

    def __post_init__(self) -> None:
        self._require_own_envelope()
        require(isinstance(self.invoice, str), "invoice is not text", field="invoice")
        require_bytes(self.preimage, "preimage", 32)

    @property
    def payment_hash(self) -> bytes:
        """SHA-256 of the preimage."""
        return sha256(self.preimage)

    def verify(self) -> Invoice:
        """The invoice that was paid: its signature holds, and the preimage is that of its payment hash.

        Raises:
            ProofError: one of the two does not hold.
        """
        from layer2.lightning import decode_invoice

        try:
            invoice = decode_invoice(self.invoice)
        except InvoiceError as error:
            raise ProofError(f"the invoice is not valid: {error.message}", field="invoice", check="invoice") from error
        if invoice.payment_hash != self.payment_hash:
            raise ProofError("the preimage is not that of the invoice", field="preimage", check="preimage")
        return invoice
