"""Many seeds on all processors: those that break a promise, and how all of them ended."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

from layer2.testing._simulation import simulate
from layer2.testing._simulation_plan import HONEST, SimulationPlan
from layer2.testing._simulation_report import SimulationReport

__all__ = ["SimulationTally", "run_chunks", "simulate_many"]

_CHUNK = 25


@dataclass(slots=True, kw_only=True)
class SimulationTally:
    """How many runs ended how, by direction and by who was honest."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By row (``submarine, client hostile``) and column."""
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    broken: list[tuple[int, str]] = field(default_factory=list)
    """Seeds that break a promise, and the first that each breaks."""

    @property
    def seeds(self) -> int:
        """How many were run."""
        return sum(count for (_, column), count in self.counts.items() if column == "seeds")

    def add(self, report: SimulationReport) -> None:
        """Count one run."""
        row = _row(report.plan)
        columns = ["seeds"]
        ends = [outcome for _, outcome in report.outcomes]
        columns.append("settled" if "Closed settled" in ends else "not settled")
        if any(" dies" in line for line in report.story):
            columns.append("with crashes")
        if any("a reorganisation undoes" in line for line in report.story):
            columns.append("with reorganisations")
        if not report.ok:
            columns.append("broken")
            self.broken.append((report.seed, str(report.violations[0])))
        self.counts.update((row, column) for column in columns)
        self.simulated_s += report.simulated_s

    def merge(self, other: SimulationTally) -> None:
        """Count what ``other`` has counted too."""
        self.counts.update(other.counts)
        self.simulated_s += other.simulated_s
        self.cpu_s += other.cpu_s
        self.broken.extend(other.broken)


def _row(plan: SimulationPlan) -> str:
    who = (
        "client hostile" if plan.client != HONEST else "provider hostile" if plan.provider != HONEST else "both honest"
    )
    return f"{plan.direction.value}, {who}"


def _chunk(seeds: list[int], *, bare: bool) -> tuple[SimulationTally, list[SimulationReport]]:
    tally, broken = SimulationTally(), []
    began = time.process_time()
    for seed in seeds:
        report = simulate(seed, bare=bare)
        tally.add(report)
        if not report.ok:
            broken.append(report)
    tally.cpu_s = time.process_time() - began
    return tally, broken


def run_chunks(
    chunks: Iterable[list[int]], *, processes: int, bare: bool = False
) -> Iterator[tuple[SimulationTally, list[SimulationReport]]]:
    """What each chunk of seeds comes to, in order, with so many chunks at a time in processes of their own."""
    work = partial(_chunk, bare=bare)
    if processes == 1:
        yield from map(work, chunks)
        return
    waiting = list(chunks)
    # Spawned: a fork would take over whatever the caller has open.
    with ProcessPoolExecutor(max_workers=processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def simulate_many(
    seeds: Iterable[int],
    *,
    processes: int | None = None,
    bare: bool = False,
    progress: Callable[[SimulationTally], None] = lambda _: None,
) -> list[SimulationReport]:
    """Run many seeds, each in one of several new processes, and give the reports of those that break a promise.

    Args:
        seeds: which.
        processes: at a time; None: one for each processor.
        bare: the decisions alone, as by ``simulate``.
        progress: called again and again with the tally of all runs so far.
    """
    todo = list(seeds)
    chunks = [todo[first : first + _CHUNK] for first in range(0, len(todo), _CHUNK)]
    workers = min(processes or os.cpu_count() or 1, max(1, len(chunks)))
    tally, broken = SimulationTally(), []
    for counted, reports in run_chunks(chunks, processes=workers, bare=bare):
        tally.merge(counted)
        broken.extend(reports)
        progress(tally)
    return broken
