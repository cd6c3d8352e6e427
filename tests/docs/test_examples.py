"""Every Python example of the documentation runs, page by page, as a reader would type it.

An example with a bare ``await`` runs on the event loop; one without runs in a thread, as a script would. ``<!-- runs: ... -->``
before an example says otherwise: ``pytest`` runs it as a test file of its own, ``script`` as a program of its own.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from layer2 import Layer2Manager

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- runs: (\w+) -->\n+)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    how: str
    code: str
    line: int


def examples_of(page: Path) -> list[Example]:
    text = page.read_text()
    return [
        Example(match[1] or "here", match[2], text.count("\n", 0, match.start(2)) + 1) for match in FENCE.finditer(text)
    ]


WITH_EXAMPLES = [page for page in PAGES if examples_of(page)]
Runs: TypeAlias = dict[Path, "asyncio.Task[None]"]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def runs(shared_manager: Layer2Manager, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runs]:
    """All pages at once: they mostly wait for blocks."""
    tasks = {
        page: asyncio.create_task(run_page(page, shared_manager, tmp_path_factory.mktemp("page")))
        for page in WITH_EXAMPLES
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=[page.stem for page in WITH_EXAMPLES])
async def test_the_examples_of_a_page_run(page: Path, runs: Runs) -> None:
    await runs[page]


async def run_page(page: Path, manager: Layer2Manager, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": f"examples_of_{page.stem}", "manager": manager}
    for example in examples_of(page):
        if example.how == "here":
            await run_here(compiled(page, example), names)
        else:
            await asyncio.to_thread(run_apart, example, folder)


def compiled(page: Path, example: Example) -> CodeType:
    """With the page's own line numbers, so that a failure points to the page."""
    tree = ast.parse("\n" * (example.line - 1) + example.code, str(page))
    return compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run_here(code: CodeType, names: dict[str, Any]) -> None:
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)
    else:
        await asyncio.to_thread(exec, code, names)


def run_apart(example: Example, folder: Path) -> None:
    file = folder / f"test_line_{example.line}.py"
    file.write_text(example.code)
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", *options] if example.how == "pytest" else [sys.executable]
    done = subprocess.run(
        [*command, str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_readers_see_every_example_run() -> None:
    """No page hides an example from the tests by another spelling of the fence."""
    for page in PAGES:
        fences = re.findall(
            r"^\s*(?:```|~~~|:::)\s*\{?(?:code-block\}\s*)?(?:python|py|python3|pycon)\b.*$",
            page.read_text(),
            re.MULTILINE,
        )
        assert len(fences) == len(examples_of(page)), page
