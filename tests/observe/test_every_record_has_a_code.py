"""Every log record of the package has a stable code, and every code is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer2 import TransferState

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "layer2"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node


def is_record(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and "log" in function.value.id.lower()
    )


def codes_of(call: ast.Call) -> set[str]:
    words = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {word for word in words if CODE.fullmatch(word) and word.split(".")[0] in PREFIXES}


PREFIXES = {"bob", "devnet", "events", "evm", "proofs", "provider", "storage", "swap"}


def test_no_module_logs_past_the_codes() -> None:
    plain = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path, call in calls()
        if is_record(call)
        and path.name != "_observe.py"
        and not any(isinstance(node, ast.Constant) and node.value == "event_code" for node in ast.walk(call))
    ]
    assert plain == []


def test_every_code_is_documented() -> None:
    said = set()
    for _, call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if name in ("log_event", "emit", "Decision", "_warn", "_on_alarm") or is_record(call):
            said |= codes_of(call)
    said |= {f"transfer.{state.value}" for state in TransferState}
    documented = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", (ROOT / "docs" / "events.md").read_text()))
    assert {"swap.unfinished", "evm.reorg", "swap.lock_lost", "provider.gas_short"} <= said
    assert said - documented == set()
