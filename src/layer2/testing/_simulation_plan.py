"""What a seed stands for: the direction, the people, the weather. Drawn once, so that a run can be told and made smaller."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import Final

from layer2.terms import SwapDirection
from layer2.transactions import Depth

__all__ = ["HONEST", "STRATEGIES", "SimulationPlan", "draw_plan", "simpler_plans", "stream"]

HONEST: Final = "honest"

STRATEGIES: Final = {
    ("client", SwapDirection.SUBMARINE): (
        "never_lock",
        "lock_other_terms",
        "lock_late",
        "refund_at_timelock",
        "ask_refund_always",
        "replay_hash",
        "lock_again",
    ),
    ("provider", SwapDirection.SUBMARINE): (
        "never_pay",
        "pay_late",
        "claim_at_timelock",
        "never_claim",
        "sign_and_claim",
        "sign_rubbish",
    ),
    ("client", SwapDirection.REVERSE): (
        "never_pay",
        "never_claim",
        "claim_at_timelock",
        "claim_when_paid_back",
        "pay_late",
    ),
    ("provider", SwapDirection.REVERSE): (
        "never_lock",
        "lock_other_terms",
        "lock_late",
        "refund_at_timelock",
        "cancel_after_lock",
        "never_settle",
        "lock_and_replace",
    ),
}
"""What a hostile party may do, by role and direction."""

PAYMENTS: Final = ("fast", "slow", "fail", "hang_then_settle", "hang_then_fail", "payee_holds", "refused")
"""What becomes of a payment that is sent to an invoice."""


CALLS: Final = (
    "pay",
    "settle",
    "cancel",
    "send lock",
    "send claim",
    "send refund",
    "send refund_early",
    "sign lock",
    "sign claim",
    "sign refund",
    "write",
)
"""Calls at which a process may die."""


def stream(seed: int, name: str) -> random.Random:
    """Random numbers of a seed for one purpose: to take some for another purpose leaves these as they are."""
    return random.Random(f"{seed}/{name}")  # noqa: S311 - reproducible, not secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """Everything that is decided before a run begins. What is left at its default does not happen."""

    direction: SwapDirection
    timing: str = "devnet"
    """``devnet`` or ``bob``: whose constants count."""
    depth: Depth = Depth.INCLUDED
    confirmations: int = 2
    client: str = HONEST
    """``honest``, or a strategy of ``STRATEGIES``."""
    provider: str = HONEST
    payment: str = "fast"
    own_invoice: bool = False
    """Submarine: the client's own node is paid, and gives the invoice up if the swap fails."""
    pays_itself: bool = True
    """Reverse: the client's node pays the hold invoice; else somebody does."""
    client_crashes: tuple[int, ...] = ()
    """At which of its crossings to the outside the client's process dies; negative: counting only those with an effect."""
    provider_crashes: tuple[int, ...] = ()
    client_crash_at: str = ""
    """Where the client's process dies once besides: the name of a call of ``CALLS``."""
    provider_crash_at: str = ""
    client_stops: bool = False
    """The client's last crash is its end."""
    provider_stops: bool = False
    long_downtime: bool = False
    """A crashed process may stay away for as long as the assumptions allow, not just for a moment."""
    error_percent: int = 0
    """Of calls that fail before they have an effect."""
    lost_reply_percent: int = 0
    """Of calls that have an effect and fail nevertheless."""
    late_request_percent: int = 0
    """Of requests to pay whose connection breaks and that reach the node later, or twice."""
    disk_error_percent: int = 0
    """Of writes that fail, before or after they were made."""
    refusal_percent: int = 0
    """Of transactions that are refused before anything is signed."""
    delays: bool = False
    """Calls and replies take time."""
    reorg_percent: int = 0
    """Of blocks that are followed by a reorganisation within the configured depth."""
    drop_percent: int = 0
    """Of transactions that a node forgets once or more."""
    replace_lock: bool = False
    """The client's, or the provider's, lock competes with another transaction of its nonce."""
    lag: bool = False
    """Endpoints are behind the chain, each by its own."""
    skew: bool = False
    """Clocks differ, drift and jump within the assumptions; block timestamps run ahead."""
    bitcoin_rate: float = 1.0
    """Blocks of Bitcoin come this much faster."""
    cancel_at: float | None = None
    """The user asks to cancel after so many seconds."""
    withdraw_at: float | None = None
    """The invoice is cancelled at its node after so many seconds; under a provider only before it decides to lock for it."""
    client_disk_full_at: int = 0
    """From its so many-th write on, nothing can be written for a while."""
    provider_disk_full_at: int = 0
    client_torn_write: int = 0
    """In the midst of its so many-th write the power fails, and the disk has any part of it; with driver and store only."""
    provider_torn_write: int = 0
    real_sender: bool = False
    """Honest parties sign, price, number, journal and follow their transactions with the real sender, over JSON-RPC; with driver
    and store, and constants of a local network, only."""
    dear_gas: bool = False
    """Gas costs many times as much for moments; a real sender has to raise its prices."""
    stays_dear: bool = False
    """From some moment on gas costs five times as much, for good."""
    user_payments: int = 0
    """How many payments the users of a real sender make from the same account besides, some of them all at once."""
    stranger: bool = False
    """Somebody sends every claim and refund that is on its way to a block once more, in transactions of its own."""
    stranger_refunds: bool = False
    """Somebody refunds each lock as soon as its timelock has passed."""
    forgets_undone: bool = False
    """Nodes forget what a reorganisation undoes, and only an honest party that runs sends its own again."""
    claim_reverts: bool = False
    """The first claim of an honest party that comes into a block reverts there, as when a token is paused for a moment."""
    shown_and_gone: bool = False
    """What undoes the first claim comes right after it, and meanwhile neither side can write the preimage down."""
    claims_late: bool = False
    """No claim comes into a block before the timelock: the chain is not as live as whoever claims has to assume."""
    gives_back_away: bool = False
    """Reverse: the held payment goes back while the provider is away that has decided to lock, and has not signed."""


def _crashes(rng: random.Random) -> tuple[int, ...]:
    count = rng.choice((1, 1, 1, 2, 3))
    points = {rng.randint(1, 40) if rng.random() < 0.4 else -rng.randint(1, 16) for _ in range(count)}
    return tuple(sorted(points))


def draw_plan(seed: int) -> SimulationPlan:
    """The plan of a seed."""
    rng = stream(seed, "plan")
    direction = rng.choice(tuple(SwapDirection))
    bad = rng.random()
    client = provider = HONEST
    if bad < 0.25:
        client = rng.choice(STRATEGIES["client", direction])
    elif bad < 0.5:
        provider = rng.choice(STRATEGIES["provider", direction])
    depth = rng.choice((Depth.INCLUDED, Depth.INCLUDED, Depth.INCLUDED, Depth.SAFE, Depth.FINALIZED))
    rough = rng.random()

    def some(chance: float, low: int, high: int) -> int:
        return rng.randint(low, high) if rng.random() < chance * rough * 2 else 0

    def flag(chance: float) -> bool:
        return rng.random() < chance

    more = stream(seed, "more of the plan")
    # Seldom by chance, and most dangerous: a request to pay is on its way when whoever sent it dies.
    orphaned = more.random() < 0.05
    payment = "fast" if rng.random() < 0.3 else rng.choice(PAYMENTS)
    if orphaned:
        payment = "fail"
    plan = SimulationPlan(
        direction=direction,
        timing="bob" if rng.random() < 0.03 else "devnet",
        depth=depth,
        confirmations=rng.randint(1, 5) if depth is Depth.INCLUDED else 1,
        client=client,
        provider=provider,
        payment=payment,
        own_invoice=flag(0.4),
        pays_itself=flag(0.8),
        client_crashes=_crashes(rng) if flag(rough) else (),
        provider_crashes=_crashes(rng) if flag(rough) else (),
        client_crash_at=rng.choice(CALLS) if flag(0.3 * rough) else "",
        provider_crash_at="pay" if orphaned else rng.choice(CALLS) if flag(0.3 * rough) else "",
        client_stops=flag(0.15),
        provider_stops=flag(0.15),
        long_downtime=flag(0.5),
        error_percent=some(0.5, 1, 20),
        lost_reply_percent=some(0.5, 1, 20),
        late_request_percent=60 if orphaned else some(0.5, 5, 60),
        disk_error_percent=some(0.3, 1, 8),
        refusal_percent=some(0.2, 1, 20),
        delays=flag(0.6),
        reorg_percent=some(0.5, 2, 30),
        drop_percent=some(0.4, 5, 60),
        replace_lock=flag(0.1),
        lag=flag(0.5),
        skew=flag(0.5),
        bitcoin_rate=rng.choice((1.0, 0.93, 1.07)),
        cancel_at=round(60 * rng.random() ** 3, 3) if flag(0.15) else None,
    )
    return _with_more(plan, more)


def _with_more(plan: SimulationPlan, more: random.Random) -> SimulationPlan:
    """What came to the simulation later is drawn by itself and in this order, so that seeds keep their meaning."""

    def seldom(chance: float) -> bool:
        return more.random() < chance

    return replace(
        plan,
        withdraw_at=round(60 * more.random() ** 2, 3) if seldom(0.08) else None,
        client_disk_full_at=more.randint(1, 8) if seldom(0.06) else 0,
        provider_disk_full_at=more.randint(1, 8) if seldom(0.06) else 0,
        stranger=seldom(0.15),
        client_torn_write=more.randint(1, 5) if seldom(0.03) else 0,
        provider_torn_write=more.randint(1, 5) if seldom(0.03) else 0,
        real_sender=seldom(0.04),
        dear_gas=seldom(0.5),
        user_payments=more.randint(1, 24) if seldom(0.5) else 0,
        forgets_undone=seldom(0.2),
        claim_reverts=seldom(0.1),
        claims_late=seldom(0.03),
        gives_back_away=seldom(0.2),
        stranger_refunds=seldom(0.2),
        shown_and_gone=seldom(0.08),
        stays_dear=seldom(0.3),
    )


def simpler_plans(plan: SimulationPlan) -> list[SimulationPlan]:
    """Plans with one thing less happening, the largest steps first."""
    plainest = SimulationPlan(direction=plan.direction, own_invoice=plan.own_invoice, pays_itself=plan.pays_itself)
    names = [field.name for field in fields(plan)]
    simpler = [
        replace(plan, **{name: getattr(plainest, name)})
        for name in names
        if getattr(plan, name) != getattr(plainest, name)
    ]
    for name in ("client_crashes", "provider_crashes"):
        points = getattr(plan, name)
        if len(points) > 1:
            simpler += [replace(plan, **{name: points[:i] + points[i + 1 :]}) for i in range(len(points))]
    return simpler
