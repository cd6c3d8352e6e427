"""An engine on a real store, with a chain that shows what a test says, and a Lightning node in memory."""

import asyncio
import random
from contextlib import asynccontextmanager

from swap_worlds import LOCKED, NEVER, NOW, PREIMAGE, make_deal, make_view

from layer2.lightning import MemoryLightning
from layer2.storage import Store, SwapJournal
from layer2.swaps import NoCounterparty, Role, SwapEngine
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock


class Chain:
    """Shows ``readings`` and notes what is sent. ``trouble`` is raised by every other look from then on."""

    def __init__(self, clock):
        self.clock = clock
        self.latest = self.at_depth = self.finalized = NEVER
        self.trouble = None
        self.refusal = None
        self.claims = []
        self.refund_deadlines = []
        self.looks = 0
        self.hidden_from_look = None

    async def view(self, lock, policy, *, lock_key):
        self.looks += 1
        if self.hidden_from_look is not None and self.looks >= self.hidden_from_look:
            return make_view(now=self.clock.now_ms() // 1000)
        if self.trouble is not None and self.looks % 2 == 0:
            raise self.trouble
        return make_view(self.latest, self.at_depth, self.finalized, now=self.clock.now_ms() // 1000)

    async def send_claim(self, key, lock, preimage, *, not_after):
        if self.refusal is not None:
            raise self.refusal
        self.claims.append(preimage)

    async def send_refund(self, key, lock, *, deadline):
        self.refund_deadlines.append(deadline)

    async def was_shown(self, key):
        return bool(self.claims)

    async def safe_lag_s(self):
        return 0

    async def next_block(self):
        await asyncio.Event().wait()


class Preimages:
    """Stands in for the signer's secret."""

    def __init__(self):
        self.error = None

    async def preimage(self, lock, time_ms):
        if self.error is not None:
            raise self.error
        return PREIMAGE


class World:
    def __init__(self, store, clock, role):
        self.clock = clock
        self.journal = SwapJournal(store, role)
        self.chain = Chain(clock)
        self.preimages = Preimages()
        self.network = MemoryLightning(clock=clock, random_bytes=random.Random(1).randbytes)
        self.node = self.network.add_node("client")
        self.engine = None
        self.alarms = []

    async def start(self, *, node=None, counterparty=None):
        """Another process on the same store."""
        if self.engine is not None:
            await self.engine.close()
        self.engine = SwapEngine(
            store=self.journal,
            chain=self.chain,
            node=node,
            counterparty=counterparty or NoCounterparty(),
            preimages=self.preimages,
            clock=self.clock,
            poll_s=1.0,
            on_alarm=lambda deal, code, reason: self.alarms.append((code, reason)),
        )
        await self.engine.start()

    async def begin(self, **changes):
        deal = make_deal(Role.CLIENT, SwapDirection.REVERSE, preimage_time_ms=1, **changes)
        await self.engine.begin(deal, bind_hash=True)
        return deal.id

    async def reach(self, swap_id, kind):
        async with asyncio.timeout(20):
            swap = await self.engine.wait_for(swap_id, lambda state: isinstance(state, kind))
        assert isinstance(swap.state, kind), swap.state
        return swap

    async def looked(self, looks):
        """Let time pass until the chain was looked at so often again."""
        until = self.chain.looks + looks
        async with asyncio.timeout(20):
            while self.chain.looks < until:
                await self.clock.advance(0.5)
                await asyncio.sleep(0.001)

    async def begin_as_provider(self, **changes):
        deal = make_deal(Role.PROVIDER, SwapDirection.SUBMARINE, **changes)
        await self.engine.begin(deal, bind_hash=False)
        return deal.id

    def lock(self, *, deep=True):
        self.chain.latest = LOCKED
        self.chain.at_depth = LOCKED if deep else NEVER


@asynccontextmanager
async def world_of(role):
    clock = VirtualClock(NOW * 1000)
    store = await Store.open("sqlite://", clock=clock)
    world = World(store, clock, role)
    await world.start()
    yield world
    await world.engine.close()
    await store.close()
