"""Values that are never printed, and the files they may lie in."""

from __future__ import annotations

import hmac
import os
import re
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Self, final
from urllib.parse import urlsplit

from layer2._config_file import check_not_writable
from layer2.errors import ConfigurationError

__all__ = ["Secret", "check_signer", "is_plain_http_elsewhere", "public_url", "read_secret_file"]

_KEY_TEXT = re.compile(rb"\s*(?:0x)?[0-9a-fA-F]{64}\s*")
MAX_SECRET_BYTES = 64 * 1024


@final
class Secret:
    """A secret setting. ``str``, ``repr`` and ``format`` hide it; only ``reveal`` and ``reveal_bytes`` give it out.

    ``origin`` is the table that stands for it in a file, ``{ file = "..." }`` or ``{ env = "..." }``, or None if it was given
    directly.
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str | bytes, *, origin: tuple[str, str] | None = None) -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)
        self.origin = origin

    @classmethod
    def from_file(cls, path: Path, *, key: str) -> Self:
        """The content of a file. ``key`` is what errors call it.

        Raises:
            ConfigurationError: it cannot be read, is empty or too long, or everybody on the machine may read or write it.
        """
        return cls(
            read_secret_file(path, key=key, allow_readable=False, allow_foreign=False), origin=("file", str(path))
        )

    def reveal(self) -> str:
        """The secret as text, without the white space around it.

        Raises:
            ConfigurationError: it is not UTF-8 text.
        """
        try:
            return self._value.decode().strip()
        except UnicodeDecodeError:
            raise ConfigurationError("a secret that must be text is not UTF-8") from None

    def reveal_bytes(self) -> bytes:
        """The secret as it was given."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


def check_signer(keystore: Path | None, password: Secret | None, private_key: Secret | None) -> None:
    """Refuse a signer that could not sign, before anybody waits for it. No message repeats a key.

    Raises:
        ConfigurationError: both or none of keystore and key, a keystore without a password, or a key that is none.
    """
    if (keystore is None) == (private_key is None):
        raise ConfigurationError("signer needs either keystore or private_key", key="signer")
    if keystore is not None and password is None:
        raise ConfigurationError("signer.password is needed to open signer.keystore", key="signer.password")
    if private_key is not None and _KEY_TEXT.fullmatch(private_key.reveal_bytes()) is None:
        raise ConfigurationError(
            "signer.private_key is not written as 64 hexadecimal digits",
            key="signer.private_key",
            hint="layer2 keystore new makes an account; its key then needs no place in the settings",
        )


def read_secret_file(path: Path, *, key: str, allow_readable: bool, allow_foreign: bool) -> bytes:
    """The content of a file that holds a secret.

    Raises:
        ConfigurationError: it cannot be read, is too long, or everybody on the machine may read or write it.
    """
    check_not_writable(path, key=key, allow_foreign=allow_foreign)
    check_not_readable(path, key=key, allow_readable=allow_readable)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{key}: cannot read {path}: {error.strerror}", key=key, path=str(path)) from error
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigurationError(f"{key}: {path} is longer than {MAX_SECRET_BYTES} bytes", key=key, path=str(path))
    if not content.strip():
        raise ConfigurationError(f"{key}: {path} is empty", key=key, path=str(path))
    return content


def check_not_readable(path: Path, *, key: str, allow_readable: bool) -> None:
    """Refuse a file with a secret that every user of the machine may read.

    Files of root on a read-only mount pass: container platforms mount secrets that way.

    Raises:
        ConfigurationError: it is readable by others, or missing.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{key}: cannot read {path}: {error.strerror}", key=key, path=str(path)) from error
    if allow_readable or not status.st_mode & stat.S_IROTH:
        return
    if status.st_uid == 0 and os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    raise ConfigurationError(
        f"{key}: {path} holds a secret and every user of this machine may read it",
        key=key,
        path=str(path),
        hint=f"chmod 600 {path}" + ("" if key.startswith("--") else ", or set allow_readable_secrets = true"),
    )


def public_url(url: str | None) -> str | None:
    """A URL without what may be secret in it: user, password, path beyond the first slash, query."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "***"
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}" if parts.scheme else "***"


def is_plain_http_elsewhere(url: str) -> bool:
    """Whether a URL is plain HTTP to another machine, where anybody on the way reads and answers."""
    try:
        # Its scheme as whoever connects reads it: in lower case, without white space around or within.
        parts = urlsplit(url.strip())
    except ValueError:
        return not url.strip().lower().startswith("https:")
    if parts.scheme != "http":
        return False
    try:
        host = parts.hostname or ""
        return not (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return True
