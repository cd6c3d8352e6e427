"""How values are written for people. Nothing here rounds or uses floating point."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["btc", "clean", "ether", "msat", "sat", "utc"]


def sat(amount: int) -> str:
    """Satoshi, with separators."""
    return f"{amount:,} sat"


def msat(amount: int) -> str:
    """Millisatoshi as satoshi with what is below one."""
    whole, rest = divmod(abs(amount), 1000)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}{f'.{rest:03d}' if rest else ''} sat"


def btc(amount: int, decimals: int = 8) -> str:
    """An amount in base units as a decimal number."""
    sign, digits = ("-" if amount < 0 else ""), f"{abs(amount):0{decimals + 1}d}"
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"


def ether(wei: int) -> str:
    """Wei as ETH, all digits that are not zero."""
    return btc(wei, 18).rstrip("0").rstrip(".") + " ETH"


def utc(unix_s: int) -> str:
    """A point of time."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clean(text: object) -> str:
    """Text of somebody else, without what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in str(text))
