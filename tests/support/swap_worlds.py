"""Deals for each role and direction, and views of the world from which decisions are tested."""

from __future__ import annotations

import hashlib

from layer2.addresses import EvmAddress
from layer2.swaps import (
    DEVNET_TIMING,
    ChainView,
    Deal,
    LockReading,
    LockStatus,
    OwnTransaction,
    Role,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

NOW = 1_800_000_000
PREIMAGE = bytes(range(32))
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
