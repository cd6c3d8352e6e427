"""The file of deadlines: quantiles against known values, and every rule between two legs with the time that it must leave."""

import decimal
from dataclasses import fields, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer2.swaps import (
    BOB_TIMING,
    DEVNET_TIMING,
    check_timing,
    claim_room_s,
    depth_wait_s,
    expected_s,
    fast_s,
    may_claim,
    may_lock_reverse,
    may_pay,
    min_invoice_life_s,
    refund_margin_s,
    reverse_final_cltv,
    reverse_lock_by,
    reverse_timelock,
    slow_s,
    submarine_lock_by,
    submarine_timelock,
    worst_s,
)
from layer2.swaps._deadlines import overdue_at, own_invoice_life_s
from layer2.terms import DepthPolicy
from layer2.transactions import Depth

NOW = 1_800_000_000
INCLUDED = DepthPolicy(depth=Depth.INCLUDED, confirmations=3)
SAFE = DepthPolicy(depth=Depth.SAFE)
FINALIZED = DepthPolicy(depth=Depth.FINALIZED)
POLICIES = [INCLUDED, SAFE, FINALIZED]
PRESETS = [BOB_TIMING, DEVNET_TIMING]
# A block in a million seconds and no margin: slow_s and fast_s then tell block times with six digits.
FINE = replace(BOB_TIMING, bitcoin_block_ms=10**9, bitcoin_rate_margin_percent=0)
CHANCE = Decimal("1e-6")

presets = pytest.mark.parametrize("timing", PRESETS, ids=lambda timing: timing.name)
policies = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.depth.name)


def chance_fewer(blocks, block_times):
    """Poisson: fewer than ``blocks`` within ``block_times`` mean times, with forty digits."""
    with decimal.localcontext(prec=60):
        term = total = Decimal(1)
        for k in range(1, blocks):
            term = term * block_times / k
            total += term
        return total * (-block_times).exp()


class TestQuantiles:
    @pytest.mark.parametrize("blocks", [1, 2, 3, 6, 18, 36, 144, 439, 1008, 4096])
    def test_slow_leaves_one_in_a_million(self, blocks):
        times = Decimal(slow_s(FINE, blocks)) / 10**6
        assert chance_fewer(blocks, times) <= CHANCE
        assert chance_fewer(blocks, times - Decimal("0.00001")) > CHANCE

    @pytest.mark.parametrize("blocks", [2, 3, 6, 18, 36, 144, 439, 1008])
    def test_fast_leaves_one_in_a_million(self, blocks):
        times = Decimal(fast_s(FINE, blocks)) / 10**6
        assert 1 - chance_fewer(blocks, times) <= CHANCE
        assert 1 - chance_fewer(blocks, times + Decimal("0.00001")) > CHANCE

    def test_known_values(self):
        # One block: the exponential distribution. -ln(1e-6) = 13.815510...
        assert slow_s(FINE, 1) == 13_815_511
        # -ln(1 - 1e-6) block times: one second of a million.
        assert fast_s(FINE, 1) == 1

    @pytest.mark.parametrize("blocks", [0, -1, -100])
    def test_no_blocks_take_no_time(self, blocks):
        assert slow_s(BOB_TIMING, blocks) == fast_s(BOB_TIMING, blocks) == 0

    @presets
    @given(blocks=st.integers(1, 500))
    @settings(max_examples=25, deadline=None)
    def test_more_blocks_take_longer_and_fast_is_never_slower(self, timing, blocks):
        mean = blocks * timing.bitcoin_block_ms // 1000
        assert fast_s(timing, blocks) <= mean <= slow_s(timing, blocks)
        assert slow_s(timing, blocks) <= slow_s(timing, blocks + 1)
        assert fast_s(timing, blocks) <= fast_s(timing, blocks + 1)

    @presets
    @pytest.mark.parametrize("blocks", [4_096, 4_097, 10**9, 2**64 - 1])
    def test_more_blocks_than_any_node_accepts_are_answered_for_at_once_and_on_the_safe_side(self, timing, blocks):
        """An invoice may ask for that many: without a bound whoever reads one would count for days."""
        mean = blocks * timing.bitcoin_block_ms // 1000
        assert fast_s(timing, blocks - 1) <= fast_s(timing, blocks) <= mean
        assert max(mean, slow_s(timing, blocks - 1)) <= slow_s(timing, blocks)

    def test_beyond_them_the_bounds_are_twice_the_mean_and_the_time_of_the_most(self):
        assert slow_s(FINE, 4_097) == 2 * 4_097 * 10**6
        assert fast_s(FINE, 4_097) == fast_s(FINE, 4_096) > fast_s(FINE, 4_095)

    def test_the_margin_of_the_rate_goes_both_ways(self):
        wide = replace(FINE, bitcoin_rate_margin_percent=25)
        assert slow_s(wide, 10) == pytest.approx(slow_s(FINE, 10) * 1.25, abs=2)
        assert fast_s(wide, 10) == pytest.approx(fast_s(FINE, 10) / 1.25, abs=2)

    def test_blocks_on_a_schedule_have_the_margin_only(self):
        assert slow_s(DEVNET_TIMING, 100) == 110
        assert fast_s(DEVNET_TIMING, 100) == 90


@presets
def test_the_wait_for_a_depth(timing):
    assert depth_wait_s(timing, INCLUDED) == 3 * timing.evm_block_s
    assert depth_wait_s(timing, SAFE) == timing.safe_lag_s
    assert depth_wait_s(timing, FINALIZED) == timing.finality_s


class TestSubmarine:
    """The provider must not pay when the client could have its lock back before the payment is certain to be over."""

    @presets
    def test_a_payment_begun_at_the_last_moment_is_over_before_the_timelock(self, timing):
        expires_at, final_cltv = NOW + 3_600, 80
        timelock = submarine_timelock(timing, expires_at, final_cltv)
        # lnd starts attempts until the invoice has expired by its own clock, for as long as it was told to ...
        last_attempt = expires_at + timing.clock_skew_s + timing.payment_time_limit_s
        # ... and the last one may hang for its whole time lock, and end on chain.
        blocks = timing.route_cltv_blocks + final_cltv + 3 + timing.onchain_resolve_blocks
        resolved = last_attempt + slow_s(timing, blocks)
        # The sequencer's clock may run ahead. Not a second more: so long is the client's money bound if all goes wrong.
        assert timelock == resolved + timing.evm_clock_skew_s + timing.evm_inclusion_s + timing.grace_s

    @presets
    @pytest.mark.parametrize(
        "constant",
        [
            "clock_skew_s",
            "payment_time_limit_s",
            "evm_clock_skew_s",
            "evm_inclusion_s",
            "grace_s",
            "route_cltv_blocks",
            "onchain_resolve_blocks",
            "bitcoin_rate_margin_percent",
        ],
    )
    def test_every_constant_of_the_rule_counts(self, timing, constant):
        more = replace(timing, **{constant: getattr(timing, constant) + 50})
        moved = submarine_timelock(more, NOW, 80) - submarine_timelock(timing, NOW, 80)
        assert moved >= (50 if constant.endswith("_s") else 1)

    @presets
    @given(later=st.integers(0, 10**6), longer=st.integers(0, 500))
    @settings(max_examples=20, deadline=None)
    def test_later_invoices_and_longer_holds_push_it(self, timing, later, longer):
        base = submarine_timelock(timing, NOW, 80)
        assert submarine_timelock(timing, NOW + later, 80) == base + later
        assert submarine_timelock(timing, NOW, 80 + longer) >= base + fast_s(timing, longer)

    @presets
    def test_paying_begins_only_while_all_of_it_fits(self, timing):
        expires_at = NOW + timing.payment_time_limit_s
        timelock = submarine_timelock(timing, expires_at, 80)
        facts = {"invoice_expires_at": expires_at, "final_cltv": 80, "timelock": timelock, "now": NOW}
        assert may_pay(timing, **facts)
        assert not may_pay(timing, **facts | {"now": NOW + 1})
        assert not may_pay(timing, **facts | {"timelock": timelock - 1})
        assert not may_pay(timing, **facts | {"final_cltv": 85})
        assert not may_pay(timing, **facts | {"invoice_expires_at": expires_at + 1})

    @presets
    @policies
    def test_an_invoice_of_the_shortest_life_can_be_paid_after_the_latest_lock(self, timing, policy):
        lock_by = submarine_lock_by(timing, NOW)
        assert lock_by == NOW + timing.lock_window_s
        expires_at = lock_by + min_invoice_life_s(timing, policy)
        seen = lock_by + timing.evm_inclusion_s + depth_wait_s(timing, policy)
        facts = {"final_cltv": 80, "timelock": submarine_timelock(timing, expires_at, 80)}
        assert may_pay(timing, invoice_expires_at=expires_at, now=seen, **facts)
        assert not may_pay(timing, invoice_expires_at=expires_at, now=seen + 1, **facts)

    @presets
    @policies
    def test_an_invoice_of_our_own_lives_long_enough_even_where_the_clocks_are_apart(self, timing, policy):
        created_at = NOW - timing.clock_skew_s
        expires_at = created_at + own_invoice_life_s(timing, policy)
        lock_by = submarine_lock_by(timing, NOW)
        seen = lock_by + timing.evm_inclusion_s + depth_wait_s(timing, policy) + timing.clock_skew_s
        facts = {"final_cltv": 80, "timelock": submarine_timelock(timing, expires_at, 80)}
        assert may_pay(timing, invoice_expires_at=expires_at, now=seen, **facts)
        assert may_pay(timing, invoice_expires_at=expires_at, now=seen + timing.grace_s, **facts)
        assert not may_pay(timing, invoice_expires_at=expires_at, now=seen + timing.grace_s + 1, **facts)


class TestReverse:
    """The provider's refund must be final before lnd gives the payment back; the client must have time to claim twice."""

    @presets
    @policies
    def test_a_lock_at_the_last_moment_leaves_the_client_its_room(self, timing, policy):
        timelock = reverse_timelock(timing, policy, NOW)
        lock_by = reverse_lock_by(timing, NOW)
        # The invoice can be paid until it expires, and the payment takes its time.
        assert lock_by == NOW + timing.invoice_expiry_s + timing.payment_time_limit_s
        seen = lock_by + timing.evm_inclusion_s + depth_wait_s(timing, policy)
        assert may_claim(timing, policy, timelock=timelock, now=seen, head_timestamp=seen)
        assert not may_claim(timing, policy, timelock=timelock, now=seen + 1, head_timestamp=seen)

    @presets
    @policies
    def test_the_client_has_time_to_claim_twice(self, timing, policy):
        room = claim_room_s(timing, policy)
        # A claim, the wait for its depth, and once more if a reorganisation took it.
        assert room == timing.evm_inclusion_s + depth_wait_s(timing, policy) + timing.evm_inclusion_s + timing.grace_s

    @presets
    @policies
    def test_nothing_is_revealed_late_by_either_clock(self, timing, policy):
        timelock = NOW + 10**6
        latest = timelock - claim_room_s(timing, policy) - timing.evm_clock_skew_s
        early = latest - 5_000
        assert may_claim(timing, policy, timelock=timelock, now=latest, head_timestamp=latest)
        assert not may_claim(timing, policy, timelock=timelock, now=latest + 1, head_timestamp=early)
        assert not may_claim(timing, policy, timelock=timelock, now=early, head_timestamp=latest + 1)

    def test_a_sequencer_may_run_half_an_hour_ahead(self):
        assert BOB_TIMING.evm_clock_skew_s >= 1_800

    @presets
    def test_the_refund_is_final_before_the_payment_comes_back(self, timing):
        blocks_left = 500
        # lnd gives a held payment back so many blocks early, and two views of the height may differ.
        usable = blocks_left - max(18, timing.hold_expiry_delta_blocks) - timing.slack_blocks
        refund_final = timing.evm_inclusion_s + timing.grace_s + timing.finality_s
        latest = NOW + fast_s(timing, usable) - refund_final
        assert may_lock_reverse(timing, timelock=latest, now=NOW, blocks_left=blocks_left)
        assert not may_lock_reverse(timing, timelock=latest + 1, now=NOW, blocks_left=blocks_left)
        assert not may_lock_reverse(timing, timelock=latest, now=NOW - 1, blocks_left=blocks_left)

    @presets
    @pytest.mark.parametrize("constant", ["evm_inclusion_s", "grace_s", "finality_s"])
    def test_each_part_of_the_refund_counts(self, timing, constant):
        blocks_left, more = 500, replace(timing, **{constant: getattr(timing, constant) + 1})
        usable = blocks_left - timing.hold_expiry_delta_blocks - timing.slack_blocks
        latest = NOW + fast_s(timing, usable) - timing.evm_inclusion_s - timing.grace_s - timing.finality_s
        assert not may_lock_reverse(more, timelock=latest, now=NOW, blocks_left=blocks_left)

    @presets
    @pytest.mark.parametrize("constant", ["hold_expiry_delta_blocks", "slack_blocks"])
    def test_each_block_that_is_kept_back_counts(self, timing, constant):
        policy = SAFE
        timelock, cltv = reverse_timelock(timing, policy, NOW), reverse_final_cltv(timing, policy)
        more = replace(timing, **{constant: getattr(timing, constant) + 1})
        assert may_lock_reverse(timing, timelock=timelock, now=NOW, blocks_left=cltv)
        assert not may_lock_reverse(more, timelock=timelock, now=NOW, blocks_left=cltv)

    @presets
    def test_lnds_own_eighteen_blocks_count_whatever_is_configured(self, timing):
        less = replace(timing, hold_expiry_delta_blocks=0)
        assert reverse_final_cltv(less, SAFE) == reverse_final_cltv(replace(timing, hold_expiry_delta_blocks=18), SAFE)

    @presets
    @pytest.mark.parametrize("blocks_left", [-5, 0, 1, 18, 21])
    def test_no_lock_against_a_payment_that_is_about_to_come_back(self, timing, blocks_left):
        assert not may_lock_reverse(timing, timelock=NOW + 1, now=NOW, blocks_left=blocks_left)

    @presets
    @policies
    @given(waited=st.integers(0, 720))
    @settings(max_examples=30, deadline=None)
    def test_the_final_cltv_is_the_smallest_with_which_a_payment_in_time_can_be_locked(self, timing, policy, waited):
        cltv = reverse_final_cltv(timing, policy)
        timelock = reverse_timelock(timing, policy, NOW)
        waited = min(waited, reverse_lock_by(timing, NOW) - NOW)
        assert may_lock_reverse(timing, timelock=timelock, now=NOW + waited, blocks_left=cltv)
        assert not may_lock_reverse(timing, timelock=timelock, now=NOW, blocks_left=cltv - 1)

    @presets
    def test_deeper_policies_hold_longer(self, timing):
        deltas = [reverse_final_cltv(timing, policy) for policy in POLICIES]
        locks = [reverse_timelock(timing, policy, NOW) for policy in POLICIES]
        assert deltas == sorted(deltas)
        assert locks == sorted(locks)


class TestOverdue:
    """The alarm comes when everything that may take its time has had it, and not before."""

    @presets
    @pytest.mark.parametrize("pays", [False, True])
    def test_never_before_a_refund_at_the_timelock_can_be_final(self, timing, pays):
        refund_final = NOW + 10**8 + timing.evm_inclusion_s + timing.grace_s + timing.finality_s
        facts = {"timelock": NOW + 10**8, "invoice_expires_at": NOW, "final_cltv": 80}
        assert overdue_at(timing, pays=pays, **facts) == refund_final

    @presets
    def test_never_while_a_payment_of_ours_may_still_be_held(self, timing):
        facts = {"timelock": NOW, "invoice_expires_at": NOW + 3_600, "final_cltv": 80}
        blocks = timing.route_cltv_blocks + 80 + 3 + timing.onchain_resolve_blocks
        back = NOW + 3_600 + timing.payment_time_limit_s + slow_s(timing, blocks)
        assert overdue_at(timing, pays=True, **facts) == back + timing.grace_s
        assert overdue_at(timing, pays=False, **facts) < back


class TestWhatAUserIsTold:
    @presets
    def test_the_worst_is_over_when_a_refund_at_the_timelock_is_final(self, timing):
        refund_final = timing.evm_inclusion_s + timing.grace_s + timing.finality_s
        assert worst_s(timing, 5_000) == 5_000 + refund_final

    @presets
    @policies
    def test_two_waits_for_the_depth_are_expected_and_less_than_the_worst(self, timing, policy):
        expected = expected_s(timing, policy)
        assert expected >= 2 * depth_wait_s(timing, policy) + 4 * timing.evm_block_s
        for timelock_s in (reverse_timelock(timing, policy, 0), submarine_timelock(timing, timing.lock_window_s, 80)):
            assert expected < worst_s(timing, timelock_s)

    def test_a_few_seconds_more_than_the_two_waits_are_expected(self):
        # Each of the two events gets into a block and is noticed; the payment takes five seconds.
        assert expected_s(BOB_TIMING, INCLUDED) == 25
        assert expected_s(BOB_TIMING, SAFE) == 7_213
        assert expected_s(DEVNET_TIMING, INCLUDED) == 15

    @presets
    def test_deeper_policies_are_expected_to_take_longer(self, timing):
        times = [expected_s(timing, policy) for policy in POLICIES]
        assert times == sorted(times)
        assert times[0] < times[-1]


class TestPresets:
    @presets
    def test_they_pass_their_own_assertions(self, timing):
        assert check_timing(timing) is timing

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"evm_inclusion_s": 3}, "D covers a block"),
            ({"safe_lag_s": 4_501}, "finality is not before safety"),
            ({"hold_expiry_delta_blocks": 17}, "at least 18"),
            ({"route_cltv_blocks": 19}, "room for a hop"),
            ({"max_timelock_s": 86_400}, "the longest lock covers the longest submarine swap"),
            ({"max_timelock_s": 60 * 86_400 + 1}, "the contract takes the longest lock"),
            (
                {"invoice_expiry_s": 15 * 86_400},
                "the longest lock covers a reverse swap",
            ),
            ({"finality_s": 15 * 86_400}, "lnd takes the hold invoice's CLTV"),
        ],
    )
    def test_constants_that_do_not_fit_each_other_are_refused(self, changes, words):
        with pytest.raises(ValueError, match=words):
            check_timing(replace(BOB_TIMING, **changes))

    # Quick blocks on a schedule: a reverse swap then lasts longer than a submarine one.
    QUICK = replace(BOB_TIMING, bitcoin_block_ms=20_000, bitcoin_poisson=False, route_cltv_blocks=20)

    def longest_submarine_s(self):
        life_s = BOB_TIMING.lock_window_s + min_invoice_life_s(BOB_TIMING, FINALIZED)
        return submarine_timelock(BOB_TIMING, life_s, 80)

    def expiry_for_blocks(self, blocks):
        """The longest expiry of a hold invoice that needs ``blocks`` at its end."""
        held = fast_s(self.QUICK, blocks - 18 - self.QUICK.slack_blocks)
        return (
            self.QUICK.invoice_expiry_s
            + held
            - reverse_timelock(self.QUICK, FINALIZED, 0)
            - refund_margin_s(self.QUICK)
        )

    def test_constants_that_just_fit_are_accepted_and_not_one_second_less(self):
        quick = self.QUICK
        for timing, constant, least, words in (
            (BOB_TIMING, "evm_inclusion_s", 2 * BOB_TIMING.evm_block_s, "D covers a block"),
            (BOB_TIMING, "finality_s", BOB_TIMING.safe_lag_s, "finality is not before safety"),
            (BOB_TIMING, "hold_expiry_delta_blocks", 18, "at least 18"),
            (BOB_TIMING, "route_cltv_blocks", 20, "room for a hop"),
            (BOB_TIMING, "max_timelock_s", self.longest_submarine_s(), "covers the longest submarine swap"),
            (quick, "max_timelock_s", reverse_timelock(quick, FINALIZED, 0), "covers a reverse swap"),
        ):
            assert check_timing(replace(timing, **{constant: least}))
            with pytest.raises(ValueError, match=words):
                check_timing(replace(timing, **{constant: least - 1}))
        for timing, constant, most, words in (
            (BOB_TIMING, "max_timelock_s", 60 * 86_400, "the contract takes the longest lock"),
            (quick, "invoice_expiry_s", self.expiry_for_blocks(2_016), "lnd takes the hold invoice's CLTV"),
        ):
            assert check_timing(replace(timing, **{constant: most}))
            with pytest.raises(ValueError, match=words):
                check_timing(replace(timing, **{constant: most + 1}))

    def test_all_that_is_broken_is_named_at_once(self):
        with pytest.raises(ValueError, match=r"bob-1.*at least 18.*room for a hop"):
            check_timing(replace(BOB_TIMING, hold_expiry_delta_blocks=0, route_cltv_blocks=0))

    def test_bob_can_be_forced_to_include_and_then_be_final_within_the_lock(self):
        # What the presets mean in hours; a change here is a change of what users wait for.
        submarine = submarine_timelock(BOB_TIMING, NOW + 3_600, 80) - NOW
        assert 3 * 86_400 < submarine <= BOB_TIMING.max_timelock_s
        hold_days = reverse_final_cltv(BOB_TIMING, SAFE) * 600 / 86_400
        assert hold_days < 3
        assert reverse_final_cltv(BOB_TIMING, FINALIZED) <= 2_016

    def test_a_refund_on_the_devnet_takes_minutes(self):
        assert reverse_timelock(DEVNET_TIMING, INCLUDED, NOW) - NOW < 120

    def test_every_constant_is_documented_in_seconds_blocks_or_percent(self):
        units = ("_s", "_ms", "_blocks", "_percent")
        others = {f.name for f in fields(BOB_TIMING) if not f.name.endswith(units)}
        assert others == {"name", "bitcoin_poisson"}
