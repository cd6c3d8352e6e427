"""What connections of strangers may cost: how many there are, and for how long one may keep its place without asking anything."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from layer2.provider._proxies import Proxies
from layer2.provider._rate import origin_of

__all__ = ["ConnectionLimits", "bounded_protocol"]

_MAX_CONNECTIONS: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds on connections. A body has its own, in the gate."""

    total: int = 0
    """At a time; 0: half of the files that the process may open, at most 4000.

    Where all are taken, the network address that has most of them loses one to whoever has at least two fewer."""
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


class _Places:
    """Which connections there are, and who has to go when there can be no more."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._per_address = limits.per_address
        self._most = limits.most()
        self._proxies = Proxies(limits.proxies)
        self._held: dict[str, dict[_Bounded, None]] = {}
        self._total = 0

    def enter(self, connection: _Bounded, host: str | None) -> bool:
        """Whether there is a place, if need be another's."""
        address = None if host in self._proxies else origin_of(host)
        own = 0 if address is None else len(self._held.get(address, ()))
        if address is not None and own >= self._per_address:
            return False
        if self._total >= self._most and not self._make_room(own):
            return False
        if address is not None:
            self._held.setdefault(address, {})[connection] = None
        connection.address, connection.has_place = address, True
        self._total += 1
        return True

    def leave(self, connection: _Bounded) -> None:
        """Give its place back, if it has one."""
        if not connection.has_place:
            return
        connection.has_place = False
        self._total -= 1
        if connection.address is not None:
            others = self._held[connection.address]
            del others[connection]
            if not others:
                del self._held[connection.address]

    def _make_room(self, own: int) -> bool:
        most = max(self._held.values(), key=len, default={})
        if len(most) < own + 2:
            return False
        # What has a request under way is spared, if there is anything else.
        out = next((each for each in most if not _under_way(each.cycle)), None) or next(reversed(most))
        self.leave(out)
        out.transport.abort()
        return True


class _Bounded(H11Protocol):
    """Closes a connection that does not get a request together in time, and one too many.

    The server below has a limit for connections that are idle between two requests, and none for those that send a byte at times.
    """

    limits: ConnectionLimits
    places: _Places
    address: str | None = None
    has_place: bool = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        if not self.places.enter(self, None if self.client is None else self.client[0]):
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        self.places.leave(self)
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
    """The protocol of one server, with places of its own."""
    return type("BoundedProtocol", (_Bounded,), {"limits": limits, "places": _Places(limits)})
