"""What connections of strangers may cost: how many there are, and for how long one may keep its place without asking anything."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from layer2.provider._proxies import Proxies
from layer2.provider._rate import network_of

__all__ = ["ConnectionLimits", "bounded_protocol"]

_MAX_CONNECTIONS: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds on connections. A body has its own, in the gate."""

    total: int = 0
    """At a time; 0: half of the files that the process may open, at most 4000. Those above are closed at once."""
    per_address: int = 100
    """At a time, of one network address."""
    head_s: float = 10.0
    """For the head of a request, from its first byte, or from the connection; however slowly it comes."""
    head_bytes: int = 16 * 1024
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses, and networks, that are believed about whose request they pass on; they have as many connections as they need.

    An IPv4 address is meant however a socket shows it (``::ffff:127.0.0.1``).
    """

    def most(self) -> int:
        """``total``, where it is 0 what it then stands for."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return self.total or (_MAX_CONNECTIONS if files < 0 else min(_MAX_CONNECTIONS, files // 2))


class _Bounded(H11Protocol):
    """Closes a connection that does not get a request together in time, and one too many.

    The server below has a limit for connections that are idle between two requests, and none for those that send a byte at times.
    """

    limits: ConnectionLimits
    proxies: Proxies
    counts: Counter[str]
    most: int
    _head_timer: asyncio.TimerHandle | None = None
    _counted: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        host = None if self.client is None else self.client[0]
        address = network_of(host)
        if host not in self.proxies:
            self._counted = address
            self.counts[address] += 1
        over = self._counted is not None and self.counts[address] > self.limits.per_address
        if over or len(self.connections) > self.most:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        if self._counted is not None:
            self.counts[self._counted] -= 1
            if not self.counts[self._counted]:
                del self.counts[self._counted]
            self._counted = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if _under_way(self.cycle):
            self._forget_head()
        else:
            self._await_head()

    def _await_head(self) -> None:
        # Not begun anew with each byte: that is what a slow head lives on.
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_s, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _under_way(cycle: RequestResponseCycle | None) -> bool:
    return cycle is not None and not cycle.response_complete


def bounded_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol of one server, with counts of its own."""
    namespace = {"limits": limits, "proxies": Proxies(limits.proxies), "counts": Counter(), "most": limits.most()}
    return type("BoundedProtocol", (_Bounded,), namespace)
