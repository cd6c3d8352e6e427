"""Proof that the simulator can see: each planted bug is found within 10,000 seeds.

``planted/seeds.json`` names for each a seed that shows it, which is tried first; ``SEARCH=1`` searches from seed 0 and prints how
many seeds it takes.
"""

import json
import os
from pathlib import Path

import pytest
from planted import BUGS

from layer2.testing import draw_plan, simulate

pytestmark = pytest.mark.slow

LIMIT = 10_000
TESTS = Path(__file__).parents[1]
KNOWN = json.loads((TESTS / "support" / "planted" / "seeds.json").read_text())
DOCUMENTATION = TESTS.parent / "docs" / "simulation.md"
SEARCH = os.environ.get("SEARCH") == "1"


def _shown(bug, seed):
    with bug.plant():
        return not simulate(seed).ok


def _rows():
    """The table of the documentation: what each rule's bugs took."""
    by_rule = {}
    for bug in BUGS:
        by_rule.setdefault(bug.rule, []).append(bug)
    for rule, bugs in by_rule.items():
        for bug in bugs:
            yield f"| {rule if bug is bugs[0] else ''} | `{bug.name}` | {KNOWN[bug.name] + 1:,} |"


def test_the_documentation_tells_what_each_bug_took():
    table = "\n".join(_rows())
    if os.environ.get("SHOW_TABLE") == "1":
        print(table)
    assert table in DOCUMENTATION.read_text()


def test_each_bug_has_a_seed_that_is_near():
    assert {bug.name for bug in BUGS} == set(KNOWN)
    assert max(KNOWN.values()) < LIMIT


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug, capsys):
    known = KNOWN.get(bug.name)
    if known is not None and not SEARCH and _shown(bug, known):
        # Without the bug nothing is wrong with that seed: it is the bug that was seen.
        assert simulate(known).ok
        return
    for seed in range(LIMIT):
        if bug.concerns(draw_plan(seed)) and _shown(bug, seed):
            with capsys.disabled():
                print(f"\n{bug.name}: {seed + 1} seeds", end="")
            return
    pytest.fail(f"{LIMIT} seeds do not show it")
