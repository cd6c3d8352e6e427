"""The swap engine as the manager and the provider daemon use it: begin a swap, follow it, ask how it ended."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from layer2._clock import Clock
from layer2._health import HealthState, TaskHealth
from layer2._observe import log_event
from layer2.errors import AsyncRuntimeError, StoreInUse, another
from layer2.lightning import LightningNode
from layer2.swaps._act import Actor, StillOurs, nobody_else
from layer2.swaps._act_by import act_by, run_again_by
from layer2.swaps._driver import SwapDriver
from layer2.swaps._look import Looker
from layer2.swaps._machine import first_state
from layer2.swaps._ports import Counterparty, StoredSwap, SwapChain, SwapStore
from layer2.swaps._preimage import PreimageSource
from layer2.swaps._states import Deal, NeedsAttention, State

__all__ = ["EngineStore", "SwapEngine", "log_unfinished"]

logger: Final = logging.getLogger("layer2.swaps")


class EngineStore(SwapStore, Protocol):
    """What the engine needs besides driving."""

    async def insert(
        self, deal: Deal, state: State, *, idempotency_key: str | None, request_digest: str | None, bind_hash: bool
    ) -> StoredSwap:
        """Store a new swap, or give back the one that was stored under the same key and digest.

        Raises:
            IdempotencyConflict: the key has another digest; HashTakenError: another swap has the hash.
        """
        ...


class SwapEngine:
    """All swaps of one store in one role."""

    def __init__(
        self,
        *,
        store: EngineStore,
        chain: SwapChain,
        node: LightningNode | None,
        counterparty: Counterparty,
        preimages: PreimageSource | None,
        clock: Clock,
        poll_s: float,
        on_change: Callable[[StoredSwap], None] = lambda _: None,
        on_alarm: Callable[[Deal, str, str], None] = lambda *_: None,
        why_not_begin: Callable[[StoredSwap], Awaitable[str | None]] | None = None,
        still_ours: StillOurs = nobody_else,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._open: dict[str, StoredSwap] = {}
        self._on_alarm = on_alarm
        self._listeners: dict[str, set[asyncio.Queue[StoredSwap | None]]] = {}
        self._closed = False
        self._lost: StoreInUse | None = None
        self._lost_at_ms = 0
        self._clock = clock
        self._beginning: set[asyncio.Task[StoredSwap]] = set()
        actor = Actor(
            store=store,
            chain=chain,
            node=node,
            preimages=preimages,
            clock=clock,
            why_not_begin=why_not_begin,
            still_ours=still_ours,
        )
        looker = Looker(chain=chain, node=node, counterparty=counterparty, requests=actor, clock=clock)
        self._driver = SwapDriver(
            store=store,
            chain=chain,
            looker=looker,
            actor=actor,
            clock=clock,
            poll_s=poll_s,
            on_load=self._take,
            on_change=self._changed,
            on_alarm=self._alarm,
            on_lost=self._lose,
        )

    async def start(self) -> int:
        """Take up what an earlier process left unfinished. Returns how many swaps that is."""
        return await self._driver.start()

    async def close(self) -> None:
        """Stop driving; unfinished swaps stay in the store, and the log says by when they must be driven again. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._driver.close()
        for queue in itertools.chain(*self._listeners.values()):
            queue.put_nowait(None)
        log_unfinished(self.open_swaps)

    @property
    def active(self) -> int:
        """Number of swaps under way."""
        return self._driver.active

    async def begin(
        self, deal: Deal, *, idempotency_key: str | None = None, request_digest: str | None = None, bind_hash: bool
    ) -> StoredSwap:
        """Store a swap whose terms are signed and checked, and drive it.

        Raises:
            IdempotencyConflict: the key was used with other arguments.
            HashTakenError: another swap of this store has the payment hash.
        """
        beginning = asyncio.create_task(self._begin(deal, idempotency_key, request_digest, bind_hash))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # A row that is being written cannot be called back, and must not be there with nobody to drive it. The caller learns
            # of its cancellation when it is certain what the store holds.
            await asyncio.wait({beginning})
            raise

    async def _begin(
        self, deal: Deal, idempotency_key: str | None, request_digest: str | None, bind_hash: bool
    ) -> StoredSwap:
        swap = await self._store.insert(
            deal,
            first_state(deal.role, deal.direction),
            idempotency_key=idempotency_key,
            request_digest=request_digest,
            bind_hash=bind_hash,
        )
        self.take_up(swap)
        self._changed(swap)
        return swap

    def take_up(self, swap: StoredSwap) -> None:
        """Drive a swap that is in the store, if it is not final. Asking twice is the same as once."""
        if not swap.state.final:
            self._driver.adopt(swap)

    def cancel(self, swap_id: str) -> None:
        """Abandon a swap if nothing of ours is bound yet; otherwise it goes on."""
        self._driver.request_cancel(swap_id)

    def withdraw(self, swap_id: str) -> asyncio.Future[bool]:
        """Take an offer back on which nobody has acted; otherwise it goes on.

        Done after the look that decides it: whether it was taken back.
        """
        return self._driver.request_withdrawal(swap_id)

    def wake(self, swap_id: str) -> None:
        """Look at a swap now."""
        self._driver.wake(swap_id)

    async def load(self, swap_id: str) -> StoredSwap:
        """A swap as it stands. Raises ``NotFound``."""
        return await self._store.load(swap_id)

    async def follow(self, swap_id: str) -> AsyncGenerator[StoredSwap, None]:
        """The swap now and after each change, ending after a final state.

        Raises:
            AsyncRuntimeError: the engine was closed, so that nothing changes any more.
            StoreInUse: another process took the store over, and goes on with it.
        """
        queue: asyncio.Queue[StoredSwap | None] = asyncio.Queue()
        listeners = self._listeners.setdefault(swap_id, set())
        listeners.add(queue)
        try:
            swap = await self._store.load(swap_id)
            yield swap
            version = swap.version
            while not swap.state.final:
                changed = None if self._closed or self._lost is not None else await queue.get()
                self.check_not_lost()
                if changed is None:
                    hint = "whoever opens the store next goes on with it"
                    raise AsyncRuntimeError("what drives the transfers was closed", hint=hint)
                swap = changed
                if swap.version > version:
                    version = swap.version
                    yield swap
        finally:
            listeners.discard(queue)
            if not listeners:
                self._listeners.pop(swap_id, None)

    async def wait_for(self, swap_id: str, done: Callable[[State], bool]) -> StoredSwap:
        """Wait until the swap's state satisfies ``done`` or is final."""
        async for swap in self.follow(swap_id):
            if done(swap.state) or swap.state.final:
                return swap
        raise AssertionError("follow ends only after a final state")

    @property
    def open_swaps(self) -> tuple[StoredSwap, ...]:
        """Every swap under way, as it stands."""
        return tuple(self._open.values())

    @property
    def run_again_by(self) -> int | None:
        """Unix seconds by which this store must be driven again, if this process ends now; None if nothing of ours is bound."""
        return run_again_by(self.open_swaps)

    def act_by(self, swap_id: str) -> int | None:
        """Unix seconds by which a swap under way must be driven again; None if nothing of ours is bound in it."""
        swap = self._open.get(swap_id)
        return None if swap is None else act_by(swap.deal, swap.state)

    @property
    def tasks(self) -> Mapping[str, TaskHealth]:
        """How the background tasks fare, by name."""
        tasks = {"swap.heads": self._driver.heads_health.value}
        if self._lost is not None:
            tasks["swap.store"] = TaskHealth(
                state=HealthState.FAILED, since_ms=self._lost_at_ms, reason=self._lost.message
            )
        return tasks

    @property
    def stuck_swaps(self) -> tuple[StoredSwap, ...]:
        """Those under way that a person must look at: waiting does not end them."""
        return tuple(swap for swap in self._open.values() if isinstance(swap.state, NeedsAttention))

    def _take(self, swap: StoredSwap) -> None:
        if swap.state.final:
            self._open.pop(swap.deal.id, None)
        else:
            self._open[swap.deal.id] = swap

    def _changed(self, swap: StoredSwap) -> None:
        self._take(swap)
        for queue in self._listeners.get(swap.deal.id, ()):
            queue.put_nowait(swap)
        self._on_change(swap)

    def check_not_lost(self) -> None:
        """Raise if the swaps here are another process's by now.

        Raises:
            StoreInUse: it has taken the store over.
        """
        if self._lost is not None:
            raise another(self._lost)

    def _lose(self, error: StoreInUse) -> None:
        """Nothing is driven here any more; whoever follows a swap is told so."""
        self._lost, self._lost_at_ms = error, self._clock.now_ms()
        log_event(logger, logging.ERROR, "swap.store_lost", f"no swap is driven here any more: {error}")
        for queue in itertools.chain(*self._listeners.values()):
            queue.put_nowait(None)

    def _alarm(self, deal: Deal, code: str, reason: str) -> None:
        log_event(logger, logging.ERROR, code, f"swap {deal.id}: {code}: {reason}", transfer_id=deal.id)
        self._on_alarm(deal, code, reason)


def log_unfinished(swaps: Sequence[StoredSwap]) -> None:
    """Log by when swaps must be driven again that stay unfinished; nothing if there are none."""
    if not swaps:
        return
    by = run_again_by(swaps)
    when = "nothing of ours is bound" if by is None else f"run again by {_utc(by)}"
    log_event(
        logger,
        logging.INFO if by is None else logging.WARNING,
        "swap.unfinished",
        f"{len(swaps)} swap(s) are unfinished and stay in the store; {when}",
        run_again_by=by,
        swaps=sorted(swap.deal.id for swap in swaps),
    )


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
