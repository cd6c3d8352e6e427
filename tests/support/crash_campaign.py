"""The crash campaign: what is done besides if it was asked for, and its table.

``make campaign-crash`` runs it. What a test has shown stands in ``.campaign/crash`` with the version of the package that it was
shown for, and is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash_child import kind_of

import layer2

CAMPAIGN = "LAYER2_CAMPAIGN" in os.environ
FOLDER = Path(".campaign/crash")
STORE_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
ENDS = {
    "settled": "settled",
    "SwapRefunded": "refunded",
    "SwapExpired": "expired",
    "nothing begun": "nothing begun",
}


@dataclass(frozen=True)
class Told:
    """What became of one path."""

    path: str
    points: int
    """That an uninterrupted swap passes."""
    hit: int
    """At so many of them a process was killed."""
    deaths: int
    ends: dict[str, int]


_NO_BRACKETS = str.maketrans("[", "-", "]")
_told: list[Told] = []


def told(path: str, points: Sequence[str], hits: Counter[str], ends: Counter[str]) -> None:
    """Show what became of a path, and keep it for the table."""
    _tell(Told(path, len(points), len(set(points) & set(hits)), hits.total(), dict(ends)))
    kinds = Counter(kind_of(point) for point in hits.elements())
    for kind, count in sorted(kinds.items()):
        print(f"  {count:3} x {kind}")


def told_of_many(path: str, deaths: int, ends: Counter[str]) -> None:
    """The same of swaps in which both sides die again and again."""
    _tell(Told(path, 0, 0, deaths, dict(ends)))


def _tell(row: Told) -> None:
    _told.append(row)
    where = f" at {row.hit} of {row.points} points" if row.points else ""
    print(f"\n{row.path}: killed {row.deaths} times{where}; {sum(row.ends.values())} swaps ended {row.ends}")


def take_told() -> list[Told]:
    """What was told since the last call."""
    rows = _told.copy()
    _told.clear()
    return rows


def version() -> str:
    """Another for each change of the package."""
    root = Path(layer2.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _file(test: str) -> Path:
    return FOLDER / f"{test.rpartition('/')[2].replace('.py::', '-').translate(_NO_BRACKETS)}.json"


def _passed(path: Path) -> Any:
    """What was shown for this version; None: nothing."""
    data = json.loads(path.read_text()) if path.exists() else {}
    return data if data.get("version") == version() else None


def is_done(test: str) -> bool:
    """Whether this test has passed already."""
    return _passed(_file(test)) is not None


def keep(test: str, store: str, rows: Iterable[Told]) -> None:
    """Write down that a test has passed, whole or not at all."""
    data = {"version": version(), "store": store, "rows": [vars(row) for row in rows]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = _file(test)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1))
    part.replace(path)


def table() -> str:
    """All that was done, as a Markdown table."""
    header = ("path", "store", "points", "hit", "kills", *ENDS.values())
    lines = [_line(header), "|---|---|" + "---:|" * (len(header) - 2)]
    sums = Counter[str]()
    passed = filter(None, map(_passed, FOLDER.glob("*.json")))
    for path, store, row in sorted((row["path"], test["store"], row) for test in passed for row in test["rows"]):
        cells = {"points": row["points"], "hit": row["hit"], "kills": row["deaths"]}
        cells |= {name: row["ends"].get(end, 0) for end, name in ENDS.items()}
        sums.update(cells)
        lines.append(_line((path, STORE_NAMES[store], *map(_figure, cells.values()))))
    lines.append(_line(("**all**", "", *(f"**{sums[name]:,}**" for name in header[2:]))))
    return "\n".join(lines)


def _figure(number: int) -> str:
    return f"{number:,}" if number else ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
