"""Bech32 (BIP-173) for long texts: strict reading, writing, and the likely place of a wrong character.

A code word is a polynomial over GF(32) whose remainder modulo the generator must be 1. The remainder is linear, so six
symbols (30 bits, the size of the remainder) are taken per step through three tables of 1,024 entries: an invoice of 300
characters costs 50 steps.
"""

from __future__ import annotations

from functools import lru_cache

from layer2.errors import ValidationError

__all__ = ["ALPHABET", "DIGITS", "decode", "encode", "pack", "to_digits", "unpack"]

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
DIGITS = b"0123456789abcdefghijklmnopqrstuv"
"""Digits that ``int(text, 32)`` reads: symbol number n is written ``DIGITS[n]`` after translation."""

_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6
_ORDER = 1023
"""x**1023 = 1 modulo the generator: positions this far apart cannot be told from each other."""

_INVALID = ord("~")
_TO_DIGITS = bytes(DIGITS[ALPHABET.index(chr(c))] if chr(c) in ALPHABET else _INVALID for c in range(256))
_FROM_DIGITS = bytes.maketrans(DIGITS, ALPHABET.encode())


def _linear_table(images: list[int]) -> list[int]:
    """All sums (XOR) of ``images``: entry v is the image of the bits of v."""
    table = [0]
    for image in images:
        table += [entry ^ image for entry in table]
    return table


_TIMES_X = _linear_table(list(_GENERATOR))
"""What the top symbol becomes when the remainder is multiplied by x."""
_TOP_OF_LOW = {entry & 31: top for top, entry in enumerate(_TIMES_X)}
"""The inverse: the lowest symbol after a multiplication tells the top symbol before it."""


def _times_x(state: int) -> int:
    return (state & 0x1FFFFFF) << 5 ^ _TIMES_X[state >> 25]


def _divided_by_x(state: int) -> int:
    top = _TOP_OF_LOW[state & 31]
    return (state ^ _TIMES_X[top]) >> 5 | top << 25


def _times_x6(state: int) -> int:
    for _ in range(6):
        state = _times_x(state)
    return state


_LOW, _MIDDLE, _HIGH = (
    _linear_table([_times_x6(1 << bit) for bit in range(first, first + 10)]) for first in (0, 10, 20)
)


@lru_cache(maxsize=512)
def _prefix_state(hrp: str) -> int:
    codes = hrp.encode("ascii")
    state = 1
    for symbol in (*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)):
        state = _times_x(state) ^ symbol
    return state


def _remainder(hrp: str, value: int, count: int) -> int:
    """The remainder of the prefix followed by ``count`` symbols that stand in ``value``."""
    state = _prefix_state(hrp)
    low, middle, high = _LOW, _MIDDLE, _HIGH
    full, rest = divmod(count, 6)
    for _ in range(rest):
        state = _times_x(state)
    state ^= value >> 30 * full
    for shift in range(30 * full - 30, -1, -30):
        state = high[state >> 20] ^ middle[state >> 10 & 1023] ^ low[state & 1023] ^ (value >> shift & 0x3FFFFFFF)
    return state


def _likely_position(hrp: str, count: int, remainder: int) -> int | None:
    """Where one wrong character explains the remainder; None if there is no such place, or more than one."""
    prefix = len(hrp)
    total = 2 * prefix + 1 + count
    error = remainder ^ 1
    found = None
    for behind in range(min(total, _ORDER)):
        if error < 32:
            found = behind
            break
        error = _divided_by_x(error)
    if found is None or found + _ORDER < total:
        return None
    index = total - 1 - found
    if index >= 2 * prefix + 1:
        return index - prefix
    return index % (prefix + 1) if index != prefix else None


def _misplaced_separator(lower: str, split: int) -> int | None:
    """``split`` if the digit 1 there stands where a data character was, and one further in front is the separator."""
    before = lower.rfind("1", 0, split)
    digits = lower[before + 1 :].replace("1", ALPHABET[0]).encode().translate(_TO_DIGITS)
    if before < 1 or _INVALID in digits:
        return None
    hrp = lower[:before]
    remainder = _remainder(hrp, int(digits, 32), len(digits))
    return split if remainder == 1 or _likely_position(hrp, len(digits), remainder) == split else None


def _checked_case(text: str, error: type[ValidationError], what: str, max_length: int) -> str:
    if not isinstance(text, str):
        raise error(f"{what} is text, not {type(text).__name__}", field="text")
    if not text.isascii():
        at = next(i for i, c in enumerate(text) if not c.isascii())
        raise error(f"character {at} is not ASCII", field="text", position=at, hint="copy the text again")
    if len(text) > max_length:
        raise error(f"{what} of {len(text)} characters is longer than {max_length}", field="text", position=max_length)
    colon = text.find(":")
    if colon >= 0:
        raise error(
            f"a colon does not occur in {what}",
            field="text",
            position=colon,
            hint="leave out lightning: and whatever else stands before it",
        )
    lower = text.lower()
    if text not in (lower, text.upper()):
        first = next(c for c in text if c.isalpha())
        at = next(i for i, c in enumerate(text) if c.isalpha() and c.isupper() != first.isupper())
        raise error(
            f"upper and lower case are mixed, from character {at} on",
            field="text",
            position=at,
            hint="bech32 is either all lower or all upper case",
        )
    return lower


def decode(text: str, *, error: type[ValidationError], what: str, max_length: int) -> tuple[str, bytes]:
    """Read bech32 of up to ``max_length`` characters.

    Returns the part before the separator and the data without its checksum, one of ``DIGITS`` for each symbol;
    character i of the data stands at ``len(prefix) + 1 + i`` of the text.

    Raises:
        error: the given class, with the position; for a wrong checksum the likely position, if one wrong character
            explains it.
    """
    lower = _checked_case(text, error, what, max_length)
    split = lower.rfind("1")
    if split < 1:
        raise error(
            f"{what} has a part before and a part after the digit 1; this text has not",
            field="text",
            position=max(split, 0),
            hint="the text may be cut off or be of another kind",
        )
    hrp = lower[:split]
    if not 32 < min(hrp.encode()) <= max(hrp.encode()) < 127:
        at = next(i for i, c in enumerate(hrp) if not 32 < ord(c) < 127)
        raise error(f"character {at} is a space or control character", field="text", position=at)
    digits = lower[split + 1 :].encode().translate(_TO_DIGITS)
    bad = digits.find(_INVALID)
    if bad >= 0:
        at = split + 1 + bad
        raise error(f"{text[at]!r} at character {at} does not occur in bech32", field="text", position=at)
    count = len(digits)
    if count < _CHECKSUM_LENGTH:
        raise error(
            f"{what} ends with a checksum of 6 characters; only {count} follow the digit 1",
            field="text",
            position=len(text),
            hint="the text was cut off",
        )
    remainder = _remainder(hrp, int(digits, 32), count)
    if remainder != 1:
        at_or_none = _misplaced_separator(lower, split)
        if at_or_none is None:
            at_or_none = _likely_position(hrp, count, remainder)
        where = "" if at_or_none is None else f"; most likely character {at_or_none} ({text[at_or_none]!r}) is wrong"
        raise error(
            f"the checksum fails{where}",
            field="checksum",
            position=at_or_none,
            hint="copy the text again from its source; do not guess",
        )
    return hrp, digits[:-_CHECKSUM_LENGTH]


def encode(hrp: str, digits: bytes) -> str:
    """Write bech32, lower case: ``digits`` are ``DIGITS``, one for each symbol."""
    count = len(digits) + _CHECKSUM_LENGTH
    value = int(digits + b"0" * _CHECKSUM_LENGTH, 32)
    checksum = _remainder(hrp, value, count) ^ 1
    return f"{hrp}1{(digits + to_digits(checksum, _CHECKSUM_LENGTH)).translate(_FROM_DIGITS).decode()}"


def to_digits(value: int, count: int) -> bytes:
    """``value`` as exactly ``count`` of ``DIGITS``, most significant first."""
    return bytes(DIGITS[value >> shift & 31] for shift in range(5 * count - 5, -1, -5))


def pack(data: bytes) -> bytes:
    """Bytes as ``DIGITS``, padded with zero bits to a whole symbol."""
    count = -(-8 * len(data) // 5)
    return to_digits(int.from_bytes(data) << 5 * count - 8 * len(data), count)


def unpack(digits: bytes) -> bytes | None:
    """The bytes that ``pack`` wrote; None if the padding is not zero or is a whole symbol."""
    bits = 5 * len(digits)
    padding = bits & 7
    value = int(digits, 32) if digits else 0
    if padding > 4 or value & (1 << padding) - 1:
        return None
    return (value >> padding).to_bytes(bits >> 3)
