"""Makes the run of a seed that breaks a promise smaller, as long as it breaks the same one."""

from __future__ import annotations

from layer2.testing._simulation import simulate
from layer2.testing._simulation_plan import simpler_plans
from layer2.testing._simulation_report import SimulationReport

__all__ = ["shrink"]


def shrink(report: SimulationReport, *, attempts: int = 200) -> SimulationReport:
    """A run that breaks the same rule with as little happening as can be found."""
    rules = {violation.rule for violation in report.violations}
    best = report
    while attempts > 0:
        for plan in simpler_plans(best.plan):
            attempts -= 1
            smaller = simulate(report.seed, plan=plan, bare=report.bare)
            if rules & {violation.rule for violation in smaller.violations}:
                best = smaller
                break
            if attempts <= 0:
                break
        else:
            break
    return best
