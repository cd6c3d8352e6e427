"""Preimages that can be made again from the key alone: HMAC(swap seed, chain, contract, t)."""

from __future__ import annotations

from layer2._crypto import sha256
from layer2.errors import SignerError
from layer2.protocol import Signer
from layer2.terms import Lock

__all__ = ["FORBIDDEN_HASHES", "PreimageSource"]

FORBIDDEN_HASHES = frozenset(sha256(value.to_bytes(32)) for value in range(3))
"""Hashes of the preimages that the contract refuses: 0, 1 and 2 stand for states of a lock."""


class PreimageSource:
    """Derives preimages from a signer's secret. ``t`` is a time in milliseconds that the store never gives out twice."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def preimage_for(self, chain_id: int, contract: bytes, time_ms: int) -> bytes:
        """The preimage of time ``time_ms`` for a contract.

        Raises:
            SignerError: the signer refused.
        """
        label = b"layer2 preimage v1" + chain_id.to_bytes(8) + contract + time_ms.to_bytes(8)
        secret = await self._signer.derive_secret(label)
        if len(secret) != 32 or int.from_bytes(secret) <= 2:
            raise SignerError("the signer gave a secret that cannot be a preimage")
        return secret

    @staticmethod
    def hash_of(preimage: bytes) -> bytes:
        """The payment hash of a preimage."""
        return sha256(preimage)

    async def preimage(self, lock: Lock, time_ms: int) -> bytes:
        """The preimage of a lock of ours.

        Raises:
            SignerError: the signer refused, or holds another key than when the swap was made.
        """
        preimage = await self.preimage_for(lock.chain_id, lock.contract.raw, time_ms)
        if sha256(preimage) != lock.preimage_hash:
            raise SignerError("the signer's key is not the one with which this swap was begun")
        return preimage
