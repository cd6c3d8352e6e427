"""A door in front of a server: it lets traffic through, or misbehaves in the ways in which endpoints do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Self
from urllib.parse import urlsplit

CHUNK = 65_536


class Mode(Enum):
    OPEN = auto()
    """Everything goes through."""
    SHUT = auto()
    """Connections are taken and dropped."""
    SILENT = auto()
    """Connections are taken, and nothing is ever answered."""
    MUTE = auto()
    """Requests go through, and no answer comes back."""
    CANNED = auto()
    """Every request gets ``answer``, after which the connection ends."""


class Gate:
    """An async context manager that listens on loopback, in front of ``upstream`` (a URL; None if nothing is behind it).

    ``seen`` is called with each piece of a request before it goes on; ``lie`` may change an answer, as long as it stays as long.
    """

    def __init__(self, upstream: str | None = None, *, mode: Mode = Mode.OPEN, answer: bytes = b"") -> None:
        parts = urlsplit(upstream or "http://127.0.0.1:1")
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self.mode = mode
        self.answer = answer
        self.seen: Callable[[bytes], None] = lambda _: None
        self.lie: Callable[[bytes], bytes] = lambda data: data
        self.requests: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self._drop()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def set(self, mode: Mode) -> None:
        """Change, also for the connections that are open."""
        self.mode = mode
        self._drop()

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            match self.mode:
                case Mode.OPEN | Mode.MUTE:
                    await self._pass_on(reader, writer)
                case Mode.SILENT:
                    while data := await reader.read(CHUNK):
                        self.requests.append(data)
                case Mode.CANNED:
                    self.requests.append(await reader.read(CHUNK))
                    writer.write(self.answer)
                    await writer.drain()
                case Mode.SHUT:
                    pass
        except (ConnectionError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_behind = await asyncio.open_connection(self._host, self._port)
        self._writers.add(to_behind)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, to_behind, self._request))
                group.create_task(_pipe(behind, writer, self._reply))
        finally:
            self._writers.discard(to_behind)
            to_behind.close()

    def _request(self, data: bytes) -> bytes:
        self.requests.append(data)
        self.seen(data)
        return data

    def _reply(self, data: bytes) -> bytes:
        if self.mode is Mode.MUTE:
            return b""
        changed = self.lie(data)
        assert len(changed) == len(data), "the length of the answer was promised already"
        return changed


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Callable[[bytes], bytes]) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(through(data))
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (ConnectionError, OSError):
        writer.transport.abort()


def http(status: str, body: bytes = b"", *, content_type: str = "application/json", length: int | None = None) -> bytes:
    """An HTTP answer; ``length`` is what it claims to be long, if that is not true."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
