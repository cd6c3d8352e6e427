"""The accounts of simulated parties: real keys, so that what the real sender signs is theirs."""

from __future__ import annotations

from hashlib import sha256, sha512
from typing import Final

from layer2._crypto import eth_address, public_key, sign_recoverable
from layer2.addresses import EvmAddress

__all__ = ["CLIENT", "PROVIDER", "SimulatedSigner", "sign"]

_KEYS: Final = {eth_address(public_key(key)): key for key in (b"\x11" * 32, b"\x22" * 32)}
CLIENT, PROVIDER = (EvmAddress(raw=address) for address in _KEYS)
"""Their accounts."""


def sign(address: bytes, digest: bytes) -> bytes:
    """r, s and v (27 or 28) by an account's key. Of accounts without one: what nobody takes for a signature."""
    key = _KEYS.get(address)
    if key is None:
        return sha512(address + digest).digest() + b"\x1b"
    signature, recovery_id = sign_recoverable(digest, key)
    return signature + bytes((27 + recovery_id,))


class SimulatedSigner:
    """The signer of one account."""

    def __init__(self, address: EvmAddress) -> None:
        self._address = address

    @property
    def address(self) -> EvmAddress:
        """The account it signs for."""
        return self._address

    async def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes: r, s and v."""
        return sign(self._address.raw, digest)

    async def derive_secret(self, label: bytes) -> bytes:
        """The same secret for the same label."""
        return sha256(b"secret" + self._address.raw + label).digest()
