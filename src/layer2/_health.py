"""The state of a manager as ``health()`` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from layer2._clock import Clock
from layer2._values import Value

__all__ = ["Health", "HealthState", "LoopHealth", "ProtocolHealth", "TaskHealth", "worst"]


class HealthState(StrEnum):
    """How something is."""

    OK = "ok"
    STARTING = "starting"
    DEGRADED = "degraded"
    """It works, but not all of it, or not at once."""
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolHealth(Value):
    """One layer."""

    state: HealthState
    since_ms: int
    """Unix time in milliseconds since which it is so."""
    reason: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHealth(Value):
    """One background task. It is restarted when it fails."""

    state: HealthState
    """``DEGRADED`` from a failure until it works again."""
    since_ms: int
    """Unix time in milliseconds since which it is so."""
    restarts: int = 0
    """How often it failed and was begun again, since this process started it."""
    reason: str | None = None
    """Of the last failure."""


class LoopHealth:
    """How a background task fares: the task says so, ``health()`` reads it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.value = TaskHealth(state=HealthState.OK, since_ms=clock.now_ms())

    def failed(self, reason: object) -> None:
        """It failed and begins again."""
        now = self.value
        first = now.state is HealthState.OK
        self.value = TaskHealth(
            state=HealthState.DEGRADED,
            since_ms=self._clock.now_ms() if first else now.since_ms,
            restarts=now.restarts + 1,
            reason=str(reason),
        )

    def worked(self) -> None:
        """It did what it is for."""
        if self.value.state is not HealthState.OK:
            self.value = replace(self.value, state=HealthState.OK, since_ms=self._clock.now_ms())


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Value):
    """The whole manager: the worst of its parts, and what is unfinished."""

    state: HealthState
    protocols: Mapping[str, ProtocolHealth] = field(default_factory=dict)
    tasks: Mapping[str, TaskHealth] = field(default_factory=dict)
    unfinished_transfers: int = 0
    """Transfers that are still driven or watched: those under way, and those that are settled or refunded until that is final.
    Some are no sign of a fault."""
    needs_attention: tuple[str, ...] = ()
    """Ids of transfers that a person must look at."""
    run_again_by: int | None = None
    """Unix seconds by which this store must be driven again if this process ends now."""
    operations_running: int = 0
    operations_queued: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything works and nothing needs attention."""
        return self.state is HealthState.OK and not self.needs_attention


def worst(states: list[HealthState]) -> HealthState:
    """The state of a whole from those of its parts."""
    for state in (HealthState.FAILED, HealthState.DEGRADED, HealthState.STARTING):
        if state in states:
            everything = state is HealthState.FAILED and all(part is HealthState.FAILED for part in states)
            return state if everything or state is not HealthState.FAILED else HealthState.DEGRADED
    return HealthState.OK
