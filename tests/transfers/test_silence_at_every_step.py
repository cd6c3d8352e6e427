"""Either side falls silent for ever, at each step of a swap: the other one ends settled or refunded, and nothing is missing.

The steps are those of the code: every state that a machine can come to, found by its own decisions. Silence falls while a journal
records the state, and where the state wants something done, once more as soon as that has left the process. A state that nobody
has thought of fails here until a story leads to it.

A silent provider answers nothing and drives nothing; a silent client's manager is closed. The nodes of both go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import product
from typing import TYPE_CHECKING

import pytest
from gates import Mode
from swap_worlds import states_of
from tales import LIMIT_S, REVERSE, SAT, SUBMARINE, WAYS, Legs, Story, Tale, check_books, check_client, check_provider
from two_parties import TwoParties, two_parties
from virtual_time import LoopClock, run_in_virtual_time

from layer2 import BTC, NodeConnectionError
from layer2.evm import LockPhase
from layer2.swaps import NeedsAttention, Role, Settled
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from blockbuster import BlockBuster

pytestmark = pytest.mark.slow

STORIES = {
    (Role.CLIENT, SUBMARINE): {
        "Agreed": Story.PAID,
        "Locking": Story.PAID,
        "Locked": Story.PAID,
        "Paid": Story.PAID,
        "Claiming": Story.UNDONE,
        "Settled": Story.PAID,
        "Refunding": Story.UNPAYABLE,
        "Refunded": Story.UNPAYABLE,
        "Cancelling": Story.UNPAYABLE,
    },
    (Role.PROVIDER, SUBMARINE): {
        "Offered": Story.PAID,
        "Paying": Story.PAID,
        "Claiming": Story.PAID,
        "Settled": Story.PAID,
    },
    (Role.CLIENT, REVERSE): {
        "Agreed": Story.PAID,
        "Paying": Story.PAID,
        "AwaitingLock": Story.BY_ANYONE,
        "Revealed": Story.PAID,
        "Settled": Story.PAID,
    },
    (Role.PROVIDER, REVERSE): {
        "Invoiced": Story.PAID,
        "Locking": Story.PAID,
        "Locked": Story.PAID,
        "Settling": Story.PAID,
        "Settled": Story.PAID,
        "Refunding": Story.CALLED_OFF,
        "Cancelling": Story.CALLED_OFF,
    },
}


class How(Enum):
    """In which way nothing is answered any more."""

    REFUSES = auto()
    """Nobody listens."""
    HANGS = auto()
    """Connections are taken, and nothing comes back."""


@dataclass(frozen=True)
class Step:
    """When silence falls: as the journal of ``role`` records ``state``, or once something wanted there has been done."""

    role: Role
    direction: SwapDirection
    state: str
    acted: bool = False

    def __str__(self) -> str:
        return f"{self.direction}-{self.role}-{self.state}{'-acted' if self.acted else ''}"

    @property
    def story(self) -> Story:
        """Fails for a state that nobody has thought of."""
        return STORIES[self.role, self.direction][self.state]


def _steps() -> Iterator[Step]:
    for role, direction in product(Role, SwapDirection):
        for state, effects in states_of(role, direction).items():
            # NeedsAttention is for what cannot happen while the assumptions hold, and nobody's silence breaks them for the other.
            if state.final or state is NeedsAttention:
                continue
            yield Step(role, direction, state.__name__)
            # What Settled wants is done already, unless a reorganisation undoes it.
            if effects and state is not Settled:
                yield Step(role, direction, state.__name__, acted=True)


STEPS = sorted(_steps(), key=str)
_PAID = [state for state, story in STORIES[Role.CLIENT, SUBMARINE].items() if story is Story.PAID]
HANGING = [step for step in STEPS if (step.role, step.direction) == (Role.CLIENT, SUBMARINE) and step.state in _PAID]
"""Only a submarine client asks its provider for anything once terms are signed. What the provider's journal says is no news to it."""

SETTLES = {
    Role.CLIENT: {
        "submarine-client-Locking-acted",
        "submarine-client-Locked",
        "submarine-client-Paid",
        "submarine-client-Claiming",
        "submarine-client-Claiming-acted",
        "submarine-client-Settled",
        "submarine-provider-Paying",
        "submarine-provider-Paying-acted",
        "submarine-provider-Claiming",
        "submarine-provider-Claiming-acted",
        "submarine-provider-Settled",
        "reverse-client-Revealed-acted",
        "reverse-client-Settled",
        "reverse-provider-Settling",
        "reverse-provider-Settling-acted",
        "reverse-provider-Settled",
    },
    Role.PROVIDER: {
        "submarine-client-Paid",
        "submarine-client-Claiming",
        "submarine-client-Claiming-acted",
        "submarine-client-Settled",
        "submarine-provider-Claiming-acted",
        "submarine-provider-Settled",
        "reverse-client-Settled",
        "reverse-provider-Settling-acted",
        "reverse-provider-Settled",
    },
}
"""The steps from which on a swap settles without this role. At all others both legs go back, or were never there; but for ..."""
FORFEITS = {
    Role.CLIENT: set[str](),
    Role.PROVIDER: {
        "submarine-provider-Paying-acted",
        "submarine-provider-Claiming",
        "reverse-client-Revealed",
        "reverse-client-Revealed-acted",
        "reverse-provider-Locking-acted",
        "reverse-provider-Locked",
        "reverse-provider-Settling",
    },
}
"""... these, where the silent one has given its leg and never takes the other: it is outside the assumptions, and loses by it."""


class Run(Tale):
    """One swap, in which silence falls."""

    def __init__(self, parties: TwoParties, clock: LoopClock, step: Step, silent: Role, how: How) -> None:
        super().__init__(parties, clock, step.direction, step.story)
        self.step = step
        self.silent = silent
        self.how = how
        self.silencing: asyncio.Task[None] | None = None
        self.undoing: asyncio.Task[int] | None = None
        self.reached = False
        parties.on_record = self.recorded
        parties.on_effect = self.acted

    def recorded(self, role: Role, state: str) -> None:
        if (role, state) == (self.step.role, self.step.state) and not self.reached:
            self.reached = True
            if self.story is Story.UNDONE:
                self.parties.silent.clear()
            if not self.step.acted:
                self.fall_silent()
        if (role, state) == (Role.CLIENT, "Paid") and self.story is Story.UNDONE and self.undoing is None:
            self.parties.silent.add(Role.PROVIDER)
            self.undoing = asyncio.create_task(self.undo(LockPhase.CLAIMED))

    def acted(self, role: Role) -> None:
        if role is self.step.role and self.reached and self.step.acted and self.silencing is None:
            self.fall_silent()

    def fall_silent(self) -> None:
        self.parties.silent.add(self.silent)
        if self.how is How.HANGS:
            self.parties.door.set(Mode.SILENT)
        self.silencing = asyncio.create_task(self.parties.end(self.silent))

    async def to_the_end(self) -> str:
        """Until the other side has ended its swap, and no payment is held anywhere. What the client was told."""
        parties = self.parties
        async with asyncio.timeout(LIMIT_S):
            told = await self.transfer()
            while self.silencing is None:
                await self.clock.sleep(0.1)
            await self.silencing
            if self.undoing is not None:
                await self.undoing
            if self.silent is Role.PROVIDER:
                await parties.client.wait_idle_async()
            else:
                while parties.daemon.runtime.inventory.active:
                    await self.clock.sleep(0.1)
            await self.rest()
        return told


def play(step: Step, silent: Role, how: How = How.REFUSES) -> None:
    async def main(clock: LoopClock) -> None:
        async with two_parties(clock, behind_door=how is How.HANGS) as parties:
            before = await parties.holdings()
            run = Run(parties, clock, step, silent, how)
            told = await run.to_the_end()
            legs = await check_books(parties, run.before or before, run.payer)
            settles, forfeits = str(step) in SETTLES[silent], str(step) in FORFEITS[silent]
            if forfeits:
                assert legs == (Legs(False, True) if step.direction is SUBMARINE else Legs(True, False))
            else:
                assert legs == Legs(settles, settles)
            if silent is Role.CLIENT:
                await check_provider(parties)
                return
            check_client(parties)
            if settles or (forfeits and step.direction is REVERSE):
                assert told == "settled"
            else:
                assert told == ("SwapExpired" if run.payer == "merchant" else "SwapRefunded")

    run_in_virtual_time(main)


@pytest.fixture(autouse=True)
def in_one_thread(no_blocking_calls: BlockBuster) -> None:
    """What works in threads elsewhere works within the call here."""
    no_blocking_calls.deactivate()


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_silent_client(step: Step) -> None:
    play(step, Role.CLIENT)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_silent_provider(step: Step) -> None:
    play(step, Role.PROVIDER)


@pytest.mark.parametrize("step", HANGING, ids=str)
def test_a_provider_that_hangs(step: Step) -> None:
    play(step, Role.PROVIDER, How.HANGS)


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("direction", SwapDirection)
def test_a_provider_silent_before_its_price(direction: SwapDirection, how: How) -> None:
    async def main(clock: LoopClock) -> None:
        async with two_parties(clock, behind_door=how is How.HANGS) as parties:
            before = await parties.holdings()
            if how is How.HANGS:
                parties.door.set(Mode.SILENT)
            await parties.end(Role.PROVIDER)
            await nothing_begins(parties, direction)
            assert await parties.holdings() == before

    run_in_virtual_time(main)


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("direction", SwapDirection)
def test_a_provider_silent_between_its_price_and_its_terms(direction: SwapDirection, how: How) -> None:
    async def main(clock: LoopClock) -> None:
        async with two_parties(clock, behind_door=True) as parties:

            def shut(data: bytes) -> None:
                if not data.startswith(b"POST "):
                    return
                if how is How.HANGS:
                    parties.door.mode = Mode.MUTE
                else:
                    parties.door.set(Mode.SHUT)

            parties.door.seen = shut
            before = await parties.holdings()
            await nothing_begins(parties, direction)
            # What it has signed is for a client that it will never hear of again.
            assert bool(parties.history) == (how is How.HANGS)
            async with asyncio.timeout(LIMIT_S):
                while parties.daemon.runtime.inventory.active:
                    await clock.sleep(0.5)
            await check_provider(parties)
            assert await parties.holdings() == before

    run_in_virtual_time(main)


async def nothing_begins(parties: TwoParties, direction: SwapDirection) -> None:
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(NodeConnectionError) as caught:
            await parties.client.cross_layer_transfer_async(BTC, SAT, *WAYS[direction])
    assert not caught.value.money_may_have_moved
    assert await parties.client.list_transfers_async() == []
    check_client(parties)


def test_the_tables_name_steps_that_there_are() -> None:
    names = {str(step) for step in STEPS}
    for silent in Role:
        assert SETTLES[silent] | FORFEITS[silent] <= names
        assert not SETTLES[silent] & FORFEITS[silent]
