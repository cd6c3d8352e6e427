"""The driver: looks at the world for every swap, lets the pure files decide, persists, then acts.

One task drives one swap. Its loop is also its recovery: it looks first, so that a swap found in the store after a crash is driven
exactly as one that never stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from layer2._clock import Clock
from layer2._health import LoopHealth
from layer2._observe import log_event, operation_context
from layer2.errors import AsyncRuntimeError, Layer2Error, NodeError, StorageError
from layer2.swaps._act import Actor
from layer2.swaps._effects import Decision
from layer2.swaps._look import Looker
from layer2.swaps._machine import decide, withdraw
from layer2.swaps._observations import CancelRequested, EffectRefused, HashTaken, Observation
from layer2.swaps._ports import StoredSwap, SwapChain, SwapStore
from layer2.swaps._states import Deal, NeedsAttention, Watch

__all__ = ["HashTakenError", "SwapDriver"]

logger: Final = logging.getLogger("layer2.swaps")

PAGE: Final = 200
"""Swaps read at once when the driver starts."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0


class HashTakenError(Exception):
    """Raised by a store's ``transition``: another swap has the payment hash. Nothing was written."""


class SwapDriver:
    """Drives all unfinished swaps of one store. Make it, ``start``, ``adopt`` new swaps, ``close``."""

    def __init__(
        self,
        *,
        store: SwapStore,
        chain: SwapChain,
        looker: Looker,
        actor: Actor,
        clock: Clock,
        poll_s: float,
        on_load: Callable[[StoredSwap], None],
        on_change: Callable[[StoredSwap], None],
        on_alarm: Callable[[Deal, str, str], None],
        parallel: int = 32,
    ) -> None:
        self._store = store
        self._chain = chain
        self._looker = looker
        self._actor = actor
        self._clock = clock
        self._poll_s = poll_s
        self._on_load = on_load
        self._on_change = on_change
        self._on_alarm = on_alarm
        self._steps = asyncio.Semaphore(parallel)
        self._urgent_steps = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._cancel_requests: set[str] = set()
        self._withdrawals: set[str] = set()
        self._heads: asyncio.Task[None] | None = None
        self.heads_health = LoopHealth(clock)
        self._closed = False

    async def start(self) -> int:
        """Take up every unfinished swap of the store. Returns how many."""
        count = 0
        after: str | None = None
        while True:
            page = await self._store.unfinished(after=after, limit=PAGE)
            for swap_id in page:
                self.adopt(swap_id)
            count += len(page)
            if len(page) < PAGE:
                break
            after = page[-1]
        self._heads = asyncio.create_task(self._follow_heads(), name="layer2 heads")
        return count

    def adopt(self, swap_id: str) -> None:
        """Drive a swap that is in the store. Asking twice is the same as once."""
        if self._closed:
            raise AsyncRuntimeError(
                "the swap driver is closed; the swap stays in the store and goes on at the next start"
            )
        if swap_id in self._tasks:
            self.wake(swap_id)
            return
        self._wakes[swap_id] = asyncio.Event()
        task = asyncio.create_task(self._drive(swap_id), name=f"layer2 swap {swap_id}")
        self._tasks[swap_id] = task
        task.add_done_callback(lambda _: self._forget(swap_id))

    def wake(self, swap_id: str) -> None:
        """Look at a swap now instead of at the next poll."""
        if event := self._wakes.get(swap_id):
            event.set()

    def request_cancel(self, swap_id: str) -> None:
        """Ask for a swap to be abandoned; it is, if nothing of the user's is bound yet."""
        self._cancel_requests.add(swap_id)
        self.wake(swap_id)

    def request_withdrawal(self, swap_id: str) -> None:
        """Ask for an offer of ours to be taken back; it is, if the next look shows that nobody has acted on it."""
        if swap_id in self._tasks:
            self._withdrawals.add(swap_id)
            self.wake(swap_id)

    @property
    def active(self) -> int:
        """Number of swaps driven now."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop driving. Unfinished swaps stay in the store. Idempotent."""
        self._closed = True
        tasks = list(self._tasks.values())
        if self._heads is not None:
            tasks.append(self._heads)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._actor.close()

    def _forget(self, swap_id: str) -> None:
        self._tasks.pop(swap_id, None)
        self._wakes.pop(swap_id, None)
        self._cancel_requests.discard(swap_id)
        self._withdrawals.discard(swap_id)

    async def _follow_heads(self) -> None:
        while True:
            try:
                await self._chain.wait_for_block()
                self.heads_health.worked()
            except Layer2Error as error:
                self.heads_health.failed(error)
                log_event(logger, logging.WARNING, "swap.heads_failed", f"cannot follow the chain's head: {error}")
                await self._clock.sleep(self._poll_s)
            except Exception as error:  # noqa: BLE001 - waking is a convenience: every swap is also looked at on its own
                self.heads_health.failed(type(error).__name__)
                log_event(
                    logger, logging.ERROR, "swap.heads_failed", "following the chain's head failed", exc_info=True
                )
                await self._clock.sleep(RETRY_MAX_S)
            for event in list(self._wakes.values()):
                event.set()

    async def _drive(self, swap_id: str) -> None:
        with operation_context(transfer_id=swap_id):
            await self._drive_to_end(swap_id)

    async def _drive_to_end(self, swap_id: str) -> None:
        swap = await self._retrying(swap_id, lambda: self._store.load(swap_id))
        self._on_load(swap)
        self._remind(swap)
        failures = 0
        while not swap.state.final:
            wake = self._wakes[swap_id]
            wake.clear()
            try:
                async with self._urgent_steps if swap.state.urgent else self._steps:
                    swap, moved = await self._step(swap)
            except StorageError as error:
                # What could not be written was not done either: nothing is decided from memory, the row is read again.
                failures += 1
                self._on_alarm(swap.deal, "storage.write_failed", str(error))
                await self._pause(wake, _delay(failures))
                swap = await self._reload(swap)
                continue
            except Layer2Error as error:
                failures += 1
                where = type(swap.state).__name__
                log_event(logger, logging.WARNING, "swap.step_failed", f"swap {swap_id} in {where}: {error}")
                await self._pause(wake, _delay(failures))
                continue
            except Exception as error:  # noqa: BLE001 - an unforeseen error stops nothing but this step, and never silently
                failures += 1
                text = f"swap {swap_id} in {type(swap.state).__name__}: unforeseen error"
                log_event(logger, logging.ERROR, "swap.driver_failed", text, exc_info=True)
                self._on_alarm(swap.deal, "swap.driver_failed", type(error).__name__)
                await self._pause(wake, _delay(failures))
                continue
            failures = 0
            if not moved:
                await self._pause(wake, self._poll_s)

    async def _reload(self, old: StoredSwap) -> StoredSwap:
        """Read a swap again after a write failed: the write may have been made all the same, and then nobody was told."""
        swap = await self._retrying(old.deal.id, lambda: self._store.load(old.deal.id))
        if swap.version != old.version:
            self._remind(swap)
            self._on_change(swap)
        return swap

    def _remind(self, swap: StoredSwap) -> None:
        """The alarm of a swap that somebody must look at is raised again by each process: the first may have died with it."""
        if isinstance(swap.state, NeedsAttention):
            self._on_alarm(swap.deal, "swap.needs_attention", swap.state.reason)

    async def _retrying(self, swap_id: str, call: Callable[[], Awaitable[StoredSwap]]) -> StoredSwap:
        delay = RETRY_S
        while True:
            try:
                return await call()
            except StorageError as error:
                log_event(logger, logging.ERROR, "storage.read_failed", f"swap {swap_id} cannot be read: {error}")
                await self._clock.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)

    async def _pause(self, wake: asyncio.Event, seconds: float) -> None:
        def woken(_: object) -> None:
            wake.set()

        # One task for each waiting swap, not three: thousands of them wait at a time.
        sleeper = asyncio.ensure_future(self._clock.sleep(seconds))
        sleeper.add_done_callback(woken)
        try:
            await wake.wait()
        finally:
            sleeper.remove_done_callback(woken)
            sleeper.cancel()

    async def _step(self, swap: StoredSwap) -> tuple[StoredSwap, bool]:
        """Look once at everything the state watches; move on the first thing that matters; else do what is wanted."""
        swap_id = swap.deal.id
        if swap_id in self._cancel_requests:
            self._cancel_requests.discard(swap_id)
            if (moved := await self._observe(swap, CancelRequested())) is not None:
                return moved, True
        trouble: Layer2Error | None = None
        for watch in sorted(swap.state.watches):
            try:
                seen = await self._looker.look(Watch(watch), swap)
            except NodeError as error:
                # One silent source must not keep the others from being looked at, nor what is wanted from being done.
                trouble = error
                continue
            if seen is None:
                continue
            if (moved := await self._observe(swap, seen)) is not None:
                return moved, True
            if swap_id in self._withdrawals:
                self._withdrawals.discard(swap_id)
                decision = withdraw(swap.deal, swap.state, seen)
                if decision is not None:
                    return await self._enter(swap, decision, seen), True
        for wanted in swap.effects:
            try:
                refused = await self._actor.act(swap, wanted, lambda: self.wake(swap_id))
            except NodeError as error:
                trouble = error
                continue
            if refused is not None and (moved := await self._refused(swap, refused)) is not None:
                # Not as a move: where the new state comes to want the same again, it is not asked for without a pause.
                return moved, False
        if trouble is not None:
            raise trouble
        return swap, False

    async def _refused(self, swap: StoredSwap, refused: EffectRefused) -> StoredSwap | None:
        text = f"swap {swap.deal.id}: {refused.key} is not done: {refused.reason}"
        log_event(logger, logging.INFO, "swap.effect_refused", text, transfer_id=swap.deal.id)
        return await self._observe(swap, refused)

    async def _observe(self, swap: StoredSwap, seen: Observation) -> StoredSwap | None:
        decision = decide(swap.deal, swap.state, seen)
        if decision is None:
            return None
        try:
            return await self._enter(swap, decision, seen)
        except HashTakenError:
            return await self._observe(swap, HashTaken())

    async def _enter(self, swap: StoredSwap, decision: Decision, seen: Observation) -> StoredSwap:
        """Write the next state with what led to it, then let it be known."""
        moved = await self._store.transition(
            swap.deal.id,
            expected_version=swap.version,
            state=decision.state,
            seen=seen,
            effects=decision.effects,
            bind_hash=swap.deal.terms.lock.preimage_hash if decision.bind_hash else None,
        )
        text = f"swap {swap.deal.id}: {type(swap.state).__name__} -> {type(decision.state).__name__}"
        log_event(logger, logging.INFO, "swap.transition", text, transfer_id=swap.deal.id)
        if decision.alarm is not None:
            self._on_alarm(swap.deal, decision.alarm, getattr(decision.state, "reason", ""))
        self._on_change(moved)
        return moved


def _delay(failures: int) -> float:
    return min(RETRY_S * 2.0 ** min(failures - 1, 10), RETRY_MAX_S)
