"""Mistakes in the arguments: a page for people, or a JSON value for programs."""

from __future__ import annotations

import sys
from typing import Any, Final, cast

import typer
from typer.core import TyperGroup

from layer2.cli._cli import Cli
from layer2.cli._exit import ExitCode

__all__ = ["Program"]

_UsageError: Final = cast("type[Exception]", typer.BadParameter.__bases__[0])
"""Typer gives it no name of its own."""


class Program(TyperGroup):
    """The program. Arguments are read before any command runs, so here it is decided in which form a mistake is told."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name, and leave with its exit code."""
        given = args[0] if args else kwargs.get("args")
        words = list(sys.argv[1:] if given is None else given)
        if "--json" not in words[: words.index("--") if "--" in words else len(words)]:
            return super().main(*args, **kwargs)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except _UsageError as error:
            code = _tell(error)
        except typer.Abort:
            Cli(json_output=True).fail("given up", hint=None, code=ExitCode.UNEXPECTED, details={"type": "Abort"})
            code = ExitCode.UNEXPECTED
        sys.exit(code or ExitCode.OK)


def _tell(error: Any) -> ExitCode:
    context = error.ctx
    hint = None if context is None else f"{context.command_path} --help says what it takes"
    name = getattr(getattr(error, "param", None), "name", None) or getattr(error, "option_name", None)
    details = {
        "type": "UsageError",
        "money_may_have_moved": False,
        "retry_safe": False,
        "fields": {} if name is None else {"field": name},
    }
    Cli(json_output=True).fail(error.format_message(), hint=hint, code=ExitCode.USAGE, details=details)
    return ExitCode.USAGE
