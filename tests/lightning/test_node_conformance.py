"""Every back end keeps the same rules: in memory, behind the fault wrapper while it does nothing, and on a real lnd."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from layer2.lightning import FaultyLightningNode
from layer2.testing import LightningHarness, LightningNodeConformance


class MemoryHarness(LightningNodeConformance):
    @pytest.fixture(autouse=True)
    def _use_line(self, line):
        self.line = line

    def wrap(self, node):
        return node

    @asynccontextmanager
    async def harness(self):
        async def mine(count):
            self.line.network.mine(count)

        async def pass_time(seconds):
            self.line.clock.advance(seconds)
            self.line.network.tick()

        payer, payee = self.wrap(self.line.alice), self.wrap(self.line.bob)
        yield LightningHarness(payer=payer, payee=payee, mine=mine, pass_time=pass_time)
        await payer.close()
        await payee.close()


class TestMemory(MemoryHarness):
    pass


class TestFaultless(MemoryHarness):
    def wrap(self, node):
        return FaultyLightningNode(node, clock=self.line.clock, rng=random.Random(1))


@pytest.mark.real
class TestLnd(LightningNodeConformance):
    @pytest.fixture(autouse=True)
    def _use_regtest(self, regtest, connect_lnd):
        self.regtest = regtest
        self.payer, self.payee = connect_lnd("client"), connect_lnd("provider")

    @asynccontextmanager
    async def harness(self):
        async def mine(count):
            if count > 0:
                await self.regtest.mine(count)
            await self.regtest.wait_synced("client", "router", "provider")

        try:
            yield LightningHarness(payer=self.payer, payee=self.payee, mine=mine, pass_time=asyncio.sleep)
        finally:
            await self.payer.close()
            await self.payee.close()
