import asyncio
import contextlib
import hashlib
import random

import pytest

from layer2.errors import Layer2Error, NodeConnectionError, UnknownOutcome
from layer2.lightning import InvoiceState, PaymentState
from layer2.testing import FaultyLightningNode, LightningFault, VirtualClock

PREIMAGE = bytes(range(32))


@pytest.fixture
def time():
    return VirtualClock()


@pytest.fixture
async def faulty(line, time):
    node = FaultyLightningNode(line.alice, clock=time, rng=random.Random(1), max_delay_s=5)
    yield node
    await node.close()


async def test_refused_is_certain_that_nothing_was_sent(line, faulty, limits):
    faulty.inject("pay", LightningFault.REFUSED)
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    with pytest.raises(NodeConnectionError) as caught:
        await faulty.pay(invoice.text, **limits)
    assert caught.value.request_sent is False


async def test_a_lost_request_has_no_effect_but_an_unknown_outcome(line, faulty, limits):
    faulty.inject("pay", LightningFault.LOST_REQUEST)
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    with pytest.raises(UnknownOutcome) as caught:
        await faulty.pay(invoice.text, **limits)
    assert caught.value.tx_id.hash == invoice.payment_hash
    assert (await faulty.lookup_payment(invoice.payment_hash)).state is PaymentState.NONE


async def test_a_late_request_arrives_after_its_error(line, faulty, limits, time):
    faulty.inject("pay", LightningFault.LATE_REQUEST)
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    with pytest.raises(UnknownOutcome):
        await faulty.pay(invoice.text, **limits)
    assert (await faulty.lookup_payment(invoice.payment_hash)).state is PaymentState.NONE
    await time.advance(5)
    assert (await faulty.lookup_payment(invoice.payment_hash)).state is PaymentState.SUCCEEDED


async def test_a_lost_reply_comes_after_the_effect(line, faulty, limits, time, run_ready):
    faulty.inject("pay", LightningFault.LOST_REPLY)
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    paying = asyncio.ensure_future(faulty.pay(invoice.text, **limits))
    await run_ready()
    await time.advance(5)
    with pytest.raises(UnknownOutcome):
        await paying
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.SETTLED
    assert (await faulty.pay(invoice.text, **limits)).state is PaymentState.SUCCEEDED


async def test_duplicates_reach_the_node_and_pay_once(line, faulty, limits, run_ready):
    faulty.inject("pay", LightningFault.DUPLICATE)
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    before = line.network.spendable_msat(line.bob.node_id)
    await faulty.pay(invoice.text, **limits)
    await run_ready()
    assert line.network.spendable_msat(line.bob.node_id) == before + 1_000


async def test_a_stale_look_up_shows_what_was_true_before(line, faulty, limits):
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    await faulty.pay(invoice.text, **limits)
    faulty.inject("lookup_payment", LightningFault.STALE)
    assert (await faulty.lookup_payment(invoice.payment_hash)).state is PaymentState.NONE
    assert (await faulty.lookup_payment(invoice.payment_hash)).state is PaymentState.SUCCEEDED
    assert faulty.happened == [("lookup_payment", LightningFault.STALE)]


async def test_streams_repeat_and_break(line, time):
    node = FaultyLightningNode(line.bob, clock=time, rng=random.Random(1))
    invoice = await node.create_invoice(amount_msat=1_000)
    node.inject("watch_invoice", LightningFault.DUPLICATE)
    records = node.watch_invoice(invoice.payment_hash)
    assert await anext(records) == await anext(records)
    await records.aclose()
    node.inject("watch_invoice", LightningFault.LOST_REPLY)
    with pytest.raises(NodeConnectionError):
        await anext(node.watch_invoice(invoice.payment_hash))
    await node.close()


async def test_whoever_asks_until_it_is_known_pays_exactly_once(line, time, limits, run_ready):
    rates = dict.fromkeys(LightningFault, 0.12)
    node = FaultyLightningNode(line.alice, clock=time, rng=random.Random(5), rates=rates)
    before = line.network.total_msat()

    async def pay_surely(text):
        while True:
            try:
                return await node.pay(text, **limits)
            except Layer2Error:
                continue

    invoices = [await line.bob.create_invoice(amount_msat=1_000) for _ in range(40)]
    paying = [asyncio.ensure_future(pay_surely(invoice.text)) for invoice in invoices]
    while not all(task.done() for task in paying):
        await run_ready()
        await time.advance(1)
    assert all(task.result().state is PaymentState.SUCCEEDED for task in paying)
    assert line.network.spendable_msat(line.bob.node_id) == 5 * 10**9 + 40_000
    assert line.network.total_msat() == before
    assert {fault for _, fault in node.happened} > {LightningFault.LOST_REPLY, LightningFault.LATE_REQUEST}
    await node.close()


async def test_the_same_seed_gives_the_same_faults(line, time):
    async def run():
        node = FaultyLightningNode(
            line.network.connect(line.bob.node_id),
            clock=time,
            rng=random.Random(9),
            rates={LightningFault.LOST_REQUEST: 0.3, LightningFault.DUPLICATE: 0.3},
        )
        for index in range(30):
            preimage = hashlib.sha256(bytes([index])).digest()
            with contextlib.suppress(NodeConnectionError):
                await node.create_invoice(amount_msat=1_000, preimage=preimage)
        await node.close()
        return node.happened

    assert await run() == await run() != []
