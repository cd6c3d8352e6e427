"""Metrics in a Prometheus registry that the caller gives; without one, nothing is counted and nothing imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from layer2._clock import Clock, SystemClock
from layer2.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Levels", "Metrics"]

_TRANSFER_BUCKETS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 10_800, 43_200, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What goes up and down, as one manager has it now."""

    unfinished_transfers: int = 0
    needs_attention: int = 0
    running: int = 0
    """Operations that were begun, queueing ones included."""
    queued: int = 0


class _Families:
    """The collectors of one registry, which takes each name once; several managers may share it, and levels are their sums."""

    def __init__(self, registry: CollectorRegistry) -> None:
        try:
            from prometheus_client import Counter, Gauge, Histogram
        except ImportError as error:
            raise ConfigurationError("a metrics registry was given, but prometheus_client is not installed") from error
        self.sources: dict[object, Callable[[], Levels]] = {}
        self.operations = Counter(
            "layer2_operations", "Network operations that ended", ["operation", "outcome"], registry=registry
        )
        self.operation_s = Histogram(
            "layer2_operation_seconds", "Time of network operations", ["operation"], registry=registry
        )
        self.transfers = Counter(
            "layer2_transfers", "Transfers that entered a state", ["direction", "state"], registry=registry
        )
        self.transfer_s = Histogram(
            "layer2_transfer_seconds",
            "Time from a transfer's begin until it was decided",
            ["direction", "state"],
            registry=registry,
            buckets=_TRANSFER_BUCKETS_S,
        )
        self.alarms = Counter("layer2_alarms", "Alarms that a person must look at", ["code"], registry=registry)
        unfinished = Gauge("layer2_unfinished_transfers", "Transfers that are not final", registry=registry)
        attention = Gauge("layer2_transfers_needing_attention", "Transfers with an alarm", registry=registry)
        operations_now = Gauge("layer2_operations_now", "Network operations now", ["state"], registry=registry)
        unfinished.set_function(lambda: self._sum(lambda levels: levels.unfinished_transfers))
        attention.set_function(lambda: self._sum(lambda levels: levels.needs_attention))
        operations_now.labels("running").set_function(lambda: self._sum(lambda levels: levels.running))
        operations_now.labels("queued").set_function(lambda: self._sum(lambda levels: levels.queued))

    def _sum(self, part: Callable[[Levels], int]) -> int:
        return sum(part(source()) for source in tuple(self.sources.values()))


_families: WeakKeyDictionary[Any, _Families] = WeakKeyDictionary()


class Metrics:
    """Counts operations and transfers.

    Families: ``layer2_operations_total`` (operation, outcome), ``layer2_operation_seconds`` (operation),
    ``layer2_transfers_total`` and ``layer2_transfer_seconds`` (direction, state), ``layer2_alarms_total`` (code),
    ``layer2_unfinished_transfers``, ``layer2_transfers_needing_attention`` and ``layer2_operations_now`` (state).
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._families: _Families | None = None
        if registry is not None:
            self._families = _families.get(registry) or _Families(registry)
            _families[registry] = self._families

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Count and time the block as one operation; the outcome is ``ok`` or the name of the error's class."""
        if self._families is None:
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
            self._families.operations.labels(name, outcome).inc()
            self._families.operation_s.labels(name).observe(self._clock.monotonic_s() - begun)

    def transfer(self, direction: str, state: str, *, decided_after_s: float | None = None) -> None:
        """Count a transfer that entered ``state``; with the time that it took, if that state decides it."""
        if self._families is None:
            return
        self._families.transfers.labels(direction, state).inc()
        if decided_after_s is not None:
            self._families.transfer_s.labels(direction, state).observe(decided_after_s)

    def alarm(self, code: str) -> None:
        """Count an alarm."""
        if self._families is not None:
            self._families.alarms.labels(code).inc()

    def watch(self, levels: Callable[[], Levels]) -> None:
        """Ask ``levels`` whenever the registry is read, from whichever thread reads it, until ``close``."""
        if self._families is not None:
            self._families.sources[self] = levels

    def close(self) -> None:
        """Take our levels out of the sums. Idempotent."""
        if self._families is not None:
            self._families.sources.pop(self, None)
