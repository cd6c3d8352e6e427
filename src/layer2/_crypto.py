"""Hashes and secp256k1: the only file that touches the cryptographic libraries.

All functions take and give ``bytes``. Public keys are compressed (33 bytes) unless said otherwise; signatures are the 64 bytes
``r || s`` with a separate recovery id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

from btclib_secp256k1 import dsa, keys, recovery

__all__ = [
    "eth_address",
    "keccak256",
    "public_key",
    "recover",
    "sha256",
    "sign_recoverable",
    "valid_private_key",
    "valid_public_key",
    "verify",
]

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@cache
def _keccak() -> Callable[[bytes], bytes]:
    # Loaded when first used: the import costs what most callers never need.
    # safe-pysha3 is five times faster, but has no wheel for every platform and interpreter.
    try:
        import sha3
    except ImportError:
        from Crypto.Hash import keccak

        return lambda data: keccak.new(digest_bits=256, data=data).digest()
    keccak_256 = sha3.keccak_256
    return lambda data: bytes(keccak_256(data).digest())


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not NIST's SHA3-256)."""
    return _keccak()(data)


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def valid_private_key(key: bytes) -> bool:
    """Whether ``key`` is 32 bytes with a value in 1..n-1."""
    return len(key) == 32 and 0 < int.from_bytes(key) < CURVE_ORDER


def valid_public_key(key: bytes) -> bool:
    """Whether ``key`` is a compressed point on the curve."""
    return len(key) == 33 and keys.pubkey_verify(key)


def public_key(private_key: bytes, *, compressed: bool = True) -> bytes:
    """The public key of ``private_key``: 33 bytes, or 65 with ``compressed=False``."""
    return keys.pubkey_from_prvkey(private_key, compressed)


def eth_address(public: bytes) -> bytes:
    """The 20-byte address of a public key (compressed or not): the last 20 bytes of keccak256(x || y)."""
    return keccak256(keys.reserialize(public, False)[1:])[12:]


def sign_recoverable(digest: bytes, private_key: bytes) -> tuple[bytes, int]:
    """Sign a 32-byte digest (RFC 6979 nonce, low S). Returns the 64-byte signature and its recovery id 0..3."""
    return recovery.sign(digest, private_key)


def recover(digest: bytes, signature: bytes, recovery_id: int) -> bytes | None:
    """The compressed public key that made ``signature`` over ``digest``, or None if there is none. High S is accepted."""
    try:
        return recovery.recover(digest, signature, recovery_id)
    except ValueError:
        return None


def verify(digest: bytes, public: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes, low S only) over ``digest`` is by ``public``."""
    try:
        return dsa.verify(digest, public, signature, compact=True)
    except ValueError:
        return False
