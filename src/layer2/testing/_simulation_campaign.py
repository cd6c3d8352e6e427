"""A simulation campaign: many seeds for as long as is wanted, resumable, ending in a table.

``python -m layer2.testing --seeds 200000 --hours 2``. What was done is kept in a file and not done again; interrupt it at
any time. Exit status 0: every promise was kept; 1: some seed breaks one, and the shortest story that shows it was written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from layer2.testing._simulation_many import SimulationTally, run_chunks
from layer2.testing._simulation_shrink import shrink

__all__ = ["main", "read_tally", "table", "write_tally"]

CHUNK: Final = 50
CHUNKS_AT_ONCE: Final = 20
COLUMNS: Final = ("seeds", "settled", "not settled", "with crashes", "with reorganisations", "broken")
_BAR: Final = 30


def read_tally(path: Path) -> SimulationTally:
    """What an earlier campaign has counted; an empty tally if there was none."""
    if not path.exists():
        return SimulationTally()
    data = json.loads(path.read_text())
    return SimulationTally(
        counts=Counter({(row, column): count for row, column, count in data["counts"]}),
        simulated_s=data["simulated_s"],
        cpu_s=data["cpu_s"],
        broken=[(seed, what) for seed, what in data["broken"]],
    )


def write_tally(path: Path, tally: SimulationTally) -> None:
    """Keep ``tally`` in a file, whole or not at all."""
    data = {
        "counts": [[row, column, count] for (row, column), count in sorted(tally.counts.items())],
        "simulated_s": tally.simulated_s,
        "cpu_s": tally.cpu_s,
        "broken": tally.broken,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1))
    part.replace(path)


def table(tally: SimulationTally) -> str:
    """The tally as a Markdown table."""
    lines = [
        f"| | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    rows = sorted({row for row, _ in tally.counts})
    for row in rows:
        cells = [f"{tally.counts[row, column]:,}" for column in COLUMNS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    sums = [sum(tally.counts[row, column] for row in rows) for column in COLUMNS]
    lines.append(f"| **all** | {' | '.join(f'**{number:,}**' for number in sums)} |")
    days = tally.simulated_s / 86_400
    lines += ["", f"{days:,.0f} simulated days in {tally.cpu_s / 3600:.1f} hours of processor time."]
    return "\n".join(lines)


def _show(tally: SimulationTally, wanted: int, began_s: float, done_before: int) -> None:
    done = tally.seeds
    took_s = time.monotonic() - began_s
    rate = (done - done_before) / took_s if took_s else 0.0
    left_s = (wanted - done) / rate if rate else 0.0
    filled = "#" * (_BAR * done // max(1, wanted))
    text = f"[{filled:.<{_BAR}}] {done:,} of {wanted:,} seeds, {rate:.0f}/s, {left_s / 60:.0f} min left, {len(tally.broken)} broken"
    sys.stderr.write(f"\r{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()


def _campaign(path: Path, wanted: int, until_s: float | None, processes: int, *, bare: bool) -> SimulationTally:
    tally = read_tally(path)
    began_s, done_before = time.monotonic(), tally.seeds
    while tally.seeds < wanted and (until_s is None or time.monotonic() < until_s):
        first = tally.seeds
        starts = range(first, min(wanted, first + CHUNK * CHUNKS_AT_ONCE), CHUNK)
        chunks = [list(range(start, min(start + CHUNK, wanted))) for start in starts]
        for counted, broken in run_chunks(chunks, processes=processes, bare=bare):
            tally.merge(counted)
            for report in broken:
                story = path.with_name(f"{path.stem}-{report.seed}.txt")
                story.parent.mkdir(parents=True, exist_ok=True)
                story.write_text(f"{shrink(report)}\n")
            write_tally(path, tally)
            _show(tally, wanted, began_s, done_before)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or go on with one. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m layer2.testing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200_000, help="how many, from seed 0 on")
    parser.add_argument("--hours", type=float, default=None, help="stop after so long, to go on another time")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--folder", type=Path, default=Path(".campaign"), help="where what was done is kept")
    parser.add_argument(
        "--bare", action="store_true", help="the decisions alone, without store and driver: a count of its own"
    )
    chosen = parser.parse_args(arguments)
    until_s = None if chosen.hours is None else time.monotonic() + chosen.hours * 3600
    path = chosen.folder / ("bare.json" if chosen.bare else "simulation.json")
    try:
        tally = _campaign(path, chosen.seeds, until_s, chosen.processes, bare=chosen.bare)
    except KeyboardInterrupt:
        tally = read_tally(path)
    lines = [table(tally), *(f"seed {seed}: {what}" for seed, what in tally.broken)]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    return 1 if tally.broken else 0
