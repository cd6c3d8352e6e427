"""What campaigns on real nodes have passed: files in ``.campaign``, each with the version of the package that it was shown for."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import layer2

CAMPAIGN = "LAYER2_CAMPAIGN" in os.environ
ENDS = {
    "settled": "settled",
    "SwapRefunded": "refunded",
    "SwapExpired": "expired",
    "nothing begun": "nothing begun",
}
"""How a swap may end, and the heading of the column in which it is counted."""
_PLAIN = str.maketrans({"[": "-", "]": None, "/": "-", " ": "-", ",": None, ":": None})


def _version() -> str:
    """Another for each change of the package."""
    root = Path(layer2.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class Passed:
    """What one campaign has passed, by name."""

    def __init__(self, campaign: str) -> None:
        self._folder = Path(".campaign") / campaign

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.translate(_PLAIN)}.json"

    def __getitem__(self, name: str) -> Any:
        """What was shown for this version; None: nothing."""
        return _read(self._file(name))

    def __setitem__(self, name: str, data: dict[str, Any]) -> None:
        """Write it down, whole or not at all."""
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"version": _version(), **data}, indent=1))
        part.replace(path)

    def __iter__(self) -> Iterator[Any]:
        return filter(None, map(_read, sorted(self._folder.glob("*.json"))))


def _read(path: Path) -> Any:
    data = json.loads(path.read_text()) if path.exists() else {}
    return data if data.get("version") == _version() else None


def markdown(header: Sequence[str], words: int, rows: Iterable[tuple[tuple[str, ...], dict[str, int]]]) -> str:
    """A table of rows, each of so many words and of figures by column, and of their sums."""
    names = header[words:]
    lines = [_line(header), "|---" * words + "|" + "---:|" * len(names)]
    sums = Counter[str]()
    for row, figures in rows:
        sums.update(figures)
        lines.append(_line((*row, *(f"{figures[name]:,}" if figures[name] else "" for name in names))))
    lines.append(_line(("**all**", *[""] * (words - 1), *(f"**{sums[name]:,}**" for name in names))))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
