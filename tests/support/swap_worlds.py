"""Deals for each role and direction, and views of the world from which decisions are tested."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from typing import get_args

from layer2.addresses import EvmAddress
from layer2.swaps import (
    DEVNET_TIMING,
    Abandoned,
    Agreed,
    AwaitingLock,
    Cancelling,
    CancelRequested,
    ChainView,
    Claiming,
    Closed,
    Deal,
    Effect,
    EffectRefused,
    Failed,
    HashTaken,
    Invoiced,
    InvoiceStatus,
    InvoiceView,
    Locked,
    Locking,
    LockReading,
    LockStatus,
    NeedsAttention,
    Observation,
    Offered,
    OwnTransaction,
    Paid,
    Paying,
    PaymentStatus,
    PaymentView,
    Refunded,
    Refunding,
    RefundOffer,
    Revealed,
    Role,
    Settled,
    Settling,
    State,
    decide,
    first_state,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

NOW = 1_800_000_000
PREIMAGE = bytes(range(32))
STATES: tuple[State, ...] = (
    Agreed(),
    Offered(),
    Invoiced(),
    Locking(),
    Locked(),
    Paid(preimage=PREIMAGE),
    Paying(),
    AwaitingLock(),
    Revealed(),
    Claiming(preimage=PREIMAGE),
    Settling(preimage=PREIMAGE),
    Refunding(),
    Cancelling(outcome="expired", reason="r"),
    Failed(reason="r"),
    Settled(preimage=PREIMAGE),
    Refunded(reason="r"),
    Abandoned(reason="r"),
    Closed(outcome="settled"),
    NeedsAttention(reason="r"),
)
"""One of each kind."""
POLICY = DepthPolicy(depth=Depth.INCLUDED, confirmations=2)
CLIENT = EvmAddress(raw=b"\x11" * 20)
PROVIDER = EvmAddress(raw=b"\x22" * 20)
NEVER = LockReading(status=LockStatus.NEVER)
LOCKED = LockReading(status=LockStatus.LOCKED)
REFUNDED = LockReading(status=LockStatus.REFUNDED)
CLAIMED = LockReading(status=LockStatus.CLAIMED, preimage=PREIMAGE)


def make_deal(role: Role, direction: SwapDirection, **changes: object) -> Deal:
    submarine = direction is SwapDirection.SUBMARINE
    expires_at = NOW + (600 if submarine else DEVNET_TIMING.invoice_expiry_s)
    timelock = (
        submarine_timelock(DEVNET_TIMING, expires_at, 80) if submarine else reverse_timelock(DEVNET_TIMING, POLICY, NOW)
    )
    lock = Lock(
        chain_id=60808,
        contract=EvmAddress(raw=b"\x33" * 20),
        preimage_hash=hashlib.sha256(PREIMAGE).digest(),
        amount=100_600,
        token=EvmAddress(raw=b"\x44" * 20),
        claimer=PROVIDER if submarine else CLIENT,
        refunder=CLIENT if submarine else PROVIDER,
        timelock=timelock,
    )
    terms = SwapTerms(
        swap_id="ab" * 16,
        direction=direction,
        lock=lock,
        invoice="lnbcrt1test",
        invoice_amount_msat=100_000_000,
        provider_fee=600,
        routing_fee_limit_msat=400_000 if submarine else 0,
        lock_by=submarine_lock_by(DEVNET_TIMING, NOW) if submarine else reverse_lock_by(DEVNET_TIMING, NOW),
        depth_policy=POLICY,
        timing=DEVNET_TIMING,
        created_at=NOW,
    )
    values: dict[str, object] = {
        "id": "cd" * 16,
        "role": role,
        "signed": SignedTerms(terms=terms, signature=bytes(64) + b"\x1b"),
        "invoice_expires_at": expires_at,
        "invoice_final_cltv": 80,
        **changes,
    }
    return Deal(**values)  # type: ignore[arg-type]


def make_view(
    latest: LockReading = NEVER,
    at_depth: LockReading = NEVER,
    finalized: LockReading = NEVER,
    *,
    now: int = NOW,
    head: int | None = None,
    final_time: int | None = None,
    own_lock: OwnTransaction = OwnTransaction.NONE,
) -> ChainView:
    return ChainView(
        latest=latest,
        at_depth=at_depth,
        finalized=finalized,
        head_timestamp=now if head is None else head,
        finalized_timestamp=(now if head is None else head) - 5 if final_time is None else final_time,
        now_s=now,
        own_lock=own_lock,
    )


def states_of(role: Role, direction: SwapDirection) -> dict[type[State], frozenset[str]]:
    """Every state that a swap of this kind can come to, with the names of all effects with which it may be entered.

    Found by deciding on whatever can be seen in each state, again and again.
    """
    deals = [
        make_deal(role, direction, own_invoice=own, pays_itself=pays, preimage_time_ms=1)
        for own, pays in product((False, True), repeat=2)
    ]
    found = [first_state(role, direction)]
    wants: dict[type[State], frozenset[str]] = {type(found[0]): frozenset()}
    for state in found:
        for about, seen in ((deal, seen) for deal in deals for seen in sights(deal)):
            decision = decide(about, state, seen)
            if decision is None:
                continue
            kind = type(decision.state)
            if kind not in wants:
                found.append(decision.state)
            wants[kind] = wants.get(kind, frozenset()) | {effect.name for effect in decision.effects}
    return wants


def sights(deal: Deal) -> Iterator[Observation]:
    """Whatever can be seen of a swap, early and late."""
    times = (NOW, deal.terms.lock.timelock + 60)
    for readings in product((NEVER, LOCKED, REFUNDED, CLAIMED), repeat=3):
        yield from (make_view(*readings, now=now) for now in times)
    for status, now in product(PaymentStatus, times):
        preimage = PREIMAGE if status is PaymentStatus.SUCCEEDED else None
        yield PaymentView(status=status, preimage=preimage, requests_open=False, now_s=now)
    for status, blocks, now in product(InvoiceStatus, (None, 1, 2016), times):
        paid = deal.terms.invoice_amount_msat
        yield InvoiceView(status=status, received_msat=paid, blocks_left=blocks, now_s=now)
    yield from (RefundOffer(signature=bytes(65)), CancelRequested(), HashTaken())
    yield from (EffectRefused(key=effect.name, reason="refused") for effect in get_args(Effect))
