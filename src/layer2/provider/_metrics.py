"""What the daemon counts, in a Prometheus registry of its own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from layer2.provider._status import status_of
from layer2.swaps import StoredSwap

__all__ = ["ProviderMetrics"]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ProviderMetrics:
    """Counters, gauges and times of one provider. ``registry`` holds nothing else unless the caller shares it.

    Families: ``layer2_provider_requests_total`` (route, method, status), ``layer2_provider_request_seconds`` (route),
    ``layer2_provider_refusals_total`` (rule), ``layer2_provider_swap_states_total`` (direction, status),
    ``layer2_provider_alarms_total`` (code), ``layer2_provider_open_swaps`` and ``layer2_provider_event_streams``.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._requests = Counter(
            "layer2_provider_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "layer2_provider_request_seconds", "Time to answer a request", ["route"], registry=self.registry
        )
        self._refusals = Counter(
            "layer2_provider_refusals", "Swaps refused, by the rule that refused", ["rule"], registry=self.registry
        )
        self._states = Counter(
            "layer2_provider_swap_states",
            "Changes of swaps, by the status that followed",
            ["direction", "status"],
            registry=self.registry,
        )
        self._alarms = Counter(
            "layer2_provider_alarms", "Alarms that a person must look at", ["code"], registry=self.registry
        )
        self.open_swaps = Gauge("layer2_provider_open_swaps", "Swaps under way", registry=self.registry)
        self.event_streams = Gauge("layer2_provider_event_streams", "Open event streams", registry=self.registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request. ``status`` 0: the other side went away before the answer."""
        self._requests.labels(route, method if method in _METHODS else "other", status or "none").inc()
        if not route.endswith("/events"):
            self._seconds.labels(route).observe(seconds)

    def refused(self, rule: str | None) -> None:
        """Count a refusal."""
        self._refusals.labels(rule or "none").inc()

    def changed(self, swap: StoredSwap) -> None:
        """Count a swap's new state."""
        self._states.labels(swap.deal.direction.value, status_of(swap).status.value).inc()

    def alarm(self, code: str) -> None:
        """Count an alarm."""
        self._alarms.labels(code).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
