"""Private keys in encrypted files: Web3 Secret Storage, version 3."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from layer2._crypto import keccak256
from layer2.addresses import EvmAddress
from layer2.errors import SignerError
from layer2.signers._local import LocalSigner

__all__ = ["decrypt_keystore", "encrypt_keystore", "keystore_address", "load_keystore", "save_keystore"]

MAX_KEYSTORE_BYTES: Final = 64 * 1024
_SCRYPT_N: Final = 2**18
_MAX_SCRYPT_BYTES: Final = 1024**3
_MAX_ITERATIONS: Final = 50_000_000
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*", re.ASCII)


async def load_keystore(path: Path, password: str) -> LocalSigner:
    """Read and decrypt a keystore file.

    Raises:
        SignerError: not readable, not a keystore, or the wrong password.
    """
    return await decrypt_keystore(await _read(path), password)


async def keystore_address(path: Path) -> EvmAddress:
    """The account that a keystore file says it is of. Nothing is decrypted, so nothing shows that this is true.

    Raises:
        SignerError: not readable, not a keystore, or it does not say.
    """
    named = _document(await _read(path)).get("address")
    try:
        return EvmAddress(raw=bytes.fromhex(str(named).removeprefix("0x")))
    except ValueError as error:
        raise SignerError(f"the keystore {path} does not say of which account it is") from error


async def save_keystore(path: Path, signer: LocalSigner, password: str, *, scrypt_n: int = _SCRYPT_N) -> None:
    """Write a new keystore file that its owner alone may read. It was opened again with ``password`` once this returns.

    Args:
        path: where; a file that is there is never replaced.
        signer: whose key it is.
        password: what opens it.
        scrypt_n: cost, see ``encrypt_keystore``.

    Raises:
        SignerError: the password is empty, something is at ``path`` already, it cannot be written, or it cannot be opened again.
    """
    if await asyncio.to_thread(os.path.lexists, path):
        raise _there(path)
    text = await encrypt_keystore(signer, password, scrypt_n=scrypt_n)
    try:
        await asyncio.to_thread(_write_new, path, text)
    except FileExistsError as error:
        raise _there(path) from error
    except OSError as error:
        raise SignerError(f"the keystore {path} cannot be written: {error.strerror}") from error
    if (await load_keystore(path, password)).address != signer.address:
        raise SignerError(
            f"the keystore {path} does not hold the key that was written; the disk or the memory is faulty"
        )


async def decrypt_keystore(text: str | bytes, password: str) -> LocalSigner:
    """The signer in a keystore. The key derivation, slow on purpose, runs in a thread.

    Raises:
        SignerError: not a keystore of version 3, unknown parameters, or the wrong password.
    """
    document = _document(text)
    crypto = document.get("crypto", document.get("Crypto"))
    key = await asyncio.to_thread(_decrypt, crypto, password)
    signer = LocalSigner(key)
    named = document.get("address")
    if named is not None and str(named).lower().removeprefix("0x") != signer.address.raw.hex():
        raise SignerError("the keystore names another account than its key has")
    return signer


async def encrypt_keystore(signer: LocalSigner, password: str, *, scrypt_n: int = _SCRYPT_N) -> str:
    """A keystore file's text for the signer's key: scrypt (r = 8, p = 1) and AES-128-CTR.

    Args:
        signer: whose key it is.
        password: what opens it; an empty one is refused.
        scrypt_n: cost, a power of two; the default takes 256 MiB and about a second.

    Raises:
        SignerError: the password is empty.
    """
    if not password:
        raise SignerError("a keystore needs a password")
    return await asyncio.to_thread(_encrypt, signer, password, scrypt_n)


def _document(text: str | bytes) -> Mapping[str, Any]:
    # Not the standard library's: the interpreter can crash on what is nested deeply, where the recursion limit was raised.
    from pydantic_core import from_json

    try:
        document = from_json(text) if len(text) <= MAX_KEYSTORE_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("version") != 3:
        raise SignerError("not a keystore file of version 3")
    return document


async def _read(path: Path) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_KEYSTORE_BYTES + 1)

    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        hint = "`layer2 keystore new` makes one" if isinstance(error, FileNotFoundError) else None
        raise SignerError(f"the keystore {path} cannot be read: {error.strerror}", hint=hint) from error


def _there(path: Path) -> SignerError:
    return SignerError(f"{path} is there already", hint="name another file: a keystore is never replaced")


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Without it a power failure can take the file's name away, and with it whatever was paid to the account meanwhile.
        os.fsync(folder)
    finally:
        os.close(folder)


def _encrypt(signer: LocalSigner, password: str, scrypt_n: int) -> str:
    salt, iv = secrets.token_bytes(32), secrets.token_bytes(16)
    derived = _scrypt(password, salt, scrypt_n, 8, 1)
    ciphertext = _aes_ctr(derived[:16], iv, signer.export_private_key())
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": scrypt_n, "r": 8, "p": 1, "salt": salt.hex()},
        "mac": keccak256(derived[16:32] + ciphertext).hex(),
    }
    document = {"address": signer.address.raw.hex(), "crypto": crypto, "id": str(uuid.uuid4()), "version": 3}
    return json.dumps(document)


def _decrypt(crypto: Any, password: str) -> bytes:
    fields = _object(crypto, "crypto")
    if fields.get("cipher") != "aes-128-ctr":
        raise SignerError("the keystore's cipher is not aes-128-ctr")
    iv = _bytes(_object(fields.get("cipherparams"), "cipherparams").get("iv"), "iv", 16)
    ciphertext = _bytes(fields.get("ciphertext"), "ciphertext", 32)
    mac = _bytes(fields.get("mac"), "mac", 32)
    derived = _derive(str(fields.get("kdf")), _object(fields.get("kdfparams"), "kdfparams"), password)
    if not hmac.compare_digest(keccak256(derived[16:32] + ciphertext), mac):
        raise SignerError("the password does not open the keystore", hint="check the password; the file may be damaged")
    return _aes_ctr(derived[:16], iv, ciphertext)


def _derive(kdf: str, params: Mapping[str, Any], password: str) -> bytes:
    salt = _bytes(params.get("salt"), "salt", None)
    if params.get("dklen") != 32:
        raise SignerError("the keystore's derived key does not have 32 bytes")
    if kdf == "scrypt":
        return _scrypt(password, salt, _int(params, "n"), _int(params, "r"), _int(params, "p"))
    if kdf == "pbkdf2":
        rounds = _int(params, "c")
        if params.get("prf") != "hmac-sha256" or rounds > _MAX_ITERATIONS:
            raise SignerError("the keystore's pbkdf2 parameters are not supported")
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds, 32)
    raise SignerError("the keystore's key derivation is neither scrypt nor pbkdf2")


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    needed = 128 * r * (n + p + 2)
    if n & (n - 1) or needed > _MAX_SCRYPT_BYTES or p > 16:
        raise SignerError("the keystore's scrypt parameters are not valid, or need more than 1 GiB")
    try:
        return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=needed + 1024 * 1024, dklen=32)
    except ValueError as error:
        # RFC 7914 wants n below 2**(16 r); OpenSSL insists on it, some old wallets did not.
        raise SignerError("the keystore's scrypt parameters are not supported") from error


def _aes_ctr(key: bytes, iv: bytes, text: bytes) -> bytes:
    from Crypto.Cipher import AES

    return bytes(AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=iv).encrypt(text))


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SignerError(f"the keystore has no {name}")
    return value


def _bytes(value: Any, name: str, size: int | None) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value) or (size is not None and len(value) != 2 * size):
        raise SignerError(f"the keystore's {name} is malformed")
    return bytes.fromhex(value)


def _int(params: Mapping[str, Any], name: str) -> int:
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SignerError(f"the keystore's {name} is malformed")
    return value
