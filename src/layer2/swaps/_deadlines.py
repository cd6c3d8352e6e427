"""Every deadline of a swap: formulas and assertions over one frozen ``ChainTiming``.

Both sides compute these and refuse what does not fit. Times are Unix seconds, durations are seconds, heights are Bitcoin blocks.

Why quantiles: Bitcoin blocks come at random. A lock on the chain ends at a time, a Lightning HTLC at a height, and the two are
compared only through the time in which a number of blocks is found with all but a one-in-a-million chance: not later than
``slow(n)``, not sooner than ``fast(n)``.
"""

from __future__ import annotations

import math
from functools import cache

from layer2.terms import ChainTiming, DepthPolicy
from layer2.transactions import Depth

__all__ = [
    "BOB_TIMING",
    "DEFAULT_FINAL_CLTV",
    "DEVNET_TIMING",
    "QUANTILE",
    "TIMELOCK_SPREAD_S",
    "check_timing",
    "claim_room_s",
    "depth_wait_s",
    "expected_s",
    "fast_s",
    "latest_claim_start",
    "may_claim",
    "may_lock_reverse",
    "may_pay",
    "min_invoice_life_s",
    "overdue_at",
    "own_invoice_life_s",
    "refund_margin_s",
    "reverse_final_cltv",
    "reverse_lock_by",
    "reverse_timelock",
    "slow_s",
    "submarine_cltv_limit",
    "submarine_lock_by",
    "submarine_timelock",
    "worst_s",
]

QUANTILE = 1e-6
"""Chance that a number of blocks takes longer than ``slow`` or less time than ``fast``."""

_NEGLIGIBLE = 1e-18
"""Part of a sum below which the rest of its falling terms is left out."""
_HALVINGS = 48

_MOST_BLOCKS = 4096
"""More than any time lock that nodes accept (lnd: 2016 blocks). An invoice may ask for more, up to 2^64 - 1, and a sum takes the
longer the more blocks it is about: beyond this there is a bound on the safe side instead."""

DEFAULT_FINAL_CLTV = 80
"""What lnd's invoices ask for."""

LOCK_WINDOW_S = 600
"""A submarine client has this long from the quote to its lock, on networks with usual block times."""

TIMELOCK_SPREAD_S = 4096
"""How far a submarine lock may last beyond ``submarine_timelock``: by that much a provider tells offers for one invoice apart."""


def depth_wait_s(timing: ChainTiming, policy: DepthPolicy) -> int:
    """Longest usual time from inclusion in a block to the policy's depth."""
    match policy.depth:
        case Depth.SAFE:
            return timing.safe_lag_s
        case Depth.FINALIZED:
            return timing.finality_s
        case _:
            return policy.confirmations * timing.evm_block_s


def _poisson(count: int, expected: float) -> float:
    return math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))


def _chance_fewer(blocks: int, expected: float) -> float:
    """Probability of fewer than ``blocks`` events where ``expected`` > ``blocks`` are: a sum of falling terms."""
    term = total = _poisson(blocks - 1, expected)
    for count in range(blocks - 1, 0, -1):
        term *= count / expected
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total


def _chance_not_fewer(blocks: int, expected: float) -> float:
    """Probability of ``blocks`` events or more where ``expected`` < ``blocks`` are: a sum of falling terms."""
    count = blocks
    term = total = _poisson(count, expected)
    while term > total * _NEGLIGIBLE:
        count += 1
        term *= expected / count
        total += term
    return total


@cache
def _slow_blocks(blocks: int) -> float:
    """In how many mean block times are fewer than ``blocks`` found with a chance of ``QUANTILE`` at most."""
    low, high = float(blocks), blocks + 40.0 + 20.0 * math.sqrt(blocks)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _chance_fewer(blocks, middle) > QUANTILE:
            low = middle
        else:
            high = middle
    return high


@cache
def _fast_blocks(blocks: int) -> float:
    """In how many mean block times are ``blocks`` found with a chance of ``QUANTILE`` at most."""
    low, high = 0.0, float(blocks)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _chance_not_fewer(blocks, middle) > QUANTILE:
            high = middle
        else:
            low = middle
    return low


def slow_s(timing: ChainTiming, blocks: int) -> int:
    """Within this time ``blocks`` Bitcoin blocks are found, but for a chance of ``QUANTILE``; rounded up."""
    if blocks <= 0:
        return 0
    times = float(blocks)
    if timing.bitcoin_poisson:
        times = _slow_blocks(blocks) if blocks <= _MOST_BLOCKS else 2.0 * blocks
    return math.ceil(times * timing.bitcoin_block_ms * (100 + timing.bitcoin_rate_margin_percent) / 100_000)


def fast_s(timing: ChainTiming, blocks: int) -> int:
    """``blocks`` Bitcoin blocks take at least this long, but for a chance of ``QUANTILE``; rounded down."""
    if blocks <= 0:
        return 0
    times = _fast_blocks(min(blocks, _MOST_BLOCKS)) if timing.bitcoin_poisson else float(blocks)
    return math.floor(times * timing.bitcoin_block_ms * 100 / (1000 * (100 + timing.bitcoin_rate_margin_percent)))


def expected_s(timing: ChainTiming, policy: DepthPolicy) -> int:
    """How long a transfer takes if all goes well: two events on the chain, each at depth, and a payment."""
    return 2 * (depth_wait_s(timing, policy) + 2 * timing.evm_block_s) + 5


def worst_s(timing: ChainTiming, timelock_s: int) -> int:
    """Until a refund is final if everything fails, where the lock lasts ``timelock_s``."""
    return timelock_s + refund_margin_s(timing)


def own_invoice_life_s(timing: ChainTiming, policy: DepthPolicy) -> int:
    """How long an invoice of our own lives that is made for a submarine swap."""
    life_s = timing.lock_window_s + min_invoice_life_s(timing, policy)
    return life_s + timing.grace_s + 2 * timing.clock_skew_s


def submarine_lock_by(timing: ChainTiming, created_at: int) -> int:
    """Until when a submarine client may lock."""
    return created_at + timing.lock_window_s


def min_invoice_life_s(timing: ChainTiming, policy: DepthPolicy) -> int:
    """How long after ``lock_by`` a submarine invoice must still live: the depth wait and a window to pay in."""
    return depth_wait_s(timing, policy) + timing.evm_inclusion_s + timing.payment_time_limit_s


def submarine_cltv_limit(timing: ChainTiming, final_cltv: int) -> int:
    """Longest total time lock of a payment to an invoice that asks for ``final_cltv`` blocks at its end."""
    return timing.route_cltv_blocks + final_cltv


def submarine_timelock(timing: ChainTiming, invoice_expires_at: int, final_cltv: int) -> int:
    """Earliest timelock at which the provider can neither pay nor be left with a payment in flight any more.

    lnd starts no payment of an expired invoice; what was started lasts at most as long as its time lock and its resolution on
    chain take. The chain's clock, by which the lock ends, may run ahead.
    """
    blocks = submarine_cltv_limit(timing, final_cltv) + 3 + timing.onchain_resolve_blocks
    return (
        invoice_expires_at
        + timing.clock_skew_s
        + timing.payment_time_limit_s
        + slow_s(timing, blocks)
        + timing.evm_clock_skew_s
        + timing.evm_inclusion_s
        + timing.grace_s
    )


def may_pay(timing: ChainTiming, *, invoice_expires_at: int, final_cltv: int, timelock: int, now: int) -> bool:
    """Whether a provider may begin to pay: the invoice lives through the payment window, the lock through the worst payment."""
    return (
        now + timing.payment_time_limit_s <= invoice_expires_at
        and submarine_timelock(timing, invoice_expires_at, final_cltv) <= timelock
    )


def claim_room_s(timing: ChainTiming, policy: DepthPolicy) -> int:
    """What a client needs between seeing a lock at depth and its timelock: claim, reach the depth, and claim once more."""
    return 2 * timing.evm_inclusion_s + depth_wait_s(timing, policy) + timing.grace_s


def reverse_lock_by(timing: ChainTiming, created_at: int) -> int:
    """Until when a reverse provider may lock: the invoice can be paid until it expires, and paying takes its time."""
    return created_at + timing.invoice_expiry_s + timing.payment_time_limit_s


def reverse_timelock(timing: ChainTiming, policy: DepthPolicy, created_at: int) -> int:
    """The timelock that a provider offers: even a lock at the last moment leaves the client its room to claim."""
    return (
        reverse_lock_by(timing, created_at)
        + timing.evm_inclusion_s
        + depth_wait_s(timing, policy)
        + timing.evm_clock_skew_s
        + claim_room_s(timing, policy)
    )


def latest_claim_start(timing: ChainTiming, policy: DepthPolicy, timelock: int) -> int:
    """Unix seconds, by its own clock or the chain's, after which a client must not reveal its preimage any more.

    Its own clock must do by itself, where the chain cannot be asked: the sequencer's may run ahead of it as far as the terms say.
    """
    return timelock - claim_room_s(timing, policy) - timing.evm_clock_skew_s


def may_claim(timing: ChainTiming, policy: DepthPolicy, *, timelock: int, now: int, head_timestamp: int) -> bool:
    """Whether a client may reveal: enough time is left even if the sequencer's clock runs ahead as far as it may."""
    return max(now, head_timestamp) <= latest_claim_start(timing, policy, timelock)


def refund_margin_s(timing: ChainTiming) -> int:
    """From a reverse lock's timelock to a provider's certainty: refund included, noticed, and final."""
    return timing.evm_inclusion_s + timing.grace_s + timing.finality_s


def overdue_at(timing: ChainTiming, *, timelock: int, invoice_expires_at: int, final_cltv: int, pays: bool) -> int:
    """When a swap must be over, whatever the other side does; if it is not, something outside the assumptions happened.

    ``pays``: our own payment waits for the lock (a reverse client's): it may be held as long as its time lock lasts.
    """
    lock_over = timelock + refund_margin_s(timing)
    if not pays:
        return lock_over
    blocks = submarine_cltv_limit(timing, final_cltv) + 3 + timing.onchain_resolve_blocks
    return max(lock_over, invoice_expires_at + timing.payment_time_limit_s + slow_s(timing, blocks) + timing.grace_s)


def _usable_blocks(timing: ChainTiming, blocks: int) -> int:
    return blocks - max(18, timing.hold_expiry_delta_blocks) - timing.slack_blocks


def may_lock_reverse(timing: ChainTiming, *, timelock: int, now: int, blocks_left: int) -> bool:
    """Whether a provider may lock against a held payment whose first part comes back in ``blocks_left`` Bitcoin blocks.

    Its refund must be final before lnd gives the payment back, even if Bitcoin blocks come fast.
    """
    return timelock + refund_margin_s(timing) <= now + fast_s(timing, _usable_blocks(timing, blocks_left))


def reverse_final_cltv(timing: ChainTiming, policy: DepthPolicy) -> int:
    """The final CLTV delta of a hold invoice with which ``may_lock_reverse`` holds whenever the payment comes in time."""
    created_at = 0
    needed = reverse_timelock(timing, policy, created_at) + refund_margin_s(timing)
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        if fast_s(timing, middle) >= needed:
            high = middle
        else:
            low = middle + 1
    return low + max(18, timing.hold_expiry_delta_blocks) + timing.slack_blocks


def check_timing(timing: ChainTiming) -> ChainTiming:
    """Give ``timing`` back if its constants fit each other.

    Raises:
        ValueError: they do not; with such constants somebody could lose money.
    """
    final = DepthPolicy(depth=Depth.FINALIZED)
    rules = {
        "D covers a block": timing.evm_inclusion_s >= 2 * timing.evm_block_s,
        "finality is not before safety": timing.finality_s >= timing.safe_lag_s,
        "lnd's hold expiry delta is at least 18": timing.hold_expiry_delta_blocks >= 18,
        "routes leave room for a hop": timing.route_cltv_blocks >= 20,
        "the longest lock covers the longest submarine swap": submarine_timelock(
            timing, timing.lock_window_s + min_invoice_life_s(timing, final), DEFAULT_FINAL_CLTV
        )
        <= timing.max_timelock_s,
        "the contract takes the longest lock": timing.max_timelock_s <= 60 * 86_400,
        "the longest lock covers a reverse swap": reverse_timelock(timing, final, 0) <= timing.max_timelock_s,
        "lnd takes the hold invoice's CLTV": reverse_final_cltv(timing, final) <= 2016,
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ValueError(f"timing {timing.name}: {'; '.join(broken)} does not hold")
    return timing


BOB_TIMING = check_timing(
    ChainTiming(
        name="bob-1",
        bitcoin_block_ms=600_000,
        bitcoin_poisson=True,
        bitcoin_rate_margin_percent=15,
        evm_block_s=2,
        evm_inclusion_s=600,
        evm_clock_skew_s=1800,
        clock_skew_s=60,
        safe_lag_s=3600,
        finality_s=4500,
        lock_window_s=LOCK_WINDOW_S,
        invoice_expiry_s=600,
        payment_time_limit_s=120,
        route_cltv_blocks=320,
        hold_expiry_delta_blocks=18,
        onchain_resolve_blocks=36,
        slack_blocks=3,
        grace_s=900,
        max_timelock_s=14 * 86_400,
    )
)
"""BOB mainnet and BOB Sepolia."""

DEVNET_TIMING = check_timing(
    ChainTiming(
        name="devnet-1",
        bitcoin_block_ms=1000,
        bitcoin_poisson=False,
        bitcoin_rate_margin_percent=10,
        evm_block_s=1,
        evm_inclusion_s=8,
        evm_clock_skew_s=2,
        clock_skew_s=1,
        safe_lag_s=3,
        finality_s=6,
        lock_window_s=30,
        invoice_expiry_s=30,
        payment_time_limit_s=15,
        route_cltv_blocks=32,
        hold_expiry_delta_blocks=18,
        onchain_resolve_blocks=3,
        slack_blocks=3,
        grace_s=5,
        max_timelock_s=7200,
    )
)
"""Local networks, whose blocks are mined on a schedule."""
