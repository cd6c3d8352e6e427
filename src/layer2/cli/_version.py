"""``layer2 version``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from layer2.cli._cli import Cli
from layer2.cli._command import command

if TYPE_CHECKING:
    import typer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "version", settings=False)(show)


def show(cli: Cli) -> None:
    """Show the version of layer2 and of Python."""
    try:
        own = version("layer2")
    except PackageNotFoundError:
        own = "unknown"
    cli.emit({"layer2": own, "python": platform.python_version()})
    cli.say(f"layer2 {own} on Python {platform.python_version()}")
