"""The Lightning layer keeps the rules of every layer, in memory and on a real lnd."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from layer2.assets import BTC
from layer2.lightning import LightningNetwork
from layer2.proofs import LightningPaymentProof
from layer2.testing import ConformanceSubject, Layer2ProtocolConformance
from layer2.transactions import LightningPayment


async def subject_of(payer, payee, own, clock=None, *, by_keysend=False, settled=None):
    """``own`` is a second connection to the payer, which stays open when the layer closes its own."""

    async def new_recipient():
        if by_keysend:
            return (await payee.info()).node_id.hex()
        return (await payee.create_invoice(amount_msat=2_000_000)).text

    async def new_transaction():
        return LightningPayment(invoice=(await payee.create_invoice(amount_msat=1_000)).text)

    async def balance():
        if settled is not None:
            await settled()
        return (await own.info()).spendable_msat

    bad = await payee.create_invoice(amount_msat=1_000)
    good = await payee.create_invoice(amount_msat=1_000, preimage=bytes(range(32)))
    return ConformanceSubject(
        protocol=LightningNetwork(payer, clock=clock),
        asset=BTC,
        amount=2_000,
        new_recipient=new_recipient,
        new_transaction=new_transaction,
        balance=balance,
        good_proof=LightningPaymentProof(invoice=good.text, preimage=bytes(range(32))),
        bad_proof=LightningPaymentProof(invoice=bad.text, preimage=bytes(range(32))),
    )


class TestInvoicesInMemory(Layer2ProtocolConformance):
    by_keysend = False

    @pytest.fixture(autouse=True)
    def _use_line(self, line):
        self.line = line

    @asynccontextmanager
    async def subject(self):
        own = self.line.network.connect(self.line.alice.node_id)
        yield await subject_of(self.line.alice, self.line.bob, own, self.line.clock, by_keysend=self.by_keysend)


class TestKeysendInMemory(TestInvoicesInMemory):
    by_keysend = True


@pytest.mark.real
class TestOnLnd(Layer2ProtocolConformance):
    @pytest.fixture(autouse=True)
    def _use_regtest(self, regtest, connect_lnd):
        self.regtest = regtest
        self.nodes = connect_lnd("client"), connect_lnd("provider"), connect_lnd("client")

    async def settled(self):
        """Both ends of the channel have agreed that no payment is in it any more: only then its balance tells."""
        async with asyncio.timeout(self.limit_s):
            while True:
                channels = (await self.regtest.lnd_call("client", "GET", "/v1/channels"))["channels"]
                if not any(channel["pending_htlcs"] for channel in channels):
                    return
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def subject(self):
        payer, payee, own = self.nodes
        try:
            yield await subject_of(payer, payee, own, settled=self.settled)
        finally:
            for node in self.nodes:
                await node.close()
