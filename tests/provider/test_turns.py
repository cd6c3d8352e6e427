"""Requests that wait for others: in turns by address, and never in a line without an end."""

import asyncio

import pytest

from layer2.errors import NodeNotReady
from layer2.provider import Turns

GREEDY, MODEST = "192.0.2.1", "192.0.2.2"


class Line:
    """Requests that wait behind one that has its turn until it is let go."""

    def __init__(self, turns):
        self.turns = turns
        self.order = []
        self.go_on = asyncio.Event()
        self.tasks = []

    async def ask(self, name, origin):
        task = asyncio.create_task(self._have(name, origin))
        self.tasks.append(task)
        for _ in range(3):
            await asyncio.sleep(0)
        return task

    async def _have(self, name, origin):
        async with self.turns.turn(origin):
            self.order.append(name)
            await self.go_on.wait()

    async def served(self):
        self.go_on.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*self.tasks, return_exceptions=True)
        return self.order


async def test_addresses_take_turns():
    line = Line(Turns())
    for name in ("g1", "g2", "g3"):
        await line.ask(name, GREEDY)
    await line.ask("m1", MODEST)
    assert await line.served() == ["g1", "g2", "m1", "g3"]


async def test_as_many_as_may_go_on_at_a_time():
    line = Line(Turns(2))
    for name in ("g1", "g2", "g3"):
        await line.ask(name, GREEDY)
    assert line.order == ["g1", "g2"]
    assert await line.served() == ["g1", "g2", "g3"]


async def test_an_address_has_a_bounded_number_waiting():
    line = Line(Turns(most=10, most_of_one=2))
    for name in ("g1", "g2", "g3"):
        await line.ask(name, GREEDY)
    with pytest.raises(NodeNotReady) as caught:
        await (await line.ask("g4", GREEDY))
    assert caught.value.retry_safe
    await line.ask("m1", MODEST)
    assert await line.served() == ["g1", "g2", "m1", "g3"]


async def test_where_too_many_wait_the_last_of_whoever_has_the_most_goes():
    line = Line(Turns(most=3, most_of_one=3))
    for name in ("g1", "g2", "g3", "g4"):
        await line.ask(name, GREEDY)
    await line.ask("m1", MODEST)
    with pytest.raises(NodeNotReady):
        await line.tasks[3]
    with pytest.raises(NodeNotReady):
        await (await line.ask("m2", MODEST))
    assert await line.served() == ["g1", "g2", "m1", "g3"]


async def test_who_goes_away_leaves_no_gap():
    line = Line(Turns())
    await line.ask("g1", GREEDY)
    (await line.ask("g2", GREEDY)).cancel()
    await line.ask("m1", MODEST)
    assert await line.served() == ["g1", "m1"]


async def test_who_goes_away_at_its_turn_hands_it_on():
    turns = Turns()
    line = Line(turns)
    async with turns.turn(GREEDY):
        second = await line.ask("g2", GREEDY)
        await line.ask("m1", MODEST)
    # It is told that it is its turn, and has not taken it yet.
    second.cancel()
    assert await line.served() == ["m1"]


async def test_the_programs_own_requests_are_not_bounded():
    line = Line(Turns(most=1, most_of_one=1))
    for number in range(5):
        await line.ask(number, None)
    assert await line.served() == list(range(5))
