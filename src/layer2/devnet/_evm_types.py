"""The values that the parts of the embedded EVM hand to one another. Needs no py-evm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["GAS_LIMIT", "AccountProof", "Block", "EvmMessage", "PoolTransaction"]

GAS_LIMIT: Final = 30_000_000
"""Of every block."""


@dataclass(frozen=True, slots=True)
class PoolTransaction:
    """A signed transaction, checked once."""

    decoded: Any
    hash: bytes
    sender: bytes
    type_id: int
    raw: bytes
    arrival: int

    def tip(self, base_fee: int) -> int:
        """What it pays the block's producer per gas, in wei."""
        fee: int = min(self.decoded.max_priority_fee_per_gas, self.decoded.max_fee_per_gas - base_fee)
        return fee


@dataclass(frozen=True, slots=True)
class Block:
    """A block with everything that was in it and came out of it."""

    header: Any
    transactions: tuple[PoolTransaction, ...]
    receipts: tuple[Any, ...]
    """With cumulative ``gas_used``; ``state_root`` holds the status."""
    created: tuple[bytes | None, ...]
    """Addresses of the contracts that the transactions themselves made."""
    withdrawals: tuple[Any, ...]
    size: int

    @property
    def number(self) -> int:
        """Its height."""
        number: int = self.header.block_number
        return number

    @property
    def hash(self) -> bytes:
        """keccak256 of the RLP of the header."""
        return bytes(self.header.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmMessage:
    """A call that is simulated."""

    sender: bytes = bytes(20)
    to: bytes = b""
    """Empty: ``data`` runs as a deployment."""
    value: int = 0
    data: bytes = b""
    gas: int = GAS_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProof:
    """An account and some of its slots, with the trie nodes from the roots to them."""

    balance: int
    nonce: int
    code_hash: bytes
    storage_root: bytes
    account_nodes: list[bytes]
    slots: list[tuple[int, list[bytes]]]
    """Value and nodes of each slot that was asked for."""
