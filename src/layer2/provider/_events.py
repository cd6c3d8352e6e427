"""Server-sent events of one swap: how it stands now, then each change, until nothing can change any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from layer2.provider._problems import ProblemResponse

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from layer2 import Clock
    from layer2.provider._metrics import ProviderMetrics
    from layer2.swaps import SwapStatus

__all__ = ["EventStream", "EventStreams"]

KEEP_ALIVE_S: Final = 15.0
"""A comment goes out so often, so that proxies do not close a silent stream."""
MAX_STREAMS: Final = 1_000
RECONNECT_MS: Final = 3_000
_RETRY_AFTER_S: Final = 30


class EventStreams:
    """All open streams of a server: counts them, bounds their number, and ends them when the server closes."""

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: ProviderMetrics,
        max_streams: int = MAX_STREAMS,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self.clock = clock
        self.keep_alive_s = keep_alive_s
        self.closing = asyncio.Event()
        self._metrics = metrics
        self._max_streams = max_streams
        self._open = 0

    def close(self) -> None:
        """End every stream, and begin none any more. Idempotent."""
        self.closing.set()

    def entered(self) -> None:
        """Count one more."""
        self._open += 1
        self._metrics.event_streams.set(self._open)

    def left(self) -> None:
        """Count one less."""
        self._open -= 1
        self._metrics.event_streams.set(self._open)

    def respond(self, changes: AsyncGenerator[SwapStatus, None]) -> Response:
        """The stream of a swap, or a refusal if there are too many."""
        if self._open >= self._max_streams or self.closing.is_set():
            return ProblemResponse(
                503,
                "Not available now",
                "no more event streams can be opened now; ask for the status instead",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        return EventStream(self, changes)


class EventStream(Response):
    """``text/event-stream``. Ends after a final state, when the reader goes away, or when the server closes."""

    media_type = "text/event-stream"

    def __init__(self, streams: EventStreams, changes: AsyncGenerator[SwapStatus, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._changes = changes
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of the ends."""
        del scope  # what was asked for is known
        self._streams.entered()
        tasks: set[asyncio.Task[object]] = set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            tasks = {
                asyncio.create_task(self._send_changes(send), name="events: changes"),
                asyncio.create_task(self._keep_alive(send), name="events: keep alive"),
                asyncio.create_task(_gone(receive), name="events: reader"),
                asyncio.create_task(self._streams.closing.wait(), name="events: closing"),
            }
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            async with self._sending:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._streams.left()

    async def _send(self, send: Send, text: str) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def _send_changes(self, send: Send) -> None:
        await self._send(send, f"retry: {RECONNECT_MS}\n\n")
        async with aclosing(self._changes) as changes:
            async for status in changes:
                await self._send(send, f"event: update\ndata: {status.model_dump_json(exclude_none=True)}\n\n")

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await self._streams.clock.sleep(self._streams.keep_alive_s)
            await self._send(send, ": keep-alive\n\n")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
