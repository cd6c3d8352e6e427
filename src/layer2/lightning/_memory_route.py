"""Channels of the in-memory network and the search for routes over them: plain values, nothing awaits here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Channel", "ChannelPolicy", "Hop", "Ledger", "Route", "plan_routes"]

MAX_HTLCS = 483
"""Most HTLCs in one direction of a channel (BOLT 2)."""
MAX_HOPS = 20
MAX_PARTS = 16
MIN_PART_MSAT = 10_000_000
"""Smallest part that an amount is split into, as lnd does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPolicy:
    """What a node asks for forwarding over a channel, in the direction away from it."""

    base_fee_msat: int = 1_000
    fee_ppm: int = 1
    """Millionths of the forwarded amount."""
    cltv_delta: int = 80
    """Blocks between the time lock of the incoming and of the outgoing HTLC."""

    def fee_msat(self, amount_msat: int) -> int:
        """The fee for forwarding ``amount_msat`` (BOLT 7)."""
        return self.base_fee_msat + amount_msat * self.fee_ppm // 1_000_000


@dataclass(slots=True, kw_only=True, eq=False)
class Channel:
    """A channel: who has how much of it, and what is locked in HTLCs."""

    channel_id: int
    nodes: tuple[bytes, bytes]
    balance_msat: dict[bytes, int]
    policies: dict[bytes, ChannelPolicy]
    locked_msat: int = 0
    htlcs: dict[bytes, int] = field(default_factory=dict)
    """Number of HTLCs that each node has offered over it."""

    def other(self, node: bytes) -> bytes:
        """The node at the other end."""
        return self.nodes[1] if node == self.nodes[0] else self.nodes[0]

    def total_msat(self) -> int:
        """Everything in the channel, whoever has it."""
        return sum(self.balance_msat.values()) + self.locked_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One HTLC of a route."""

    channel: Channel
    sender: bytes
    amount_msat: int
    expiry_height: int

    @property
    def receiver(self) -> bytes:
        """The node that the HTLC is offered to."""
        return self.channel.other(self.sender)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """HTLCs from the payer (first) to the payee (last)."""

    hops: tuple[Hop, ...]

    @property
    def amount_msat(self) -> int:
        """What arrives."""
        return self.hops[-1].amount_msat

    @property
    def fee_msat(self) -> int:
        """What the nodes between keep."""
        return self.hops[0].amount_msat - self.hops[-1].amount_msat


class Ledger:
    """Balances as they would be with some more HTLCs in place: a payment is planned in full before any part is sent."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, bytes], int] = {}
        self._slots: dict[tuple[int, bytes], int] = {}

    def can_carry(self, channel: Channel, sender: bytes, amount_msat: int) -> bool:
        """Whether ``sender`` can offer an HTLC of this amount over the channel."""
        key = (channel.channel_id, sender)
        return (
            channel.balance_msat[sender] - self._taken.get(key, 0) >= amount_msat
            and channel.htlcs.get(sender, 0) + self._slots.get(key, 0) < MAX_HTLCS
        )

    def take(self, route: Route) -> None:
        """Count the route's HTLCs as offered."""
        for hop in route.hops:
            key = (hop.channel.channel_id, hop.sender)
            self._taken[key] = self._taken.get(key, 0) + hop.amount_msat
            self._slots[key] = self._slots.get(key, 0) + 1


@dataclass(frozen=True, slots=True)
class _Label:
    """A way from ``node`` to the payee: what must arrive at ``node``, and with which time lock."""

    amount_msat: int
    expiry_height: int
    node: bytes
    hops: tuple[Hop, ...]


def _cheapest(
    adjacency: Mapping[bytes, list[Channel]],
    ledger: Ledger,
    payer: bytes,
    payee: bytes,
    amount_msat: int,
    *,
    final_expiry: int,
    max_expiry: int,
    max_total_msat: int,
) -> Route | None:
    """The route with the lowest fee, then the shortest time lock, within the limits.

    Labels go backwards from the payee, because fees are charged on what is forwarded. A label is dropped only where another one at
    the same node is no worse in both amount and time lock, so the time lock limit never hides a dearer route that keeps it.
    """
    order = 0
    heap: list[tuple[int, int, int, int, _Label]] = [
        (amount_msat, final_expiry, 0, order, _Label(amount_msat, final_expiry, payee, ()))
    ]
    settled: dict[bytes, list[tuple[int, int]]] = {}
    while heap:
        *_, label = heapq.heappop(heap)
        if label.node == payer:
            return Route(hops=label.hops)
        known = settled.setdefault(label.node, [])
        if any(amount <= label.amount_msat and expiry <= label.expiry_height for amount, expiry in known):
            continue
        known.append((label.amount_msat, label.expiry_height))
        if len(label.hops) == MAX_HOPS:
            continue
        visited = {hop.receiver for hop in label.hops}
        for channel in adjacency.get(label.node, ()):
            sender = channel.other(label.node)
            if sender in visited or not ledger.can_carry(channel, sender, label.amount_msat):
                continue
            hop = Hop(channel=channel, sender=sender, amount_msat=label.amount_msat, expiry_height=label.expiry_height)
            amount, expiry = label.amount_msat, label.expiry_height
            if sender != payer:
                policy = channel.policies[sender]
                amount += policy.fee_msat(label.amount_msat)
                expiry += policy.cltv_delta
            if amount > max_total_msat or expiry > max_expiry:
                continue
            order += 1
            hops = (hop, *label.hops)
            heapq.heappush(heap, (amount, expiry, len(hops), order, _Label(amount, expiry, sender, hops)))
    return None


def plan_routes(
    channels: Iterable[Channel],
    payer: bytes,
    payee: bytes,
    amount_msat: int,
    *,
    fee_limit_msat: int,
    final_expiry: int,
    max_expiry: int,
    max_parts: int = MAX_PARTS,
) -> list[Route] | None:
    """Routes that together carry ``amount_msat`` within the limits, or None.

    One route if there is one; else parts, halved until they fit (lnd's way), each by the cheapest route that is left.
    """
    adjacency: dict[bytes, list[Channel]] = {}
    for channel in channels:
        for node in channel.nodes:
            adjacency.setdefault(node, []).append(channel)
    ledger = Ledger()
    routes: list[Route] = []
    left, fee_left, part = amount_msat, fee_limit_msat, amount_msat
    while left:
        if len(routes) == max_parts:
            return None
        part = min(part, left)
        route = _cheapest(
            adjacency,
            ledger,
            payer,
            payee,
            part,
            final_expiry=final_expiry,
            max_expiry=max_expiry,
            max_total_msat=part + fee_left,
        )
        if route is None:
            part //= 2
            if part < MIN_PART_MSAT or max_parts == 1:
                return None
            continue
        routes.append(route)
        ledger.take(route)
        left -= part
        fee_left -= route.fee_msat
    return routes
