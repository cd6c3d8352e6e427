"""What every command works with: where it writes, how it shows progress, and its settings."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table

from layer2.cli._text import clean

if TYPE_CHECKING:
    from layer2 import Layer2Config

__all__ = ["Cli", "program", "table"]

_WIDTH_OF_FILES = 200


def table(title: str | None, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in ``right`` are aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def program() -> str:
    """How this program was called, so that a printed command can be pasted where it was printed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m layer2"
    found = shutil.which("layer2")
    on_path = called.name != "layer2" or (found is not None and called.exists() and called.samefile(found))
    return "layer2" if on_path else shlex.quote(sys.argv[0])


class Cli:
    """One run of one command.

    Results go to standard output: for people, or with ``json_output`` one JSON value (a stream of events: one a line). Progress,
    notes and errors go to standard error.
    """

    def __init__(self, *, json_output: bool = False, debug: bool = False, config_path: Path | None = None) -> None:
        self.json_output = json_output
        self.debug = debug
        self.config_path = config_path
        self.terminated = False
        self._begun: str | None = None
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @cached_property
    def config(self) -> Layer2Config:
        """The settings, read from the usual places.

        Raises:
            ConfigurationError: none, or wrong ones.
        """
        from layer2 import Layer2Config

        return Layer2Config.load(self.config_path)

    @property
    def asks(self) -> bool:
        """Whether somebody is there to answer a question."""
        return not self.json_output and sys.stdin.isatty()

    def emit(self, value: Any, *render: Callable[[], RenderableType]) -> None:
        """A result: ``value`` for programs, what ``render`` gives for people."""
        if self.json_output:
            with self._reader():
                print(json.dumps(value, ensure_ascii=False), flush=True)
            return
        self.emit_people(*render)

    def emit_people(self, *render: Callable[[], RenderableType]) -> None:
        """More of a result, for people only."""
        if not self.json_output:
            with self._reader():
                for make in render:
                    self.out.print(make())

    def say(self, text: str, *, style: str | None = None) -> None:
        """A line for people; programs do not see it."""
        if not self.json_output:
            with self._reader():
                self.out.print(clean(text), style=style, soft_wrap=True)

    def go_on_unread(self, what: str) -> None:
        """From now on the command does its work though nobody reads its results: ``what`` it has begun is then named once."""
        self._begun = what

    @contextmanager
    def _reader(self) -> Iterator[None]:
        """Writes for whoever reads standard output. Without a reader what was begun goes on; any other command ends."""
        try:
            yield
        except (BrokenPipeError, SystemExit):  # rich makes the one of the other
            if self._begun is None:
                raise
            # What is still in the buffer must go somewhere, or the interpreter fails when it ends.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.close(nowhere)
            self.note(f"nobody reads standard output any more: {self._begun}, and the exit code tells how it ended")

    def step(self, text: str) -> None:
        """A line of progress."""
        if not self.json_output:
            self.err.print(clean(text), style="dim", soft_wrap=True)

    def note(self, text: str) -> None:
        """What must be seen whatever the form of the result."""
        self.err.print(clean(text), style="yellow", soft_wrap=True)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show that something goes on, where somebody looks."""
        if self.json_output or not self.err.is_terminal:
            yield
            return
        with self.err.status(clean(text)):
            yield

    def fail(self, message: str, *, hint: str | None, code: int, details: Mapping[str, Any]) -> None:
        """An error, for both readers."""
        if self.json_output:
            with self._reader():
                print(
                    json.dumps({"error": {"message": message, "hint": hint, "exit_code": code, **details}}), flush=True
                )
        self.err.print(f"error: {clean(message)}", style="bold red", soft_wrap=True)
        if hint:
            self.err.print(f"what to do: {clean(hint)}", soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    return console
