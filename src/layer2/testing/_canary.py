"""Finds secrets that leak into logs."""

from __future__ import annotations

import base64
import logging
import secrets
from types import TracebackType
from typing import Self

__all__ = ["Canaries"]


class Canaries:
    """Made-up secrets, and a handler that catches every ``layer2`` log record: none may show one.

    Use::

        with Canaries() as canaries:
            preimage = canaries.new_bytes()
            ...
        # leaving the block raises AssertionError if a record held it, as text, hexadecimal or base64
    """

    def __init__(self, logger: str = "layer2") -> None:
        self._logger = logging.getLogger(logger)
        self._handler = _Collector()
        self._level = logging.NOTSET
        self._values: list[bytes] = []

    def new_bytes(self, size: int = 32) -> bytes:
        """A new secret of ``size`` bytes."""
        return self.add(secrets.token_bytes(size))

    def new_text(self, prefix: str = "canary") -> str:
        """A new secret as text."""
        return self.add(f"{prefix}-{secrets.token_hex(16)}".encode()).decode()

    def add(self, value: bytes) -> bytes:
        """Look for ``value`` too; gives it back."""
        self._values.append(bytes(value))
        return value

    @property
    def records(self) -> list[str]:
        """What was logged, each record with all its attributes and its traceback as text."""
        return self._handler.texts

    def leaks(self, text: str) -> bool:
        """Whether ``text`` holds one of the secrets in any usual form."""
        lower = text.lower()
        return any(form in text or form in lower for value in self._values for form in _forms(value))

    def check(self, *texts: str) -> None:
        """Raise AssertionError if a record or one of ``texts`` (such as ``str(error)``) holds a secret."""
        leaked = [text for text in (*self.records, *texts) if self.leaks(text)]
        if leaked:
            raise AssertionError(f"{len(leaked)} text(s) hold a secret, the first: {leaked[0][:300]}")

    def __enter__(self) -> Self:
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
        if kind is None:
            self.check()


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self._formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{self._formatter.format(record)} {vars(record)!r}")


def _forms(value: bytes) -> list[str]:
    forms = [
        value.hex(),
        base64.b64encode(value).decode().rstrip("="),
        base64.urlsafe_b64encode(value).decode().rstrip("="),
    ]
    try:
        forms.append(value.decode())
    except UnicodeDecodeError:
        forms.append(repr(value)[2:-1])
    return forms
