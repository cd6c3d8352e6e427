"""Many seeds on all processors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from layer2.testing._simulation import simulate
from layer2.testing._simulation_report import SimulationReport

__all__ = ["simulate_many"]

_CHUNK = 25


def _chunk(seeds: list[int]) -> list[SimulationReport]:
    return [report for report in map(simulate, seeds) if not report.ok]


def simulate_many(seeds: Iterable[int], *, processes: int | None = None) -> list[SimulationReport]:
    """Run many seeds, each in one of several new processes, and give the reports of those that break a promise.

    Args:
        seeds: which.
        processes: at a time; None: one for each processor.
    """
    todo = list(seeds)
    chunks = [todo[first : first + _CHUNK] for first in range(0, len(todo), _CHUNK)]
    workers = min(processes or os.cpu_count() or 1, max(1, len(chunks)))
    if workers == 1:
        return [report for chunk in chunks for report in _chunk(chunk)]
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        return [report for reports in pool.map(_chunk, chunks) for report in reports]
