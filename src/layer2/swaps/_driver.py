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
from layer2.errors import AsyncRuntimeError, Layer2Error, NodeError, StorageError, StoreInUse
from layer2.swaps._act import Actor, ExitRefusedError
from layer2.swaps._deadlines import overdue_at
from layer2.swaps._effects import CancelInvoice, Decision, SettleInvoice
from layer2.swaps._look import Looker
from layer2.swaps._machine import decide, withdraw
from layer2.swaps._observations import CancelRequested, ChainView, EffectRefused, HashTaken, Observation, seen_preimage
from layer2.swaps._ports import (
    ExitAgainError,
    StoredSwap,
    SwapChain,
    SwapStore,
    WaitsForBlockError,
    every_unfinished,
)
from layer2.swaps._restored import decide_restored, looks_first
from layer2.swaps._states import Deal, NeedsAttention, Role, Watch
from layer2.terms import SwapDirection

__all__ = ["HashTakenError", "SwapDriver"]

logger: Final = logging.getLogger("layer2.swaps")

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0

REST_MAX_S: Final = 30.0
"""Longest pause of a swap that only waits for an event on the chain, as long as there are few of them."""
RESTING_LOOKS_A_S: Final = 100
"""What swaps that only wait may ask of the endpoint together, in looks a second."""
_FROM_THE_CHAIN: Final = frozenset({Watch.CHAIN, Watch.REFUND_OFFER})
"""What a swap may watch that rests: the first wakes it, the second is in no hurry."""


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
        on_lost: Callable[[StoreInUse], None] = lambda _: None,
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
        self._on_lost = on_lost
        self._steps = asyncio.Semaphore(parallel)
        self._urgent_steps = asyncio.Semaphore(parallel)
        self._exit_steps = asyncio.Semaphore(parallel)
        self._invoice_steps = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._locks: dict[bytes, set[str]] = {}
        self._cancel_requests: set[str] = set()
        self._withdrawals: dict[str, asyncio.Future[bool]] = {}
        self._alarmed: dict[str, set[tuple[str, int]]] = {}
        self._unwritten: dict[str, ChainView] = {}
        """Views with a preimage, by swap, whose decision could not be written."""
        self._heads: asyncio.Task[None] | None = None
        self.heads_health = LoopHealth(clock)
        self._closed = False

    async def start(self) -> int:
        """Take up every unfinished swap of the store. Returns how many."""
        count = 0
        async for swap in every_unfinished(self._store):
            self.adopt(swap)
            count += 1
        self._heads = asyncio.create_task(self._follow_heads(), name="layer2 heads")
        return count

    def adopt(self, swap: StoredSwap) -> None:
        """Drive a swap, given as it is in the store. Asking twice is the same as once."""
        swap_id = swap.deal.id
        if self._closed:
            raise AsyncRuntimeError(
                "the swap driver is closed; the swap stays in the store and goes on at the next start"
            )
        if swap_id in self._tasks:
            self.wake(swap_id)
            return
        self._wakes[swap_id] = asyncio.Event()
        self._locks.setdefault(swap.deal.terms.lock.lock_id, set()).add(swap_id)
        self._on_load(swap)
        task = asyncio.create_task(self._drive(swap), name=f"layer2 swap {swap_id}")
        self._tasks[swap_id] = task
        task.add_done_callback(lambda _: self._forget(swap.deal))

    def wake(self, swap_id: str) -> None:
        """Look at a swap now instead of at the next poll."""
        if event := self._wakes.get(swap_id):
            event.set()

    def request_cancel(self, swap_id: str) -> None:
        """Ask for a swap to be abandoned; it is, if nothing of the user's is bound yet."""
        if swap_id in self._tasks:
            self._cancel_requests.add(swap_id)
            self.wake(swap_id)

    def request_withdrawal(self, swap_id: str) -> asyncio.Future[bool]:
        """Ask for an offer of ours to be taken back; it is, if the next look shows that nobody has acted on it.

        Done after that look: whether it was taken back by it.
        """
        answer = self._withdrawals.get(swap_id)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            if swap_id in self._tasks:
                self._withdrawals[swap_id] = answer
            else:
                answer.set_result(False)
        self.wake(swap_id)
        return answer

    def _answer_withdrawal(self, swap_id: str, taken_back: bool) -> None:
        answer = self._withdrawals.pop(swap_id, None)
        if answer is not None and not answer.done():
            answer.set_result(taken_back)

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

    def _forget(self, deal: Deal) -> None:
        self._tasks.pop(deal.id, None)
        self._wakes.pop(deal.id, None)
        self._cancel_requests.discard(deal.id)
        self._answer_withdrawal(deal.id, taken_back=False)
        self._alarmed.pop(deal.id, None)
        self._unwritten.pop(deal.id, None)
        lock_id = deal.terms.lock.lock_id
        sharing = self._locks.get(lock_id, set())
        sharing.discard(deal.id)
        if not sharing:
            self._locks.pop(lock_id, None)

    async def _follow_heads(self) -> None:
        while True:
            changed: frozenset[bytes] | None = None
            try:
                changed = await self._chain.next_block()
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
            if changed is None:
                concerned = list(self._wakes)
            else:
                # In an order of its own: a simulated run has to repeat itself.
                concerned = sorted(swap_id for lock_id in changed for swap_id in self._locks.get(lock_id, ()))
            for swap_id in concerned:
                self.wake(swap_id)

    async def _drive(self, swap: StoredSwap) -> None:
        with operation_context(transfer_id=swap.deal.id):
            try:
                await self._drive_to_end(swap)
            except StoreInUse as error:
                # Whoever has the store now drives its swaps. Everything here is from before that.
                self._lose(error)

    def _lose(self, error: StoreInUse) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_lost(error)
        for task in (self._heads, *self._tasks.values()):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def _drive_to_end(self, swap: StoredSwap) -> None:
        self._remind(swap)
        swap_id, wake = swap.deal.id, self._wakes[swap.deal.id]
        failures = quiet = 0
        while not swap.state.final:
            self._check_overdue(swap)
            try:
                async with self._lane(swap):
                    wake.clear()
                    swap, moved, next_due_s = await self._step(swap)
            except StoreInUse:
                raise
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
            quiet = quiet + 1 if next_due_s is not None else 0
            if next_due_s is not None:
                woken = await self._pause(wake, min(self._rest_s(swap, quiet), next_due_s))
                quiet = 0 if woken else quiet
            elif not moved:
                await self._pause(wake, self._poll_s)

    def _rest_s(self, swap: StoredSwap, quiet: int) -> float:
        """How long a swap is left alone that only waits, after so many looks in a row at which nothing was to be seen."""
        longest = min(REST_MAX_S, float(swap.deal.terms.timing.grace_s))
        longest = max(longest, len(self._tasks) / RESTING_LOOKS_A_S)
        return min(self._poll_s * 2.0 ** min(quiet - 1, 10), longest)

    def _lane(self, swap: StoredSwap) -> asyncio.Semaphore:
        """What has a deadline waits for nothing else; what money hangs on does not wait for mere offers.

        Nor does a held payment wait until other swaps' claims get to the chain.
        """
        if swap.state.exit:
            holds = any(isinstance(wanted.effect, SettleInvoice | CancelInvoice) for wanted in swap.effects)
            return self._invoice_steps if holds else self._exit_steps
        return self._urgent_steps if swap.state.urgent else self._steps

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

    def _check_overdue(self, swap: StoredSwap) -> None:
        """Outside the assumptions a swap may stay open for ever, but not silently."""
        deal, state = swap.deal, swap.state
        at = overdue_at(
            deal.terms.timing,
            timelock=deal.terms.lock.timelock,
            invoice_expires_at=deal.invoice_expires_at,
            final_cltv=deal.invoice_final_cltv,
            pays=deal.role is Role.CLIENT and deal.direction is SwapDirection.REVERSE,
        )
        if (
            (state.committed or state.exit)
            and not isinstance(state, NeedsAttention)
            and self._clock.now_ms() > at * 1000
        ):
            self._alarm_once(deal, "swap.overdue", f"it is still {type(state).__name__}, though it should be over")

    def _alarm_once(self, deal: Deal, code: str, reason: str, *, each: int = 0) -> None:
        """An alarm that one state raises once, or once for each number, however often its cause is met."""
        raised = self._alarmed.setdefault(deal.id, set())
        if (code, each) not in raised:
            raised.add((code, each))
            self._on_alarm(deal, code, reason)

    async def _retrying(self, swap_id: str, call: Callable[[], Awaitable[StoredSwap]]) -> StoredSwap:
        delay = RETRY_S
        while True:
            try:
                return await call()
            except StoreInUse:
                raise
            except StorageError as error:
                log_event(logger, logging.ERROR, "storage.read_failed", f"swap {swap_id} cannot be read: {error}")
                await self._clock.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)

    async def _pause(self, wake: asyncio.Event, seconds: float) -> bool:
        """Wait for a wake-up, no longer than ``seconds``. Whether one came."""

        def woken(_: object) -> None:
            wake.set()

        # One task for each waiting swap, not three: thousands of them wait at a time.
        sleeper = asyncio.ensure_future(self._clock.sleep(seconds))
        sleeper.add_done_callback(woken)
        try:
            await wake.wait()
            slept = sleeper.done()
        finally:
            sleeper.remove_done_callback(woken)
            sleeper.cancel()
        return not slept

    async def _step(self, swap: StoredSwap) -> tuple[StoredSwap, bool, float | None]:
        """Look once at everything the state watches; move on the first thing that matters; else do what is wanted.

        Gives the swap, whether it moved, and, if until then only an event on the chain can concern it, the seconds to its next
        deadline.
        """
        swap_id = swap.deal.id
        if (shown := self._unwritten.get(swap_id)) is not None:
            # A preimage once seen is known, though the disk failed and the next look may be at a chain without it.
            moved = await self._observe(swap, shown)
            self._unwritten.pop(swap_id, None)
            if moved is not None:
                return moved, True, None
        if swap_id in self._cancel_requests:
            # The life that a restored copy does not know of may have gone on: only what both layers show ends it.
            cancelled = None if swap.restored else await self._observe(swap, CancelRequested())
            self._cancel_requests.discard(swap_id)
            if cancelled is not None:
                return cancelled, True, None
        next_due_s: float | None = None
        trouble: Layer2Error | None = None
        first = looks_first(swap.state) if swap.restored else ()
        for watch in (*first, *sorted(swap.state.watches)):
            try:
                seen = await self._looker.look(Watch(watch), swap)
            except NodeError as error:
                # One silent source must not keep the others from being looked at, nor what is wanted from being done.
                trouble = error
                if watch in first:
                    break
                continue
            if seen is None:
                continue
            if (moved := await self._observe(swap, seen)) is not None:
                return moved, True, None
            if (taken_back := await self._withdraw(swap, seen)) is not None:
                return taken_back, True, None
            if isinstance(seen, ChainView):
                next_due_s = _seconds_to_rest(swap, seen)
        for wanted in swap.effects:
            try:
                answer = await self._actor.act(swap, wanted, lambda: self.wake(swap_id))
            except WaitsForBlockError as error:
                if isinstance(error, ExitAgainError):
                    self._alarm_once(swap.deal, "swap.exit_failed", error.message, each=error.failures)
                log_event(logger, logging.DEBUG, "swap.waits_for_block", f"swap {swap_id}: {error}")
                continue
            except NodeError as error:
                if isinstance(error, ExitRefusedError):
                    self._alarm_once(swap.deal, "swap.exit_refused", error.message)
                trouble = error
                continue
            if isinstance(answer, ChainView) and (moved := await self._observe(swap, answer)) is not None:
                return moved, True, None
            if isinstance(answer, EffectRefused) and (moved := await self._refused(swap, answer)) is not None:
                # Not as a move: where the new state comes to want the same again, it is not asked for without a pause.
                return moved, False, None
        if trouble is not None:
            raise trouble
        return swap, False, next_due_s

    async def _withdraw(self, swap: StoredSwap, seen: Observation) -> StoredSwap | None:
        swap_id = swap.deal.id
        if swap_id not in self._withdrawals:
            return None
        decision = None if swap.restored else withdraw(swap.deal, swap.state, seen)
        moved = None
        try:
            if decision is not None:
                moved = await self._enter(swap, decision, seen)
        finally:
            self._answer_withdrawal(swap_id, taken_back=moved is not None)
        return moved

    async def _refused(self, swap: StoredSwap, refused: EffectRefused) -> StoredSwap | None:
        text = f"swap {swap.deal.id}: {refused.key} is not done: {refused.reason}"
        log_event(logger, logging.INFO, "swap.effect_refused", text, transfer_id=swap.deal.id)
        return await self._observe(swap, refused)

    async def _observe(self, swap: StoredSwap, seen: Observation) -> StoredSwap | None:
        decision = decide_restored(swap.state, seen) if swap.restored else None
        if decision is None:
            decision = decide(swap.deal, swap.state, seen)
        if decision is None:
            return None
        try:
            return await self._enter(swap, decision, seen)
        except HashTakenError:
            return await self._observe(swap, HashTaken())

    async def _enter(self, swap: StoredSwap, decision: Decision, seen: Observation) -> StoredSwap:
        """Write the next state with what led to it, then let it be known."""
        try:
            moved = await self._store.transition(
                swap.deal.id,
                expected_version=swap.version,
                state=decision.state,
                seen=seen,
                effects=decision.effects,
                bind_hash=swap.deal.terms.lock.preimage_hash if decision.bind_hash else None,
            )
        except StorageError:
            if isinstance(seen, ChainView) and seen_preimage(seen) is not None:
                self._unwritten[swap.deal.id] = seen
            raise
        text = f"swap {swap.deal.id}: {type(swap.state).__name__} -> {type(decision.state).__name__}"
        log_event(logger, logging.INFO, "swap.transition", text, transfer_id=swap.deal.id)
        self._alarmed.pop(swap.deal.id, None)
        if decision.alarm is not None:
            self._on_alarm(swap.deal, decision.alarm, getattr(decision.state, "reason", ""))
        self._on_change(moved)
        return moved


def _delay(failures: int) -> float:
    return min(RETRY_S * 2.0 ** min(failures - 1, 10), RETRY_MAX_S)


def _seconds_to_rest(swap: StoredSwap, view: ChainView) -> float | None:
    """How long nothing but an event on the chain can concern a swap: until its next deadline; None: look again soon."""
    deal = swap.deal
    lock = deal.terms.lock
    now = max(view.now_s, view.head_timestamp)
    if (
        swap.effects
        or not swap.state.watches <= _FROM_THE_CHAIN
        or view.latest != view.at_depth
        or now >= lock.timelock
    ):
        return None
    deadlines = (deal.terms.lock_by, deal.invoice_expires_at, lock.timelock)
    return float(min(deadline for deadline in deadlines if deadline > now) - now)
