"""What signs for an EVM account: a local key, and the encrypted file it is kept in."""

from __future__ import annotations

from layer2._signing import SIGNER_TIMEOUT_S, derive_secret, sign_digest
from layer2.protocol import Signer
from layer2.signers._keystore import (
    decrypt_keystore,
    encrypt_keystore,
    keystore_address,
    load_keystore,
    save_keystore,
)
from layer2.signers._local import LocalSigner

__all__ = [
    "SIGNER_TIMEOUT_S",
    "LocalSigner",
    "Signer",
    "decrypt_keystore",
    "derive_secret",
    "encrypt_keystore",
    "keystore_address",
    "load_keystore",
    "save_keystore",
    "sign_digest",
]
