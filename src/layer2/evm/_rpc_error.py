"""The error object of JSON-RPC 2.0 as an exception, shared by the transport and by chains that answer in process."""

from __future__ import annotations

from typing import Any

__all__ = ["RpcError"]


class RpcError(Exception):
    """An endpoint answered a request with an error (JSON-RPC 2.0, section 5.1).

    It says what the endpoint said and nothing about what it means: the caller that knows what was asked translates it
    into one of ``layer2.errors``.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        """For example -32000 (server error), -32602 (invalid params), 3 (execution reverted, as geth numbers it)."""
        self.message = message
        self.data = data
        """Whatever the endpoint attached: for a reverted call the revert data as ``0x`` text."""

    def __str__(self) -> str:
        return f"{self.message} (code {self.code})"
