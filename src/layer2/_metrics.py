"""Metrics in a Prometheus registry that the caller gives; without one, nothing is counted and nothing imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from layer2._clock import Clock, SystemClock
from layer2.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Metrics"]

_families: WeakKeyDictionary[Any, Mapping[str, Any]] = WeakKeyDictionary()
"""Registry -> its collectors: several managers may share one registry, which takes each name once."""


class Metrics:
    """Counts operations and transfers.

    Families: ``layer2_operations_total`` (operation, outcome), ``layer2_operation_seconds`` (operation),
    ``layer2_transfers_total`` (direction, state), ``layer2_unfinished_transfers`` and ``layer2_operations_now`` (state).
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._collectors = None if registry is None else _collectors(registry)

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Count and time the block as one operation; the outcome is ``ok`` or the name of the error's class."""
        if self._collectors is None:
            yield
            return
        begun = self._clock.monotonic_s()
        outcome = "ok"
        try:
            yield
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self._collectors["operations_total"].labels(name, outcome).inc()
            self._collectors["operation_seconds"].labels(name).observe(self._clock.monotonic_s() - begun)

    def transfer(self, direction: str, state: str) -> None:
        """Count a transfer that entered ``state``."""
        if self._collectors is not None:
            self._collectors["transfers_total"].labels(direction, state).inc()

    def levels(self, *, unfinished_transfers: int, running: int, queued: int) -> None:
        """Set what goes up and down."""
        if self._collectors is not None:
            self._collectors["unfinished_transfers"].set(unfinished_transfers)
            self._collectors["operations"].labels("running").set(running)
            self._collectors["operations"].labels("queued").set(queued)


def _collectors(registry: CollectorRegistry) -> Mapping[str, Any]:
    known = _families.get(registry)
    if known is not None:
        return known
    try:
        from prometheus_client import Counter, Gauge, Histogram
    except ImportError as error:
        raise ConfigurationError("a metrics registry was given, but prometheus_client is not installed") from error
    made = {
        "operations_total": Counter(
            "layer2_operations_total", "Network operations that ended", ["operation", "outcome"], registry=registry
        ),
        "operation_seconds": Histogram(
            "layer2_operation_seconds", "Time of network operations", ["operation"], registry=registry
        ),
        "transfers_total": Counter(
            "layer2_transfers_total", "Transfers that entered a state", ["direction", "state"], registry=registry
        ),
        "unfinished_transfers": Gauge("layer2_unfinished_transfers", "Transfers that are not final", registry=registry),
        "operations": Gauge("layer2_operations_now", "Network operations now", ["state"], registry=registry),
    }
    _families[registry] = made
    return made
