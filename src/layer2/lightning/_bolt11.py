"""Reading BOLT11 invoices.

Stricter than some readers, never laxer than the specification: whatever two readers are known to understand differently
is refused (a field twice that may stand once, padding that is not zero, a field that runs into the signature), as is
what no node would pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from layer2._crypto import CURVE_ORDER, recover, sha256, valid_public_key, verify
from layer2.errors import InvoiceError
from layer2.lightning import _bech32 as bech32
from layer2.lightning._invoice import (
    DEFAULT_EXPIRY_S,
    DEFAULT_MIN_FINAL_CLTV_DELTA,
    MAX_AMOUNT_MSAT,
    MAX_UINT64,
    NETWORKS,
    PREFIXES,
    FallbackAddress,
    Invoice,
    RouteHop,
    read_features,
)

__all__ = ["decode_invoice"]

MAX_INVOICE_LENGTH = 7089
"""What the largest QR code holds; LND refuses more as well."""

TIMESTAMP_SYMBOLS = 7
SIGNATURE_SYMBOLS = 104
HOP_BYTES = 51

_PREFIX = re.compile(r"ln([a-z]+)(?:([0-9]+)([a-z]?))?", re.ASCII)
_MSAT = {"": (10**11, 1), "m": (10**8, 1), "u": (10**5, 1), "n": (100, 1), "p": (1, 10)}
_HALF_ORDER = (CURVE_ORDER // 2).to_bytes(32)


def decode_invoice(text: str, *, network: str | None = None) -> Invoice:
    """Read a BOLT11 invoice and check its checksum, its fields and its signature.

    ``text`` is the bare invoice, all lower or all upper case, without ``lightning:`` and without spaces. ``network``
    (``mainnet``, ``testnet``, ``testnet4``, ``signet``, ``regtest``, ``simnet``) demands that it be for that network.
    Whether it has expired is for the caller to ask. Beyond BOLT11, ``x`` and ``c`` above 2**64 - 1, amounts above 21
    million bitcoin and texts above 7,089 characters are refused.

    Raises:
        InvoiceError: what is wrong, with ``field`` and, where it can be told, ``position`` in ``text``; for a wrong
            checksum that is the likely place of the wrong character.
    """
    hrp, digits = bech32.decode(text, error=InvoiceError, what="an invoice", max_length=MAX_INVOICE_LENGTH)
    prefix, amount_msat = _read_prefix(hrp)
    if network is not None:
        _require_network(prefix, network)
    offset = len(hrp) + 1
    end = len(digits) - SIGNATURE_SYMBOLS
    if end < TIMESTAMP_SYMBOLS:
        raise InvoiceError(
            "too short: an invoice holds at least a timestamp and a signature", field="text", position=len(text)
        )
    fields = _read_fields(digits, end, offset)
    _require_fields(fields)
    signature, recovery_id, payee = _read_signature(hrp, digits, end, offset, fields.get("payee"))
    return Invoice(
        network=NETWORKS[prefix],
        amount_msat=amount_msat,
        timestamp=int(digits[:TIMESTAMP_SYMBOLS], 32),
        payment_hash=fields["payment_hash"],
        payment_secret=fields["payment_secret"],
        description=fields.get("description"),
        description_hash=fields.get("description_hash"),
        payee=payee,
        payee_given="payee" in fields,
        expiry_s=fields.get("expiry_s", DEFAULT_EXPIRY_S),
        min_final_cltv_delta=fields.get("min_final_cltv_delta", DEFAULT_MIN_FINAL_CLTV_DELTA),
        fallback_addresses=tuple(fields.get("fallback_addresses", ())),
        route_hints=tuple(fields.get("route_hints", ())),
        features=fields.get("features", ()),
        metadata=fields.get("metadata"),
        signature=signature,
        recovery_id=recovery_id,
        text=text.lower(),
    )


def _read_prefix(hrp: str) -> tuple[str, int | None]:
    match = _PREFIX.fullmatch(hrp)
    if match is None:
        raise _bad_prefix(hrp)
    prefix, number, multiplier = match.groups()
    if prefix not in NETWORKS:
        raise InvoiceError(
            f"no network is known whose invoices start with ln{prefix[:20]}",
            field="network",
            position=2,
            hint="known are " + ", ".join(f"ln{known}" for known in NETWORKS),
        )
    if number is None:
        return prefix, None
    at = match.start(2)
    if number[0] == "0":
        raise InvoiceError("the amount starts with 0", field="amount_msat", position=at)
    if multiplier not in _MSAT:
        raise InvoiceError(
            f"{multiplier!r} is not one of the multipliers m, u, n and p", field="amount_msat", position=match.start(3)
        )
    # 21 million bitcoin have 20 digits in the smallest unit; more digits need not be read.
    times, divided_by = _MSAT[multiplier]
    amount, rest = divmod(int(number) * times, divided_by) if len(number) <= 20 else (MAX_AMOUNT_MSAT + 1, 0)
    if rest:
        raise InvoiceError(
            "the amount is not a whole number of millisatoshi", field="amount_msat", position=match.end(2) - 1
        )
    if amount > MAX_AMOUNT_MSAT:
        raise InvoiceError("the amount is more bitcoin than can exist", field="amount_msat", position=at)
    return prefix, amount


def _bad_prefix(hrp: str) -> InvoiceError:
    if not hrp.startswith("ln"):
        return InvoiceError(
            f"an invoice starts with ln, not {hrp[:2]!r}",
            field="text",
            position=0,
        )
    start = _PREFIX.match(hrp)
    at = start.end() if start else 2
    if start and hrp[at] == "1":
        return InvoiceError(
            f"'1' at character {len(hrp)} does not occur in bech32 data",
            field="text",
            position=len(hrp),
            hint="it may have been an l or another letter",
        )
    return InvoiceError(f"{hrp[at : at + 1]!r} cannot stand at character {at}", field="text", position=at)


def _require_network(prefix: str, network: str) -> None:
    wanted = PREFIXES.get(network)
    if wanted is None:
        raise InvoiceError(f"no network is called {network!r}", field="network", hint="one of " + ", ".join(PREFIXES))
    if prefix != wanted:
        raise InvoiceError(
            f"the invoice is for {NETWORKS[prefix]} (ln{prefix}), not for {network} (ln{wanted})",
            field="network",
            position=2,
        )


def _read_fields(digits: bytes, end: int, offset: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    at = TIMESTAMP_SYMBOLS
    while at < end:
        start = at + 3
        stop = start + int(digits[at + 1 : start], 32)
        if stop > end:
            raise InvoiceError(
                "the last field reaches into the signature", field="data_length", position=offset + at + 1
            )
        known = _READERS.get(digits[at])
        if known is not None:
            name, reader, may_repeat = known
            value = reader(digits[start:stop], name, offset + start)
            if value is not None:
                if may_repeat:
                    fields.setdefault(name, []).append(value)
                elif name in fields:
                    raise InvoiceError(
                        f"{name} stands twice, and payers would disagree on which one counts",
                        field=name,
                        position=offset + at,
                    )
                else:
                    fields[name] = value
        at = stop
    return fields


def _require_fields(fields: dict[str, Any]) -> None:
    for name in ("payment_hash", "payment_secret"):
        if name not in fields:
            raise InvoiceError(f"there is no {name} of the right length", field=name)
    if ("description" in fields) == ("description_hash" in fields):
        both = "both" if "description" in fields else "neither"
        raise InvoiceError(
            f"{both} of description and description hash are there; it must be exactly one", field="description"
        )


def _read_signature(hrp: str, digits: bytes, end: int, offset: int, named: bytes | None) -> tuple[bytes, int, bytes]:
    raw = int(digits[end:], 32).to_bytes(65)
    signature, recovery_id = raw[:64], raw[64]
    at = offset + end
    if recovery_id > 3:
        raise InvoiceError(
            f"the recovery id is 0 to 3, not {recovery_id}", field="recovery_id", position=at + SIGNATURE_SYMBOLS - 2
        )
    digest = signing_hash(hrp, digits[:end])
    if named is None:
        payee = recover(digest, signature, recovery_id)
        if payee is None:
            raise InvoiceError("no public key can have made the signature", field="signature", position=at)
        return signature, recovery_id, payee
    if signature[32:] > _HALF_ORDER:
        raise InvoiceError(
            "the signature is not canonical (high S), as it must be where the payee is named",
            field="signature",
            position=at,
        )
    if not verify(digest, named, signature):
        raise InvoiceError("the signature is not by the payee that the invoice names", field="signature", position=at)
    return signature, recovery_id, named


def signing_hash(hrp: str, digits: bytes) -> bytes:
    """What is signed: the SHA-256 of the prefix and the data bits, padded with zero bits to a whole byte."""
    bits = 5 * len(digits)
    padding = -bits % 8
    return sha256(hrp.encode() + (int(digits, 32) << padding).to_bytes(bits + padding >> 3))


def _bytes(piece: bytes, name: str, at: int) -> bytes:
    value = bech32.unpack(piece)
    if value is None:
        raise InvoiceError(
            f"{name} does not end in the zero bits that fill its last character", field=name, position=at
        )
    return value


def _hash(piece: bytes, name: str, at: int) -> bytes | None:
    # Of another length it is a field of the future, to be skipped (BOLT11).
    return _bytes(piece, name, at) if len(piece) == 52 else None


def _key(piece: bytes, name: str, at: int) -> bytes | None:
    if len(piece) != 53:
        return None
    key = _bytes(piece, name, at)
    if not valid_public_key(key):
        raise InvoiceError(f"{name} is not a point on the curve", field=name, position=at)
    return key


def _text(piece: bytes, name: str, at: int) -> str:
    raw = _bytes(piece, name, at)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvoiceError(f"{name} is not UTF-8", field=name, position=at + error.start * 8 // 5) from error


def _number(piece: bytes, name: str, at: int) -> int:
    if len(piece) > 1 and piece[0] == _ZERO:
        raise InvoiceError(f"{name} is written longer than it needs to be", field=name, position=at)
    value = int(piece, 32) if piece else 0
    if value > MAX_UINT64:
        raise InvoiceError(f"{name} is above 2**64 - 1", field=name, position=at)
    return value


def _features(piece: bytes, name: str, at: int) -> tuple[int, ...]:
    if not piece:
        return ()
    if piece[0] == _ZERO:
        raise InvoiceError(f"{name} is written longer than it needs to be", field=name, position=at)
    bits, problem = read_features(int(piece, 32))
    if problem is not None:
        raise InvoiceError(problem, field=name, position=at)
    return bits


def _fallback(piece: bytes, name: str, at: int) -> FallbackAddress | None:
    if not piece:
        raise InvoiceError("a fallback address has no version", field=name, position=at)
    version = int(piece[:1], 32)
    if version > 18:
        return None
    address = FallbackAddress(version=version, program=_bytes(piece[1:], name, at + 1))
    if not address.is_valid:
        raise InvoiceError(
            f"a fallback address of version {version} has another length than {len(address.program)} bytes",
            field=name,
            position=at,
        )
    return address


def _route(piece: bytes, name: str, at: int) -> tuple[RouteHop, ...]:
    raw = _bytes(piece, name, at)
    if not raw or len(raw) % HOP_BYTES:
        raise InvoiceError(
            f"a route hint has hops of {HOP_BYTES} bytes; {len(raw)} bytes are not that", field=name, position=at
        )
    hops = []
    for start in range(0, len(raw), HOP_BYTES):
        node_id, rest = raw[start : start + 33], int.from_bytes(raw[start + 33 : start + HOP_BYTES])
        if not valid_public_key(node_id):
            raise InvoiceError(
                "the node of a route hint is not a point on the curve", field=name, position=at + start * 8 // 5
            )
        hops.append(
            RouteHop(
                node_id=node_id,
                short_channel_id=rest >> 80,
                fee_base_msat=rest >> 48 & 0xFFFFFFFF,
                fee_proportional_millionths=rest >> 16 & 0xFFFFFFFF,
                cltv_expiry_delta=rest & 0xFFFF,
            )
        )
    return tuple(hops)


_ZERO = bech32.DIGITS[0]
_Reader = Callable[[bytes, str, int], Any]
_NAMED: dict[str, tuple[str, _Reader, bool]] = {
    "p": ("payment_hash", _hash, False),
    "s": ("payment_secret", _hash, False),
    "d": ("description", _text, False),
    "h": ("description_hash", _hash, False),
    "m": ("metadata", _bytes, False),
    "n": ("payee", _key, False),
    "x": ("expiry_s", _number, False),
    "c": ("min_final_cltv_delta", _number, False),
    "f": ("fallback_addresses", _fallback, True),
    "r": ("route_hints", _route, True),
    "9": ("features", _features, False),
}
_READERS = {bech32.DIGITS[bech32.ALPHABET.index(letter)]: entry for letter, entry in _NAMED.items()}
