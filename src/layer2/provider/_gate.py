"""What every request passes first: bounds on how often and how much, counts, and the last answer to an error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from layer2.provider._problems import ProblemResponse, problem_of, too_often
from layer2.provider._rate import RateLimiter, network_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from layer2 import Clock
    from layer2.provider._metrics import ProviderMetrics

__all__ = ["Gate"]

MAX_BODY_BYTES: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 10.0
"""A request must have arrived whole within this time."""
READS_PER_WRITE: Final = 10
"""Asking how a swap stands is cheap: that may be done so much more often than making one."""
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
WATCHES_PER_MINUTE: Final = 600
"""Whoever watches the provider must always be answered, so he has an account of his own, whatever else his address asks for."""
_WATCHED: Final = frozenset({"/v1/health/live", "/v1/health/ready", "/metrics"})


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, clock: Clock, requests_per_minute: int, metrics: ProviderMetrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics
        self._writes = RateLimiter(requests_per_minute, clock)
        self._reads = RateLimiter(requests_per_minute * READS_PER_WRITE, clock)
        self._watches = RateLimiter(WATCHES_PER_MINUTE, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._clock.monotonic_s()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stranger gets a problem and not a stack trace
            answer = problem_of(error)
            if status == 0:
                await answer(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(route, scope["method"], status, self._clock.monotonic_s() - begun)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["method"] in _WITH_BODY:
            body = await _read(receive)
            if isinstance(body, ProblemResponse):
                await body(scope, receive, send)
                return
            if body is None:
                return
            receive = _replay(body, receive)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ProblemResponse | None:
        client = scope.get("client")
        wait_s = self._limiter(scope).take(network_of(client[0] if client else None))
        if wait_s is not None:
            return too_often(wait_s)
        length = _content_length(scope["headers"])
        return _too_long() if length > MAX_BODY_BYTES else None

    def _limiter(self, scope: Scope) -> RateLimiter:
        if scope["method"] in _WITH_BODY:
            return self._writes
        return self._watches if scope["path"] in _WATCHED else self._reads


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _too_long() -> ProblemResponse:
    # What is left of the body would have to be read to use the connection again.
    return ProblemResponse(
        413,
        "Request too long",
        f"a request has at most {MAX_BODY_BYTES} bytes",
        headers={"Connection": "close"},
    )


async def _read(receive: Receive) -> bytes | ProblemResponse | None:
    """The whole body; None if the other side went away."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return _too_long()
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return ProblemResponse(
            408, "Request timeout", "the request did not arrive in time", headers={"Connection": "close"}
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed
