"""The text forms of LNURL-pay links (LUD-01, LUD-17)."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from layer2.errors import AddressError
from layer2.lightning import _bech32 as bech32

__all__ = ["decode_lnurl"]

_MAX_LENGTH = 4296
"""What the largest alphanumeric QR code holds."""
_OTHER_SCHEMES = {"lnurlc": "a channel request", "lnurlw": "a withdrawal", "keyauth": "a login"}
_HINT = "lnurl1... or lnurlp://..., for payments"


def decode_lnurl(text: str) -> str:
    """The HTTPS URL behind ``lnurl1...`` (with or without ``lightning:``) or ``lnurlp://...``.

    Nothing is fetched. Positions in errors count from ``lnurl1``. Onion services, which LUD-01 would reach over plain
    HTTP, are refused: nothing here speaks Tor.

    Raises:
        AddressError: not an LNURL, one for something else than a payment, or one whose URL is not plain HTTPS.
    """
    if not isinstance(text, str):
        raise AddressError(f"an LNURL is text, not {type(text).__name__}", field="recipient")
    scheme, separator, rest = text.partition("://")
    if separator:
        kind = scheme.lower() if scheme.isascii() else ""
        if kind != "lnurlp":
            what = _OTHER_SCHEMES.get(kind, "another kind of link")
            raise AddressError(f"{scheme[:20]}:// is {what}, not an LNURL-pay link", field="recipient", hint=_HINT)
        return _checked("https://" + rest)
    skipped = 10 if text[:10].isascii() and text[:10].lower() == "lightning:" else 0
    hrp, digits = bech32.decode(text[skipped:], error=AddressError, what="an LNURL", max_length=_MAX_LENGTH)
    if hrp != "lnurl":
        raise AddressError(f"an LNURL starts with lnurl1, not {hrp[:20]!r}", position=0, field="recipient", hint=_HINT)
    raw = bech32.unpack(digits)
    if raw is None:
        raise AddressError("the LNURL does not end in the zero bits that fill its last character", field="recipient")
    try:
        url = raw.decode()
    except UnicodeDecodeError as error:
        raise AddressError("the LNURL does not hold UTF-8 text", field="recipient") from error
    return _checked(url)


def _checked(url: str) -> str:
    # Parsers of URLs strip or reinterpret these, each in its own way; what is checked must be what is fetched.
    if not all(33 <= ord(c) <= 126 and c not in '\\"<>^`{|}' for c in url):
        raise AddressError("the URL holds a character that URLs do not have", field="recipient")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError("the URL has no valid host or port", field="recipient") from error
    _require_public_https(parts, port)
    return url


def _require_public_https(parts: SplitResult, port: int | None) -> None:
    host = parts.hostname
    if not host or port == 0:
        raise AddressError("the URL has no valid host or port", field="recipient")
    if host.endswith(".onion"):
        raise AddressError("onion services cannot be reached from here", field="recipient")
    if parts.scheme != "https":
        raise AddressError(f"the URL is {parts.scheme[:20]!r}, not https", field="recipient")
    if "@" in parts.netloc:
        raise AddressError("the URL holds a user name", field="recipient")
