"""A search through every order in which the steps of a small world can follow each other, shortest first."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from small_rules import BrokenError, Left, Rules, Step, World
from small_world import Case, Chain, Lightning, grow, overdue, pass_time, undo

from layer2.swaps import Role

if TYPE_CHECKING:
    from small_parties import Party

V = TypeVar("V", bound=Hashable)
_BITS = 20
_MASK = (1 << _BITS) - 1


class _Numbers(Generic[V]):
    """Gives each value a small number, so that a state is a single integer and nothing is compared twice."""

    def __init__(self) -> None:
        self.values: list[V] = []
        self._numbers: dict[V, int] = {}

    def of(self, value: V) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            assert number <= _MASK
            self.values.append(value)
        return number


@dataclass(frozen=True)
class Found:
    """What a search saw."""

    case: Case
    states: int
    steps: int
    depth: int
    complete: bool
    orders: int
    """Different orders of steps, each of them a shortest one to where it leads."""
    seconds: float
    broken: str | None
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"{self.case}: {'all' if self.complete else 'not all'} states: {self.states:,}, {self.steps:,} steps between "
            f"them, {self.depth} deep, {self.orders:.1e} orders, {self.seconds:.0f} s"
        )
        return text if self.broken is None else "\n".join((text, f"BROKEN: {self.broken}", *self.story))


class Search:
    """Breadth first, so that what breaks a promise is found by its shortest story."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rules = Rules(case)
        self._chains: _Numbers[Chain] = _Numbers()
        self._lightnings: _Numbers[Lightning] = _Numbers()
        self._parties: _Numbers[Party | None] = _Numbers()
        self._lefts: _Numbers[Left] = _Numbers()
        self._labels: _Numbers[str] = _Numbers()
        self._memory: dict[tuple[Any, ...], Any] = {}
        self._seen: dict[int, int] = {}
        self._states: list[int] = []
        self._parents = array("l")
        self._by = array("H")
        self._ways: list[int] = []
        self._steps = self._orders = 0
        self._parties.of(None)

    # -- states as integers --------------------------------------------------------------------------------------------

    def _pack(self, world: World, late: int) -> int:
        packed = 0
        for number in (
            self._chains.of(world.chain),
            self._lightnings.of(world.lightning),
            self._parties.of(world.client),
            self._parties.of(world.provider),
            self._lefts.of(world.left),
            world.at * 4 + late,
        ):
            packed = packed << _BITS | number
        return packed

    def _unpack(self, packed: int) -> tuple[World, int]:
        numbers = [packed >> shift * _BITS & _MASK for shift in range(5, -1, -1)]
        chain, lightning, client, provider, left, at = numbers
        world = World(
            at=at >> 2,
            chain=self._chains.values[chain],
            lightning=self._lightnings.values[lightning],
            client=self._parties.values[client],
            provider=self._parties.values[provider],
            left=self._lefts.values[left],
        )
        return world, at & 3

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _once(self, key: tuple[Any, ...], make: Callable[[], V]) -> V:
        found = self._memory.get(key)
        if found is None:
            found = self._memory[key] = make()
        return found

    def _numbered(self, steps: Iterator[Step]) -> tuple[tuple[tuple[int, int, int, int, int, Left], ...], str | None]:
        """Steps as numbers: label, chain, lightning, client, provider, what is left; and the promise that the next one breaks."""
        found, broken = [], None
        try:
            for label, after in steps:
                chain, lightning = self._chains.of(after.chain), self._lightnings.of(after.lightning)
                client, provider = self._parties.of(after.client), self._parties.of(after.provider)
                found.append((self._labels.of(label), chain, lightning, client, provider, after.left))
        except BrokenError as error:
            broken = str(error)
        return tuple(found), broken

    def _of_party(self, role: Role, at: int, chain: int, lightning: int, party: int, left: int) -> Any:
        """What an honest process may do here, and whether it has nothing to do."""

        def make() -> Any:
            world = self._world(at, chain, lightning, some).having(role, self._parties.values[party])
            numbered = self._numbered(self.rules.honest_steps(world, role))
            try:
                quiet = self.rules.is_quiet(world, role)
            except BrokenError:
                quiet = False
            return *numbered, quiet

        some = self._some(left, crashes=True)
        return self._once((role, at, chain, lightning, party, some), make)

    def _some(self, left: int, *, crashes: bool) -> Left:
        """As much of what is left as a step can take, so that steps are remembered however much more is left."""

        def make() -> Left:
            value = self._lefts.values[left]
            return Left(0, min(1, value.crashes), min(1, value.breaks), value.signed)

        some = self._once(("some", left), make)
        return some if crashes else self._once(("none", left), lambda: Left(0, 0, 0, some.signed))

    def _less(self, left: int, some: Left, after: Left) -> int:
        def make() -> int:
            value = self._lefts.values[left]
            crashes, breaks = value.crashes - some.crashes + after.crashes, value.breaks - some.breaks + after.breaks
            return self._lefts.of(Left(value.reorgs, crashes, breaks, after.signed))

        return left if after is some else self._once(("less", left, some, after), make)

    def _world(self, at: int, chain: int, lightning: int, left: Left, client: int = 0, provider: int = 0) -> World:
        return World(
            at=at,
            chain=self._chains.values[chain],
            lightning=self._lightnings.values[lightning],
            client=self._parties.values[client],
            provider=self._parties.values[provider],
            left=left,
        )

    def _others(self, at: int, chain: int, lightning: int, client: int, provider: int, left: int) -> Any:
        """What happens at nodes, is said between the parties, or done by a hostile one."""
        submarine = self.case.submarine
        payer, some = provider if submarine else client, self._some(left, crashes=False)

        def make() -> Any:
            party = {"client": client} if not submarine else {"provider": provider}
            world = self._world(at, chain, lightning, some, **party)

            def steps() -> Iterator[Step]:
                yield from self.rules.signing(world)
                yield from self.rules.paying(world)
                yield from self.rules.strangers(world)
                yield from self.rules.hostile_steps(world)

            return self._numbered(steps())

        return self._once(("others", at, chain, lightning, payer, some), make)

    def _undone(self, at: int, chain: int, left: int) -> tuple[tuple[int, ...], int]:
        value = self._lefts.values[left]
        if not value.reorgs:
            return (), left

        def make() -> Any:
            chains = undo(self._chains.values[chain], at, self.case.timelock)
            fewer = self._lefts.of(value._replace(reorgs=value.reorgs - 1))
            return tuple(sorted(self._chains.of(each) for each in chains)), fewer

        return self._once(("undo", at, chain, left), make)

    def _grown(self, at: int, chain: int) -> tuple[int, ...]:
        def make() -> Any:
            return tuple(self._chains.of(each) for each in grow(self._chains.values[chain], at, self.case.timelock))

        return self._once(("grow", at, chain), make)

    def _passed(self, at: int, lightning: int) -> int | None:
        """Lightning a second later; None if a payment must be decided before."""

        def make() -> Any:
            value = self._lightnings.values[lightning]
            if overdue(self.case, value, at):
                return (None,)
            return (self._lightnings.of(pass_time(self.case, value, at + 1)),)

        return self._once(("pass", at, lightning), make)[0]

    def _may_be_away(self, role: Role, party: int, at: int) -> bool:
        return self._once(
            ("away", role, party, at), lambda: (self.rules.may_be_away(self._parties.values[party], role, at),)
        )[0]

    def _successors(self, packed: int) -> tuple[list[tuple[int, int]], str | None]:
        """Labels and states that follow, and the promise that is broken here or by a step."""
        chain, lightning, client, provider, left, clock = (packed >> s * _BITS & _MASK for s in range(5, -1, -1))
        at, late = clock >> 2, clock & 3
        verdict = self._verdict(at, chain, lightning, client, provider, left)
        if verdict != "goes on":
            return [], None if verdict == "at rest" else verdict
        found: list[tuple[int, int]] = []
        late_after, all_quiet = 0, True
        may_pass = True
        for role in self.rules.steps:
            mine = client if role is Role.CLIENT else provider
            steps, broken, quiet = self._of_party(role, at, chain, lightning, mine, left)
            some = self._some(left, crashes=True)
            for label, c, ln, one, other, after in steps:
                f = self._less(left, some, after)
                both = (one, provider) if role is Role.CLIENT else (client, other)
                found.append((label, _packed(c, ln, *both, f, clock)))
            if broken is not None:
                return found, broken
            if not quiet:
                all_quiet = False
                bit = 1 if role is Role.CLIENT else 2
                late_after |= bit
                may_pass &= not late & bit or self._may_be_away(role, mine, at + 1)
        steps, broken = self._others(at, chain, lightning, client, provider, left)
        some = self._some(left, crashes=False)
        for label, c, ln, one, other, after in steps:
            f = self._less(left, some, after)
            found.append((label, _packed(c, ln, one or client, other or provider, f, clock)))
        if broken is not None:
            return found, broken
        undone, fewer = self._undone(at, chain, left)
        label = self._labels.of("a reorganisation takes the newest block away")
        found += [(label, _packed(c, lightning, client, provider, fewer, clock)) for c in undone]
        if at >= self.case.end:
            return found, self._end(at, chain, lightning, client, provider, left) if all_quiet else None
        passed = self._passed(at, lightning)
        if may_pass and passed is not None:
            label, then = self._labels.of("a block"), (at + 1) * 4 + late_after
            grown = self._grown(at + 1, chain)
            found += [(label, _packed(c, passed, client, provider, left, then)) for c in grown]
        return found, None if found else "it goes on: nothing can happen any more"

    def _verdict(self, *numbers: int) -> str:
        def make() -> str:
            world = self._world(*numbers[:3], self._lefts.values[numbers[5]], *numbers[3:5])
            try:
                self.rules.check(world)
                if not self.rules.at_rest(world):
                    return "goes on"
                self.rules.check_end(world)
            except BrokenError as error:
                return str(error)
            return "at rest"

        client, provider = numbers[3], numbers[4]
        finals = self._final(client), self._final(provider)
        # Only where all are final does more than the two legs matter.
        key = numbers if all(finals) else ("legs", *numbers[1:3])
        return self._once(("verdict", *key), make)

    def _final(self, party: int) -> bool:
        value = self._parties.values[party]
        return value is None or value.state.final

    def _end(self, at: int, chain: int, lightning: int, client: int, provider: int, left: int) -> str | None:
        try:
            self.rules.check_end(self._world(at, chain, lightning, self._lefts.values[left], client, provider))
        except BrokenError as error:
            return str(error)
        return None

    # -- the search ----------------------------------------------------------------------------------------------------

    def run(self, *, depth: int = 10**6, most: int = 10**8) -> Found:
        """Search until a promise is broken, all is seen, or ``depth`` steps are made everywhere."""
        began = time.process_time()
        self._meet(self._pack(self.rules.beginning(), 0), -1, 0)
        level, start, broken, where = 0, 0, None, 0
        while broken is None and start < len(self._states) < most and level < depth:
            level, stop = level + 1, len(self._states)
            for index in range(start, stop):
                following, broken = self._successors(self._states[index])
                self._note(index, stop, following)
                if broken is not None:
                    where = index
                    break
            start = stop
        complete = broken is None and start == len(self._states)
        return Found(
            case=self.case,
            states=len(self._states),
            steps=self._steps,
            depth=level - complete,
            complete=complete,
            orders=self._orders + sum(self._ways[start:]),
            seconds=time.process_time() - began,
            broken=broken,
            story=() if broken is None else tuple(self.story(where)),
        )

    def _meet(self, state: int, parent: int, label: int) -> int:
        number = self._seen[state] = len(self._states)
        self._states.append(state)
        self._parents.append(parent)
        self._by.append(label)
        self._ways.append(1 if parent < 0 else 0)
        return number

    def _note(self, index: int, level_ends: int, following: list[tuple[int, int]]) -> None:
        ways, on = self._ways[index], False
        for label, state in following:
            known = self._seen.get(state)
            if known is None:
                known = self._meet(state, index, label)
            self._steps += known != index
            if known >= level_ends:
                self._ways[known] += ways
                on = True
        if not on:
            self._orders += ways
        self._ways[index] = 0

    def seen(self, role: Role) -> frozenset[tuple[str, tuple[str, ...]]]:
        """The states of a party that were met, each with the effects that were wanted in it."""
        shift = (3 if role is Role.CLIENT else 2) * _BITS
        parties = (self._parties.values[number] for number in {state >> shift & _MASK for state in self._states})
        return frozenset(
            (type(party.state).__name__, tuple(wanted.effect.name for wanted in party.effects))
            for party in parties
            if party is not None
        )

    def story(self, index: int) -> list[str]:
        """The steps to a state, each with what it changed."""
        path = [index]
        while self._parents[path[-1]] >= 0:
            path.append(self._parents[path[-1]])
        path.reverse()
        lines = []
        for before, after in pairwise(path):
            old, new = self._unpack(self._states[before])[0], self._unpack(self._states[after])[0]
            lines.append(f"{new.at:3} s  {self._labels.values[self._by[after]]}{_changes(old, new)}")
        return lines


def _packed(chain: int, lightning: int, client: int, provider: int, left: int, clock: int) -> int:
    packed = (chain << _BITS | lightning) << _BITS | client
    return ((packed << _BITS | provider) << _BITS | left) << _BITS | clock


def _changes(old: World, new: World) -> str:
    texts = []
    for role in Role:
        was, now = (world.client if role is Role.CLIENT else world.provider for world in (old, new))
        if was is not None and now is not None and type(was.state) is not type(now.state):
            texts.append(f"{role} is {type(now.state).__name__}")
    names = ("never", "locked", "claimed", "refunded")
    if (old.chain.final, old.chain.before, old.chain.head) != (new.chain.final, new.chain.before, new.chain.head):
        texts.append(" < ".join(names[one] for one in (new.chain.final, new.chain.before, new.chain.head)))
    if old.lightning[:2] != new.lightning[:2]:
        texts.append(f"invoice {new.lightning.invoice.name.lower()}, payment {new.lightning.payment.name.lower()}")
    return f": {'; '.join(texts)}" if texts else ""
