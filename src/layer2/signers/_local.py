"""A private key in this process's memory."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NoReturn, Self

from layer2._crypto import eth_address, public_key, recover, sign_recoverable, valid_private_key
from layer2.addresses import EvmAddress
from layer2.errors import SignerError

__all__ = ["LocalSigner"]

_SECRET_DOMAIN = b"layer2 swap secret v1"
_KEY_TEXT = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)


class LocalSigner:
    """Signs with a private key (32 bytes). Neither ``repr`` nor pickling shows it."""

    __slots__ = ("_address", "_key", "_secret_key")

    def __init__(self, private_key: bytes) -> None:
        if not valid_private_key(private_key):
            raise SignerError("a private key is 32 bytes with a value from 1 to the curve's order - 1")
        self._key = private_key
        self._secret_key = hmac.digest(private_key, _SECRET_DOMAIN, hashlib.sha256)
        self._address = EvmAddress(raw=eth_address(public_key(private_key)))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 64 hexadecimal digits, with or without ``0x``; white space around them is ignored.

        Raises:
            SignerError: anything else. The message does not repeat it.
        """
        match = _KEY_TEXT.fullmatch(text.strip())
        if match is None:
            raise SignerError("a private key is written as 64 hexadecimal digits")
        return cls(bytes.fromhex(match[1]))

    @classmethod
    def generate(cls) -> Self:
        """A fresh random key."""
        while True:
            key = secrets.token_bytes(32)
            if valid_private_key(key):
                return cls(key)

    @property
    def address(self) -> EvmAddress:
        """The account it signs for."""
        return self._address

    async def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes: r, s (low) and v = 27 or 28.

        Raises:
            SignerError: not 32 bytes.
        """
        if len(digest) != 32:
            raise SignerError(f"a digest has 32 bytes, not {len(digest)}")
        signature, recovery_id = sign_recoverable(digest, self._key)
        if recovery_id > 1:
            # The point's x is not below the curve's order: chance 2**-127, and no recovery id of Ethereum's can say it.
            raise SignerError("the digest cannot be signed in Ethereum's form")
        public = recover(digest, signature, recovery_id)
        if public is None or eth_address(public) != self._address.raw:
            raise SignerError("the signature does not verify; the machine computes wrongly")
        return signature + bytes([27 + recovery_id])

    async def derive_secret(self, label: bytes) -> bytes:
        """``HMAC-SHA256(HMAC-SHA256(key, "layer2 swap secret v1"), label)``: 32 bytes that only this key gives."""
        return self.derive_secret_now(label)

    def derive_secret_now(self, label: bytes) -> bytes:
        """``derive_secret`` for those who derive many in a thread."""
        return hmac.digest(self._secret_key, label, hashlib.sha256)

    def __repr__(self) -> str:
        return f"LocalSigner({self._address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer is not pickled or copied: that would write its key")

    def export_private_key(self) -> bytes:
        """The private key, for ``encrypt_keystore``. Whoever has it has the account."""
        return self._key
