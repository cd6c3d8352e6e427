"""Amounts in the base unit of a token, which may be worth more than a satoshi, or less."""

from __future__ import annotations

from layer2.assets import AssetForm, convert_amount

__all__ = ["token_units", "whole_satoshi"]


def token_units(sat: int, token: AssetForm, *, up: bool) -> int:
    """What ``sat`` is worth in the token's base unit, rounded up or down where that is worth more than a satoshi.

    For bounds and fees only: what arrives is exact, or refused.
    """
    unit: int = 10 ** max(0, token.asset.decimals - token.decimals)
    units = -(-sat // unit) if up else sat // unit
    return convert_amount(units * unit, token.asset.decimals, token.decimals)


def whole_satoshi(units: int, token: AssetForm, *, up: bool) -> int:
    """What an amount that is not of our making is worth, rounded up or down where the token's unit is worth less than a satoshi."""
    unit: int = 10 ** max(0, token.decimals - token.asset.decimals)
    whole = -(-units // unit) if up else units // unit
    return convert_amount(whole * unit, token.decimals, token.asset.decimals)
