"""The official examples, a writer of arbitrary (also broken) invoices and a slow second reader."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from layer2.lightning import UnsignedInvoice

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
DIGITS = "0123456789abcdefghijklmnopqrstuv"
VECTORS = json.loads((Path(__file__).parent / "bolt11_vectors.json").read_text(encoding="utf-8"))
KEY = bytes.fromhex(VECTORS["private_key"])
HASH = hashlib.sha256(b"a preimage").digest()
SECRET = bytes([0x11]) * 32


def to_bits(data):
    return "".join(f"{byte:08b}" for byte in data)


def to_symbols(data):
    """Bytes as numbers 0..31, padded with zero bits."""
    bits = to_bits(data)
    bits += "0" * (-len(bits) % 5)
    return [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]


def number(value, length):
    return [value >> 5 * (length - 1 - i) & 31 for i in range(length)]


class Writer:
    """Writes invoices without asking whether they make sense: ``fields`` are (letter, bytes or list of symbols)."""

    key = KEY
    payment_hash = HASH
    payment_secret = SECRET
    required = (("p", HASH), ("s", SECRET), ("d", b"tea"))

    @staticmethod
    def unsigned(fields, *, hrp="lnbc20m", timestamp=1_700_000_000, tail=()):
        symbols = number(timestamp, 7)
        for letter, content in fields:
            piece = to_symbols(content) if isinstance(content, bytes) else content
            symbols += [ALPHABET.index(letter), *number(len(piece), 2), *piece]
        symbols += tail
        return UnsignedInvoice(hrp=hrp, digits="".join(DIGITS[symbol] for symbol in symbols).encode())

    @classmethod
    def text(cls, fields, **options):
        """Signed, with a checksum that fits; written by the rules of BIP-173 and not by the package."""
        unsigned = cls.unsigned(fields, **options)
        return cls.finish(unsigned.hrp, [DIGITS.index(chr(c)) for c in unsigned.digits], sign(unsigned))

    @staticmethod
    def bech32(hrp, raw):
        data = to_symbols(raw)
        return hrp + "1" + "".join(ALPHABET[s] for s in data + checksum(hrp, data))

    @staticmethod
    def as_bech32m(text):
        hrp, _, data = text.rpartition("1")
        symbols = [ALPHABET.index(c) for c in data[:-6]]
        return text[:-6] + "".join(ALPHABET[s] for s in checksum(hrp, symbols, 0x2BC830A3))

    @staticmethod
    def finish(hrp, symbols, signature):
        data = symbols + to_symbols(signature)
        return hrp + "1" + "".join(ALPHABET[s] for s in data + checksum(hrp, data))


def sign(unsigned):
    from btclib_secp256k1 import recovery

    signature, recovery_id = recovery.sign(unsigned.signing_hash, KEY)
    return signature + bytes([recovery_id])


def checksum(hrp, data, constant=1):
    """BIP-173, one bit at a time; with another constant that of BIP-350."""
    state = 1
    for symbol in [*(ord(c) >> 5 for c in hrp), 0, *(ord(c) & 31 for c in hrp), *data, 0, 0, 0, 0, 0, 0]:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ symbol
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                state ^= term
    return number(state ^ constant, 6)


def read_slowly(text):
    """The fields of a valid invoice as a list of (letter, bits), straight from the specification."""
    data = text[text.rindex("1") + 1 : -6 - 104]
    fields = []
    at = 7
    while at < len(data):
        length = ALPHABET.index(data[at + 1]) * 32 + ALPHABET.index(data[at + 2])
        content = data[at + 3 : at + 3 + length]
        fields.append((data[at], "".join(f"{ALPHABET.index(c):05b}" for c in content)))
        at += 3 + length
    return fields


@pytest.fixture(scope="session")
def vectors():
    return VECTORS


@pytest.fixture(scope="session")
def writer():
    return Writer


@pytest.fixture(scope="session")
def slow_reader():
    return read_slowly
