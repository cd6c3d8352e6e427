"""JSON-RPC 2.0 over HTTP: kept-alive connections, two lanes, bounded answers, and failures as ``layer2.errors``."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from layer2._clock import Clock, SystemClock
from layer2._retry_after import retry_after_s
from layer2.errors import (
    AsyncRuntimeError,
    AuthenticationError,
    ConfigurationError,
    NodeConnectionError,
    NodeError,
    RateLimited,
    UnexpectedReply,
)
from layer2.evm._rpc_error import RpcError

if TYPE_CHECKING:
    import ssl

    import aiohttp

__all__ = ["HttpLimits", "HttpTransport", "RpcTransport", "exit_lane", "public_endpoint"]

_SAFE_READS = frozenset(
    {
        "eth_blockNumber",
        "eth_call",
        "eth_chainId",
        "eth_estimateGas",
        "eth_feeHistory",
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
        "eth_syncing",
        "net_version",
        "web3_clientVersion",
    }
)
_RATE_LIMIT_CODES = frozenset({-32005, -32016, 429})
_PARSE_IN_THREAD_BYTES = 1024 * 1024
_READ_CHUNK_BYTES = 64 * 1024
_MAX_RETRY_AFTER_S = 30


class RpcTransport(Protocol):
    """Carries one JSON-RPC request to an endpoint and brings its result back."""

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """The ``result`` of the answer, as JSON values.

        Raises:
            RpcError: the endpoint answered with an error object.
            NodeError: it did not answer, or not by the rules (one of its subclasses).
        """
        ...

    async def close(self) -> None:
        """Free its connections. Idempotent."""
        ...


@runtime_checkable
class _HasExitLane(Protocol):
    @property
    def exits(self) -> RpcTransport: ...


def exit_lane(transport: RpcTransport) -> RpcTransport:
    """The lane of ``transport`` for claims, refunds and re-sends: its own where it has two, else the only one."""
    return transport.exits if isinstance(transport, _HasExitLane) else transport


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of an ``HttpTransport``. Times are seconds."""

    max_connections: int = 32
    """Connections, and so requests at one time, of user traffic."""
    exit_connections: int = 8
    """The same for exits, on top."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    """Longest silence while an answer is awaited."""
    total_timeout_s: float = 30.0
    """For one request, from the moment it has a connection slot."""
    idle_timeout_s: float = 30.0
    """How long an unused connection is kept."""
    max_response_bytes: int = 32 * 1024 * 1024
    attempts: int = 4
    """Tries of a read, the first included. What could change something is tried once."""
    backoff_s: float = 0.2
    """Pause before the second try; doubled for each further one, and shortened at random by up to half."""


def public_endpoint(url: str) -> str:
    """``scheme://host:port`` of ``url``: user, password, path and query may be credentials and are left out."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]{port}" if ":" in host else f"{parts.scheme}://{host}{port}"


class HttpTransport:
    """JSON-RPC over HTTP(S). ``call`` is for user traffic; ``exits`` is the lane that it cannot fill.

    Connections are opened when first needed, on the event loop that needs them. ``headers`` may hold credentials; they and the URL
    are never shown.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: HttpLimits | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = _checked_endpoint(url)
        limits = limits or HttpLimits()
        self._retries = _Retries(limits, clock or SystemClock(), jitter)
        ids = itertools.count(1)
        self._user = _Lane(url, self.endpoint, limits, limits.max_connections, headers, ssl_context, ids)
        self._exits = _Lane(url, self.endpoint, limits, limits.exit_connections, headers, ssl_context, ids)

    def __repr__(self) -> str:
        return f"HttpTransport({self.endpoint!r})"

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """See ``RpcTransport``. Reads are tried again where that can help."""
        return await self._retries.call(self._user, method, params)

    @property
    def exits(self) -> RpcTransport:
        """The lane for exits: same endpoint, slots and connections of its own."""
        return _ExitLane(self, self._retries, self._exits)

    async def close(self) -> None:
        """Close all connections. Requests under way fail with ``NodeConnectionError``."""
        await self._user.close()
        await self._exits.close()


class _ExitLane:
    """``HttpTransport.exits``."""

    def __init__(self, owner: HttpTransport, retries: _Retries, lane: _Lane) -> None:
        self._owner = owner
        self._retries = retries
        self._lane = lane

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        return await self._retries.call(self._lane, method, params)

    async def close(self) -> None:
        await self._owner.close()


class _Retries:
    """Tries safe reads again, with growing pauses."""

    def __init__(self, limits: HttpLimits, clock: Clock, jitter: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._jitter = jitter

    async def call(self, lane: _Lane, method: str, params: Sequence[Any]) -> Any:
        attempts = self._limits.attempts if method in _SAFE_READS or method.startswith("eth_get") else 1
        for attempt in itertools.count(1):
            try:
                return await lane.request(method, params)
            except (NodeConnectionError, RateLimited) as error:
                if attempt >= attempts:
                    raise
                pause = self._limits.backoff_s * 2 ** (attempt - 1) * (1 - self._jitter() / 2)
                if isinstance(error, RateLimited) and error.retry_after_s is not None:
                    if error.retry_after_s > _MAX_RETRY_AFTER_S:
                        raise
                    pause = max(pause, float(error.retry_after_s))
                await self._clock.sleep(pause)
        raise AssertionError("unreachable")


class _Lane:
    """Slots and connections of one kind of traffic."""

    def __init__(
        self,
        url: str,
        endpoint: str,
        limits: HttpLimits,
        slots: int,
        headers: Mapping[str, str] | None,
        ssl_context: ssl.SSLContext | None,
        ids: itertools.count[int],
    ) -> None:
        self._url = url
        self._endpoint = endpoint
        self._limits = limits
        self._slot_count = slots
        self._slots = asyncio.Semaphore(slots)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        self._ssl_context = ssl_context
        self._ids = ids
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def request(self, method: str, params: Sequence[Any]) -> Any:
        request_id = next(self._ids)
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)}
        body = json.dumps(request, separators=(",", ":")).encode()
        async with self._slots:
            status, retry_after, answer = await self._exchange(body)
        return await self._result(status, retry_after, answer, request_id)

    async def _exchange(self, body: bytes) -> tuple[int, str | None, bytes]:
        import aiohttp

        try:
            async with self._open().post(self._url, data=body, allow_redirects=False) as response:
                answer = await self._bounded(response)
                return response.status, response.headers.get("Retry-After"), answer
        except aiohttp.ClientConnectorCertificateError as error:
            raise AuthenticationError(
                f"the certificate of {self._endpoint} was refused", endpoint=self._endpoint
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable() from error
        except aiohttp.ConnectionTimeoutError:
            raise self._unreachable() from None  # its text holds the whole URL, which may be a credential
        except aiohttp.InvalidURL:
            raise ConfigurationError("the endpoint's URL is not valid", key="rpc_url") from None
        except TimeoutError:
            raise NodeConnectionError(
                f"{self._endpoint} did not answer in time", endpoint=self._endpoint, request_sent=True
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeConnectionError(
                f"the connection to {self._endpoint} broke before the answer was whole ({type(error).__name__})",
                endpoint=self._endpoint,
                request_sent=True,
            ) from error

    def _unreachable(self) -> NodeConnectionError:
        return NodeConnectionError(
            f"no connection to {self._endpoint}",
            hint="check that the endpoint is running and its URL is right",
            endpoint=self._endpoint,
            request_sent=False,
        )

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise AsyncRuntimeError("the transport is closed", hint="make a new one")
        if self._session is None:
            limits = self._limits
            connector = aiohttp.TCPConnector(
                limit=self._slot_count,
                keepalive_timeout=limits.idle_timeout_s,
                ssl=self._ssl_context if self._ssl_context is not None else True,
            )
            timeout = aiohttp.ClientTimeout(
                total=limits.total_timeout_s, connect=limits.connect_timeout_s, sock_read=limits.read_timeout_s
            )
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._limits.max_response_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(_READ_CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                response.close()
                raise UnexpectedReply(
                    f"{self._endpoint} answered with more than {limit} bytes", endpoint=self._endpoint
                )
            chunks.append(chunk)
        return b"".join(chunks)

    async def _result(self, status: int, retry_after: str | None, body: bytes, request_id: int) -> Any:
        """The result, or what the answer means. The body is read before the status: errors of JSON-RPC come with any status."""
        answer = await self._parse(body)
        if status in (401, 403):
            raise AuthenticationError(
                f"{self._endpoint} refused the credentials (HTTP {status})",
                hint="check the key or password of the endpoint",
                endpoint=self._endpoint,
                code=status,
            )
        if status == 429:
            raise self._rate_limited(status, retry_after)
        if isinstance(answer, dict) and ("result" in answer or "error" in answer):
            return self._open_envelope(answer, request_id, retry_after)
        if status >= 500:
            raise NodeConnectionError(
                f"{self._endpoint} failed (HTTP {status})", endpoint=self._endpoint, code=status, request_sent=True
            )
        where = f"HTTP {status}, {len(body)} bytes"
        hint = "check the path of its URL" if status == 404 or 300 <= status < 400 else None
        raise UnexpectedReply(
            f"{self._endpoint} did not answer with JSON-RPC ({where})", hint=hint, endpoint=self._endpoint, code=status
        )

    def _open_envelope(self, answer: dict[str, Any], request_id: int, retry_after: str | None) -> Any:
        error = answer.get("error")
        answered_id = answer.get("id")
        if answered_id != request_id and not (answered_id is None and error is not None):
            raise UnexpectedReply(
                f"{self._endpoint} answered request {answered_id!r:.40} instead of {request_id}",
                endpoint=self._endpoint,
            )
        if error is None:
            return answer.get("result")
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            raise UnexpectedReply(f"{self._endpoint} answered with a malformed error", endpoint=self._endpoint)
        code, message = error["code"], str(error.get("message", ""))[:1000]
        if _is_rate_limit(code, message):
            raise self._rate_limited(code, retry_after)
        raise RpcError(code, message, error.get("data"))

    def _rate_limited(self, code: int, retry_after: str | None) -> NodeError:
        return RateLimited(
            f"{self._endpoint} was asked too often",
            endpoint=self._endpoint,
            code=code,
            retry_after_s=retry_after_s(retry_after),
        )

    @staticmethod
    async def _parse(body: bytes) -> Any:
        # Not the standard library's: the interpreter can crash on what is nested deeply, where the recursion limit was raised.
        from pydantic_core import from_json

        try:
            if len(body) > _PARSE_IN_THREAD_BYTES:
                return await asyncio.to_thread(from_json, body)
            return from_json(body)
        except ValueError:
            return None

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


def _is_rate_limit(code: int, message: str) -> bool:
    text = message.lower()
    if "rate limit" in text or "too many requests" in text or "request limit" in text:
        return True
    too_much = ("result", "range", "log", "block", "size")
    return code in _RATE_LIMIT_CODES and not any(word in text for word in too_much)


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("an endpoint's URL starts with http:// or https:// and names a host", key="rpc_url")
    return public_endpoint(url)
