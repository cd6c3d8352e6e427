"""How often one network address may ask: token buckets, of which there is a bounded number."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from layer2 import Clock

__all__ = ["RateLimiter", "network_of"]

MAX_ADDRESSES = 10_000
"""Above this, the bucket that was used the longest ago is forgotten."""


class RateLimiter:
    """Lets ``per_minute`` requests of one address through in a minute, as many of them at once.

    Args:
        per_minute: at least 1.
        clock: tells the time.
        max_addresses: of how many addresses it keeps account.
    """

    def __init__(self, per_minute: int, clock: Clock, *, max_addresses: int = MAX_ADDRESSES) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str) -> int | None:
        """Take one token of ``address``: None if there was one, else the seconds until there is."""
        now = self._clock.monotonic_s()
        level, then = self._buckets.pop(address, (self._capacity, now))
        level = min(self._capacity, level + (now - then) * self._per_second)
        allowed = level >= 1
        self._buckets[address] = (level - 1 if allowed else level, now)
        while len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return None if allowed else max(1, math.ceil((1 - level) / self._per_second))


def network_of(host: str | None) -> str:
    """The key of an account: an IPv4 address, or the /64 of an IPv6 address, which one customer has whole."""
    if host is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
