"""The same world without store and driver: decisions, looks and acts, kept in a dictionary and called one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from layer2.errors import Layer2Error, NodeError, NotFound, StorageError
from layer2.swaps import (
    CancelRequested,
    ChainView,
    Deal,
    Decision,
    Effect,
    HashTaken,
    HashTakenError,
    NeedsAttention,
    Observation,
    RefundOffer,
    Role,
    State,
    Watch,
    decide,
)
from layer2.swaps._act import Actor
from layer2.swaps._look import ASK_REFUND_S, Looker
from layer2.swaps._observations import seen_preimage
from layer2.swaps._ports import Counterparty, SwapChain, every_unfinished
from layer2.swaps._preimage import PreimageSource
from layer2.testing._simulation_ports import NodePort
from layer2.testing._simulation_process import FaultyJournal, Life, SimulatedProcess

__all__ = ["BareEngine", "BareJournal", "BareSwap"]

T = TypeVar("T")
_MOST_MOVES = 12
"""At one look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareEffect:
    """What is wanted."""

    effect: Effect
    begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BareSwap:
    """A swap as it stands."""

    deal: Deal
    state: State
    version: int = 1
    effects: tuple[BareEffect, ...] = ()
    restored: bool = False
    created_at_ms: int = 0
    updated_at_ms: int = 0


class BareJournal:
    """What ``SwapJournal`` does, in a dictionary."""

    def __init__(self) -> None:
        self._swaps: dict[str, BareSwap] = {}
        self._begun: set[tuple[str, str]] = set()
        self._holders: dict[bytes, str] = {}

    async def load(self, swap_id: str) -> BareSwap:
        """One swap. Raises ``NotFound``."""
        if swap_id not in self._swaps:
            raise NotFound("no such swap")
        swap = self._swaps[swap_id]
        if not swap.effects:
            return swap
        effects = tuple(replace(e, begun=(swap_id, e.effect.name) in self._begun) for e in swap.effects)
        return replace(swap, effects=effects)

    async def unfinished(self, *, exits: bool, after: str | None, limit: int) -> list[BareSwap]:
        """Swaps that are not final: those on their way out, or all others."""
        wanted = (swap for swap in self._swaps.values() if not swap.state.final and swap.state.exit is exits)
        return [await self.load(swap.deal.id) for swap in wanted if swap.deal.id > (after or "")][:limit]

    async def insert(
        self, deal: Deal, state: State, *, idempotency_key: str | None, request_digest: str | None, bind_hash: bool
    ) -> BareSwap:
        """A new swap."""
        del idempotency_key, request_digest
        if bind_hash:
            self._bind(deal.terms.lock.preimage_hash, deal.id)
        self._swaps[deal.id] = BareSwap(deal=deal, state=state)
        return self._swaps[deal.id]

    def _bind(self, payment_hash: bytes, swap_id: str) -> None:
        if self._holders.setdefault(payment_hash, swap_id) != swap_id:
            raise HashTakenError

    async def transition(
        self,
        swap_id: str,
        *,
        expected_version: int,
        state: State,
        seen: Observation,
        effects: tuple[Effect, ...],
        bind_hash: bytes | None,
    ) -> BareSwap:
        """The next state, or ``StorageError`` if the swap is not at the version."""
        del seen
        swap = self._swaps[swap_id]
        if swap.version != expected_version:
            raise StorageError("the swap is at another version")
        if bind_hash is not None:
            self._bind(bind_hash, swap_id)
        wanted = tuple(BareEffect(effect=effect) for effect in effects)
        self._swaps[swap_id] = replace(swap, state=state, version=swap.version + 1, effects=wanted)
        return await self.load(swap_id)

    async def mark_begun(self, swap_id: str, name: str, *, begun: bool) -> None:
        """Remember that a request for an effect is begun, or that its end was seen."""
        if begun:
            self._begun.add((swap_id, name))
        else:
            self._begun.discard((swap_id, name))


class BareEngine:
    """Stands for ``SwapEngine``: with each new block it looks at every swap once and lets the pure files decide."""

    def __init__(
        self,
        process: SimulatedProcess,
        life: Life,
        *,
        store: FaultyJournal,
        chain: SwapChain,
        node: NodePort,
        counterparty: Counterparty,
        preimages: PreimageSource | None,
        on_change: Callable[[Any], None],
        on_alarm: Callable[[Deal, str, str], None],
    ) -> None:
        self._process = process
        self._life = life
        self._store = store
        self._counterparty = counterparty
        self._on_change = on_change
        self._on_alarm = on_alarm
        self._actor = Actor(store=store, chain=chain, node=node, preimages=preimages, clock=process.clock)
        self._looker = Looker(
            chain=chain, node=node, counterparty=counterparty, requests=self._actor, clock=process.clock
        )
        self._open: list[str] = []
        self._cancelled: set[str] = set()
        self._asked_at: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._unwritten: dict[str, ChainView] = {}
        """As by the driver: a preimage once seen is known, though the disk failed."""
        self._context = copy_context()

    async def start(self) -> int:
        """Take up what is unfinished."""
        self._open = []
        async for swap in every_unfinished(self._store):
            self._open.append(swap.deal.id)
            self._tell(swap)
            if isinstance(swap.state, NeedsAttention):
                self._on_alarm(swap.deal, "swap.needs_attention", swap.state.reason)
        # What is begun here must end with this life.
        self._context = copy_context()
        self._process.chain.watchers.append(self._new_block)
        self._look_at_all()
        return len(self._open)

    def cancel(self, swap_id: str) -> None:
        """See ``SwapEngine``."""
        self._cancelled.add(swap_id)
        self._context.run(self._look, swap_id)

    def _new_block(self) -> None:
        if self._life.alive:
            self._context.run(self._look_at_all)

    def _look_at_all(self) -> None:
        for swap_id in self._open:
            if self._life.alive:
                self._look(swap_id)

    def _look(self, swap_id: str) -> None:
        if not self._life.alive:
            return
        try:
            swap = _at_once(self._store.load(swap_id))
            if swap.version != self._told.get(swap_id):
                # A write that seemed to fail was made all the same.
                self._tell(swap)
            for _ in range(_MOST_MOVES):
                if swap.state.final:
                    self._open = [one for one in self._open if one != swap_id]
                    return
                moved = self._step(swap)
                if moved is None:
                    return
                swap = moved
        except (Layer2Error, asyncio.CancelledError):
            return  # the next block brings the next look; a process that died does nothing any more

    def _step(self, swap: Any) -> Any:
        if (shown := self._unwritten.get(swap.deal.id)) is not None:
            moved = self._observe(swap, shown)
            self._unwritten.pop(swap.deal.id, None)
            if moved is not None:
                return moved
        if swap.deal.id in self._cancelled:
            self._cancelled.discard(swap.deal.id)
            if (moved := self._observe(swap, CancelRequested())) is not None:
                return moved
        for watch in sorted(swap.state.watches):
            try:
                seen = self._see(Watch(watch), swap)
            except NodeError:
                continue
            if seen is not None and (moved := self._observe(swap, seen)) is not None:
                return moved
        for wanted in swap.effects:
            try:
                refused = _at_once(self._actor.act(swap, wanted, lambda: self._wake(swap.deal.id)))
            except NodeError:
                continue
            if refused is not None and self._observe(swap, refused) is not None:
                return None  # looked at again with the next block, as by the driver
        return None

    def _wake(self, swap_id: str) -> None:
        self._process.loop.call_soon(self._look, swap_id, context=self._context)

    def _see(self, watch: Watch, swap: Any) -> Observation | None:
        if watch is not Watch.REFUND_OFFER:
            return _at_once(self._looker.look(watch, swap))
        if swap.deal.role is not Role.CLIENT:
            return None
        now = self._process.loop.now
        if now - self._asked_at.get(swap.deal.id, -ASK_REFUND_S) < ASK_REFUND_S:
            return None
        self._asked_at[swap.deal.id] = now
        signature = _at_once(self._counterparty.refund_signature(swap.deal))
        return None if signature is None else RefundOffer(signature=signature)

    def _observe(self, swap: Any, seen: Observation) -> Any:
        decision: Decision | None = decide(swap.deal, swap.state, seen)
        if decision is None:
            return None
        payment_hash = swap.deal.terms.lock.preimage_hash if decision.bind_hash else None
        try:
            moved = _at_once(
                self._store.transition(
                    swap.deal.id,
                    expected_version=swap.version,
                    state=decision.state,
                    seen=seen,
                    effects=decision.effects,
                    bind_hash=payment_hash,
                )
            )
        except HashTakenError:
            return self._observe(swap, HashTaken())
        except StorageError:
            if isinstance(seen, ChainView) and seen_preimage(seen) is not None:
                self._unwritten[swap.deal.id] = seen
            raise
        if decision.alarm is not None:
            self._on_alarm(swap.deal, decision.alarm, getattr(decision.state, "reason", ""))
        self._tell(moved)
        return moved

    def _tell(self, swap: Any) -> None:
        self._told[swap.deal.id] = swap.version
        self._on_change(swap)


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of what never waits here: without delays, every port answers within the call."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise RuntimeError("a simulated port waits, which takes a driver")
