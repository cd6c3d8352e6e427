"""What a simulated run comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layer2.testing._simulation_checks import Violation
from layer2.testing._simulation_plan import SimulationPlan

__all__ = ["SimulationReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """One run: what was planned, what happened, how it ended, and what should not have happened."""

    seed: int
    plan: SimulationPlan
    violations: Sequence[Violation]
    outcomes: tuple[tuple[str, str], ...]
    """For each swap of an honest party: whose, and its last state with the outcome."""
    alarms: tuple[tuple[str, str], ...]
    """Who raised which."""
    simulated_s: float
    bare: bool = False
    """Whether it was run without store and driver."""
    story: tuple[str, ...]
    """What happened, a line each."""

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def __str__(self) -> str:
        differing = []
        plainest = SimulationPlan(direction=self.plan.direction)
        for name in SimulationPlan.__slots__:
            value = getattr(self.plan, name)
            if value != getattr(plainest, name) or name == "direction":
                differing.append(f"{name}={value!s}")
        lines = [f"seed {self.seed}: {', '.join(differing)}", *self.story]
        lines += [f"{who}: {outcome}" for who, outcome in self.outcomes]
        lines += [f"VIOLATION {violation}" for violation in self.violations]
        return "\n".join(lines)
