"""Runs the program ``layer2``: in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layer2.cli._app import app

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Ran:
    """A finished command."""

    def __init__(self, code: int, out: str, err: str, *, trace: bool = False) -> None:
        self.code, self.out, self.err = code, out, err
        assert trace or "Traceback" not in err, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty home, an empty folder, no settings."""
    for name in list(os.environ):
        if name.startswith("LAYER2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(environment):
    """Run a command in this process."""

    def invoke(*arguments, trace=False, **options):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="layer2", **options)
        return Ran(result.exit_code, result.stdout, result.stderr, trace=trace)

    return invoke


@pytest.fixture
def start(environment):
    """Start the program in a process of its own; whatever still runs at the end is ended."""
    started = []

    def popen(*arguments, **options):
        argv = [sys.executable, "-m", "layer2", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def program(start):
    """Run a command in a process of its own."""

    def call(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=120)
        return Ran(process.returncode, out, err)

    return call
