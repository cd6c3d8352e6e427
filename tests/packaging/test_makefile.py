"""What make does on a machine that is not as it should be."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")]


@pytest.fixture
def machine(tmp_path):
    """A copy of what make needs, on a machine with the tools that every Unix has and the interpreters that a test puts there."""
    copy, programs = tmp_path / "copy", tmp_path / "bin"
    programs.mkdir()
    (copy / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", copy)
    shutil.copy(ROOT / "tools/find_pythons.sh", copy / "tools")
    for tool in ("sh", "make", "head", "echo", "rm", "touch"):
        (programs / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path / "pyenv")}

    def run(*argv):
        path = shutil.which(argv[0], path=str(programs)) or argv[0]
        return subprocess.run([path, *argv[1:]], cwd=copy, env=environment, capture_output=True, text=True, check=False)

    run.programs = programs
    return run


def _interpreter(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_no_python_is_said_clearly(machine):
    done = machine("make", "demo")
    assert done.returncode != 0
    assert "layer2 needs CPython 3.11, 3.12, 3.13 or 3.14" in done.stderr


def test_a_shim_for_a_version_that_is_not_there_is_passed_over(machine):
    _interpreter(machine.programs / "python3.14", "echo 'command not found' >&2; exit 127")
    _interpreter(machine.programs / "python3.13", "echo /opt/python3.13")
    _interpreter(machine.programs / "python3.11", "echo /opt/python3.11")
    assert machine("tools/find_pythons.sh").stdout.split() == ["/opt/python3.13", "/opt/python3.11"]


def test_interpreters_that_pyenv_has_but_does_not_show_are_found(machine, tmp_path):
    folder = tmp_path / "pyenv/versions/3.12.9/bin"
    folder.mkdir(parents=True)
    _interpreter(folder / "python", "echo /opt/pyenv/python3.12")
    assert machine("tools/find_pythons.sh").stdout.split() == ["/opt/pyenv/python3.12"]


def test_the_real_machine_has_the_interpreter_that_runs_this():
    done = subprocess.run([ROOT / "tools/find_pythons.sh"], capture_output=True, text=True, check=True)
    versions = done.stdout.split()
    assert versions
    assert all(os.access(path, os.X_OK) for path in versions)


def test_ci_runs_the_tests():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text()
