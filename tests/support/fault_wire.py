"""A wire between a process and a node: it can be cut, or fall silent with all its connections open, and be mended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

CHUNK = 65_536


class Wire:
    """An async context manager that listens on loopback and passes bytes on to ``upstream``: a URL, or the path of a Unix socket."""

    def __init__(self, upstream: str | Path) -> None:
        self._socket = upstream if isinstance(upstream, Path) else None
        self._parts = urlsplit("tcp://" if isinstance(upstream, Path) else upstream)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._whole = True
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self._flows.set()
        self.cut()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens, with the scheme of what is behind it."""
        return f"{self._parts.scheme}://127.0.0.1:{self.port}"

    def lead_to(self, upstream: str) -> None:
        """Whoever connects from now on gets there."""
        self._parts = urlsplit(upstream)

    def cut(self) -> None:
        """Break what is connected and refuse what comes."""
        self._whole = False
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Take everything, also new connections, and pass nothing on."""
        self._flows.clear()

    def mend(self) -> None:
        """Be a wire again. What a stalled one has taken goes on its way late."""
        self._whole = True
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        self._writers.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            await self._flows.wait()
            answers, behind = await self._connect()
            self._writers.add(behind)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, behind))
                group.create_task(self._pipe(answers, writer))
        except OSError:
            pass
        finally:
            for end in (writer, behind):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._socket is not None:
            return await asyncio.open_unix_connection(self._socket)
        assert self._parts.hostname is not None
        return await asyncio.open_connection(self._parts.hostname, self._parts.port)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                return
        writer.transport.abort()
