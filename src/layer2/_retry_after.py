"""How long an endpoint asks to be left alone, from the header ``Retry-After``."""

from __future__ import annotations

from typing import Final

__all__ = ["retry_after_s"]

_MOST_DIGITS: Final = 6
"""Eleven days. ``int`` itself refuses thousands of digits, with an error that no caller expects of a header."""


def retry_after_s(header: str | None) -> int | None:
    """Seconds, of a header that is at most 6 digits; None for all else, dates included: a stranger writes it."""
    if header is None or len(header) > _MOST_DIGITS or not (header.isascii() and header.isdigit()):
        return None
    return int(header)
