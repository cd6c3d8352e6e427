"""Mutation testing of the files that decide about money: each small change in them must be noticed by a test.

python tools/mutate.py [--jobs N] [FILE ...]

The tests are collected once. For each mutant the process forks; the child puts the changed code in the place of the right one and
runs the tests until one fails. Mutants that no test can notice are explained in ``tests/swaps/equivalent_mutants.toml``.

Fails if a mutant survives that is not explained there, or if one is explained there that is noticed or does not exist.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from enum import EnumType
from pathlib import Path
from types import FunctionType, MemberDescriptorType, ModuleType, UnionType

import pytest
from mutations import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "swaps"
EXPLAINED = TESTS / "equivalent_mutants.toml"
# For each file the tests that notice most of its mutants; the others follow.
TARGETS = {
    "_submarine_client": ("test_submarine_decisions", "test_unusual_observations", "test_exact_decisions"),
    "_submarine_provider": ("test_submarine_decisions", "test_unusual_observations", "test_exact_decisions"),
    "_reverse_client": ("test_reverse_decisions", "test_unusual_observations", "test_exact_decisions"),
    "_reverse_provider": ("test_reverse_decisions", "test_unusual_observations", "test_exact_decisions"),
    "_deadlines": ("test_deadlines",),
    "_observations": ("test_submarine_decisions", "test_exact_decisions", "test_states"),
    "_states": ("test_states",),
    "_machine": ("test_withdrawn_offers", "test_unusual_observations"),
    "_restored": ("test_restored_decisions",),
    "_act_by": ("test_act_by",),
}
# The numbers of the presets are settings. What must hold between them says ``check_timing``.
LEFT_OUT = ("BOB_TIMING", "DEVNET_TIMING")
SURVIVED, NOTICED = 0, 1


class Run:
    """A pytest plugin that runs the collected tests once for each mutant, each time in a child process."""

    def __init__(self, files: Iterable[str], jobs: int) -> None:
        self.outcomes: dict[Mutant, str] = {}
        self.error = "the tests could not be collected"
        self._files = files
        self._jobs = jobs
        self._in_child = False

    def pytest_collection(self) -> None:
        """The same examples in every run: whether a mutant is noticed is no matter of luck."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Instead of the one run that pytest makes."""
        if self._in_child or session.testsfailed:
            return None
        _, status, used = os.wait4(self._fork(session, None, limit_s=600), 0)
        if _outcome(status) != "survived":
            self.error = "the tests fail without any mutant"
            return True
        limit_s = 1 + 3 * (used.ru_utime + used.ru_stime)
        running: dict[int, Mutant] = {}
        for mutant in [mutant for name in self._files for mutant in mutants_of_target(name)]:
            if len(running) == self._jobs:
                self._reap(running)
            running[self._fork(session, mutant, limit_s)] = mutant
        while running:
            self._reap(running)
        self.error = ""
        return True

    def _fork(self, session: pytest.Session, mutant: Mutant | None, limit_s: float) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = NOTICED
        try:
            with Path(os.devnull).open("w") as nowhere:
                for stream in (1, 2):
                    os.dup2(nowhere.fileno(), stream)
            # Time of the processor: it is the same however busy the machine is.
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            self._in_child = True
            if mutant is None:
                # What is put in the place of the right code must do the same if nothing is changed in it.
                for name in TARGETS:
                    _install(name, ast.parse(Path(str(_module(name).__file__)).read_text()))
            else:
                _install(mutant.path.stem, mutant.make())
                first = TARGETS[mutant.path.stem]
                session.items.sort(key=lambda item: item.path.stem not in first)
            session.config.hook.pytest_runtestloop(session=session)
            status = NOTICED if session.testsfailed else SURVIVED
        finally:
            os._exit(status)

    def _reap(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        mutant = running.pop(pid)
        self.outcomes[mutant] = _outcome(status)
        if sys.stderr.isatty():
            print(f"\r{len(self.outcomes)} mutants", end="", file=sys.stderr, flush=True)


def _outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return "endless"
    return "survived" if code == SURVIVED else "noticed"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"layer2.swaps.{name}")


def mutants_of_target(name: str) -> list[Mutant]:
    """Every mutant of one of the files."""
    module = _module(name)
    return mutants_of(Path(str(module.__file__)), vars(module), LEFT_OUT)


def _install(name: str, tree: ast.Module) -> None:
    """Put changed code in the place of the right one, in the same functions and classes: others refer to them already."""
    module = _module(name)
    changed: dict[str, object] = {"__name__": module.__name__}
    exec(compile(tree, str(module.__file__), "exec"), changed)
    for known, old in list(vars(module).items()):
        if known.startswith("__") or isinstance(old, UnionType):
            continue
        new = changed.get(known)
        if known not in changed:
            delattr(module, known)
        elif isinstance(old, type):
            if old.__module__ == module.__name__ and not isinstance(old, EnumType):
                _become_class(old, new)
        elif not _become(old, new) and old != new:
            for user in [found for found in sys.modules.values() if vars(found).get(known) is old]:
                setattr(user, known, new)


def _become(old: object, new: object) -> bool:
    """Whether ``old`` is a function, possibly in a wrapper; it then does what ``new`` does."""
    if isinstance(old, property):
        return _become(old.fget, new.fget)
    inner, changed = getattr(old, "__wrapped__", old), getattr(new, "__wrapped__", new)
    if not isinstance(inner, FunctionType):
        return False
    inner.__code__, inner.__kwdefaults__ = changed.__code__, changed.__kwdefaults__
    if hasattr(old, "cache_clear"):
        old.cache_clear()
    return True


def _become_class(old: type, new: type) -> None:
    for name, value in vars(new).items():
        # Of what ``dataclass`` has written these depend on the defaults and on what is not shown.
        written = name in {"__init__", "__repr__"}
        own = not name.startswith("__") and not isinstance(value, MemberDescriptorType)
        if written or (own and not _become(vars(old).get(name), value)):
            setattr(old, name, value)


def explained() -> dict[tuple[str, str], str]:
    """The reasons why mutants cannot be noticed, by their names."""
    entries = tomllib.loads(EXPLAINED.read_text()).get("equivalent", []) if EXPLAINED.is_file() else []
    return {(entry["where"], change): entry["why"] for entry in entries for change in entry["changes"]}


def report(outcomes: dict[Mutant, str], files: Iterable[str]) -> int:
    """Print what became of the mutants. Returns the exit status."""
    known = explained()
    survivors = [mutant for mutant, outcome in outcomes.items() if outcome == "survived"]
    open_ones = sorted(
        (mutant for mutant in survivors if mutant.name not in known), key=lambda m: (m.path, m.line, m.change)
    )
    print(f"{'file':24}{'mutants':>9}{'noticed':>9}{'explained':>11}{'survived':>10}")
    total: Counter[str] = Counter()
    for name in files:
        of_file = {mutant: outcome for mutant, outcome in outcomes.items() if mutant.path.stem == name}
        lived = [mutant for mutant, outcome in of_file.items() if outcome == "survived"]
        row = Counter(
            mutants=len(of_file),
            noticed=len(of_file) - len(lived),
            explained=sum(mutant.name in known for mutant in lived),
            survived=sum(mutant.name not in known for mutant in lived),
        )
        total += row
        print(_row(f"{name}.py", row))
    print(_row("all", total))
    for mutant in open_ones:
        print(f"SURVIVED {mutant.path.relative_to(ROOT)}:{mutant.line} {mutant.where}: {mutant.change}")
    chosen = {f"{name}.py" for name in files}
    stale = [
        name
        for name in known
        if name[0].partition(":")[0] in chosen and name not in {mutant.name for mutant in survivors}
    ]
    for where, change in stale:
        print(f"EXPLAINED, but noticed or not there: {where}: {change}")
    return 1 if open_ones or stale else 0


def _row(name: str, row: Counter[str]) -> str:
    return f"{name:24}{row['mutants']:9}{row['noticed']:9}{row['explained']:11}{row['survived']:10}"


def main() -> int:
    """Make and try the mutants of the chosen files. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Mutation testing of the files that decide about money.")
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many mutants are tried at a time")
    arguments = parser.parse_args()
    files = [Path(name).stem for name in arguments.files] or list(TARGETS)
    tests = sorted({f"{TESTS}/{test}.py" for tests in TARGETS.values() for test in tests})
    run, told = Run(files, arguments.jobs), io.StringIO()
    options = ["-qx", "--tb=no", "--capture=no", "-pno:cacheprovider", f"--rootdir={ROOT}", f"--confcutdir={TESTS}"]
    begun = time.monotonic()
    with contextlib.redirect_stdout(told):
        pytest.main([*options, *tests], plugins=[run])
    if run.error:
        print(told.getvalue(), run.error, sep="\n")
        return 2
    if sys.stderr.isatty():
        print(file=sys.stderr)
    status = report(run.outcomes, files)
    print(f"{len(run.outcomes)} mutants in {time.monotonic() - begun:.0f} seconds")
    return status


if __name__ == "__main__":
    sys.exit(main())
