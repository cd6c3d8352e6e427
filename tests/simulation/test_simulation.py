"""Seeds of the simulator: none may break a promise. ``SEEDS`` in the environment sets how many are tried."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest

from layer2.terms import SwapDirection
from layer2.testing import SimulationPlan, simulate, simulate_many

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("SEEDS", "1000"))
FIRST = int(os.environ.get("FIRST_SEED", "0"))


def test_no_seed_breaks_a_promise():
    broken = simulate_many(range(FIRST, FIRST + SEEDS))
    assert not broken, f"{len(broken)} of {SEEDS} seeds\n\n" + "\n\n".join(map(str, broken[:3]))


def test_no_seed_breaks_a_promise_of_the_bare_decisions():
    """Without store and driver, on other seeds."""
    seeds = range(FIRST + 10**6, FIRST + 10**6 + 2 * SEEDS)
    broken = simulate_many(seeds, bare=True)
    assert not broken, f"{len(broken)} of {len(seeds)} seeds\n\n" + "\n\n".join(map(str, broken[:3]))


@pytest.mark.parametrize("seed", range(0, 40, 8))
def test_a_seed_gives_the_same_run_again(seed):
    first, second = simulate(seed), simulate(seed)
    assert first == second
    assert len(first.story) > 1


def test_a_seed_gives_the_same_run_in_another_process():
    # With a real sender, and where two swaps hang on one lock: sets of names are in another order there.
    script = f"from layer2.testing import simulate\nfor seed in {(15, 57, 292)}: print(simulate(seed))"
    stories = []
    for hash_seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        stories.append(done.stdout)
    assert stories[0] == stories[1]
    assert stories[0].count("seed ") >= 3


@pytest.mark.parametrize("direction", list(SwapDirection))
def test_in_a_quiet_world_both_sides_settle(direction):
    report = simulate(1, plan=SimulationPlan(direction=direction))
    assert report.outcomes == (("client", "Closed settled"), ("provider", "Closed settled"))
    assert report.ok
    assert report.alarms == ()


@pytest.mark.parametrize("direction", list(SwapDirection))
def test_the_real_sender_gets_through_while_gas_is_dear_and_users_pay(direction):
    plan = SimulationPlan(direction=direction, real_sender=True, dear_gas=True, drop_percent=40, user_payments=20)
    reports = [simulate(seed, plan=plan) for seed in range(4)]
    for report in reports:
        assert report.ok, str(report)[-2000:]
    assert any(report.outcomes == (("client", "Closed settled"), ("provider", "Closed settled")) for report in reports)
    assert any("#1 succeeds" in line for report in reports for line in report.story), "no price was raised"


def test_a_claim_that_was_never_signed_ends_without_an_alarm():
    """The client dies between its decision to claim and the signature, and is back when the lock was refunded."""
    plan = SimulationPlan(direction=SwapDirection.REVERSE, client_crashes=(-8,), long_downtime=True)
    ends = set()
    for seed in range(12):
        report = simulate(seed, plan=plan)
        assert report.ok, str(report)[-2000:]
        assert report.alarms == ()
        ends.add(report.outcomes)
    assert (("client", "Closed returned"), ("provider", "Closed refunded")) in ends


def test_a_preimage_that_was_seen_just_before_the_refund_is_not_forgotten():
    """The provider claims at the last moment, the client's look before its refund shows it, and a reorganisation hides it again."""
    plan = SimulationPlan(
        direction=SwapDirection.SUBMARINE,
        confirmations=3,
        provider="claim_at_timelock",
        own_invoice=True,
        error_percent=8,
        delays=True,
        reorg_percent=16,
        lag=True,
    )
    report = simulate(3698, plan=plan)
    assert report.ok, str(report)[-2000:]


@pytest.mark.parametrize("direction", list(SwapDirection))
def test_a_write_that_a_power_cut_tears_is_there_or_not(direction):
    """Some of its sectors are on the disk and some are not: the store that is opened on it has all of it or nothing."""
    whole, ends = set(), set()
    for seed in range(24):
        plan = SimulationPlan(
            direction=direction, client_torn_write=1 + seed % 3, provider_torn_write=1 + seed // 3 % 3, delays=True
        )
        report = simulate(seed, plan=plan)
        assert report.ok, str(report)[-2000:]
        ends.add(report.outcomes)
        for line, following in pairwise(report.story):
            if line.endswith("the power fails in the midst of a write"):
                whole.add(" is " in following)
    assert whole == {True, False}
    assert (("client", "Closed settled"), ("provider", "Closed settled")) in ends


def test_a_payment_that_is_refused_again_and_again_is_not_asked_for_without_a_pause():
    """A request that was lost leaves it open whether it was the last; each further one is refused at once."""
    plan = SimulationPlan(direction=SwapDirection.REVERSE, payment="refused", late_request_percent=15)
    for seed in range(12):
        report = simulate(seed, plan=plan)
        assert report.ok, str(report)[-2000:]
        assert sum("request to pay" in line for line in report.story) < 60
