"""The tool behind ``make mutants``: what it changes, and that what is explained of its mutants is still there to be explained."""

from __future__ import annotations

import ast
import enum
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = '''
"""A file."""

from enum import StrEnum

__all__ = ["due"]
LIMIT = 5


class Status(StrEnum):
    OPEN = "open"
    DEAD = "dead"


def due(view, limit: int | None = None) -> bool:
    """Whether it is due."""
    assert limit is not None
    if view.status is Status.OPEN and view.now_s >= limit + LIMIT:
        return bool(max(view.now_s, view.head_timestamp) > limit)
    return False
'''


class Status(enum.StrEnum):
    OPEN = "open"
    DEAD = "dead"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for name in ("mutate", "mutations"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import mutate

    return mutate


def test_each_mutant_is_one_change_of_what_runs(tool: types.ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(SOURCE)
    found = tool.mutants_of(path, {"Status": Status})
    assert {mutant.change for mutant in found if mutant.where == "due"} >= {
        "view.status is Status.OPEN -> view.status is not Status.OPEN",
        "Status.OPEN -> Status.DEAD",
        "view.now_s >= limit + LIMIT -> view.now_s > limit + LIMIT",
        "limit + LIMIT -> limit - LIMIT",
        "view.head_timestamp -> view.now_s",
        "max -> min",
        "False -> True",
    }
    assert {mutant.where for mutant in found} == {"module", "due"}, (
        "an enumeration's words are the store's, not a decision"
    )
    assert not [mutant for mutant in found if "assert" in mutant.change or "None" in mutant.change.split(" -> ")[0]]
    assert len({mutant.name for mutant in found}) == len(found), "each can be explained by its name"
    right = ast.unparse(ast.parse(SOURCE))
    for index, mutant in enumerate(found):
        # Made once, each of a tree of its own.
        again = tool.mutants_of(path, {"Status": Status})[index]
        assert ast.unparse(again.make()) != right, mutant.change


def test_every_role_and_direction_is_a_target(tool: types.ModuleType) -> None:
    assert {f"_{way}_{role}" for way in ("submarine", "reverse") for role in ("client", "provider")} <= set(
        tool.TARGETS
    )
    assert {"_deadlines", "_observations"} <= set(tool.TARGETS)


def test_every_explained_mutant_is_there(tool: types.ModuleType) -> None:
    there = {mutant.name for name in tool.TARGETS for mutant in tool.mutants_of_target(name)}
    assert set(tool.explained()) - there == set()
    assert all(tool.explained().values()), "each has its reason"
