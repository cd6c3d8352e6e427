"""How often one network address may ask: token buckets, of which there is a bounded number."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from layer2 import Clock

__all__ = ["RateLimiter", "network_of", "origin_of"]

MAX_ADDRESSES = 10_000
"""Above this, the bucket that was used the longest ago is forgotten."""
WIDE_SHARE = 4
"""So many times as much as one network may all those of one /48 ask together."""


class RateLimiter:
    """Lets ``per_minute`` requests of one address through in a minute, as many of them at once.

    Who has an IPv6 network of a /48 has 65,536 addresses by that count, so all those of one /48 have four times as much together.

    Args:
        per_minute: at least 1.
        clock: tells the time.
        max_addresses: of how many addresses it keeps account, and of how many /48.
    """

    def __init__(self, per_minute: int, clock: Clock, *, max_addresses: int = MAX_ADDRESSES) -> None:
        self._single = _Buckets(per_minute, clock, max_addresses)
        self._wide = _Buckets(per_minute * WIDE_SHARE, clock, max_addresses)

    def __len__(self) -> int:
        return len(self._single)

    def take(self, address: str) -> int | None:
        """Take one token of ``address``: None if there was one, else the seconds until there is."""
        wide = _wide_network_of(address)
        wait_s = None if wide is None else self._wide.wait_s(wide)
        if wait_s is None:
            wait_s = self._single.wait_s(address)
        if wait_s is None:
            # A request that is refused costs those around it nothing.
            self._single.take(address)
            if wide is not None:
                self._wide.take(wide)
        return wait_s


class _Buckets:
    def __init__(self, per_minute: int, clock: Clock, most: int) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._most = most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def wait_s(self, key: str) -> int | None:
        """Whole seconds until there is a token; None if there is one."""
        now = self._clock.monotonic_s()
        level, then = self._levels.pop(key, (self._capacity, now))
        level = min(self._capacity, level + (now - then) * self._per_second)
        self._levels[key] = level, now
        while len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return None if level >= 1 else max(1, math.ceil((1 - level) / self._per_second))

    def take(self, key: str) -> None:
        """Take the token that there is."""
        level, then = self._levels[key]
        self._levels[key] = level - 1, then


def network_of(host: str | None) -> str:
    """The key of an account of requests: an IPv4 address, or the /64 of an IPv6 address, which one customer has whole."""
    return _shared_by(host, 64)


def origin_of(host: str | None) -> str:
    """Who asks, where each has a share of its own of what there is: an IPv4 address, or the /48 of an IPv6 address.

    Customers of some networks have a /48 whole. By /64, each of its 65,536 networks would have its first offer in peace, its turn,
    and its connections.
    """
    return _shared_by(host, 48)


def _shared_by(host: str | None, prefix: int) -> str:
    if host is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address), prefix), strict=False))
    return str(address)


def _wide_network_of(address: str) -> str | None:
    if not address.endswith("/64"):
        return None
    try:
        return str(ipaddress.IPv6Network(address).supernet(new_prefix=48))
    except ValueError:
        return None
