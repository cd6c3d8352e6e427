"""Writing and signing BOLT11 invoices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from layer2._crypto import public_key, sign_recoverable, valid_private_key, valid_public_key
from layer2.errors import InvoiceError
from layer2.lightning import _bech32 as bech32
from layer2.lightning._bolt11 import MAX_INVOICE_LENGTH, SIGNATURE_SYMBOLS, decode_invoice, signing_hash
from layer2.lightning._invoice import (
    MAX_AMOUNT_MSAT,
    MAX_UINT64,
    PREFIXES,
    FallbackAddress,
    Feature,
    Invoice,
    RouteHop,
    read_features,
)

__all__ = ["DEFAULT_FEATURES", "DEFAULT_FIELD_ORDER", "UnsignedInvoice", "encode_invoice", "sign_invoice"]

DEFAULT_FEATURES = (Feature.VAR_ONION, Feature.PAYMENT_SECRET, Feature.BASIC_MPP + 1)
"""Both that every payer must know, and payment in several parts on offer."""
DEFAULT_FIELD_ORDER = "pshdmnxcfr9"
"""The letters of BOLT11 for its fields, in the order in which they are written."""

_UNITS = (("", 10**11), ("m", 10**8), ("u", 10**5), ("n", 100))
_MAX_SYMBOLS = 1023


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedInvoice:
    """An invoice that lacks only its signature."""

    hrp: str
    """What stands before the separator: network and amount."""
    digits: bytes = field(repr=False)
    """The data as digits in base 32."""
    payee: bytes | None = None
    """The key that has to sign, if the invoice names it."""

    @property
    def signing_hash(self) -> bytes:
        """The 32 bytes to be signed."""
        return signing_hash(self.hrp, self.digits)

    @classmethod
    def of(cls, invoice: Invoice) -> UnsignedInvoice:
        """The same data, unknown fields included, without the signature."""
        hrp, digits = bech32.decode(invoice.text, error=InvoiceError, what="an invoice", max_length=MAX_INVOICE_LENGTH)
        return cls(hrp=hrp, digits=digits[:-SIGNATURE_SYMBOLS], payee=invoice.payee if invoice.payee_given else None)

    def sign(self, private_key: bytes) -> Invoice:
        """Sign with a private key of 32 bytes (RFC 6979, low S: the same key and data give the same text).

        Raises:
            InvoiceError: not a private key, or not that of the payee that the invoice names.
        """
        if not valid_private_key(private_key):
            raise InvoiceError("the private key is not 32 bytes of a value in the curve's range", field="private_key")
        if self.payee is not None and public_key(private_key) != self.payee:
            raise InvoiceError("the private key is not that of the payee named in the invoice", field="payee")
        return self.with_signature(*sign_recoverable(self.signing_hash, private_key))

    def with_signature(self, signature: bytes, recovery_id: int) -> Invoice:
        """Complete it with a signature (64 bytes) over ``signing_hash`` that was made elsewhere.

        Raises:
            InvoiceError: the signature does not fit.
        """
        if len(signature) != 64 or recovery_id not in range(4):
            raise InvoiceError("a signature has 64 bytes and a recovery id from 0 to 3", field="signature")
        return decode_invoice(bech32.encode(self.hrp, self.digits + bech32.pack(signature + bytes([recovery_id]))))


def sign_invoice(unsigned: UnsignedInvoice, private_key: bytes) -> Invoice:
    """Sign with a private key of 32 bytes; ``.text`` of the result is the invoice to hand out.

    Raises:
        InvoiceError: not a private key, or not that of the payee that the invoice names.
    """
    return unsigned.sign(private_key)


def encode_invoice(
    *,
    network: str,
    timestamp: int,
    payment_hash: bytes,
    payment_secret: bytes,
    amount_msat: int | None = None,
    description: str | None = None,
    description_hash: bytes | None = None,
    expiry_s: int | None = None,
    min_final_cltv_delta: int | None = 18,
    payee: bytes | None = None,
    fallback_addresses: Iterable[FallbackAddress] = (),
    route_hints: Iterable[Sequence[RouteHop]] = (),
    features: Iterable[int] = DEFAULT_FEATURES,
    metadata: bytes | None = None,
    field_order: str = DEFAULT_FIELD_ORDER,
) -> UnsignedInvoice:
    """Put an invoice together (BOLT11); ``sign`` of the result makes it whole.

    ``timestamp`` is Unix seconds below 2**35, ``amount_msat`` None lets the payer choose. Exactly one of
    ``description`` (at most 639 bytes in UTF-8) and ``description_hash`` is given. ``expiry_s`` and
    ``min_final_cltv_delta`` are left out if None and then mean 3,600 seconds and 18 blocks. ``payee`` names the key that
    will sign; without it payers recover it from the signature. ``features`` are bit numbers. ``field_order`` holds the
    letters of BOLT11 for the fields.

    Raises:
        InvoiceError: a value that no reader would accept, with the name of the argument in ``field``.
    """
    if (description is None) == (description_hash is None):
        raise InvoiceError("give either a description or a description hash", field="description")
    if sorted(field_order) != sorted(DEFAULT_FIELD_ORDER):
        raise InvoiceError(f"the letters of {DEFAULT_FIELD_ORDER!r} each once, in any order", field="field_order")
    vector = _feature_vector(features)
    pieces = {
        "p": [_sized(payment_hash, 32, "payment_hash")],
        "s": [_sized(payment_secret, 32, "payment_secret")],
        "d": [] if description is None else [_packed(_utf8(description), "description")],
        "h": [] if description_hash is None else [_sized(description_hash, 32, "description_hash")],
        "m": [] if metadata is None else [_packed(metadata, "metadata")],
        "n": [] if payee is None else [_point(payee, "payee")],
        "x": [] if expiry_s is None else [_number(expiry_s, MAX_UINT64, "expiry_s")],
        "c": []
        if min_final_cltv_delta is None
        else [_number(min_final_cltv_delta, MAX_UINT64, "min_final_cltv_delta")],
        "f": [_fallback(address) for address in fallback_addresses],
        "r": [_route(hops) for hops in route_hints],
        "9": [_digits(vector)] if vector else [],
    }
    data = bech32.to_digits(_integer(timestamp, 0, 2**35 - 1, "timestamp"), 7)
    for letter in field_order:
        tag = bech32.to_digits(bech32.ALPHABET.index(letter), 1)
        for piece in pieces[letter]:
            data += tag + bech32.to_digits(len(piece), 2) + piece
    hrp = _prefix(network, amount_msat)
    if len(hrp) + 1 + len(data) + SIGNATURE_SYMBOLS + 6 > MAX_INVOICE_LENGTH:
        raise InvoiceError(f"the invoice would be longer than {MAX_INVOICE_LENGTH} characters", field="route_hints")
    return UnsignedInvoice(hrp=hrp, digits=data, payee=payee)


def _prefix(network: str, amount_msat: int | None) -> str:
    if network not in PREFIXES:
        raise InvoiceError(f"no network is called {network!r}", field="network", hint="one of " + ", ".join(PREFIXES))
    prefix = "ln" + PREFIXES[network]
    if amount_msat is None:
        return prefix
    _integer(amount_msat, 1, MAX_AMOUNT_MSAT, "amount_msat")
    for letter, msat in _UNITS:
        if amount_msat % msat == 0:
            return f"{prefix}{amount_msat // msat}{letter}"
    return f"{prefix}{amount_msat * 10}p"


def _integer(value: int, low: int, high: int, name: str) -> int:
    if type(value) is not int:
        raise InvoiceError(f"{name} is a whole number, not {type(value).__name__}", field=name)
    if not low <= value <= high:
        raise InvoiceError(f"{name} lies between {low} and {high}", field=name)
    return value


def _digits(value: int) -> bytes:
    return bech32.to_digits(value, -(-value.bit_length() // 5))


def _number(value: int, high: int, name: str) -> bytes:
    # LND writes zero as one symbol, and some readers want at least one.
    return _digits(_integer(value, 0, high, name)) or bech32.DIGITS[:1]


def _packed(value: bytes, name: str) -> bytes:
    piece = bech32.pack(value)
    if len(piece) > _MAX_SYMBOLS:
        raise InvoiceError(f"{name} has {len(value)} bytes; a field holds at most 639", field=name)
    return piece


def _sized(value: bytes, size: int, name: str) -> bytes:
    if len(value) != size:
        raise InvoiceError(f"{name} has {size} bytes, not {len(value)}", field=name)
    return bech32.pack(value)


def _point(value: bytes, name: str) -> bytes:
    if not valid_public_key(value):
        raise InvoiceError(f"{name} is not a compressed public key", field=name)
    return bech32.pack(value)


def _utf8(description: str) -> bytes:
    try:
        return description.encode()
    except UnicodeEncodeError as error:
        raise InvoiceError("the description is not valid Unicode", field="description", position=error.start) from error


def _feature_vector(features: Iterable[int]) -> int:
    vector = 0
    for bit in features:
        vector |= 1 << _integer(bit, 0, 5 * _MAX_SYMBOLS - 1, "features")
    problem = read_features(vector)[1]
    if problem is not None:
        raise InvoiceError(problem, field="features")
    return vector


def _fallback(address: FallbackAddress) -> bytes:
    if not address.is_valid:
        raise InvoiceError("the length of the fallback address does not fit its version", field="fallback_addresses")
    return bech32.to_digits(address.version, 1) + bech32.pack(address.program)


def _route(hops: Sequence[RouteHop]) -> bytes:
    raw = b""
    for hop in hops:
        _point(hop.node_id, "route_hints")
        raw += hop.node_id
        raw += _integer(hop.short_channel_id, 0, MAX_UINT64, "route_hints").to_bytes(8)
        raw += _integer(hop.fee_base_msat, 0, 2**32 - 1, "route_hints").to_bytes(4)
        raw += _integer(hop.fee_proportional_millionths, 0, 2**32 - 1, "route_hints").to_bytes(4)
        raw += _integer(hop.cltv_expiry_delta, 0, 2**16 - 1, "route_hints").to_bytes(2)
    if not raw:
        raise InvoiceError("a route hint has at least one hop", field="route_hints")
    return _packed(raw, "route_hints")
