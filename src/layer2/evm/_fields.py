"""Strict reading of the fields of JSON-RPC answers (Ethereum execution API, "hex encoding" of quantities and data).

A node that breaks the encoding rules is not trusted to have meant something else: every violation is an ``UnexpectedReply`` that
names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layer2.addresses import EvmAddress
from layer2.errors import UnexpectedReply

__all__ = [
    "as_address",
    "as_data",
    "as_hash",
    "as_list",
    "as_object",
    "as_quantity",
    "data",
    "opt_quantity",
    "quantity",
]

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})", re.ASCII)
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


def quantity(value: int) -> str:
    """The JSON-RPC form of a whole number."""
    return hex(value)


def data(value: bytes) -> str:
    """The JSON-RPC form of bytes."""
    return "0x" + value.hex()


def as_quantity(value: Any, field: str) -> int:
    """Read a quantity: ``0x`` and hexadecimal digits without leading zeros, below 2**256.

    Raises:
        UnexpectedReply: it is not one.
    """
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise UnexpectedReply(f"{field}: {_show(value)} is not a quantity")
    return int(value, 16)


def opt_quantity(fields: Mapping[str, Any], name: str) -> int | None:
    """The quantity under ``name``, or None where it is absent or null.

    Raises:
        UnexpectedReply: it is there and not a quantity.
    """
    value = fields.get(name)
    return None if value is None else as_quantity(value, name)


def as_data(value: Any, field: str, *, size: int | None = None) -> bytes:
    """Read bytes, of exactly ``size`` if that is given.

    Raises:
        UnexpectedReply: not hexadecimal data, or of another length.
    """
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise UnexpectedReply(f"{field}: {_show(value)} is not hexadecimal data")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise UnexpectedReply(f"{field}: {len(raw)} bytes where {size} belong")
    return raw


def as_hash(value: Any, field: str) -> bytes:
    """Read 32 bytes.

    Raises:
        UnexpectedReply: something else.
    """
    return as_data(value, field, size=32)


def as_address(value: Any, field: str) -> EvmAddress:
    """Read an address; its checksum, if it has one, is not looked at.

    Raises:
        UnexpectedReply: not 20 bytes.
    """
    return EvmAddress(raw=as_data(value, field, size=20))


def as_object(value: Any, field: str) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        UnexpectedReply: something else.
    """
    if not isinstance(value, dict):
        raise UnexpectedReply(f"{field}: {_show(value)} is not an object")
    return value


def as_list(value: Any, field: str) -> list[Any]:
    """Read a JSON array.

    Raises:
        UnexpectedReply: something else.
    """
    if not isinstance(value, list):
        raise UnexpectedReply(f"{field}: {_show(value)} is not a list")
    return value


def _show(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"
