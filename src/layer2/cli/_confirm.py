"""Asks before money moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from layer2 import ValidationError

if TYPE_CHECKING:
    from layer2.cli._cli import Cli

__all__ = ["confirm"]


def confirm(cli: Cli, question: str, *, yes: bool) -> bool:
    """Whether to go on. Where nobody can answer, only ``--yes`` does.

    Raises:
        ValidationError: nobody can be asked, and ``--yes`` was not given.
    """
    if yes:
        return True
    if not cli.asks:
        raise ValidationError("nobody is there to confirm this", field="--yes", hint="add --yes; nothing was sent")
    return typer.confirm(question, err=True)
