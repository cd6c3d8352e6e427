"""A simulated process: the real engine on a real store, behind ports that are slow, fail, lose replies, and let it die anywhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from layer2.addresses import EvmAddress
from layer2.errors import Layer2Error, NodeConnectionError, NodeNotReady, StorageError
from layer2.swaps import ChainView, Deal, Effect, Observation, Role, State, StoredSwap, SwapEngine
from layer2.swaps._observations import seen_preimage
from layer2.testing._simulation_loop import OWNER, ProcessClock, SimulationLoop, TaskList

if TYPE_CHECKING:
    from layer2.evm import TxSender
    from layer2.storage import SwapJournal
    from layer2.testing._simulation_bare import BareEngine, BareJournal
    from layer2.testing._simulation_chain import SimulatedChain
    from layer2.testing._simulation_checks import Watchman
    from layer2.testing._simulation_disk import SimulatedDisk
    from layer2.testing._simulation_lightning import SimulatedLightning
    from layer2.testing._simulation_sender import UserPayments

__all__ = ["FaultyJournal", "Gate", "Life", "SimulatedProcess", "Troubles"]

T = TypeVar("T")
_PROMPT: Final = 0.7
"""This part of all answers comes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """How often what goes wrong, in percent of the calls."""

    error: int = 0
    lost_reply: int = 0
    late_request: int = 0
    disk_error: int = 0
    disk_full_at: int = 0
    """From this write on, none is made for a while."""
    torn_write: int = 0
    """In the midst of this write the power fails."""
    fails_at_preimage: bool = False
    """The first write of a preimage that a look at the chain showed fails."""
    refusal: int = 0
    delays: bool = False
    lag: bool = False
    crashes: tuple[int, ...] = ()
    crash_at: str = ""
    """The name of a call at which the process dies once besides."""
    stops: bool = False
    """The last crash is the end."""


@dataclass(slots=True)
class Life:
    """One run of a process, from its start to its death."""

    tasks: TaskList = field(default_factory=TaskList)
    alive: bool = True
    engine: SwapEngine | BareEngine | None = None
    sender: TxSender | None = None
    """The real one, if this process has it."""


class Gate:
    """What every call of a process to the outside goes through: it may take time, fail, or be the last thing that happens."""

    def __init__(
        self,
        process: SimulatedProcess,
        rng: random.Random,
        troubles: Troubles,
        *,
        window_s: float,
        pause_s: float,
    ) -> None:
        self._process = process
        self._rng = rng
        self.troubles = troubles
        self._window_s = window_s
        self._pause_s = pause_s
        self._recent: list[float] = []
        self._crossings = 0
        self._acts = 0
        self._crashes = set(troubles.crashes)
        self._crash_at = troubles.crash_at
        self._writes_tried = 0
        self._writes_begun = 0
        self._full_until = -1.0
        self._shows_nothing_yet = True

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases; never more than twice within the time that the assumptions leave for trouble."""
        if percent == 0 or self._rng.randrange(100) >= percent:
            return False
        now = self._process.loop.now
        self._recent = [at for at in self._recent if at > now - self._window_s]
        if len(self._recent) >= 2:
            return False
        self._recent.append(now)
        return True

    def uniform(self, low: float, high: float) -> float:
        """A random number."""
        return self._rng.uniform(low, high)

    async def before_write(self, life: Life) -> None:
        """Come to a write, which may fail before it is made. The process may die here."""
        await self.cross(life, act=True, what="write")
        if self._disk_full():
            raise StorageError("the disk is full")
        if self.chance(self.troubles.disk_error):
            self._process.tell("the disk fails before a write")
            raise StorageError("the disk failed")

    async def after_write(self, life: Life, what: str = "write") -> None:
        """Come back from a write, which may seem to have failed. The process may die here."""
        await self.cross(life, act=True, what=what)
        if self.chance(self.troubles.disk_error):
            self._process.tell("the disk fails after a write")
            raise StorageError("the disk failed while committing")

    def _disk_full(self) -> bool:
        now = self._process.loop.now
        self._writes_tried += 1
        if self._writes_tried == self.troubles.disk_full_at:
            self._full_until = now + self._rng.uniform(0.1, 0.4) * self._window_s
            self._process.tell("the disk is full")
        return now < self._full_until

    def forgets(self, seen: Observation) -> bool:
        """Whether the write fails that would note the first preimage that a look at the chain showed."""
        shows = self._shows_nothing_yet and isinstance(seen, ChainView) and seen_preimage(seen) is not None
        self._shows_nothing_yet = self._shows_nothing_yet and not shows
        return shows and self.troubles.fails_at_preimage

    def power_fails(self) -> bool:
        """Whether the write that comes now is the one that is torn."""
        self._writes_begun += 1
        return self._writes_begun == self.troubles.torn_write

    async def cross(self, life: Life, *, act: bool, what: str = "") -> None:
        """Go to the outside, or come back from there. The process may die here."""
        if not life.alive:
            raise asyncio.CancelledError
        self._crossings += 1
        self._acts += act
        named = bool(what) and what == self._crash_at and self._rng.random() < 0.7
        if named or self._crossings in self._crashes or (act and -self._acts in self._crashes):
            self._crash_at = "" if named else self._crash_at
            self._crashes -= {self._crossings, -self._acts if act else 0}
            self._process.crash(for_ever=self.troubles.stops and not self._crashes)
            raise asyncio.CancelledError
        if self.troubles.delays and (late := self._rng.random()) > _PROMPT:
            await asyncio.sleep(((late - _PROMPT) / (1 - _PROMPT)) ** 2 * self._pause_s)
            if not life.alive:
                raise asyncio.CancelledError

    async def call(self, life: Life, what: str, effect: Callable[[], T], *, act: bool = False) -> T:
        """Do ``effect`` in the world of which the process sees only the answer."""
        await self.cross(life, act=act, what=what)
        if self.chance(self.troubles.error):
            self._process.tell(f"{what}: no connection")
            raise NodeConnectionError("no connection") if self._rng.random() < 0.7 else NodeNotReady("not ready")
        value = effect()
        await self.cross(life, act=act, what=what)
        if self.chance(self.troubles.lost_reply):
            self._process.tell(f"{what}: the reply is lost")
            raise NodeConnectionError("the connection broke before the answer was whole")
        return value


class FaultyJournal:
    """The engine's store on a real journal: a write may fail before it is made, or after, and the process may die at both ends."""

    def __init__(self, process: SimulatedProcess, life: Life, journal: Any) -> None:
        self._gate = process.gate
        self._process = process
        self._life = life
        self._journal = journal

    async def load(self, swap_id: str) -> StoredSwap:
        """See ``SwapStore``."""
        await self._gate.cross(self._life, act=False)
        swap: StoredSwap = await self._journal.load(swap_id)
        return swap

    async def unfinished(self, *, exits: bool, after: str | None, limit: int) -> Sequence[StoredSwap]:
        """See ``SwapStore``."""
        await self._gate.cross(self._life, act=False)
        page: Sequence[StoredSwap] = await self._journal.unfinished(exits=exits, after=after, limit=limit)
        return page

    async def insert(
        self, deal: Deal, state: State, *, idempotency_key: str | None, request_digest: str | None, bind_hash: bool
    ) -> StoredSwap:
        """See ``EngineStore``."""
        swap: StoredSwap = await self._journal.insert(
            deal, state, idempotency_key=idempotency_key, request_digest=request_digest, bind_hash=bind_hash
        )
        return swap

    async def transition(
        self,
        swap_id: str,
        *,
        expected_version: int,
        state: State,
        seen: Observation,
        effects: tuple[Effect, ...],
        bind_hash: bytes | None,
    ) -> StoredSwap:
        """See ``SwapStore``."""
        self._process.watchman.decides(self._process, swap_id, seen, effects)
        await self._gate.before_write(self._life)
        if self._gate.forgets(seen):
            self._process.tell("the disk fails before a preimage is written")
            raise StorageError("the disk failed")
        self._process.writes += 1
        write = self._journal.transition(
            swap_id,
            expected_version=expected_version,
            state=state,
            seen=seen,
            effects=effects,
            bind_hash=bind_hash,
        )
        moved: StoredSwap = await self._made(write, swap_id)
        self._process.watchman.stored(self._process, moved)
        await self._gate.after_write(self._life)
        return moved

    async def mark_begun(self, swap_id: str, name: str, *, begun: bool) -> None:
        """See ``SwapStore``."""
        await self._gate.before_write(self._life)
        await self._made(self._journal.mark_begun(swap_id, name, begun=begun), swap_id)
        await self._gate.after_write(self._life)

    async def _made(self, write: Awaitable[T], swap_id: str) -> T:
        """Make a write; if the power fails meanwhile, none of it or all of it is found at the next start."""
        process = self._process
        if not (self._gate.power_fails() and process.disk):
            return await write
        before = process.disk.written()
        made = await write
        await process.disk.power_cut(before)
        process.journal = await process.disk.open()
        found = await process.journal.load(swap_id)
        process.tell("the power fails in the midst of a write")
        if made == found:
            process.watchman.stored(process, found)
        process.crash()
        raise asyncio.CancelledError


class SimulatedProcess:
    """One party's program: its store survives, its memory does not."""

    def __init__(
        self,
        *,
        role: Role,
        loop: SimulationLoop,
        rng: random.Random,
        troubles: Troubles,
        account: EvmAddress,
        clock: ProcessClock,
        journal: SwapJournal | BareJournal,
        disk: SimulatedDisk | None = None,
        chain: SimulatedChain,
        lightning: SimulatedLightning,
        watchman: Watchman,
        poll_s: float,
        downtime: Callable[[SimulatedProcess], float],
        make_engine: Callable[[SimulatedProcess, Life], SwapEngine | BareEngine],
        story: Callable[[str], None],
    ) -> None:
        self.role = role
        self.name = role.value
        self.loop = loop
        self.account = account
        self.clock = clock
        self.journal: Any = journal
        self.disk = disk
        """Where the power can fail: what ``journal`` lies on."""
        self.chain = chain
        self.lightning = lightning
        self.watchman = watchman
        self.poll_s = poll_s
        grace_s = chain.timing.grace_s
        self.gate = Gate(self, rng, troubles, window_s=2.0 * grace_s, pause_s=min(2.0, grace_s / 8))
        self.payments: UserPayments | None = None
        """Of a real sender's users."""
        self.life: Life | None = None
        self.gone = False
        """It died for ever."""
        self.deaths = 0
        self.writes = 0
        """To its store."""
        self._downtime = downtime
        self._make_engine = make_engine
        self._story = story

    def tell(self, text: str) -> None:
        """Add a line to the story of the run."""
        self._story(f"{self.name}: {text}")

    @property
    def engine(self) -> SwapEngine | BareEngine | None:
        """The engine, while the process lives."""
        return self.life.engine if self.life is not None else None

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.life is not None

    def start(self) -> None:
        """Run it, from what its store holds."""
        life = self.life = Life()
        context = copy_context()
        context.run(OWNER.set, life.tasks)
        self.loop.create_task(self._run(life), context=context)

    async def _run(self, life: Life) -> None:
        self.chain.resend_all(self.account.raw)
        engine = self._make_engine(self, life)
        while True:
            try:
                if life.sender is not None:
                    await life.sender.start()
                    if self.payments is not None:
                        self.payments.begin(life.sender)
                await engine.start()
            except Layer2Error as error:
                self.tell(f"cannot start: {error}")
                await asyncio.sleep(0.5)
            else:
                life.engine = engine
                return

    def crash(self, *, for_ever: bool = False) -> None:
        """Die now: every task ends where it waits, nothing that it would still do reaches the world."""
        life, self.life = self.life, None
        if life is None:
            return
        self.deaths += 1
        life.alive = False
        life.tasks.cancel()
        if for_ever:
            self.gone = True
            self.tell("dies for ever")
            return
        seconds = self._downtime(self)
        self.tell(f"dies, and will be back in {seconds:.1f} s")
        self.loop.call_later(seconds, self.start)

    def end(self) -> None:
        """Stop at the end of the simulation."""
        life, self.life = self.life, None
        if life is not None:
            life.alive = False
            life.tasks.cancel()
