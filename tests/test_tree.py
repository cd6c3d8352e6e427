"""The shape of the repository: sizes, names, and what must not stand in it."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "layer2"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]

# Public modules inside sub-packages: users name them to pytest and to Python.
PUBLIC_MODULES = {"testing/pytest.py", "cli/__main__.py"}
# Alembic's scripts: found by folder, named by revision.
SCRIPTS = "storage/migrations"

MARKERS = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b")
REGISTRIES = re.compile(
    r"\b(pypi|npmjs|pythonhosted|nodejs|foundry\.paradigm)\.(org|com|xyz)\b|\b(proxy|sum)\.golang\b|\bregistry\.npm"
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root|home/[a-z]+)/")


def _relative(path):
    return path.relative_to(ROOT).as_posix()


def _tracked_text():
    """Every file that git would take, with its text. A copy without git has no answer here."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this copy of the sources is not a git repository")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_file_is_longer_than_500_lines():
    lengths = {_relative(path): len(path.read_text().splitlines()) for path in CODE}
    assert {name: count for name, count in lengths.items() if count > 500} == {}


def test_no_function_is_longer_than_70_lines():
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > 70:
                    long[f"{_relative(path)}:{node.name}"] = length
    assert long == {}


def test_modules_of_sub_packages_are_private():
    public = set()
    for path in SOURCES:
        inside = path.relative_to(PACKAGE).as_posix()
        if "/" in inside and not inside.startswith(SCRIPTS) and not path.name.startswith("_"):
            public.add(inside)
    assert public <= PUBLIC_MODULES


def test_there_is_one_level_of_sub_packages():
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in SOURCES}
    assert {folder for folder in folders if "/" in folder} <= {SCRIPTS}


def test_every_sub_package_has_a_table_of_contents():
    missing = [
        folder.name
        for folder in sorted(PACKAGE.iterdir())
        if any(folder.glob("*.py")) and "__all__" not in _text(folder / "__init__.py")
    ]
    assert missing == []


def _text(path):
    return path.read_text() if path.is_file() else ""


def test_every_module_says_what_it_is_for():
    assert [_relative(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_every_suppression_of_a_checker_says_why():
    bare = re.compile(r"# (noqa: [A-Z0-9, ]+|(type|pyright): ignore\[[\w-]+\])\s*$", re.MULTILINE)
    found = [f"{_relative(path)}: {match.group()}" for path in SOURCES for match in bare.finditer(path.read_text())]
    assert found == []


def test_the_architecture_page_names_every_file():
    page = _text(ROOT / "ARCHITECTURE.md")
    assert page, "ARCHITECTURE.md is missing"
    named = set(re.findall(r"`([\w./]+\.py)`", page))
    there = {path.relative_to(PACKAGE).as_posix() for path in SOURCES}
    assert there - named == set(), "files that ARCHITECTURE.md does not name"
    assert {name for name in named - there if not (ROOT / name).is_file()} == set(), (
        "ARCHITECTURE.md names what is not there"
    )


@pytest.mark.parametrize("pattern", [MARKERS, REGISTRIES, MACHINE_PATHS], ids=["unfinished", "registries", "machines"])
def test_what_must_not_be_committed(pattern):
    own = _relative(Path(__file__))
    found = [
        f"{name}: {match.group()}" for name, text in _tracked_text() if name != own and (match := pattern.search(text))
    ]
    assert found == []


def test_requirements_are_pinned_with_hashes_and_have_no_addresses():
    for name in ("tested", "dev", "bench"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        assert "--index" not in text
        requirements = re.split(r"\n(?=\S)", text.strip())
        assert all("==" in line and "--hash=sha256:" in line for line in requirements)
