import copy
import errno
import hashlib
import hmac
import json
import os
import pickle
import stat

import pytest
from eth_account import Account

from layer2._crypto import eth_address, recover
from layer2.errors import SignerError
from layer2.signers import (
    LocalSigner,
    decrypt_keystore,
    encrypt_keystore,
    keystore_address,
    load_keystore,
    save_keystore,
)

KEY = bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")
# The test vectors of the Web3 Secret Storage Definition: key above, password "testpassword".
PBKDF2 = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
SCRYPT = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}


async def test_the_official_keystore_opens():
    signer = await decrypt_keystore(json.dumps(PBKDF2), "testpassword")
    assert signer.export_private_key() == KEY


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
async def test_a_keystore_made_elsewhere_opens(kdf):
    text = json.dumps(Account.encrypt(KEY, "pässword", kdf=kdf, iterations=2048))
    assert (await decrypt_keystore(text, "pässword")).export_private_key() == KEY


async def test_scrypt_parameters_outside_the_standard_are_refused_by_name():
    with pytest.raises(SignerError, match="scrypt"):
        await decrypt_keystore(json.dumps(SCRYPT), "testpassword")


async def test_a_keystore_of_ours_opens_here_and_elsewhere(tmp_path):
    signer = LocalSigner(KEY)
    text = await encrypt_keystore(signer, "pässword", scrypt_n=1024)
    assert KEY.hex() not in text
    path = tmp_path / "key.json"
    path.write_text(text)
    assert (await load_keystore(path, "pässword")).address == signer.address
    assert bytes(Account.decrypt(text, "pässword")) == KEY


async def test_the_wrong_password_says_so():
    text = await encrypt_keystore(LocalSigner(KEY), "right", scrypt_n=1024)
    with pytest.raises(SignerError, match="password") as caught:
        await decrypt_keystore(text, "wrong")
    assert "wrong" not in str(caught.value)
    with pytest.raises(SignerError, match="needs a password"):
        await encrypt_keystore(LocalSigner(KEY), "")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"crypto": None},
        {"crypto": {**SCRYPT["crypto"], "cipher": "aes-256-cbc"}},
        {"crypto": {**SCRYPT["crypto"], "kdf": "argon2"}},
        {"crypto": {**SCRYPT["crypto"], "mac": "00"}},
        {"crypto": {**SCRYPT["crypto"], "ciphertext": 7}},
        {"crypto": {**SCRYPT["crypto"], "kdfparams": {**SCRYPT["crypto"]["kdfparams"], "n": 2**40}}},
        {"crypto": {**SCRYPT["crypto"], "kdfparams": {**SCRYPT["crypto"]["kdfparams"], "n": 3}}},
        {"crypto": {**SCRYPT["crypto"], "kdfparams": {**SCRYPT["crypto"]["kdfparams"], "n": True}}},
        {"crypto": {**PBKDF2["crypto"], "kdfparams": {**PBKDF2["crypto"]["kdfparams"], "c": 10**12}}},
        {"crypto": {**PBKDF2["crypto"], "kdfparams": {**PBKDF2["crypto"]["kdfparams"], "prf": "hmac-md5"}}},
    ],
    ids=lambda change: str(change)[:60],
)
async def test_a_keystore_that_cannot_be_right_is_refused(change):
    with pytest.raises(SignerError):
        await decrypt_keystore(json.dumps({**SCRYPT, **change}), "testpassword")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 50_000, "x" * 100_000], ids=lambda text: text[:4] or "empty"
)
async def test_what_is_no_keystore_is_refused(text):
    with pytest.raises(SignerError, match="not a keystore"):
        await decrypt_keystore(text, "testpassword")


async def test_a_keystore_of_another_account_is_refused():
    text = await encrypt_keystore(LocalSigner(KEY), "p", scrypt_n=1024)
    document = {**json.loads(text), "address": "00" * 20}
    with pytest.raises(SignerError, match="another account"):
        await decrypt_keystore(json.dumps(document), "p")


async def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SignerError, match="nowhere"):
        await load_keystore(tmp_path / "nowhere", "p")


async def test_signatures_recover_to_the_account():
    signer = LocalSigner(KEY)
    digest = hashlib.sha256(b"x").digest()
    signature = await signer.sign_digest(digest)
    assert len(signature) == 65
    assert eth_address(recover(digest, signature[:64], signature[64] - 27)) == signer.address.raw
    assert str(signer.address) == Account.from_key(KEY).address
    with pytest.raises(SignerError, match="32 bytes"):
        await signer.sign_digest(b"short")


async def test_secrets_are_the_documented_hmac():
    key = hmac.digest(KEY, b"layer2 swap secret v1", "sha256")
    assert await LocalSigner(KEY).derive_secret(b"label") == hmac.digest(key, b"label", "sha256")
    assert await LocalSigner(KEY).derive_secret(b"other") != await LocalSigner(KEY).derive_secret(b"label")


@pytest.mark.parametrize(
    "text",
    ["", "0x", "zz" * 32, "11" * 31, "11" * 33, "0" * 64, "f" * 64, "٣" * 64],
    ids=lambda text: text[:6] or "empty",
)
def test_what_is_no_key_is_refused_and_not_repeated(text):
    with pytest.raises(SignerError) as caught:
        LocalSigner.from_hex(text)
    assert not text[4:] or text not in str(caught.value)


def test_keys_are_read_with_and_without_prefix_and_made_at_random():
    assert LocalSigner.from_hex(f" 0x{KEY.hex()}\n").address == LocalSigner.from_hex(KEY.hex()).address
    assert LocalSigner.generate().address != LocalSigner.generate().address


def test_a_signer_never_shows_its_key():
    signer = LocalSigner(KEY)
    assert KEY.hex() not in repr(signer) + str(signer)
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(signer)


async def test_a_saved_keystore_is_the_owner_s_alone_and_is_never_replaced(tmp_path):
    path, signer = tmp_path / "keystore.json", LocalSigner(KEY)
    await save_keystore(path, signer, "pässword", scrypt_n=2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY.hex() not in path.read_text()
    assert Account.decrypt(path.read_text(), "pässword") == KEY
    assert await keystore_address(path) == signer.address
    before = path.read_bytes()
    with pytest.raises(SignerError, match="there already") as caught:
        await save_keystore(path, LocalSigner.generate(), "other", scrypt_n=2)
    assert "another file" in caught.value.hint
    assert path.read_bytes() == before


async def test_nothing_is_left_of_a_keystore_that_could_not_be_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SignerError, match="No space left"):
        await save_keystore(tmp_path / "k", LocalSigner(KEY), "x", scrypt_n=2)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(SignerError, match="cannot be written"):
        await save_keystore(tmp_path / "none" / "k", LocalSigner(KEY), "x", scrypt_n=2)
    with pytest.raises(SignerError, match="needs a password"):
        await save_keystore(tmp_path / "k", LocalSigner(KEY), "", scrypt_n=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{}", '{"version": 3}', '{"version": 3, "address": "0x12"}', "\xff"])
async def test_a_file_that_names_no_account_is_refused(tmp_path, text):
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(SignerError):
        await keystore_address(path)


async def test_a_missing_keystore_says_how_to_make_one(tmp_path):
    with pytest.raises(SignerError) as caught:
        await load_keystore(tmp_path / "none", "x")
    assert "layer2 keystore new" in caught.value.hint
