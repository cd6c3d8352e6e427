"""The whole set of requirements has wheels for every supported Python, also for those that this machine does not have."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
VERSIONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["classifiers"]
    if classifier.startswith("Programming Language :: Python :: 3.")
]
# The version that runs the tests was really installed.
OTHERS = [version for version in VERSIONS if version != "{}.{}".format(*sys.version_info)]


def _requirements():
    extras = [
        line
        for name, lines in PROJECT["optional-dependencies"].items()
        for line in lines
        if name != "all"  # it names the others
    ]
    return [*PROJECT["dependencies"], *extras]


def test_the_classifiers_name_the_supported_versions():
    assert VERSIONS == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == ">=3.11,<3.15"


def test_the_extra_all_names_every_other_extra():
    extras = PROJECT["optional-dependencies"]
    (line,) = extras["all"]
    assert set(line.removeprefix("layer2[").removesuffix("]").split(",")) == set(extras) - {"all"}


@pytest.fixture(scope="module")
def resolutions(tmp_path_factory):
    """All versions at once: they mostly wait for the index."""
    running = {}
    for version in OTHERS:
        target = str(tmp_path_factory.mktemp("target"))
        argv = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
        argv += ["--ignore-installed", "--only-binary=:all:", "--python-version", version, "--target", target]
        running[version] = subprocess.Popen(
            [*argv, *_requirements()], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    yield running
    for process in running.values():
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHERS)
def test_all_requirements_resolve_to_wheels(resolutions, version):
    _, errors = resolutions[version].communicate()
    assert resolutions[version].returncode == 0, errors.decode()
