"""A world small enough to be searched through: one lock, one payment, one block a second, and all of it values.

Nothing here draws lots: what may happen next is given as the set of all that may.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import combinations, permutations
from typing import NamedTuple

from swap_worlds import NOW, PREIMAGE, make_deal

from layer2.swaps import (
    Deal,
    LockReading,
    LockStatus,
    OwnTransaction,
    Role,
    min_invoice_life_s,
    refund_margin_s,
    reverse_final_cltv,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.terms import ChainTiming, DepthPolicy, Lock, SwapDirection
from layer2.transactions import Depth

SMALL_TIMING = ChainTiming(
    name="small",
    bitcoin_block_ms=1000,
    bitcoin_poisson=False,
    bitcoin_rate_margin_percent=0,
    evm_block_s=1,
    evm_inclusion_s=2,
    evm_clock_skew_s=0,
    clock_skew_s=0,
    safe_lag_s=1,
    finality_s=2,
    lock_window_s=1,
    invoice_expiry_s=1,
    payment_time_limit_s=1,
    route_cltv_blocks=0,
    hold_expiry_delta_blocks=18,
    onchain_resolve_blocks=0,
    slack_blocks=0,
    grace_s=1,
    max_timelock_s=60,
)
"""All clocks agree, Bitcoin's blocks come every second, and a block is final two blocks later."""
POLICY = DepthPolicy(depth=Depth.INCLUDED, confirmations=2)
FINAL_CLTV = 1
"""Of a submarine swap's invoice."""
HOLD_DELTA = 18
RETURN_S = 2
"""Within this time the payer knows what the payee did with a held payment."""


class Slot(IntEnum):
    """The transactions that a swap can come to, one of each kind."""

    LOCK = 0
    CLAIM = 1
    CLAIM_FOR = 2
    """By who locked, for the claimer."""
    REFUND = 3
    REFUND_EARLY = 4
    REFUND_FOR = 5
    """By a stranger, for who locked."""


class Phase(IntEnum):
    """What became of a transaction."""

    NONE = 0
    SIGNED = 1
    """In its sender's journal; shown to nobody."""
    POOL = 2
    HEAD = 3
    BEFORE = 4
    """In the block before the head."""
    DONE = 5
    """In a final block, like REVERTED."""
    REVERTED = 6


class Tx(NamedTuple):
    phase: Phase = Phase.NONE
    left: int = 0
    """Blocks within which it must be included; 1: in the next one; 0: it may stay out for ever, as its sender pays too little."""
    ok: bool = False
    not_after: int | None = None


NOTHING = Tx()
NEVER, LOCKED, CLAIMED, REFUNDED = range(4)
READINGS = (
    LockReading(status=LockStatus.NEVER),
    LockReading(status=LockStatus.LOCKED),
    LockReading(status=LockStatus.CLAIMED, preimage=PREIMAGE),
    LockReading(status=LockStatus.REFUNDED),
)


class Chain(NamedTuple):
    """The lock's status at the last final block, at the one after it, which is deep enough, and at the head."""

    final: int = NEVER
    before: int = NEVER
    head: int = NEVER
    txs: tuple[Tx, ...] = (NOTHING,) * len(Slot)

    def put(self, slot: Slot, tx: Tx) -> Chain:
        return self._replace(txs=(*self.txs[:slot], tx, *self.txs[slot + 1 :]))

    @property
    def shown(self) -> bool:
        """Whether a claim was shown to anybody."""
        return any(self.txs[slot].phase >= Phase.POOL for slot in (Slot.CLAIM, Slot.CLAIM_FOR))

    @property
    def at_rest(self) -> bool:
        moving = any(tx.phase in (Phase.HEAD, Phase.BEFORE) or tx.left for tx in self.txs)
        return self.final == self.before == self.head and not moving

    @property
    def own_lock(self) -> OwnTransaction:
        phase = self.txs[Slot.LOCK].phase
        if phase is Phase.NONE:
            return OwnTransaction.NONE
        return OwnTransaction.DEAD if phase is Phase.REVERTED else OwnTransaction.OPEN


def _execute(status: int, slot: Slot, at: int, timelock: int) -> int | None:
    """The contract: the next status, or None where it reverts."""
    if slot is Slot.LOCK:
        return LOCKED if status == NEVER and at < timelock else None
    if status != LOCKED or (slot in (Slot.REFUND, Slot.REFUND_FOR) and at < timelock):
        return None
    return CLAIMED if slot in (Slot.CLAIM, Slot.CLAIM_FOR) else REFUNDED


def _blocks(chain: Chain, waiting: dict[Slot, int], at: int, timelock: int) -> set[Chain]:
    """Every block that can follow, with any of what waits in any order, and all of what is due. ``chain.head`` is its parent."""
    due = {slot for slot, left in waiting.items() if left == 1}
    found = set()
    for count in range(len(due), len(waiting) + 1):
        for chosen in combinations(waiting, count):
            if not due <= set(chosen):
                continue
            for order in permutations(chosen):
                status, txs = chain.head, list(chain.txs)
                for slot in order:
                    after = _execute(status, slot, at, timelock)
                    txs[slot] = txs[slot]._replace(phase=Phase.HEAD, left=waiting[slot], ok=after is not None)
                    status = status if after is None else after
                for slot in set(waiting) - set(order):
                    txs[slot] = txs[slot]._replace(phase=Phase.POOL, left=max(0, waiting[slot] - 1), ok=False)
                found.add(chain._replace(head=status, txs=tuple(txs)))
    return found


def grow(chain: Chain, at: int, timelock: int) -> set[Chain]:
    """Every chain with one block more, whose time is ``at``."""
    txs = list(chain.txs)
    for slot, tx in enumerate(txs):
        if tx.phase is Phase.BEFORE:
            txs[slot] = Tx(Phase.DONE if tx.ok else Phase.REVERTED)
        elif tx.phase is Phase.HEAD:
            txs[slot] = Tx(Phase.BEFORE, ok=tx.ok)
    aged = Chain(final=chain.before, before=chain.head, head=chain.head, txs=tuple(txs))
    waiting = {Slot(slot): tx.left for slot, tx in enumerate(txs) if tx.phase is Phase.POOL}
    return _blocks(aged, waiting, at, timelock)


def undo(chain: Chain, at: int, timelock: int) -> set[Chain]:
    """Every chain with another block in the place of the head. What was due in the one is due in the other."""
    waiting = {}
    for slot, tx in enumerate(chain.txs):
        if tx.phase is Phase.HEAD:
            waiting[Slot(slot)] = tx.left
        elif tx.phase is Phase.POOL:
            waiting[Slot(slot)] = tx.left + 1 if tx.left else 0
    if not any(tx.phase is Phase.HEAD for tx in chain.txs):
        return set()
    return _blocks(chain._replace(head=chain.before), waiting, at, timelock) - {chain}


class Invoice(IntEnum):
    OPEN = 0
    ACCEPTED = 1
    SETTLED = 2
    CANCELED = 3


class Payment(IntEnum):
    NONE = 0
    IN_FLIGHT = 1
    HELD = 2
    """Arrived; for its payer it is in flight."""
    SUCCEEDED = 3
    FAILED = 4


class Lightning(NamedTuple):
    invoice: Invoice = Invoice.OPEN
    payment: Payment = Payment.NONE
    until: int = 0
    """When the payment is decided at the latest; while a hold invoice is accepted, when its HTLC expires."""
    orphans: int = 0
    """Requests to pay that are on their way from a connection that broke."""

    @property
    def moving(self) -> bool:
        return self.payment in (Payment.IN_FLIGHT, Payment.HELD)


@dataclass(frozen=True)
class Case:
    """One swap, who is hostile in it, and how much may go wrong."""

    direction: SwapDirection
    hostile: Role | None = None
    own_invoice: bool = True
    pays_itself: bool = True
    strangers: bool = False
    """Whether somebody else may take the lock back for who made it."""
    reorgs: int = 1
    crashes: int = 1
    breaks: int = 1

    def __str__(self) -> str:
        who = "both honest" if self.hostile is None else f"{self.hostile.value} hostile"
        who += ", refunded by anyone" if self.strangers else ""
        if self.submarine:
            whose = "own" if self.own_invoice else "somebody else's"
            return f"submarine, {who}, {whose} invoice"
        return f"reverse, {who}, {'paid by the client' if self.pays_itself else 'paid by anyone'}"

    @property
    def submarine(self) -> bool:
        return self.direction is SwapDirection.SUBMARINE

    @property
    def locker(self) -> Role:
        return Role.CLIENT if self.submarine else Role.PROVIDER

    @property
    def payer(self) -> Role:
        """The client of a reverse swap stands for whoever pays."""
        return Role.PROVIDER if self.submarine else Role.CLIENT

    @cached_property
    def deals(self) -> dict[Role, Deal]:
        timing = SMALL_TIMING
        if self.submarine:
            lock_by = submarine_lock_by(timing, NOW)
            expires_at = lock_by + min_invoice_life_s(timing, POLICY)
            final_cltv, timelock = FINAL_CLTV, submarine_timelock(timing, expires_at, FINAL_CLTV)
        else:
            lock_by, expires_at = reverse_lock_by(timing, NOW), NOW + timing.invoice_expiry_s
            final_cltv, timelock = reverse_final_cltv(timing, POLICY), reverse_timelock(timing, POLICY, NOW)
        deals = {}
        for role in Role:
            deal = make_deal(
                role,
                self.direction,
                invoice_expires_at=expires_at,
                invoice_final_cltv=final_cltv,
                own_invoice=self.submarine and self.own_invoice and role is Role.CLIENT,
                pays_itself=self.pays_itself,
                preimage_time_ms=1,
            )
            lock = replace(deal.terms.lock, timelock=timelock)
            terms = replace(deal.terms, lock=lock, lock_by=lock_by, timing=timing, depth_policy=POLICY)
            deals[role] = replace(deal, signed=replace(deal.signed, terms=terms))
        return deals

    @cached_property
    def lock(self) -> Lock:
        return self.deals[Role.CLIENT].terms.lock

    @cached_property
    def timelock(self) -> int:
        return self.lock.timelock - NOW

    @cached_property
    def expires(self) -> int:
        return self.deals[Role.CLIENT].invoice_expires_at - NOW

    @cached_property
    def final_cltv(self) -> int:
        return self.deals[Role.CLIENT].invoice_final_cltv

    @cached_property
    def hostile_until(self) -> int:
        """Later nothing that a hostile party could do is new: what was locked is decided."""
        return self.timelock + SMALL_TIMING.evm_inclusion_s

    @cached_property
    def end(self) -> int:
        """By then everything is over, with the time that it takes to notice."""
        held = 0 if self.submarine else self.expires + SMALL_TIMING.payment_time_limit_s + self.final_cltv - HOLD_DELTA
        return max(self.timelock + refund_margin_s(SMALL_TIMING), held) + RETURN_S + 2 * SMALL_TIMING.grace_s + 1


def begin_payment(case: Case, lightning: Lightning, at: int) -> set[Lightning | None]:
    """What becomes of a request to pay at the payer's node; None: it is refused, and no payment is on record."""
    if lightning.payment not in (Payment.NONE, Payment.FAILED):
        return {lightning}
    if at > case.expires:
        return {None if lightning.payment is Payment.NONE else lightning}
    quick = not case.submarine and lightning.invoice is not Invoice.OPEN
    until = at + (RETURN_S if quick else case.final_cltv + 3)
    begun = lightning._replace(payment=Payment.IN_FLIGHT, until=until)
    return {begun, None} if lightning.payment is Payment.NONE else {begun}


def payment_moves(case: Case, lightning: Lightning, at: int) -> list[tuple[str, Lightning]]:
    """What can become of a payment by itself."""
    invoice, payment = lightning.invoice, lightning.payment
    if not lightning.moving:
        return []
    failed = ("the payment fails", lightning._replace(payment=Payment.FAILED, until=0))
    if payment is Payment.IN_FLIGHT:
        if invoice is not Invoice.OPEN:
            return [failed]
        until = lightning.until if case.submarine else at + case.final_cltv
        held = lightning._replace(payment=Payment.HELD, invoice=Invoice.ACCEPTED, until=until)
        return [failed, ("the payment arrives", held)]
    if invoice is Invoice.SETTLED:
        return [("the payment succeeds", lightning._replace(payment=Payment.SUCCEEDED, until=0))]
    if invoice is Invoice.CANCELED:
        return [failed]
    if not case.submarine:
        return []
    return [
        ("the payee settles", lightning._replace(invoice=Invoice.SETTLED)),
        ("the payment fails", lightning._replace(payment=Payment.FAILED, invoice=Invoice.OPEN, until=0)),
    ]


def overdue(case: Case, lightning: Lightning, at: int) -> bool:
    """Whether the payment has to be decided before any more time passes."""
    held = not case.submarine and lightning.invoice is Invoice.ACCEPTED
    return lightning.moving and not held and at >= lightning.until


def settle(lightning: Lightning, at: int) -> Lightning:
    """By the owner of a hold invoice."""
    if lightning.invoice is not Invoice.ACCEPTED:
        return lightning
    return lightning._replace(invoice=Invoice.SETTLED, until=at + RETURN_S)


def cancel(case: Case, lightning: Lightning, at: int) -> Lightning:
    """By the invoice's owner, or its node."""
    if lightning.invoice in (Invoice.SETTLED, Invoice.CANCELED):
        return lightning
    until = lightning.until if case.submarine or not lightning.moving else at + RETURN_S
    return lightning._replace(invoice=Invoice.CANCELED, until=until)


def pass_time(case: Case, lightning: Lightning, at: int) -> Lightning:
    """What the payee's node does by itself as it becomes ``at``."""
    if lightning.invoice is Invoice.OPEN and at > case.expires:
        return cancel(case, lightning, at)
    if not case.submarine and lightning.invoice is Invoice.ACCEPTED and at >= lightning.until - HOLD_DELTA:
        return cancel(case, lightning, at)
    return lightning
