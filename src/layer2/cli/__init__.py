"""The command line, one command group per file. ``main`` is the program ``layer2``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command that the process's arguments name, and leave with its exit code (see ``layer2 --help``)."""
    from layer2.cli._app import app

    app(prog_name="layer2")
