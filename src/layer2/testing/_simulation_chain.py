"""A simulated EVM chain: blocks at uneven times, a forgetful mempool, reorganisations, two lagging heads, and one HTLC contract.

Time is the loop's. A quiet stretch is one long block: numbers jump with the time, so that days cost as little as minutes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Final

from layer2.swaps import LockStatus
from layer2.terms import ChainTiming, DepthPolicy
from layer2.testing._simulation_blocks import Block, LockCall, Transaction, execute
from layer2.testing._simulation_loop import EPOCH_S, SimulationLoop
from layer2.transactions import Depth

__all__ = ["BASE_FEE_WEI", "GAS_WEI", "SimulatedChain"]

GAS_WEI: Final = 1_000_000_000
"""What each transaction costs."""
BASE_FEE_WEI: Final = 1_000_000
_HEADS_KEPT: Final = 64


class SimulatedChain:
    """The chain itself, as nobody in the simulation sees it: each looks through an endpoint."""

    def __init__(
        self,
        loop: SimulationLoop,
        rng: random.Random,
        timing: ChainTiming,
        *,
        idle_s: float,
        tokens: dict[bytes, int],
        reorg_percent: int = 0,
        drop_percent: int = 0,
        stranger: bytes | None = None,
        forgets_undone: bool = False,
        claims_from: float = 0.0,
        claim_reverts: bool = False,
        undoes_claim: bool = False,
        may_undo: Callable[[Block, Block], bool] = lambda _head, _block: False,
        alive: Callable[[bytes], bool] = lambda _: True,
        honest: frozenset[bytes] = frozenset(),
        ahead: bool = False,
        story: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self.timing = timing
        self._idle_s = idle_s
        self._pace_s = timing.finality_s / 6
        self._reorg_percent = reorg_percent
        self._drop_percent = drop_percent
        self._stranger = stranger
        self._forgets_undone = forgets_undone
        self.claims_from = claims_from
        """No claim comes into a block before."""
        self._claim_reverts = claim_reverts
        self._undoes_claim = undoes_claim
        self._undo_now = False
        self._may_undo = may_undo
        self._alive = alive
        self._honest = honest
        self._ahead = ahead
        self._story = story
        self.signed: dict[str, Transaction] = {}
        """The senders' journals: survive every crash."""
        self.forms: dict[bytes, Transaction] = {}
        """What real senders have signed and stored, by its hash."""
        self.served: dict[bytes, tuple[Block, int]] = {}
        """Blocks by the hashes that endpoints gave for them."""
        self._pool: dict[Transaction, None] = {}
        self._waiting: dict[asyncio.Future[None], None] = {}
        slack = 2.0 * idle_s if timing.finality_s > 60 else 0.5
        self._safe_lag_s = rng.uniform(0.3, 1.0) * max(0.5, timing.safe_lag_s - slack)
        self._final_lag_s = max(self._safe_lag_s, rng.uniform(0.3, 1.0) * max(1.0, timing.finality_s - slack))
        wei = dict.fromkeys(tokens, 10**18)
        self._serials = count(1)
        self.head = Block(1_000, EPOCH_S, 0.0, None, {}, {}, dict(tokens), {**wei, b"": 0}, {})
        self.dear: tuple[tuple[float, float, int], ...] = ()
        """When gas costs more: from, until, and how many times as much."""
        self.stays_dear_from: float | None = None
        """The same for good, five times as much."""
        self.heads: list[tuple[float, Block]] = [(0.0, self.head)]
        self.total_tokens = sum(tokens.values())
        self.total_wei = sum(wei.values())
        self.locked: dict[bytes, int] = {}
        """Amounts by lock id, of every lock ever tried."""
        self.watchers: list[Callable[[], None]] = []
        """Called after each new head."""
        self.published: Callable[[], None] = lambda: None
        """Called after each new head that changed anything."""
        self._busy_until = 0.0
        """As long as something was included lately, blocks come at their usual pace."""
        self._timer = loop.call_at(self._gap(), self._tick)

    # -- what others may know ------------------------------------------------------------------------------------------

    def safe(self, head: Block, now: float) -> Block:
        """The safe block under ``head``."""
        return head.made_by(now - self._safe_lag_s)

    def finalized(self, head: Block, now: float) -> Block:
        """The finalized block under ``head``."""
        return head.made_by(now - self._final_lag_s)

    def deep(self, head: Block, now: float, policy: DepthPolicy) -> Block:
        """The newest block at the policy's depth under ``head``."""
        match policy.depth:
            case Depth.SAFE:
                return self.safe(head, now)
            case Depth.FINALIZED:
                return self.finalized(head, now)
            case _:
                return head.up_to(head.number + 1 - policy.confirmations)

    async def wait(self) -> None:
        """Until there is another head."""
        woken = self._loop.create_future()
        self._waiting[woken] = None
        try:
            await woken
        finally:
            self._waiting.pop(woken, None)

    # -- sending -------------------------------------------------------------------------------------------------------

    def sign(self, tx: Transaction) -> Transaction:
        """Put a transaction into its sender's journal, once per key."""
        return self.signed.setdefault(tx.key, tx)

    def send(self, tx: Transaction) -> None:
        """Hand a signed transaction to the nodes. Again and again is the same as once."""
        if tx in self._pool or self.standing(tx) is not None:
            tx.sent = True
            return
        tx.sent = True
        now = self._loop.now
        if tx.lock is not None:
            self.locked.setdefault(tx.lock.lock_id, tx.lock.amount)
        tx.due_at = now + self.timing.evm_inclusion_s * 0.7
        tx.ready_at = now + self._rng.random() ** 3 * self.timing.evm_inclusion_s * 0.6
        if tx.call is LockCall.CLAIM and now < self.claims_from:
            tx.ready_at = self.claims_from + (tx.ready_at - now)
            tx.due_at = max(tx.due_at, tx.ready_at)
        if tx.nonce is not None:
            self._take_turns(tx)
        self._pool[tx] = None
        if self._rng.randrange(100) < self._drop_percent:
            self._loop.call_later(self._rng.uniform(0.1, 0.4) * self.timing.evm_inclusion_s, self._drop, tx)
        if self._stranger is not None and tx.account != self._stranger:
            self._repeat(tx, self._stranger)
        self._hurry()

    def _take_turns(self, tx: Transaction) -> None:
        """A node has one transaction for each number. Other nodes may still have the one before."""
        for other in [one for one in self._pool if (one.account, one.nonce) == (tx.account, tx.nonce)]:
            tx.ready_at, tx.due_at = min(tx.ready_at, other.ready_at), min(tx.due_at, other.due_at)
            if self._rng.random() < 0.7:
                self._pool.pop(other)

    def pooled(self, account: bytes) -> list[Transaction]:
        """Numbered transactions of an account that wait for a block."""
        return [tx for tx in self._pool if tx.account == account and tx.nonce is not None]

    def make_dear(self, rng: random.Random, until_s: float) -> None:
        """Let gas cost more at some moments, short beside the time that a transaction may take."""
        moments = sorted(rng.uniform(0, until_s) for _ in range(rng.randint(1, 8)))
        longest_s = 0.15 * self.timing.evm_inclusion_s
        self.dear = tuple((at, at + rng.uniform(0.3, 1) * longest_s, rng.choice((2, 5, 30))) for at in moments)

    def base_fee(self) -> int:
        """What a block asks for its gas now, in wei."""
        now = self._loop.now
        times = [times for begin, end, times in self.dear if begin <= now < end]
        if self.stays_dear_from is not None and now >= self.stays_dear_from:
            times.append(5)
        return BASE_FEE_WEI * max(times, default=1)

    def _repeat(self, tx: Transaction, stranger: bytes) -> None:
        """Whoever sees a claim or a refund may send the same in a transaction of its own, and be the first."""
        if tx.call in (LockCall.CLAIM, LockCall.REFUND, LockCall.REFUND_EARLY):
            key = f"stranger:{tx.key}"
            copy = replace(tx, key=key, account=stranger, rival=None, nonce=None, blocks=[], sent=False, reorganised=0)
            self.send(self.signed.setdefault(key, copy))

    def resend_all(self, account: bytes) -> None:
        """What a sender does when its process starts."""
        for tx in list(self.signed.values()):
            late = tx.not_after is not None and EPOCH_S + self._loop.now > tx.not_after
            if tx.account == account and tx.nonce is None and (tx.sent or not late):
                self.send(tx)

    def standing(self, tx: Transaction) -> bool | None:
        """Whether a transaction succeeded in the present branch; a rival's success counts as its failure."""
        found = self.head.found(tx)
        if found is None and self.head.used_up(tx):
            return False
        return found

    @property
    def at_rest(self) -> bool:
        """Whether every transaction that was ever signed is in the present branch, or replaced there by another."""
        unnumbered = (tx for tx in self.signed.values() if tx.nonce is None)
        return not self._pool and all(self.standing(tx) is not None for tx in unnumbered)

    def _drop(self, tx: Transaction) -> None:
        if self._pool.pop(tx, True) is None:
            self._story(f"the nodes forget {tx.key}")
            due_at = tx.due_at
            if tx.nonce is None and self._alive(tx.account):
                self.send(tx)
                tx.due_at = min(tx.due_at, due_at)
                tx.ready_at = min(tx.ready_at, due_at)

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _gap(self) -> float:
        block_s = self.timing.evm_block_s
        if self._pool:
            return block_s * self._rng.choice((1 / 3, 1.0, 1.0, 1.5, 3.0))
        quiet = self._loop.now >= self._busy_until
        return (self._idle_s if quiet else max(block_s, min(self._idle_s, self._pace_s))) * self._rng.uniform(0.6, 1.4)

    def _hurry(self) -> None:
        ready = min((tx.ready_at for tx in self._pool), default=self._timer.when())
        at = max(self._loop.now, ready) + self.timing.evm_block_s * self._rng.uniform(0.1, 1.0)
        if at < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        before = self.head
        undo, self._undo_now = self._undo_now, False
        if (self._reorg_percent and self._rng.randrange(100) < self._reorg_percent) or undo:
            self._reorganise()
        self._mine(self._next_number())
        self._publish(changed=self.head.parent is not before or bool(self.head.included))
        self._timer = self._loop.call_later(self._gap(), self._tick)
        if self._pool:
            self._hurry()

    def _next_number(self) -> int:
        return self.head.number + max(1, round((self._loop.now - self.head.at) / self.timing.evm_block_s))

    def _publish(self, *, changed: bool) -> None:
        self.heads.append((self._loop.now, self.head))
        if len(self.heads) > 2 * _HEADS_KEPT:
            del self.heads[:-_HEADS_KEPT]
        if changed:
            self._busy_until = self._loop.now + 2 * self.timing.finality_s
            self.published()
        for watcher in self.watchers:
            watcher()
        for woken in list(self._waiting):
            if not woken.done():
                woken.set_result(None)

    def _mine(self, number: int, at: float | None = None) -> None:
        """Make a block; ``at`` tells when, where it takes the place of another."""
        now = self._loop.now if at is None else at
        ahead = self._rng.random() * self.timing.evm_clock_skew_s * 0.8 if self._ahead else 0.0
        timestamp = max(self.head.timestamp, EPOCH_S + int(now + ahead))
        parent = self.head
        block = self.head = Block(
            number,
            timestamp,
            now,
            parent,
            {},
            parent.locks,
            parent.tokens,
            parent.wei,
            parent.nonces,
            parent.approved,
            next(self._serials),
        )
        if not self._pool:
            return
        ready = [tx for tx in self._pool if tx.ready_at <= self._loop.now]
        self._rng.shuffle(ready)
        for tx in ready:
            if tx.nonce is not None:
                continue
            if tx in self._pool and self.standing(tx) is None:
                self._include(block, tx)
            self._pool.pop(tx, None)
        for tx in sorted((tx for tx in ready if tx.nonce is not None), key=lambda tx: tx.nonce or 0):
            is_next = tx.nonce == block.nonces.get(tx.account, 0)
            if self.standing(tx) is not None:
                self._pool.pop(tx, None)
            elif is_next and tx.max_fee_wei >= self.base_fee():
                self._include(block, tx)
                self._pool.pop(tx, None)

    def _include(self, block: Block, tx: Transaction) -> None:
        if not block.included:
            block.locks, block.tokens, block.wei = dict(block.locks), dict(block.tokens), dict(block.wei)
        block.wei[tx.account] -= GAS_WEI
        block.wei[b""] += GAS_WEI
        if tx.nonce is not None:
            block.nonces = {**block.nonces, tx.account: tx.nonce + 1}
        succeeded = not self._is_paused(tx) and execute(block, tx)
        block.included[tx] = succeeded
        if self._undoes_claim and succeeded and tx.call is LockCall.CLAIM:
            self._undoes_claim, self._undo_now = False, True
        tx.blocks.append(block)
        self._story(f"block {block.number}: {tx.key} {'succeeds' if succeeded else 'reverts'}")

    def _is_paused(self, tx: Transaction) -> bool:
        """Once, and only while there is time enough to claim again, which is not before the failure is final."""
        if (
            not self._claim_reverts
            or tx.call is not LockCall.CLAIM
            or tx.lock is None
            or tx.account not in self._honest
        ):
            return False
        left_s = tx.lock.timelock - EPOCH_S - self._loop.now
        if left_s < self.timing.finality_s + 4 * self.timing.evm_inclusion_s + self.timing.grace_s:
            return False
        self._claim_reverts = False
        return True

    def _reorganise(self) -> None:
        head = self.head
        undone: list[Block] = []
        block = head
        limit = self._rng.randint(1, 6)
        while block.parent is not None and len(undone) < limit and self._may_undo(head, block):
            undone.append(block)
            block = block.parent
        if not undone:
            return
        if any(old.included for old in undone):
            self._story(f"a reorganisation undoes {len(undone)} block(s) from {undone[-1].number} on")
        self.head = block
        now = self._loop.now
        for old in reversed(undone):
            for tx in old.included:
                if self._forgets_undone and not (tx.account in self._honest and self._alive(tx.account)):
                    continue
                again = tx.reorganised > 0 or self._rng.random() < 0.3
                tx.reorganised += 1
                tx.ready_at = now if again else now + self._rng.random() * self.timing.evm_inclusion_s * 0.6
                tx.due_at = max(tx.ready_at, now + self.timing.evm_inclusion_s * 0.7)
                self._pool[tx] = None
        # The heads that depend on another chain do not wait for the new branch: its blocks are as old as those undone.
        for old in reversed(undone):
            self._mine(old.number, old.at)

    # -- conservation --------------------------------------------------------------------------------------------------

    def imbalance(self) -> str | None:
        """What does not add up at the head, or None."""
        held = sum(self.head.tokens.values())
        locked = sum(
            self.locked[lock_id] for lock_id, reading in self.head.locks.items() if reading.status is LockStatus.LOCKED
        )
        if held + locked != self.total_tokens:
            return f"{held} in accounts and {locked} locked make not {self.total_tokens}"
        if sum(self.head.wei.values()) != self.total_wei:
            return "the wei do not add up"
        return None
