"""The table of the crash campaign: ``make campaign-crash``. What a test has shown is not done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from campaign_files import ENDS, Passed, markdown
from crash_child import kind_of

STORE_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


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


_passed = Passed("crash")
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


def is_done(test: str) -> bool:
    """Whether this test has passed already."""
    return _passed[_name(test)] is not None


def keep(test: str, store: str, rows: Iterable[Told]) -> None:
    """Write down that a test has passed, whole or not at all."""
    _passed[_name(test)] = {"store": store, "rows": [vars(row) for row in rows]}


def _name(test: str) -> str:
    return test.rpartition("/")[2].replace(".py::", "-")


def table() -> str:
    """All that was done, as a Markdown table."""
    rows = [(row["path"], STORE_NAMES[test["store"]], row) for test in _passed for row in test["rows"]]
    header = ("path", "store", "points", "hit", "kills", *ENDS.values())
    rows.sort(key=lambda row: row[:2])
    return markdown(header, 2, [((path, store), _figures(row)) for path, store, row in rows])


def _figures(row: dict[str, Any]) -> dict[str, int]:
    ends = {name: row["ends"].get(end, 0) for end, name in ENDS.items()}
    return {"points": row["points"], "hit": row["hit"], "kills": row["deaths"], **ends}
