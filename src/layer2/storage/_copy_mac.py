"""Authenticates copies: a MAC over all that a copy holds, under a secret that only the account's key gives.

The MAC is a row of the copy, so that a copy stays one file. It is taken over schema and rows instead of bytes: the file's own bytes
change with the row.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from layer2._signing import derive_secret
from layer2.errors import UntrustedCopy

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from layer2.protocol import Signer
    from layer2.swaps import Role

__all__ = ["check_mac", "copy_key", "write_mac"]

MAC: Final = "copy_mac"
_DOMAIN: Final = b"layer2 copy of a store 1"
_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


async def copy_key(signer: Signer, role: Role) -> bytes:
    """The key (32 bytes) under which the copies of an account's stores are authenticated.

    Args:
        signer: of the account.
        role: whose stores: client and provider have a key each, so that nobody can put a copy of the one in the place of the other.

    Raises:
        SignerError: the signer refused.
    """
    return await derive_secret(signer, f"layer2 backup v2 {role.value}".encode())


def write_mac(database: sqlite3.Connection, key: bytes | None) -> None:
    """Make the MAC under ``key`` part of the copy; None: leave it without one."""
    with database:
        database.execute("DELETE FROM meta WHERE key = ?", (MAC,))
        if key is not None:
            database.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (MAC, _mac(database, key)))


def check_mac(database: sqlite3.Connection, key: bytes, copy: Path, url: str) -> None:
    """Refuse a copy that holds anything else than what was authenticated under ``key``.

    Raises:
        UntrustedCopy: its MAC is missing, or of something else, or under another key.
    """
    found = [value for (value,) in database.execute("SELECT value FROM meta WHERE key = ?", (MAC,))]
    if not found:
        raise UntrustedCopy.because(f"{copy} carries no MAC: it was not written by `layer2 backup` with a signer", url)
    if len(found) > 1 or not hmac.compare_digest(str(found[0]).encode(), _mac(database, key).encode()):
        raise UntrustedCopy.because(
            f"{copy} was changed after it was taken, or taken with another key or of another kind of store", url
        )


def _mac(database: sqlite3.Connection, key: bytes) -> str:
    mac = hmac.new(key, _DOMAIN, hashlib.sha256)
    schema = database.execute(_SCHEMA).fetchall()
    for row in schema:
        _add(mac, row)
    for name in (name for kind, name, _, _ in schema if kind == "table"):
        _add(mac, ("rows of", name))
        quoted = '"' + name.replace('"', '""') + '"'
        # In the order of the file, which a copy keeps.
        for row in database.execute(f"SELECT * FROM {quoted} ORDER BY rowid"):  # noqa: S608 - a name is no parameter, and quoted
            if not (name == "meta" and row[0] == MAC):
                _add(mac, row)
    return mac.hexdigest()


def _add(mac: hmac.HMAC, row: tuple[object, ...]) -> None:
    """Type, length and content of each value, so that different rows never give the same bytes."""
    mac.update(len(row).to_bytes(4))
    for value in row:
        content = value if isinstance(value, bytes) else str(value).encode()
        mac.update(type(value).__name__.encode() + b" " + len(content).to_bytes(8) + content)
