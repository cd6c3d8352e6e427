"""Proof that the simulator can see: each planted bug is found within 10,000 seeds.

``planted/seeds.json`` names for each a seed that shows it, which is tried first; ``SEARCH=1`` searches from seed 0 and prints how
many seeds it takes.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from layer2.testing import draw_plan, simulate

pytestmark = pytest.mark.slow

LIMIT = 10_000
HERE = Path(__file__).parent / "planted"
KNOWN = json.loads((HERE / "seeds.json").read_text())
SEARCH = os.environ.get("SEARCH") == "1"


def _bugs():
    spec = importlib.util.spec_from_file_location("planted_bugs", HERE / "bugs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.BUGS


BUGS = _bugs()


def _shown(bug, seed):
    with bug.plant():
        return not simulate(seed).ok


def test_at_least_25_bugs_are_planted():
    assert len({bug.name for bug in BUGS}) >= 25


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
