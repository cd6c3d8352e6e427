"""A chain per test, people with coins on it, and their signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from layer2 import _rlp
from layer2._crypto import eth_address, keccak256, public_key, sha256, sign_recoverable
from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedEvm
from layer2.testing import VirtualClock

CHAIN_ID = 60808
GENESIS_S = 1_750_000_000


@dataclass
class Person:
    """Somebody with a key, who counts nonces."""

    key: bytes = field(repr=False)
    nonce: int = 0

    @property
    def address(self) -> EvmAddress:
        return EvmAddress(raw=eth_address(public_key(self.key)))

    def sign(
        self,
        to: EvmAddress | None,
        data: bytes = b"",
        *,
        value: int = 0,
        gas: int = 500_000,
        tip: int = 10**6,
        max_fee: int = 10**9,
        nonce: int | None = None,
        chain_id: int = CHAIN_ID,
    ) -> str:
        """A transaction of type 2, with the next nonce unless one is given."""
        if nonce is None:
            nonce, self.nonce = self.nonce, self.nonce + 1
        fields = [chain_id, nonce, tip, max_fee, gas, to.raw if to else b"", value, data, []]
        signature, parity = sign_recoverable(keccak256(b"\x02" + _rlp.encode(fields)), self.key)
        scalars = [int.from_bytes(signature[:32]), int.from_bytes(signature[32:])]
        return "0x02" + _rlp.encode([*fields, parity, *scalars]).hex()

    def sign_legacy(
        self, to: EvmAddress, *, value: int = 0, gas_price: int = 10**9, chain_id: int | None = CHAIN_ID
    ) -> str:
        """A transaction without a type; without ``chain_id`` it is valid on every chain."""
        fields: list[Any] = [self.nonce, gas_price, 21_000, to.raw, value, b""]
        self.nonce += 1
        suffix = [] if chain_id is None else [chain_id, b"", b""]
        signature, parity = sign_recoverable(keccak256(_rlp.encode([*fields, *suffix])), self.key)
        v = 27 + parity if chain_id is None else 35 + 2 * chain_id + parity
        return "0x" + _rlp.encode([*fields, v, int.from_bytes(signature[:32]), int.from_bytes(signature[32:])]).hex()


@pytest.fixture
def alice() -> Person:
    return Person(sha256(b"alice"))


@pytest.fixture
def bob() -> Person:
    return Person(sha256(b"bob"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(GENESIS_S * 1000)


@pytest.fixture
async def evm(clock: VirtualClock, alice: Person, bob: Person) -> AsyncIterator[EmbeddedEvm]:
    """Mines only when told to."""
    balances = {alice.address: 10**18, bob.address: 10**18}
    async with EmbeddedEvm(clock=clock, block_time_s=None, balances=balances) as chain:
        yield chain
