"""The contract ABI's static types, which is all that our own contract and ERC-20 need (Solidity ABI specification).

Every argument and result is one word of 32 bytes; there are no offsets. Users' ABIs go through eth-abi elsewhere.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from layer2._crypto import keccak256
from layer2.addresses import EvmAddress
from layer2.errors import UnexpectedReply, ValidationError

__all__ = [
    "Word",
    "decode_address",
    "decode_bool",
    "decode_bytes32",
    "decode_revert",
    "decode_uint",
    "encode_call",
    "encode_word",
    "event_topic",
    "selector",
    "split_words",
]

Word: TypeAlias = int | bytes | EvmAddress
"""A static argument: a whole number (``bool`` included), 32 bytes, or an address."""

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
MAX_REASON_BYTES = 1024


@cache
def selector(signature: str) -> bytes:
    """The first four bytes of the hash of ``name(type,type)``: how calls and custom errors are recognised."""
    return keccak256(signature.encode())[:4]


@cache
def event_topic(signature: str) -> bytes:
    """The first topic of an event: the hash of ``Name(type,type)``."""
    return keccak256(signature.encode())


def encode_word(value: Word) -> bytes:
    """Encode a ``uint``, ``bool``, ``bytes32`` or ``address``.

    Raises:
        ValidationError: negative, more than 256 bits, or bytes that are not 32.
    """
    if isinstance(value, EvmAddress):
        return value.raw.rjust(32, b"\0")
    if isinstance(value, bytes):
        if len(value) != 32:
            raise ValidationError(f"a bytes32 argument has 32 bytes, not {len(value)}")
        return value
    if not 0 <= value < 2**256:
        raise ValidationError("a uint256 argument is a whole number from 0 to 2**256 - 1")
    return value.to_bytes(32)


def encode_call(signature: str, *arguments: Word) -> bytes:
    """The data of a call: selector and arguments. All types in ``signature`` must be static and one word wide."""
    expected = 0 if signature.endswith("()") else signature.count(",") + 1
    if len(arguments) != expected:
        raise ValidationError(f"{signature} takes {expected} arguments, not {len(arguments)}")
    return selector(signature) + b"".join(map(encode_word, arguments))


def split_words(data: bytes, count: int) -> list[bytes]:
    """Cut ``data`` into exactly ``count`` words.

    Raises:
        UnexpectedReply: it has another length.
    """
    if len(data) != 32 * count:
        hint = "there may be no contract at the address" if not data else None
        raise UnexpectedReply(f"{32 * count} bytes of ABI data were expected, not {len(data)}", hint=hint)
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def decode_bytes32(data: bytes) -> bytes:
    """The result of a function that returns a ``bytes32``.

    Raises:
        UnexpectedReply: not one word.
    """
    return split_words(data, 1)[0]


def decode_uint(data: bytes, bits: int = 256) -> int:
    """The result of a function that returns a ``uint<bits>``.

    Raises:
        UnexpectedReply: not one word, or more than ``bits``.
    """
    value = int.from_bytes(decode_bytes32(data))
    if value >> bits:
        raise UnexpectedReply(f"a uint{bits} was expected, and the reply has more bits")
    return value


def decode_bool(data: bytes) -> bool:
    """The result of a function that returns a ``bool``.

    Raises:
        UnexpectedReply: not one word with the value 0 or 1.
    """
    return bool(decode_uint(data, 1))


def decode_address(data: bytes) -> EvmAddress:
    """The result of a function that returns an ``address``.

    Raises:
        UnexpectedReply: not one word, or more than 160 bits.
    """
    return EvmAddress(raw=decode_uint(data, 160).to_bytes(20))


def decode_revert(data: bytes) -> str | None:
    """What Solidity's built-in errors say: the text of ``Error(string)``, or ``Panic(0x..)``; None for anything else.

    The text comes from a contract: it is cut to ``MAX_REASON_BYTES`` and characters that do not print are replaced.
    """
    if data[:4] == _PANIC and len(data) == 36:
        return f"Panic({int.from_bytes(data[4:]):#04x})"
    if data[:4] != _ERROR_STRING or len(data) < 68 or int.from_bytes(data[4:36]) != 32:
        return None
    length = int.from_bytes(data[36:68])
    if length > len(data) - 68:
        return None
    text = data[68 : 68 + min(length, MAX_REASON_BYTES)].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
