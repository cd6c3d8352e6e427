"""What every node back end checks of its arguments, so that they all refuse the same things in the same words."""

from __future__ import annotations

from layer2._crypto import sha256
from layer2._inputs import check_bytes, check_whole, check_writable, kind_of
from layer2.errors import AmountError, InvoiceError, ValidationError

__all__ = [
    "MAX_EXPIRY_S",
    "MIN_CLTV_DELTA",
    "check_hash",
    "check_invoice_terms",
    "check_limits",
    "hash_of",
    "resolve_amount",
]

MIN_CLTV_DELTA = 24
"""Smallest final CLTV delta that an invoice may ask for (lnd 0.21)."""
MAX_CLTV_DELTA = 2016
MAX_EXPIRY_S = 31_536_000
"""Longest life of an invoice (lnd): a year."""
MAX_INVOICE_MSAT = 100_000 * 10**11
"""Largest amount of an invoice (lnd): 100,000 BTC."""
MAX_MEMO_BYTES = 639
"""Longest description that the 10-bit length of a BOLT11 field can hold."""


def check_hash(payment_hash: object) -> bytes:
    """Give the hash back if it is 32 bytes.

    Raises:
        ValidationError: it is not.
    """
    if not isinstance(payment_hash, bytes) or len(payment_hash) != 32:
        raise ValidationError("a payment hash is 32 bytes", field="payment_hash")
    return payment_hash


def hash_of(preimage: object) -> bytes:
    """The payment hash of a preimage.

    Raises:
        ValidationError: the preimage is not 32 bytes.
    """
    if not isinstance(preimage, bytes) or len(preimage) != 32:
        raise ValidationError("a preimage is 32 bytes", field="preimage")
    return sha256(preimage)


def check_limits(fee_limit_msat: object, cltv_limit: object, time_limit_s: object) -> None:
    """Check the limits of a payment. A fee limit of 0 means what it says: only routes without a fee.

    Raises:
        ValidationError: a limit is negative, or the CLTV or time limit is zero.
    """
    for name, value, least in (
        ("fee_limit_msat", fee_limit_msat, 0),
        ("cltv_limit", cltv_limit, 1),
        ("time_limit_s", time_limit_s, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least or value >= 2**31 * 1000:
            raise ValidationError(f"{name} must be a whole number of at least {least}, not {value!r}", field=name)


def check_invoice_terms(
    amount_msat: object, memo: object, description_hash: object, expiry_s: object, cltv_delta: object
) -> None:
    """Check what an invoice is to say.

    Raises:
        AmountError: the amount is negative or too large; ValidationError: anything else is out of range.
    """
    if isinstance(amount_msat, bool) or not isinstance(amount_msat, int) or not 0 <= amount_msat <= MAX_INVOICE_MSAT:
        raise AmountError(
            f"the amount of an invoice is 0..{MAX_INVOICE_MSAT} msat, not {amount_msat!r}", field="amount_msat"
        )
    if not isinstance(memo, str):
        raise ValidationError(f"a memo is text, not {kind_of(memo)}", field="memo")
    if len(check_writable(memo, "memo").encode()) > MAX_MEMO_BYTES:
        raise ValidationError(f"a memo has at most {MAX_MEMO_BYTES} bytes of UTF-8", field="memo")
    if description_hash is not None:
        check_bytes(description_hash, "description_hash", length=32)
    if description_hash is not None and memo:
        raise ValidationError("an invoice has a memo or a description hash, not both", field="memo")
    check_whole(expiry_s, "expiry_s", least=1, below=MAX_EXPIRY_S + 1)
    check_whole(cltv_delta, "cltv_delta", least=MIN_CLTV_DELTA, below=MAX_CLTV_DELTA + 1)


def resolve_amount(invoice_msat: int | None, amount_msat: int | None) -> int:
    """What to pay: the invoice's amount, or the caller's where it has none.

    Raises:
        InvoiceError: neither names one, or both do.
    """
    if invoice_msat:
        if amount_msat is not None and amount_msat != invoice_msat:
            raise InvoiceError(f"the invoice asks for {invoice_msat} msat, not {amount_msat}", field="amount_msat")
        return invoice_msat
    if not amount_msat or amount_msat < 0:
        raise InvoiceError("the invoice names no amount: say how much to pay", field="amount_msat")
    return amount_msat
