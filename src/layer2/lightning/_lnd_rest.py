"""HTTP to an lnd: a pool for calls that are answered at once, one for urgent ones, one for streams that may be silent for hours."""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from layer2._config_secret import is_plain_http_elsewhere
from layer2._retry_after import retry_after_s
from layer2.errors import (
    AsyncRuntimeError,
    AuthenticationError,
    ConfigurationError,
    Layer2Error,
    NodeConnectionError,
    RateLimited,
    UnexpectedReply,
)
from layer2.lightning._lnd_errors import translate

__all__ = ["LndRest"]

MAX_REPLY_BYTES = 32 * 1024 * 1024
KEEPALIVE_IDLE_S = 30
KEEPALIVE_PROBES = 3
URGENT_CONNECTIONS = 8
GOODBYE_TURNS = 50
GOODBYE_TURN_S = 0.01


class LndRest:
    """The REST interface of one lnd. Raises only errors of this package.

    Args:
        url: ``https://host:port``; ``http`` only to loopback (lnd started with ``--no-rest-tls``).
        allow_plain_http: ``http`` to other machines too.
        macaroon: its bytes, or None for an lnd started with ``--no-macaroons``.
        certificate: the node's ``tls.cert`` (PEM), trusted for this node only.
        fingerprint: instead of it, the SHA-256 of the certificate: 32 bytes.
        idle_timeout_s: how long an unused connection is kept.
        call_timeout_s: limit of a call that is no stream.
    """

    def __init__(
        self,
        url: str,
        *,
        macaroon: bytes | None,
        certificate: str | None = None,
        fingerprint: bytes | None = None,
        allow_plain_http: bool = False,
        connect_timeout_s: float = 10.0,
        idle_timeout_s: float = 30.0,
        call_timeout_s: float = 30.0,
        max_connections: int = 32,
    ) -> None:
        self._base = _check_url(url, allow_plain_http=allow_plain_http)
        self._headers = {} if macaroon is None else {"Grpc-Metadata-macaroon": macaroon.hex()}
        self._ssl = _tls(self._base, certificate, fingerprint)
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._call_timeout_s = call_timeout_s
        self._max_connections = max_connections
        self._calls: aiohttp.ClientSession | None = None
        self._urgent: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._closed = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<LndRest {self.endpoint}>"

    @property
    def endpoint(self) -> str:
        """Where it is, without credentials."""
        return self._base

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, urgent: bool = False
    ) -> dict[str, Any]:
        """One request with one answer; ``urgent``: over connections that no other call can occupy.

        Raises:
            NodeConnectionError: no connection, or it broke, or no answer in time; ``request_sent`` is False if nothing was sent.
            UnexpectedReply: what came is no JSON object.
            Layer2Error: lnd's refusal, translated.
        """
        self._require_open()
        if urgent:
            session = self._urgent = self._urgent or self._session(limit=URGENT_CONNECTIONS)
        else:
            session = self._calls = self._calls or self._session(limit=self._max_connections)
        timeout = aiohttp.ClientTimeout(total=self._call_timeout_s, sock_connect=self._connect_timeout_s)
        async with self._request(session, method, path, body, timeout) as response:
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_REPLY_BYTES:
                    raise UnexpectedReply("lnd's answer is too long", endpoint=self.endpoint)
            reply = self._parse(bytes(data), response)
            if response.status != 200 or ("code" in reply and "message" in reply):
                self._refuse(reply, response)
            return reply

    async def stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A request with any number of answers, each on a line of its own, until lnd ends the stream.

        lnd sends not even a status line before the first message, so only the connection itself is limited in time. A dead peer is
        noticed by TCP keepalive. Close the iterator to end the stream.

        Raises:
            As ``call``. A stream that ends in the middle of a line has broken: ``NodeConnectionError``.
        """
        self._require_open()
        self._streams = self._streams or self._session(limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s, sock_read=None)
        async with self._request(self._streams, method, path, body, timeout) as response:
            buffer = bytearray()
            async for chunk in response.content.iter_any():
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end]).strip()
                    del buffer[: end + 1]
                    if line:
                        yield self._message(line, response)
                if len(buffer) > MAX_REPLY_BYTES:
                    raise UnexpectedReply("lnd's message is too long", endpoint=self.endpoint)
            if buffer.strip():
                yield self._message(bytes(buffer), response)
            elif response.status != 200:
                self._refuse({}, response)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        self._closed = True
        sessions = [session for session in (self._calls, self._urgent, self._streams) if session is not None]
        self._calls = self._urgent = self._streams = None
        await asyncio.gather(*(session.close() for session in sessions))
        # A TLS connection that was left in the middle of a stream says goodbye in the background: let it, before the loop may end.
        for _ in range(GOODBYE_TURNS):
            if all(sock.fileno() == -1 for sock in self._sockets):
                break
            await asyncio.sleep(GOODBYE_TURN_S)

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        sock = _keepalive_socket(address)
        self._sockets.add(sock)
        return sock

    def _require_open(self) -> None:
        if self._closed:
            raise AsyncRuntimeError("this connection to lnd is closed")

    def _session(self, *, limit: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limit, ssl=self._ssl, socket_factory=self._open_socket, keepalive_timeout=self._idle_timeout_s
            ),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )

    @asynccontextmanager
    async def _request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # Base64 in paths must reach lnd as it is: no part of the path is quoted again.
        url = URL(self._base + path, encoded=True)
        try:
            async with session.request(method, url, json=body, timeout=timeout, allow_redirects=False) as response:
                yield response
        except Layer2Error:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _connection_error(exc, self.endpoint) from exc

    def _parse(self, data: bytes, response: aiohttp.ClientResponse) -> dict[str, Any]:
        # Its nesting is bounded; the standard parser's is only by a limit that others in the process may raise past the stack.
        from pydantic_core import from_json

        try:
            reply = from_json(data)
        except ValueError as exc:
            if response.status == 200:
                raise UnexpectedReply("lnd's answer is not JSON, or cut short", endpoint=self.endpoint) from exc
            reply = {}
        if not isinstance(reply, dict):
            raise UnexpectedReply("lnd's answer is not a JSON object", endpoint=self.endpoint)
        return reply

    def _message(self, line: bytes, response: aiohttp.ClientResponse) -> dict[str, Any]:
        reply = self._parse(line, response)
        if response.status != 200 or "error" in reply or "result" not in reply:
            self._refuse(reply, response)
        result = reply["result"]
        if not isinstance(result, dict):
            raise UnexpectedReply("lnd's message is not a JSON object", endpoint=self.endpoint)
        return result

    def _refuse(self, reply: dict[str, Any], response: aiohttp.ClientResponse) -> NoReturn:
        """Raise what an error reply means: a bare status object for calls, one inside ``error`` for streams."""
        status = reply.get("error", reply)
        if not isinstance(status, dict) or not isinstance(status.get("message"), str):
            if response.status == 429:
                raise RateLimited(
                    "the node's endpoint answers 429: asked too often",
                    endpoint=self.endpoint,
                    retry_after_s=retry_after_s(response.headers.get("Retry-After")),
                )
            if response.status in (401, 403):
                raise AuthenticationError(f"the node's endpoint answers {response.status}", endpoint=self.endpoint)
            raise UnexpectedReply(
                f"the node's endpoint answers HTTP {response.status} without lnd's JSON",
                hint="is this lnd's REST address? A proxy in between may have answered",
                endpoint=self.endpoint,
                code=response.status,
            )
        code = status.get("code")
        raise translate(
            status["message"], code if isinstance(code, int) else None, endpoint=self.endpoint, status=response.status
        )


def _connection_error(exc: Exception, endpoint: str) -> Layer2Error:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        return AuthenticationError(
            f"the certificate of {endpoint} is not the expected one, or has expired",
            hint="configure the node's current tls.cert or its fingerprint; lnd makes a new one after 14 months",
            endpoint=endpoint,
        )
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        return AuthenticationError(f"no TLS with {endpoint}", hint="is this lnd's REST port?", endpoint=endpoint)
    if isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NodeConnectionError(
            f"no connection to lnd at {endpoint}", hint="is the node running?", endpoint=endpoint, request_sent=False
        )
    if isinstance(exc, TimeoutError):
        return NodeConnectionError(f"lnd at {endpoint} did not answer in time", endpoint=endpoint, request_sent=True)
    return NodeConnectionError(f"the connection to lnd at {endpoint} broke", endpoint=endpoint, request_sent=True)


def _check_url(url: str, *, allow_plain_http: bool) -> str:
    """The URL as it is to be used: its scheme in lower case, with nothing in it that another reader of URLs would leave out."""
    wrong = ConfigurationError("lnd's REST address is https://host:port", key="lightning.rest_url")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise wrong
    try:
        parts = urlsplit(url)
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise wrong
    if not allow_plain_http and is_plain_http_elsewhere(url):
        raise ConfigurationError(
            "lnd is reached by https; plain http only on this machine", key="lightning.rest_url", hint="use https"
        )
    return parts.geturl().rstrip("/")


def _tls(url: str, certificate: str | None, fingerprint: bytes | None) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
    if url.startswith("http:"):
        return False
    if certificate is not None and fingerprint is not None:
        raise ConfigurationError("give lnd's certificate or its fingerprint, not both", key="lightning.tls_cert_path")
    if fingerprint is not None:
        if len(fingerprint) != 32:
            raise ConfigurationError(
                "a certificate's SHA-256 fingerprint has 32 bytes", key="lightning.tls_fingerprint"
            )
        return aiohttp.Fingerprint(fingerprint)
    if certificate is None:
        return True
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=certificate)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigurationError("lnd's certificate is not PEM", key="lightning.tls_cert_path") from exc


def _keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_IDLE_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
