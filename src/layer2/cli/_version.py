"""``layer2 version``, and ``layer2 --version``."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Annotated

import typer

from layer2.cli._cli import Cli
from layer2.cli._command import command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command and the option."""
    command(app, "version", settings=False)(show)
    app.callback()(options)


def _show_and_stop(wanted: bool) -> None:
    if wanted:
        show(Cli())
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_and_stop, is_eager=True, help="Show the version and stop."),
    ] = False,
) -> None:
    """What stands before the name of a command."""


def show(cli: Cli) -> None:
    """Show the version of layer2 and of Python."""
    try:
        own = metadata.version("layer2")
    except metadata.PackageNotFoundError:
        own = "unknown"
    cli.emit({"layer2": own, "python": platform.python_version()})
    cli.say(f"layer2 {own} on Python {platform.python_version()}")
