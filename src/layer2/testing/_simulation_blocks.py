"""Blocks and transactions of the simulated EVM chain, and the HTLC contract there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from layer2.evm import cooperative_refund_digest
from layer2.swaps import LockReading, LockStatus
from layer2.terms import Lock
from layer2.testing._simulation_keys import sign

__all__ = ["NEVER", "Block", "LockCall", "Transaction", "consent", "execute"]

NEVER: Final = LockReading(status=LockStatus.NEVER)
_LOCKED: Final = LockReading(status=LockStatus.LOCKED)
_REFUNDED: Final = LockReading(status=LockStatus.REFUNDED)
_MAX_TIMELOCK_S: Final = 60 * 86_400


class LockCall(StrEnum):
    """What a transaction does."""

    LOCK = "lock"
    CLAIM = "claim"
    REFUND = "refund"
    REFUND_EARLY = "refund_early"
    APPROVE = "approve"
    """Lets the contract pull the account's tokens. Only what a real sender signs needs it."""
    OTHER = "other"
    """Nothing that concerns a lock; only its nonce counts."""


@lru_cache(maxsize=16)
def consent(lock: Lock) -> bytes:
    """The one signature that the simulated contract takes for an early refund: the claimer's."""
    return sign(lock.claimer.raw, cooperative_refund_digest(lock))


@dataclass(eq=False, slots=True, kw_only=True)
class Transaction:
    """Signed by ``account``; the same bytes for ever."""

    key: str
    account: bytes
    call: LockCall
    lock: Lock | None
    preimage: bytes | None = field(default=None, repr=False)
    signature: bytes | None = field(default=None, repr=False)
    rival: Transaction | None = None
    """Has the same nonce: only one of the two can be in a branch."""
    ready_at: float = 0.0
    not_after: int | None = None
    made_ms: int = 0
    """When its owner signed it, by its own clock."""
    sent: bool = False
    """Whether a node may have seen it."""
    due_at: float = 0.0
    """When it is included at the latest, unless its owner is away."""
    reorganised: int = 0
    nonce: int | None = None
    """Of what a real sender has signed: included in order, and one for each number. None: included whenever it is ready."""
    max_fee_wei: int = 0
    """For its gas; it waits while the chain asks for more."""
    raw: bytes = field(default=b"", repr=False)
    blocks: list[Block] = field(default_factory=list, repr=False)
    """Where it was ever included, in whatever branch."""


@dataclass(eq=False, slots=True)
class Block:
    """A block with the state after it."""

    number: int
    timestamp: int
    at: float
    """When it was made, in the loop's seconds."""
    parent: Block | None
    included: dict[Transaction, bool]
    """With whether each one did what it wanted."""
    locks: dict[bytes, LockReading]
    tokens: dict[bytes, int]
    wei: dict[bytes, int]
    nonces: dict[bytes, int]
    """How many numbered transactions of each account are in the chain."""
    approved: frozenset[bytes] = frozenset()
    serial: int = 0
    depth: int = field(init=False)
    """How many blocks are before it."""
    jump: Block = field(init=False, repr=False)
    """One far before it, so that any is found in few steps: a long swap has tens of thousands."""

    def __post_init__(self) -> None:
        if self.parent is None:
            self.depth, self.jump = 0, self
            return
        before, far = self.parent, self.parent.jump
        self.depth = before.depth + 1
        self.jump = far.jump if before.depth - far.depth == far.depth - far.jump.depth else before

    def hash_at(self, number: int) -> bytes:
        """Hash of this block, or of one that stands for the quiet stretch after it: numbers jump, and every number has a block."""
        return hashlib.sha256(b"%d/%d" % (self.serial, number)).digest()

    def up_to(self, number: int) -> Block:
        """The newest block from here on back with this number or a smaller one; the first block if none has."""
        block = self
        while block.number > number and block.parent is not None:
            block = block.jump if block.jump.number > number else block.parent
        return block

    def made_by(self, at: float) -> Block:
        """The newest block from here on back that was made by then; the first block if none was."""
        block = self
        while block.at > at and block.parent is not None:
            block = block.jump if block.jump.at > at else block.parent
        return block

    def found(self, tx: Transaction) -> bool | None:
        """Whether ``tx`` succeeded in this branch; None if it is not in it."""
        for home in reversed(tx.blocks):
            if self.up_to(home.number) is home:
                return home.included[tx]
        return None

    def used_up(self, tx: Transaction) -> bool:
        """Whether another transaction of this branch has its number, so that it can never be in it."""
        if tx.nonce is not None:
            return self.nonces.get(tx.account, 0) > tx.nonce and self.found(tx) is None
        return tx.rival is not None and self.found(tx.rival) is not None


def execute(block: Block, tx: Transaction) -> bool:
    """What the contract makes of a transaction. Returns False where it reverts."""
    lock = tx.lock
    if tx.call is LockCall.APPROVE:
        block.approved |= {tx.account}
    if lock is None:
        return True
    lock_id = lock.lock_id
    reading = block.locks.get(lock_id, NEVER)
    if tx.call is LockCall.LOCK:
        in_time = 0 < lock.timelock - block.timestamp <= _MAX_TIMELOCK_S
        allowed = tx.nonce is None or tx.account in block.approved
        if not (in_time and allowed) or reading is not NEVER or block.tokens[tx.account] < lock.amount:
            return False
        block.tokens[tx.account] -= lock.amount
        block.locks[lock_id] = _LOCKED
        return True
    if reading.status is not LockStatus.LOCKED:
        return False
    if tx.call is LockCall.CLAIM:
        if tx.preimage is None or hashlib.sha256(tx.preimage).digest() != lock.preimage_hash:
            return False
        block.locks[lock_id] = LockReading(status=LockStatus.CLAIMED, preimage=tx.preimage)
        block.tokens[lock.claimer.raw] += lock.amount
        return True
    if tx.call is LockCall.REFUND and block.timestamp < lock.timelock:
        return False
    if tx.call is LockCall.REFUND_EARLY and tx.signature != consent(lock):
        return False
    block.locks[lock_id] = _REFUNDED
    block.tokens[lock.refunder.raw] += lock.amount
    return True
