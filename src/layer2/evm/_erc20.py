"""Calls of ERC-20 tokens (EIP-20). Amounts are in the token's base unit."""

from __future__ import annotations

from layer2.addresses import EvmAddress
from layer2.evm._abi import encode_call

__all__ = [
    "TRANSFER_EVENT",
    "encode_allowance",
    "encode_approve",
    "encode_balance_of",
    "encode_decimals",
    "encode_mint",
    "encode_transfer",
    "encode_transfer_from",
]

TRANSFER_EVENT = "Transfer(address,address,uint256)"
"""Topics: sender and receiver; data: the amount."""


def encode_transfer(recipient: EvmAddress, amount: int) -> bytes:
    """Move ``amount`` from the caller to ``recipient``."""
    return encode_call("transfer(address,uint256)", recipient, amount)


def encode_transfer_from(sender: EvmAddress, recipient: EvmAddress, amount: int) -> bytes:
    """Move ``amount`` from ``sender`` to ``recipient`` out of the caller's allowance."""
    return encode_call("transferFrom(address,address,uint256)", sender, recipient, amount)


def encode_approve(spender: EvmAddress, amount: int) -> bytes:
    """Let ``spender`` move up to ``amount`` of the caller's tokens.

    Some tokens refuse a change from one non-zero allowance to another.
    """
    return encode_call("approve(address,uint256)", spender, amount)


def encode_balance_of(owner: EvmAddress) -> bytes:
    """Returns a uint256."""
    return encode_call("balanceOf(address)", owner)


def encode_allowance(owner: EvmAddress, spender: EvmAddress) -> bytes:
    """Returns a uint256."""
    return encode_call("allowance(address,address)", owner, spender)


def encode_decimals() -> bytes:
    """Returns a uint8."""
    return encode_call("decimals()")


def encode_mint(owner: EvmAddress, amount: int) -> bytes:
    """Make tokens: only the development networks' token has such a function."""
    return encode_call("mint(address,uint256)", owner, amount)
