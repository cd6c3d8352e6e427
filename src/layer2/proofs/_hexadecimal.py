"""The two hexadecimal forms of Ethereum's JSON-RPC, read strictly."""

from __future__ import annotations

import re

from layer2.errors import ProofError

__all__ = ["data", "quantity"]

_DATA = re.compile(r"0x((?:[0-9a-fA-F]{2})*)", re.ASCII)
_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})", re.ASCII)


def data(value: object, name: str, length: int | None = None) -> bytes:
    """Bytes: ``0x`` and an even number of digits.

    Raises:
        ProofError: another form, or not ``length`` bytes; ``field`` is ``name``.
    """
    match = _DATA.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ProofError(f"{name} is not hexadecimal data", field=name, check="format")
    raw = bytes.fromhex(match[1])
    if length is not None and len(raw) != length:
        raise ProofError(f"{name} has {len(raw)} bytes, not {length}", field=name, check="format")
    return raw


def quantity(value: object, name: str) -> int:
    """A whole number below 2**256: ``0x`` and digits without leading zeros.

    Raises:
        ProofError: another form; ``field`` is ``name``.
    """
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ProofError(f"{name} is not a hexadecimal quantity", field=name, check="format")
    return int(match[1], 16)
