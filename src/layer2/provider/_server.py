"""An HTTP server in a running event loop: it binds before anything is served, and leaves the process's signals alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import uvicorn

from layer2.errors import AsyncRuntimeError, ConfigurationError
from layer2.provider._connections import ConnectionLimits, bounded_protocol
from layer2.provider._proxies import Proxies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["HttpServer"]

BACKLOG: Final = 512
IDLE_TIMEOUT_S: Final = 30
_FORCED_END_S: Final = 2.0
"""After the grace, what is cancelled has this long to end."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the program, which tells us to stop.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def _reachable(host: str) -> str:
    """Where this machine reaches a server that listens on ``host``: the loopback address for one that listens on all."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


class HttpServer:
    """Serves one application. ``host`` and ``port`` are where it listens; port 0 becomes a free one.

    ``limits`` bounds what connections cost: see ``ConnectionLimits``.

    Raises:
        ConfigurationError: one of ``limits.proxies`` is neither an address nor a network.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, shutdown_grace_s: int, limits: ConnectionLimits | None = None
    ) -> None:
        limits = limits or ConnectionLimits()
        self.host = host
        self.port = port
        self._grace_s = shutdown_grace_s
        self._server = _Server(
            uvicorn.Config(
                app,
                http=bounded_protocol(limits),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                forwarded_allow_ips=Proxies(limits.proxies).written(),
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_TIMEOUT_S,
                timeout_graceful_shutdown=shutdown_grace_s,
                h11_max_incomplete_event_size=limits.head_bytes,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        host = _reachable(self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Bind and begin to answer.

        Raises:
            ConfigurationError: the address is taken, unknown or not ours (``provider.listen_port``, ``provider.listen_host``).
        """
        listener = await _bind(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="provider: http")
        listening = asyncio.create_task(self._server.listening.wait())
        try:
            await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._serving.done():
            listener.close()
            self._check()

    async def wait(self) -> None:
        """Return when it has been closed.

        Raises:
            AsyncRuntimeError: it ended by itself.
        """
        assert self._serving is not None
        await asyncio.wait({self._serving})
        self._check()

    def _check(self) -> None:
        assert self._serving is not None
        error = None if self._serving.cancelled() else self._serving.exception()
        if error is not None or not self._server.should_exit:
            raise AsyncRuntimeError("the HTTP server ended by itself") from error

    async def close(self) -> None:
        """Take no more connections, let requests end within the grace, then cut them off. Idempotent."""
        if self._serving is None:
            return
        self._server.should_exit = True
        try:
            async with asyncio.timeout(self._grace_s + _FORCED_END_S):
                await asyncio.wait({self._serving})
        except TimeoutError:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        state = self._server.server_state
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=_FORCED_END_S)


async def _bind(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"there is no address {host!r} to listen on", key="provider.listen_host") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            reason = "is in use" if error.errno == errno.EADDRINUSE else "may not be used by this user"
            raise ConfigurationError(
                f"port {port} of {host} {reason}",
                key="provider.listen_port",
                hint="stop what listens there, or choose another port (0: any free one)",
            ) from error
        raise ConfigurationError(f"cannot listen on {host}: {error.strerror}", key="provider.listen_host") from error
    return listener
