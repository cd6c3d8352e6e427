"""Who can be paid: EVM accounts, Lightning nodes, invoices, Lightning addresses and LNURL-pay links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from layer2._crypto import keccak256, valid_public_key
from layer2._inputs import check_bytes, check_text, kind_of
from layer2._values import Bytes, Value
from layer2.errors import AddressError, InvoiceError

__all__ = ["Address", "EvmAddress", "InvoiceText", "LightningAddress", "LnurlPay", "NodeId", "parse_address"]

_HEX = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_USER = re.compile(r"[a-z0-9\-_.+]+", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmAddress(Value):
    """An EVM account or contract: 20 bytes. ``str()`` gives the EIP-55 form, in which it also stands in JSON."""

    raw: Bytes

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema(strict=True)),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}

    def __post_init__(self) -> None:
        check_bytes(self.raw, "raw", length=20, error=AddressError)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``0x`` and 40 hexadecimal digits; where upper and lower case are mixed, the EIP-55 checksum must hold.

        Raises:
            AddressError: with the position of the first wrong character.
        """
        check_text(text, "recipient", error=AddressError)
        if not text.isascii() or not text.startswith("0x"):
            raise AddressError(f"an EVM address starts with 0x, not {text[:4]!r}", position=0, field="recipient")
        digits = text[2:]
        good = _HEX.match(digits)
        end = good.end() if good else 0
        if end != len(digits):
            raise AddressError(f"{digits[end]!r} is not a hexadecimal digit", position=2 + end, field="recipient")
        if len(digits) != 40:
            raise AddressError(
                f"an EVM address has 40 digits after 0x, not {len(digits)}", position=len(text), field="recipient"
            )
        address = cls(raw=bytes.fromhex(digits))
        if digits not in (digits.lower(), digits.upper()) and str(address) != text:
            expected = str(address)
            wrong = next(i for i, (a, b) in enumerate(zip(text, expected, strict=True)) if a != b)
            raise AddressError(
                f"the EIP-55 checksum fails at character {wrong}",
                position=wrong,
                field="recipient",
                hint="copy the address again; one character or its case was changed",
            )
        return address

    def __str__(self) -> str:
        digits = self.raw.hex()
        mask = keccak256(digits.encode()).hex()
        return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask, strict=False))

    def __repr__(self) -> str:
        return f"EvmAddress.parse('{self}')"

    @property
    def is_zero(self) -> bool:
        """Whether it is the zero address, to which nothing may be sent."""
        return not any(self.raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeId(Value):
    """A Lightning node by its public key (33 bytes, compressed); paid by keysend."""

    raw: Bytes
    kind: Literal["node"] = "node"

    def __post_init__(self) -> None:
        if not valid_public_key(check_bytes(self.raw, "raw", length=33, error=AddressError)):
            raise AddressError("the node id is not a point on the curve", field="raw")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 66 hexadecimal digits that are a point on secp256k1.

        Raises:
            AddressError: anything else.
        """
        check_text(text, "recipient", error=AddressError)
        if len(text) != 66 or not text.isascii() or not _HEX.fullmatch(text):
            raise AddressError("a node id has 66 hexadecimal digits", field="recipient")
        return cls(raw=bytes.fromhex(text))

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"NodeId.parse('{self}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceText(Value):
    """A BOLT11 invoice in its text form, decoded and checked once by ``parse``."""

    text: str = field(repr=False)
    kind: Literal["invoice"] = "invoice"

    def __post_init__(self) -> None:
        check_text(self.text, "text", error=InvoiceError)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an invoice; ``lightning:`` in front is accepted.

        Raises:
            InvoiceError: it is not a valid BOLT11 invoice.
        """
        from layer2.lightning import decode_invoice

        check_text(text, "text", error=InvoiceError)
        bare = text[10:] if text[:10].lower() == "lightning:" else text
        decode_invoice(bare)
        return cls(text=bare.lower())

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningAddress(Value):
    """``user@domain`` (LUD-16)."""

    user: str
    domain: str
    kind: Literal["lightning_address"] = "lightning_address"

    def __post_init__(self) -> None:
        if not _USER.fullmatch(check_text(self.user, "user", error=AddressError)):
            raise AddressError(f"{str(self)[:60]!r} is not a Lightning address (user@domain)", field="recipient")
        host, _, port = check_text(self.domain, "domain", error=AddressError).partition(":")
        if not _HOST.fullmatch(host) or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
            raise AddressError(
                f"{self.domain[:60]!r} is not a host name", position=len(self.user) + 1, field="recipient"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``user@domain``; a port may follow the domain.

        Raises:
            AddressError: a character that LUD-16 does not allow, or no valid host.
        """
        user, at, domain = check_text(text, "recipient", error=AddressError).partition("@")
        if not user or not at:
            raise AddressError(f"{text[:60]!r} is not a Lightning address (user@domain)", field="recipient")
        if not domain:
            raise AddressError("the host name is missing", position=len(text), field="recipient")
        return cls(user=user, domain=domain)

    def __str__(self) -> str:
        return f"{self.user}@{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LnurlPay(Value):
    """An LNURL-pay link (LUD-01, LUD-06, LUD-17)."""

    url: str
    kind: Literal["lnurl"] = "lnurl"

    def __post_init__(self) -> None:
        check_text(self.url, "url", error=AddressError)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``lnurl1...`` (bech32) or ``lnurlp://...``.

        Raises:
            AddressError: not an LNURL, or one whose URL is not HTTPS.
        """
        from layer2.lightning import decode_lnurl

        return cls(url=decode_lnurl(text))

    def __str__(self) -> str:
        return self.url


Address: TypeAlias = EvmAddress | NodeId | InvoiceText | LightningAddress | LnurlPay
"""Anything that can be paid. The union may grow in a minor release."""


def parse_address(text: str) -> Address:
    """Read any address by its form; white space around it is dropped.

    Raises:
        AddressError: no form fits; InvoiceError: it looks like an invoice but is not a valid one.
    """
    if not isinstance(text, str):
        raise AddressError(f"an address is text, not {kind_of(text)}", field="recipient")
    text = text.strip()
    lower = text.lower() if text.isascii() else ""
    if lower.startswith("0x"):
        return EvmAddress.parse(text)
    if lower.startswith(("lnurl1", "lnurlp://", "lightning:lnurl1")):
        return LnurlPay.parse(text)
    if lower.startswith(("lnbc", "lntb", "lightning:ln")):
        return InvoiceText.parse(text)
    if "@" in lower:
        return LightningAddress.parse(text)
    if len(lower) == 66 and _HEX.fullmatch(lower):
        return NodeId.parse(text)
    raise AddressError(
        f"{text[:40]!r} is no address of a known form",
        field="recipient",
        hint="an EVM address (0x...), a BOLT11 invoice, a Lightning address, an LNURL or a node id",
    )
