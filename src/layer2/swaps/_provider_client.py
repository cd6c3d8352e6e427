"""The client's end of a provider's HTTP interface. Nothing that comes back is believed: ``_checks`` looks at all of it."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from layer2._retry_after import retry_after_s
from layer2.errors import (
    AsyncRuntimeError,
    ConfigurationError,
    NodeConnectionError,
    NodeNotReady,
    NotFound,
    RateLimited,
    SwapRefused,
    UnexpectedReply,
)

if TYPE_CHECKING:
    import aiohttp
    from pydantic import BaseModel

    from layer2.swaps._wire import Info, ReverseRequest, SubmarineRequest, SwapResponse, SwapStatus

__all__ = ["HttpProvider", "ProviderApi"]

MAX_REPLY_BYTES: Final = 256 * 1024
TIMEOUT_S: Final = 15.0

_M = TypeVar("_M", bound="BaseModel")


class ProviderApi(Protocol):
    """What a client asks of a provider.

    Every method may raise ``NodeConnectionError``, ``NodeNotReady``, ``RateLimited`` and ``UnexpectedReply``; those that make or
    change something raise ``SwapRefused`` with the provider's reason.
    """

    async def info(self) -> Info:
        """Who it is, what it costs."""
        ...

    async def create_submarine(self, request: SubmarineRequest) -> SwapResponse:
        """Ask for an invoice to be paid."""
        ...

    async def create_reverse(self, request: ReverseRequest) -> SwapResponse:
        """Ask for a lock against a hold invoice."""
        ...

    async def status(self, swap_id: str) -> SwapStatus:
        """Where a swap stands there. Raises ``NotFound``."""
        ...

    async def refund_signature(self, swap_id: str) -> bytes | None:
        """Its consent to an early refund; None if it does not give it (now)."""
        ...

    async def close(self) -> None:
        """Free connections. Idempotent."""
        ...


class HttpProvider:
    """A provider behind a URL."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"the provider's URL must be http(s)://host, not {url!r}", key="swap.provider_url")
        self._url = url.rstrip("/")
        self._tls = tls
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def info(self) -> Info:
        """Who it is, what it costs."""
        from layer2.swaps._wire import Info

        return await self._call("GET", "/v1/info", None, Info)

    async def create_submarine(self, request: SubmarineRequest) -> SwapResponse:
        """Ask for an invoice to be paid."""
        from layer2.swaps._wire import SwapResponse

        return await self._call("POST", "/v1/swap/submarine", request, SwapResponse)

    async def create_reverse(self, request: ReverseRequest) -> SwapResponse:
        """Ask for a lock against a hold invoice."""
        from layer2.swaps._wire import SwapResponse

        return await self._call("POST", "/v1/swap/reverse", request, SwapResponse)

    async def status(self, swap_id: str) -> SwapStatus:
        """Where a swap stands there."""
        from layer2.swaps._wire import SwapStatus

        return await self._call("GET", f"/v1/swap/{swap_id}", None, SwapStatus)

    async def refund_signature(self, swap_id: str) -> bytes | None:
        """Its consent to an early refund, not verified yet."""
        from layer2.swaps._wire import RefundResponse

        try:
            reply = await self._call("GET", f"/v1/swap/submarine/{swap_id}/refund", None, RefundResponse)
        except (SwapRefused, NotFound):
            return None
        return reply.signature

    async def close(self) -> None:
        """Free connections."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, path: str, body: BaseModel | None, reply: type[_M]) -> _M:
        import aiohttp

        if self._closed:
            raise AsyncRuntimeError("the connection to the provider is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=5))
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = body.model_dump_json().encode() if body is not None else None
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=headers, allow_redirects=False, ssl=self._tls or True
            ) as response:
                raw = await response.content.read(MAX_REPLY_BYTES + 1)
                while not response.content.at_eof() and len(raw) <= MAX_REPLY_BYTES:
                    raw += await response.content.read(MAX_REPLY_BYTES + 1 - len(raw))
                return self._read(response.status, response.headers.get("Retry-After"), raw, reply)
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
            raise NodeConnectionError(
                f"the provider does not answer: {_why_no_answer(error)}",
                hint="is swap.provider_url right, and does the provider run? Transfers that were begun go on without it",
                endpoint=self._url,
            ) from error

    def _read(self, status: int, retry_after: str | None, raw: bytes, reply: type[_M]) -> _M:
        from pydantic import ValidationError as PydanticError

        if len(raw) > MAX_REPLY_BYTES:
            raise UnexpectedReply(f"the provider's answer is longer than {MAX_REPLY_BYTES} bytes", endpoint=self._url)
        if status == 200:
            try:
                return reply.model_validate_json(raw)
            except PydanticError as error:
                raise UnexpectedReply("the provider's answer is malformed", endpoint=self._url) from error
        detail, rule = _problem(raw)
        if status == 404:
            raise NotFound(f"the provider does not know it: {detail}")
        if status == 429:
            raise RateLimited(
                "the provider is asked too often", endpoint=self._url, retry_after_s=retry_after_s(retry_after)
            )
        if status == 503:
            raise NodeNotReady(f"the provider cannot answer now: {detail}", endpoint=self._url, code=status)
        if 400 <= status < 500:
            raise SwapRefused(f"the provider refused: {detail}", rule=rule)
        raise UnexpectedReply(f"the provider answered HTTP {status}: {detail}", endpoint=self._url, code=status)


def _why_no_answer(error: Exception) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted here, or has expired"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "no TLS with it"
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "its name cannot be looked up" if isinstance(error.os_error, socket.gaierror) else "no connection to it"
    return "the connection to it broke"


def _problem(raw: bytes) -> tuple[str, str | None]:
    # Its nesting is bounded; the standard parser's is only by a limit that others in the process may raise past the stack's end.
    from pydantic_core import from_json

    try:
        body = from_json(raw)
        detail, rule = body.get("detail"), body.get("rule")
    except (ValueError, AttributeError):
        return "no reason given", None
    return str(detail)[:300], str(rule)[:60] if rule is not None else None
