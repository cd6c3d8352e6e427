"""Recursive Length Prefix, canonical form only (Ethereum Yellow Paper, appendix B).

An item is ``bytes`` or a list of items. Decoding refuses everything that the encoder would not have written: non-minimal lengths,
single bytes with a prefix, leading zeros in a length, trailing bytes, nesting deeper than ``MAX_DEPTH``.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["MAX_DEPTH", "Item", "RlpError", "decode", "decode_int", "encode", "encode_int"]

Item: TypeAlias = "bytes | list[Item]"

MAX_DEPTH = 16
"""Deepest nesting accepted. Blocks, receipts and trie nodes need four."""


class RlpError(ValueError):
    """The bytes are not one canonical RLP item."""


def encode_int(value: int) -> bytes:
    """Big-endian without leading zeros; zero is the empty string."""
    if value < 0:
        raise RlpError("a negative number has no RLP form")
    return value.to_bytes((value.bit_length() + 7) // 8)


def decode_int(item: Item) -> int:
    """The number that ``encode_int`` wrote."""
    if not isinstance(item, bytes):
        raise RlpError("a list stands where a number is expected")
    if item[:1] == b"\x00":
        raise RlpError("a number with leading zeros")
    return int.from_bytes(item)


def encode(item: Item | int) -> bytes:
    """Encode bytes, a whole number, or a list of such."""
    if isinstance(item, int):
        item = encode_int(item)
    if isinstance(item, (bytes, bytearray)):
        if len(item) == 1 and item[0] < 0x80:
            return bytes(item)
        return _prefix(len(item), 0x80) + item
    body = b"".join(map(encode, item))
    return _prefix(len(body), 0xC0) + body


def _prefix(length: int, offset: int) -> bytes:
    if length < 56:
        return bytes([offset + length])
    size = encode_int(length)
    return bytes([offset + 55 + len(size)]) + size


def decode(data: bytes) -> Item:
    """Decode exactly one item.

    Raises:
        RlpError: the bytes are not one canonical item.
    """
    item, end = _decode_at(data, 0, len(data), 0)
    if end != len(data):
        raise RlpError(f"{len(data) - end} bytes after the end of the item")
    return item


def _decode_at(data: bytes, start: int, limit: int, depth: int) -> tuple[Item, int]:
    if start >= limit:
        raise RlpError("the item is missing")
    first = data[start]
    if first < 0x80:
        return data[start : start + 1], start + 1
    is_list = first >= 0xC0
    body, end = _extent(data, start, limit, first - (0xC0 if is_list else 0x80))
    if not is_list:
        if end - body == 1 and data[body] < 0x80:
            raise RlpError("a single small byte with a length prefix")
        return data[body:end], end
    if depth >= MAX_DEPTH:
        raise RlpError(f"nested deeper than {MAX_DEPTH} lists")
    items: list[Item] = []
    while body < end:
        item, body = _decode_at(data, body, end, depth + 1)
        items.append(item)
    return items, end


def _extent(data: bytes, start: int, limit: int, code: int) -> tuple[int, int]:
    if code < 56:
        body, length = start + 1, code
    else:
        body = start + 1 + code - 55
        size = data[start + 1 : min(body, limit)]
        if len(size) != code - 55:
            raise RlpError("the length is cut short")
        if size[0] == 0:
            raise RlpError("leading zeros in a length")
        length = int.from_bytes(size)
        if length < 56:
            raise RlpError("a long form where the short one fits")
    if body + length > limit:
        raise RlpError("the item runs past the end of the data")
    return body, body + length
