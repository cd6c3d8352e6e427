"""Writes the list of files in ARCHITECTURE.md from the first sentences of the modules. ``--check`` only compares.

python tools/list_files.py [--check]
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "layer2"
HEAD = "## Files\n\nPaths are relative to `src/layer2/`.\n"


def first_line(path: Path) -> str:
    """What a module says it is: its first sentence."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    line = " ".join(text.split("\n\n", maxsplit=1)[0].split()).replace("``", "`")
    return re.split(r"(?<=\.)\s(?=[A-Z])", line)[0]


def listing() -> str:
    """One line for each file, folder by folder."""
    parts = [HEAD]
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    for folder in sorted(folders, key=lambda found: found.relative_to(PACKAGE).as_posix()):
        inside = folder.relative_to(PACKAGE).as_posix()
        parts.append(f"\n### {'layer2' if inside == '.' else inside}\n\n")
        parts += [
            f"- `{path.relative_to(PACKAGE).as_posix()}`: {first_line(path)}\n" for path in sorted(folder.glob("*.py"))
        ]
    return "".join(parts)


def main() -> int:
    """Write or compare. Returns the exit status."""
    page = ROOT / "ARCHITECTURE.md"
    old = page.read_text()
    new = old[: old.index("## Files\n")] + listing()
    if new == old:
        return 0
    if "--check" in sys.argv[1:]:
        print("ARCHITECTURE.md is not up to date: run python tools/list_files.py")
        return 1
    page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
