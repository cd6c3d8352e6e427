import asyncio
import contextlib
import hashlib
import random

import pytest

from layer2.errors import Expired, IdempotencyConflict, InvoiceError, NotFound, ValidationError
from layer2.lightning import ChannelPolicy, InvoiceState, MemoryLightning, PaymentState, decode_invoice

HASH_PREIMAGE = bytes(range(32))


def hash_of(preimage):
    return hashlib.sha256(preimage).digest()


async def hold(line, **changes):
    terms = {"payment_hash": hash_of(HASH_PREIMAGE), "amount_msat": 1_000_000, "expiry_s": 600, "cltv_delta": 100}
    return await line.bob.create_hold_invoice(**(terms | changes))


async def held(line, limits, run_ready):
    """A payment that bob holds, and alice's task that waits for its outcome."""
    invoice = await hold(line)
    paying = asyncio.ensure_future(line.alice.pay(invoice.text, **limits))
    await run_ready()
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.ACCEPTED
    return invoice, paying


async def test_pays_over_two_channels_and_each_node_gets_its_share(line, limits):
    before = line.network.total_msat()
    invoice = await line.bob.create_invoice(amount_msat=1_000_000, memo="coffee")
    record = await line.alice.pay(invoice.text, **limits)
    assert record.state is PaymentState.SUCCEEDED
    assert record.fee_msat == 1_000 + 1_000_000 * 100 // 1_000_000
    assert hash_of(record.preimage) == invoice.payment_hash
    assert line.first.balance_msat == {
        line.alice.node_id: 10**10 - 1_001_100,
        line.router.node_id: 10**9 + 1_001_100,
    }
    assert line.second.balance_msat == {line.router.node_id: 5 * 10**9 - 10**6, line.bob.node_id: 5 * 10**9 + 10**6}
    assert line.network.total_msat() == before
    settled = await line.bob.lookup_invoice(invoice.payment_hash)
    assert (settled.state, settled.received_msat) == (InvoiceState.SETTLED, 1_000_000)


async def test_invoices_are_signed_by_the_node_and_say_what_was_asked(line):
    record = await line.bob.create_invoice(amount_msat=123_456, memo="tea", expiry_s=77, cltv_delta=33)
    invoice = decode_invoice(record.text)
    assert invoice.payee == line.bob.node_id
    assert (invoice.amount_msat, invoice.description, invoice.expiry_s) == (123_456, "tea", 77)
    assert invoice.min_final_cltv_delta == 33
    assert invoice.network == "regtest"


async def test_fee_limit_of_zero_takes_only_routes_without_fees(line, limits):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    record = await line.alice.pay(invoice.text, **limits | {"fee_limit_msat": 0})
    assert (record.state, record.failure_reason) == (PaymentState.FAILED, "no_route")
    direct = await line.router.create_invoice(amount_msat=1_000_000)
    assert (await line.alice.pay(direct.text, **limits | {"fee_limit_msat": 0})).state is PaymentState.SUCCEEDED


async def test_fee_limit_is_exact(line, limits):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    record = await line.alice.pay(invoice.text, **limits | {"fee_limit_msat": 1_099})
    assert record.state is PaymentState.FAILED
    record = await line.alice.pay(invoice.text, **limits | {"fee_limit_msat": 1_100})
    assert record.state is PaymentState.SUCCEEDED


async def test_time_lock_of_a_route_counts_delta_padding_and_forwarding(line, limits, run_ready):
    invoice = await hold(line)
    total = 100 + 3 + 40
    record = await line.alice.pay(invoice.text, **limits | {"cltv_limit": total - 1})
    assert record.failure_reason == "no_route"
    paying = asyncio.ensure_future(line.alice.pay(invoice.text, **limits | {"cltv_limit": total}))
    await run_ready()
    held_now = await line.bob.lookup_invoice(invoice.payment_hash)
    assert held_now.lowest_expiry_height == line.network.height + 103
    record = await line.alice.lookup_payment(invoice.payment_hash)
    assert record.highest_expiry_height == line.network.height + total
    await line.bob.cancel_invoice(invoice.payment_hash)
    assert (await paying).state is PaymentState.FAILED


async def test_the_cheapest_route_that_keeps_the_time_lock_is_taken(clock, limits):
    network = MemoryLightning(clock=clock, random_bytes=random.Random(1).randbytes)
    alice, slow, fast, bob = (network.add_node(name) for name in ("alice", "slow", "fast", "bob"))
    for middle, policy in (
        (slow, ChannelPolicy(base_fee_msat=1, fee_ppm=0, cltv_delta=500)),
        (fast, ChannelPolicy(base_fee_msat=900, fee_ppm=0, cltv_delta=10)),
    ):
        network.open_channel(alice.node_id, middle.node_id, local_msat=10**9, policy=policy)
        network.open_channel(middle.node_id, bob.node_id, local_msat=10**9, policy=policy)
    invoices = [await bob.create_invoice(amount_msat=50_000) for _ in range(2)]
    assert (await alice.pay(invoices[0].text, **limits)).fee_msat == 1
    assert (await alice.pay(invoices[1].text, **limits | {"cltv_limit": 100})).fee_msat == 900


async def test_an_amount_larger_than_any_channel_goes_in_parts(clock, limits):
    network = MemoryLightning(clock=clock, random_bytes=random.Random(1).randbytes)
    alice, bob = network.add_node("alice"), network.add_node("bob")
    for _ in range(3):
        network.open_channel(alice.node_id, bob.node_id, local_msat=40_000_000)
    invoice = await bob.create_invoice(amount_msat=100_000_000)
    assert (await alice.pay(invoice.text, **limits)).state is PaymentState.SUCCEEDED
    record = await bob.lookup_invoice(invoice.payment_hash)
    assert len(record.htlcs) > 1
    assert sum(htlc.amount_msat for htlc in record.htlcs) == record.received_msat == 100_000_000
    assert network.total_msat() == 120_000_000


async def test_what_is_not_there_cannot_be_paid(line, limits):
    too_much = await line.bob.create_invoice(amount_msat=2 * 10**10)
    assert (await line.alice.pay(too_much.text, **limits)).failure_reason == "insufficient_balance"
    too_much = await line.bob.create_invoice(amount_msat=6 * 10**9)
    assert (await line.alice.pay(too_much.text, **limits)).failure_reason == "no_route"


async def test_held_payment_locks_liquidity_until_it_is_settled(line, limits, run_ready):
    invoice, paying = await held(line, limits, run_ready)
    assert line.first.locked_msat == 1_001_100
    assert line.second.locked_msat == 1_000_000
    assert (await line.alice.info()).spendable_msat == 10**10 - 1_001_100
    assert (await line.alice.lookup_payment(invoice.payment_hash)).state is PaymentState.IN_FLIGHT
    assert not paying.done()
    await line.bob.settle_invoice(HASH_PREIMAGE)
    record = await paying
    assert (record.state, record.preimage) == (PaymentState.SUCCEEDED, HASH_PREIMAGE)
    assert line.first.locked_msat == line.second.locked_msat == 0
    await line.bob.settle_invoice(HASH_PREIMAGE)
    with pytest.raises(Expired):
        await line.bob.cancel_invoice(invoice.payment_hash)


async def test_cancelled_hold_gives_everything_back(line, limits, run_ready):
    before = dict(line.first.balance_msat), dict(line.second.balance_msat)
    invoice, paying = await held(line, limits, run_ready)
    await line.bob.cancel_invoice(invoice.payment_hash)
    record = await paying
    assert (record.state, record.failure_reason) == (PaymentState.FAILED, "incorrect_payment_details")
    assert record.preimage is None
    assert (line.first.balance_msat, line.second.balance_msat) == before
    await line.bob.cancel_invoice(invoice.payment_hash)
    with pytest.raises(Expired):
        await line.bob.settle_invoice(HASH_PREIMAGE)


async def test_hold_is_given_back_18_blocks_before_its_htlc_expires(line, limits, run_ready):
    invoice, paying = await held(line, limits, run_ready)
    expiry = (await line.bob.lookup_invoice(invoice.payment_hash)).lowest_expiry_height
    line.network.mine(expiry - 19 - line.network.height)
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.ACCEPTED
    line.network.mine()
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.CANCELED
    assert (await paying).state is PaymentState.FAILED


async def test_clock_expiry_cancels_an_open_invoice_but_not_a_held_one(line, limits, run_ready):
    invoice, paying = await held(line, limits, run_ready)
    open_one = await line.bob.create_invoice(amount_msat=1, expiry_s=600)
    line.clock.advance(600)
    assert (await line.bob.lookup_invoice(open_one.payment_hash)).state is InvoiceState.CANCELED
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.ACCEPTED
    await line.bob.settle_invoice(HASH_PREIMAGE)
    assert (await paying).state is PaymentState.SUCCEEDED


async def test_paying_again_attaches_to_the_payment_there_is_even_after_expiry(line, limits, run_ready):
    invoice, first = await held(line, limits, run_ready)
    line.clock.advance(10_000)
    second = asyncio.ensure_future(line.alice.pay(invoice.text, **limits))
    await run_ready()
    assert not second.done()
    await line.bob.settle_invoice(HASH_PREIMAGE)
    assert await first == await second == await line.alice.pay(invoice.text, **limits)
    assert (await line.alice.info()).spendable_msat == 10**10 - 1_001_100


async def test_a_caller_who_stops_waiting_does_not_stop_the_payment(line, limits, run_ready):
    invoice, paying = await held(line, limits, run_ready)
    paying.cancel()
    await asyncio.gather(paying, return_exceptions=True)
    await line.bob.settle_invoice(HASH_PREIMAGE)
    assert (await line.alice.lookup_payment(invoice.payment_hash)).state is PaymentState.SUCCEEDED


async def test_a_failed_payment_may_be_tried_again(line, limits):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    assert (await line.alice.pay(invoice.text, **limits | {"fee_limit_msat": 0})).state is PaymentState.FAILED
    assert (await line.alice.pay(invoice.text, **limits)).state is PaymentState.SUCCEEDED


async def test_refuses_what_can_never_be_paid_and_leaves_no_record(line, limits):
    own = await line.alice.create_invoice(amount_msat=1_000)
    with pytest.raises(InvoiceError, match="self-payments"):
        await line.alice.pay(own.text, **limits)
    open_amount = await line.bob.create_invoice(amount_msat=0)
    with pytest.raises(InvoiceError, match="no amount"):
        await line.alice.pay(open_amount.text, **limits)
    expired = await line.bob.create_invoice(amount_msat=1_000, expiry_s=5)
    line.clock.advance(5)
    with pytest.raises(Expired):
        await line.alice.pay(expired.text, **limits)
    for invoice in (own, open_amount, expired):
        assert (await line.alice.lookup_payment(invoice.payment_hash)).state is PaymentState.NONE


async def test_a_settled_invoice_cannot_be_paid_by_another_node(line, limits):
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    await line.alice.pay(invoice.text, **limits)
    record = await line.router.pay(invoice.text, **limits)
    assert record.failure_reason == "incorrect_payment_details"


async def test_same_hash_gives_the_same_invoice_or_a_conflict(line):
    first = await hold(line)
    line.clock.advance(3)
    assert await hold(line) == first
    with pytest.raises(IdempotencyConflict):
        await hold(line, amount_msat=2)
    plain = await line.bob.create_invoice(amount_msat=5, preimage=bytes(32))
    assert await line.bob.create_invoice(amount_msat=5, preimage=bytes(32)) == plain
    with pytest.raises(IdempotencyConflict):
        await line.bob.create_invoice(amount_msat=6, preimage=bytes(32))


async def test_unknown_hashes_and_bad_arguments_are_named(line):
    with pytest.raises(NotFound):
        await line.bob.lookup_invoice(bytes(32))
    with pytest.raises(NotFound):
        await line.bob.settle_invoice(bytes(32))
    with pytest.raises(NotFound):
        await line.bob.cancel_invoice(bytes(32))
    with pytest.raises(ValidationError, match="24"):
        await hold(line, cltv_delta=23)
    with pytest.raises(ValidationError):
        await hold(line, payment_hash=b"short")


async def test_keysend_arrives_and_is_idempotent_by_its_hash(line, limits):
    for _ in range(2):
        record = await line.alice.keysend(line.bob.node_id, 5_000, preimage=HASH_PREIMAGE, **limits)
        assert record.state is PaymentState.SUCCEEDED
    assert line.second.balance_msat[line.bob.node_id] == 5 * 10**9 + 5_000


async def test_watching_begins_before_the_invoice_exists_and_ends_when_it_is_final(line, limits, run_ready):
    seen = []

    async def watch():
        seen.extend([record.state async for record in line.bob.watch_invoice(hash_of(HASH_PREIMAGE))])

    watching = asyncio.ensure_future(watch())
    await run_ready()
    _, paying = await held(line, limits, run_ready)
    await line.bob.settle_invoice(HASH_PREIMAGE)
    await paying
    await watching
    assert seen == [InvoiceState.OPEN, InvoiceState.ACCEPTED, InvoiceState.SETTLED]


async def test_watching_sees_an_invoice_expire_by_the_clock_alone(line, run_ready):
    invoice = await line.bob.create_invoice(amount_msat=1, expiry_s=60)
    states = line.bob.watch_invoice(invoice.payment_hash)
    assert (await anext(states)).state is InvoiceState.OPEN
    following = asyncio.ensure_future(anext(states))
    await run_ready()
    line.clock.advance(60)
    assert (await following).state is InvoiceState.CANCELED
    with pytest.raises(StopAsyncIteration):
        await anext(states)


async def test_payment_hangs_at_a_node_and_comes_back_when_its_time_lock_ends(line, limits, run_ready):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    line.network.set_hanging(line.router.node_id, True)
    paying = asyncio.ensure_future(line.alice.pay(invoice.text, **limits))
    await run_ready()
    record = await line.alice.lookup_payment(invoice.payment_hash)
    assert record.state is PaymentState.IN_FLIGHT
    line.network.mine(record.highest_expiry_height - line.network.height - 1)
    assert (await line.alice.lookup_payment(invoice.payment_hash)).state is PaymentState.IN_FLIGHT
    line.network.mine()
    assert (await paying).state is PaymentState.FAILED
    assert (await line.alice.info()).spendable_msat == 10**10


async def test_payment_that_hung_goes_on(line, limits, run_ready):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    line.network.set_hanging(line.router.node_id, True)
    paying = asyncio.ensure_future(line.alice.pay(invoice.text, **limits))
    await run_ready()
    line.network.set_hanging(line.router.node_id, False)
    assert (await paying).state is PaymentState.SUCCEEDED


async def test_settlement_that_hangs_reaches_the_payer_at_the_latest_when_the_time_lock_ends(line, limits, run_ready):
    invoice, paying = await held(line, limits, run_ready)
    line.network.set_hanging(line.router.node_id, True)
    await line.bob.settle_invoice(HASH_PREIMAGE)
    record = await line.alice.lookup_payment(invoice.payment_hash)
    assert record.state is PaymentState.IN_FLIGHT
    line.network.mine(record.highest_expiry_height - line.network.height)
    assert (await paying).preimage == HASH_PREIMAGE
    assert line.network.total_msat() == 21 * 10**9
    assert line.first.locked_msat == line.second.locked_msat == 0


async def test_parts_of_an_incomplete_payment_are_given_back_after_two_minutes(clock, limits, run_ready):
    network = MemoryLightning(clock=clock, random_bytes=random.Random(1).randbytes)
    alice, up, down, bob = (network.add_node(name) for name in ("alice", "up", "down", "bob"))
    for middle in (up, down):
        network.open_channel(alice.node_id, middle.node_id, local_msat=60_000_000)
        network.open_channel(middle.node_id, bob.node_id, local_msat=60_000_000)
    network.set_hanging(down.node_id, True)
    invoice = await bob.create_invoice(amount_msat=80_000_000)
    paying = asyncio.ensure_future(alice.pay(invoice.text, **limits))
    await run_ready()
    assert (await bob.lookup_invoice(invoice.payment_hash)).htlcs != ()
    clock.advance(120)
    assert (await bob.lookup_invoice(invoice.payment_hash)).htlcs == ()
    network.set_hanging(down.node_id, False)
    clock.advance(120)
    await bob.info()
    assert (await paying).state is PaymentState.FAILED
    assert (await alice.info()).spendable_msat == 120_000_000


async def test_blocks_are_mined_on_the_clock(line, run_ready):
    mining = asyncio.ensure_future(line.network.run_blocks(10))
    for _ in range(3):
        await run_ready()
        line.clock.advance(10)
    await run_ready()
    assert line.network.height == 503
    mining.cancel()
    await asyncio.gather(mining, return_exceptions=True)


async def test_random_traffic_conserves_every_msat(clock, limits, run_ready):
    rng = random.Random(20)
    network = MemoryLightning(clock=clock, random_bytes=rng.randbytes)
    nodes = [network.add_node(f"n{i}") for i in range(5)]
    for left in range(5):
        for right in range(left):
            network.open_channel(nodes[left].node_id, nodes[right].node_id, local_msat=10**8, remote_msat=10**8)
    before, paying, held_preimages = network.total_msat(), [], []
    for _ in range(150):
        payer, payee = rng.sample(nodes, 2)
        amount = rng.randrange(1, 10**8)
        if rng.random() < 0.5:
            invoice = await payee.create_invoice(amount_msat=amount)
        else:
            preimage = rng.randbytes(32)
            held_preimages.append((payee, preimage))
            invoice = await payee.create_hold_invoice(
                payment_hash=hash_of(preimage), amount_msat=amount, expiry_s=60, cltv_delta=30
            )
        paying.append(asyncio.ensure_future(payer.pay(invoice.text, **limits)))
        await run_ready()
        if rng.random() < 0.3:
            node, preimage = rng.choice(held_preimages or [(payee, bytes(32))])
            with contextlib.suppress(Expired, NotFound):
                await (node.settle_invoice(preimage) if rng.random() < 0.7 else node.cancel_invoice(hash_of(preimage)))
        network.set_hanging(rng.choice(nodes).node_id, rng.random() < 0.2)
        network.mine(rng.randrange(2))
        clock.advance(rng.randrange(20))
        assert network.total_msat() == before
    for node in nodes:
        network.set_hanging(node.node_id, False)
    network.mine(500)
    records = await asyncio.gather(*paying)
    assert {record.state for record in records} == {PaymentState.SUCCEEDED, PaymentState.FAILED}
    assert network.total_msat() == before == sum([(await node.info()).spendable_msat for node in nodes])
