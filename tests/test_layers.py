"""Who may import whom. The rules between packages stand in pyproject.toml; here are those that name single modules."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "layer2"

DECISIONS = {
    "deadlines",
    "effects",
    "machine",
    "observations",
    "reverse_client",
    "reverse_provider",
    "states",
    "submarine_client",
    "submarine_provider",
}
VALUES = {"_values", "addresses", "assets", "errors", "terms", "transactions"}
# Of the standard library: nothing that reads a clock, a file, a socket or a source of randomness.
PURE_STANDARD_LIBRARY = {"__future__", "collections.abc", "dataclasses", "enum", "functools", "math", "typing"}


def _imports(path):
    """The absolute names of the modules that a file imports, wherever in it; names imported from a package count as modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names if alias.name.startswith("_"))
    return names


def test_decisions_import_values_errors_and_pure_standard_library_only():
    allowed = PURE_STANDARD_LIBRARY | {f"layer2.{name}" for name in VALUES}
    allowed |= {"layer2.swaps"} | {f"layer2.swaps._{name}" for name in DECISIONS}
    for name in sorted(DECISIONS):
        path = PACKAGE / "swaps" / f"_{name}.py"
        assert _imports(path) - allowed == set(), path.name


def test_each_role_and_direction_has_one_decision_file():
    files = {path.stem for path in (PACKAGE / "swaps").glob("_*.py")}
    assert {
        f"_{direction}_{role}" for direction in ("submarine", "reverse") for role in ("client", "provider")
    } <= files


def test_every_decision_is_measured_line_by_line():
    """A file that was renamed would otherwise drop out of `make coverage` unseen."""
    report = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["report"]
    assert report["fail_under"] == 100
    measured = {pattern: set(ROOT.glob(pattern.replace("**", "**/*"))) for pattern in report["include"]}
    assert [pattern for pattern, files in measured.items() if not files] == []
    named = set().union(*measured.values())
    assert {PACKAGE / "swaps" / f"_{name}.py" for name in DECISIONS} <= named
    for package in ("proofs", "storage"):
        assert set((PACKAGE / package).rglob("*.py")) <= named


@pytest.mark.parametrize("package", ["cli", "provider"])
def test_applications_use_public_names_only(package):
    private = {}
    for path in sorted((PACKAGE / package).glob("*.py")):
        found = {
            name
            for name in _imports(path)
            if name.startswith("layer2.")
            and not name.startswith(f"layer2.{package}.")
            and any(part.startswith("_") for part in name.split("."))
        }
        if found:
            private[path.name] = sorted(found)
    assert private == {}


def test_sub_packages_are_entered_by_their_front_door_from_outside_the_library():
    """Examples and benchmarks are read as models of use."""
    private = {}
    for folder in ("examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found = {
                n for n in _imports(path) if n.startswith("layer2") and any(p.startswith("_") for p in n.split("."))
            }
            if found:
                private[path.name] = sorted(found)
    assert private == {}


def test_the_rules_between_packages_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.is_file():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [linter, "--no-cache", "--no-logo"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
