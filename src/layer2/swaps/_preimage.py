"""Preimages that can be made again from the key alone: HMAC(swap seed, chain, contract, t)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from layer2._crypto import sha256
from layer2._signing import derive_secret
from layer2.errors import SignerError
from layer2.protocol import Signer
from layer2.terms import Lock

__all__ = ["FORBIDDEN_HASHES", "PreimageSource", "preimage_label", "search_preimage"]

_DOMAIN = b"layer2 preimage v1"

FORBIDDEN_HASHES = frozenset(sha256(value.to_bytes(32)) for value in range(3))
"""Hashes of the preimages that the contract refuses: 0, 1 and 2 stand for states of a lock."""


def preimage_label(chain_id: int, contract: bytes, time_ms: int) -> bytes:
    """What a signer derives the preimage of time ``time_ms`` (Unix milliseconds) for a contract (20 bytes) from."""
    return _DOMAIN + chain_id.to_bytes(8) + contract + time_ms.to_bytes(8)


def search_preimage(
    derive: Callable[[bytes], bytes], chain_id: int, contract: bytes, preimage_hash: bytes, times_ms: Iterable[int]
) -> tuple[int, bytes] | None:
    """The first time of ``times_ms`` whose preimage has the hash, and the preimage; None if none has.

    ``derive`` is what ``Signer.derive_secret`` does, at once. A million times take a few seconds: run it in a thread.
    """
    prefix = _DOMAIN + chain_id.to_bytes(8) + contract
    for time_ms in times_ms:
        preimage = derive(prefix + time_ms.to_bytes(8))
        if hashlib.sha256(preimage).digest() == preimage_hash:
            return time_ms, preimage
    return None


class PreimageSource:
    """Derives preimages from a signer's secret. ``t`` is a time in milliseconds that the store never gives out twice."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def preimage_for(self, chain_id: int, contract: bytes, time_ms: int) -> bytes:
        """The preimage of time ``time_ms`` for a contract.

        Raises:
            SignerError: the signer refused.
        """
        secret = await derive_secret(self._signer, preimage_label(chain_id, contract, time_ms))
        if int.from_bytes(secret) <= 2:
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
            raise SignerError("the signer's key is not the one with which this transfer was begun")
        return preimage
