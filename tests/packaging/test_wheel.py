"""The wheel has everything that the package reads at run time, and works where nothing else of the project is."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "layer2"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as a release is, without the network: what builds it is installed here."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_it_has_every_file_of_the_package_and_nothing_else(wheel):
    expected = {
        f"layer2/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if not name.startswith("layer2-")} == expected
    assert len(names) == len(set(names))


def test_it_has_what_is_no_module(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("py.typed", "proofs/transfer_proof.v1.schema.json", "evm/artifacts/htlc.json"):
        assert f"layer2/{name}" in names
    for folder, ending in (("evm/artifacts/", ".json"), ("devnet/nodes/", "go.sum"), ("storage/migrations/", ".py")):
        assert [name for name in names if name.startswith(f"layer2/{folder}") and name.endswith(ending)], folder


def test_its_metadata_name_the_command_the_licence_and_the_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.partition("/")[0] for name in archive.namelist() if name.startswith("layer2-")}
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "Provides-Extra: devnet\n" in metadata
    assert "License-Expression: MIT\n" in metadata
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "layer2 = layer2.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()


@pytest.mark.slow
def test_alone_with_the_extra_devnet_it_moves_value_both_ways(wheel, tmp_path):
    """In an environment of its own, from a folder of its own: neither this checkout nor what else is installed here helps."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, *PIP, f"{wheel}[devnet]"], check=True, cwd=tmp_path)
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    }
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [python.parent / "layer2", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    where = subprocess.run(
        [python, "-c", "import layer2; print(layer2.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
