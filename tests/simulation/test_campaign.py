"""A campaign: goes on where it was stopped, and ends in a table and a story for each seed that breaks a promise."""

import json
from unittest.mock import patch

import pytest

from layer2.swaps import _submarine_client
from layer2.testing import SimulationTally, simulate_many
from layer2.testing._simulation_campaign import main, read_tally


def run(folder, seeds, *more):
    return main(["--seeds", str(seeds), "--processes", "1", "--folder", str(folder), *more])


def test_what_was_done_is_not_done_again(tmp_path, capsys):
    assert run(tmp_path / "parted", 6) == 0
    half = read_tally(tmp_path / "parted" / "simulation.json")
    assert half.seeds == 6
    assert run(tmp_path / "parted", 10) == 0
    assert run(tmp_path / "whole", 10) == 0
    parted, whole = (read_tally(tmp_path / name / "simulation.json") for name in ("parted", "whole"))
    assert (parted.counts, parted.broken) == (whole.counts, whole.broken)
    assert parted.simulated_s == pytest.approx(whole.simulated_s)
    assert "| **all** | **10** |" in capsys.readouterr().out


def test_without_time_nothing_is_begun(tmp_path):
    assert run(tmp_path, 100, "--hours", "0") == 0
    assert not (tmp_path / "simulation.json").exists()


def test_a_broken_promise_is_told_as_a_short_story(tmp_path, capsys):
    with patch.object(_submarine_client, "seen_preimage", lambda _: None):
        assert run(tmp_path, 12) == 1
    stories = list(tmp_path.glob("simulation-*.txt"))
    assert stories
    assert "VIOLATION" in stories[0].read_text()
    assert "VIOLATION" not in capsys.readouterr().out
    assert len(json.loads((tmp_path / "simulation.json").read_text())["broken"]) == len(stories)


def test_progress_is_told_while_many_seeds_run():
    told = []
    assert simulate_many(range(30), processes=1, progress=lambda tally: told.append(tally.seeds)) == []
    assert told == [25, 30]
    assert SimulationTally().seeds == 0
