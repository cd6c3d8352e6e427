import asyncio
import dataclasses
import hashlib
import random

import pytest

from layer2.assets import BTC, ETH
from layer2.errors import (
    AddressError,
    AmountError,
    AssetError,
    AsyncRuntimeError,
    AsyncTimeout,
    ConfigurationError,
    Expired,
    IdempotencyConflict,
    InsufficientFunds,
    InvoiceError,
    NodeNotReady,
    NoRoute,
    NotFound,
    PaymentFailed,
    ProofError,
    TaskCancelled,
    ValidationError,
)
from layer2.lightning import InvoiceState, LightningNetwork, MemoryJournal, MemoryLightning, PaymentLimits
from layer2.proofs import LightningPaymentProof
from layer2.testing import VirtualClock
from layer2.transactions import Depth, EvmCall, LightningPayment, Outcome, TxId

PREIMAGE = bytes(range(1, 33))
HASH = hashlib.sha256(PREIMAGE).digest()


@pytest.fixture
async def alice(line):
    layer = LightningNetwork(line.alice, network="regtest", clock=line.clock, random_bytes=random.Random(3).randbytes)
    await layer.initialize_async()
    yield layer
    await layer.close_async()


async def test_pays_an_invoice_and_the_proof_of_it_verifies(line, alice):
    invoice = await line.bob.create_invoice(amount_msat=1_500_500)
    tx_id = await alice.transfer_asset_async(BTC, 1_501, invoice.text)
    assert tx_id == TxId(layer="lightning", hash=invoice.payment_hash)
    status = await alice.get_transaction_status_async(str(tx_id))
    assert (status.outcome, status.depth, status.is_final) == (Outcome.SUCCEEDED, Depth.FINALIZED, True)
    assert status.fee == 1_000 + 150
    proof = LightningPaymentProof(invoice=invoice.text, preimage=status.preimage)
    assert await alice.verify_proof_async(proof) is True
    assert await alice.verify_proof_async(LightningPaymentProof(invoice=invoice.text, preimage=bytes(32))) is False


@pytest.mark.parametrize("amount", [1_500, 1_502])
async def test_amount_must_be_the_invoices_rounded_up(line, alice, amount):
    invoice = await line.bob.create_invoice(amount_msat=1_500_500)
    with pytest.raises(AmountError, match="1501"):
        await alice.transfer_asset_async(BTC, amount, invoice.text)
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.OPEN


async def test_an_invoice_without_amount_is_paid_what_the_caller_says(line, alice):
    invoice = await line.bob.create_invoice(amount_msat=0)
    await alice.transfer_asset_async(BTC, 77, invoice.text)
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).received_msat == 77_000


async def test_a_node_id_is_paid_by_keysend(line, alice):
    before = line.network.spendable_msat(line.bob.node_id)
    tx_id = await alice.transfer_asset_async(BTC, 9, line.bob.node_id.hex(), idempotency_key="once")
    assert await alice.transfer_asset_async(BTC, 9, line.bob.node_id.hex(), idempotency_key="once") == tx_id
    assert line.network.spendable_msat(line.bob.node_id) == before + 9_000


async def test_submit_returns_the_outcome_also_when_the_payment_fails(line, alice):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    status = await alice.submit_transaction_async(LightningPayment(invoice=invoice.text, fee_limit_msat=0))
    assert (status.failed, status.is_final, status.reason) == (True, True, "no_route")
    status = await alice.submit_transaction_async(LightningPayment(invoice=invoice.text))
    assert status.succeeded


async def test_transfer_raises_where_failure_is_certain(line, clock):
    layer = LightningNetwork(line.alice, clock=clock, limits=PaymentLimits(fee_ppm=0, fee_base_msat=0))
    await layer.initialize_async()
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    with pytest.raises(NoRoute):
        await layer.transfer_asset_async(BTC, 1_000, invoice.text)
    too_much = await line.bob.create_invoice(amount_msat=3 * 10**10)
    with pytest.raises(InsufficientFunds) as caught:
        await layer.transfer_asset_async(BTC, 3 * 10**7, too_much.text)
    assert (caught.value.coin, caught.value.needed) == ("BTC", 3 * 10**7)
    assert caught.value.available == line.network.spendable_msat(line.alice.node_id) // 1000
    await layer.close_async()


async def test_a_rejected_payment_names_the_reason(line, alice, run_ready):
    invoice = await line.bob.create_hold_invoice(payment_hash=HASH, amount_msat=1_000, expiry_s=60, cltv_delta=40)
    paying = asyncio.ensure_future(alice.transfer_asset_async(BTC, 1, invoice.text))
    await run_ready()
    await line.bob.cancel_invoice(HASH)
    with pytest.raises(PaymentFailed) as caught:
        await paying
    assert caught.value.reason == "incorrect_payment_details"
    assert caught.value.tx_id.hash == HASH


async def test_invoices_that_cannot_be_paid_are_refused_before_anything_is_sent(line, alice, clock):
    own = await line.alice.create_invoice(amount_msat=1_000)
    with pytest.raises(InvoiceError, match="own"):
        await alice.transfer_asset_async(BTC, 1, own.text)
    soon = await line.bob.create_invoice(amount_msat=1_000, expiry_s=9)
    with pytest.raises(Expired, match="too soon"):
        await alice.transfer_asset_async(BTC, 1, soon.text)
    clock.advance(9)
    with pytest.raises(Expired, match="has expired"):
        await alice.transfer_asset_async(BTC, 1, soon.text)
    elsewhere = MemoryLightning(clock=clock, network="mainnet").add_node("far")
    foreign = await elsewhere.create_invoice(amount_msat=1_000)
    with pytest.raises(InvoiceError, match="mainnet"):
        await alice.transfer_asset_async(BTC, 1, foreign.text)
    open_amount = await line.bob.create_invoice(amount_msat=0)
    with pytest.raises(InvoiceError, match="no amount"):
        await alice.submit_transaction_async(LightningPayment(invoice=open_amount.text))
    fixed = await line.bob.create_invoice(amount_msat=1_000)
    with pytest.raises(InvoiceError, match="asks for 1000"):
        await alice.submit_transaction_async(LightningPayment(invoice=fixed.text, amount_msat=999))
    for invoice in (own, soon, foreign, open_amount, fixed):
        status = await alice.get_transaction_status_async(TxId(layer="lightning", hash=invoice.payment_hash))
        assert (status.outcome, status.depth) == (Outcome.UNKNOWN, Depth.NONE)


async def test_an_expired_invoice_that_was_paid_is_reported_as_paid(line, alice, clock):
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    first = await alice.submit_transaction_async(LightningPayment(invoice=invoice.text))
    clock.advance(100_000)
    assert await alice.submit_transaction_async(LightningPayment(invoice=invoice.text)) == first


@pytest.mark.parametrize("amount", [0, -1, 2**64, 1.0, True, "5"])
async def test_amounts_that_are_none_are_refused(line, alice, amount):
    invoice = await line.bob.create_invoice(amount_msat=1_000)
    with pytest.raises(AmountError):
        await alice.transfer_asset_async(BTC, amount, invoice.text)


async def test_other_assets_addresses_transactions_and_proofs_are_refused(alice):
    with pytest.raises(AssetError):
        await alice.transfer_asset_async(ETH, 1, "ab" * 33)
    with pytest.raises(AddressError):
        await alice.transfer_asset_async(BTC, 1, "0x" + "11" * 20)
    with pytest.raises(ValidationError):
        await alice.submit_transaction_async(EvmCall(to=None))
    with pytest.raises(ValidationError):
        await alice.get_transaction_status_async("bob:" + "00" * 32)
    with pytest.raises(ProofError):
        await alice.verify_proof_async(object())


async def test_a_key_binds_its_arguments(line, alice):
    first, second = [await line.bob.create_invoice(amount_msat=1_000) for _ in range(2)]
    tx_id = await alice.transfer_asset_async(BTC, 1, first.text, idempotency_key="k")
    assert await alice.transfer_asset_async(BTC, 1, first.text, idempotency_key="k") == tx_id
    with pytest.raises(IdempotencyConflict):
        await alice.transfer_asset_async(BTC, 1, second.text, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await alice.submit_transaction_async(LightningPayment(invoice=second.text, idempotency_key="k"))
    assert (await line.bob.lookup_invoice(second.payment_hash)).state is InvoiceState.OPEN


async def test_a_refused_call_leaves_its_key_to_the_next(line, alice, clock):
    """An order's number is the key, and the first try was for a wrong amount, or came too late."""
    invoice = await line.bob.create_invoice(amount_msat=10_000)
    with pytest.raises(AmountError):
        await alice.transfer_asset_async(BTC, 9, invoice.text, idempotency_key="k")
    tx_id = await alice.transfer_asset_async(BTC, 10, invoice.text, idempotency_key="k")
    assert await alice.transfer_asset_async(BTC, 10, invoice.text, idempotency_key="k") == tx_id
    late, later = [await line.bob.create_invoice(amount_msat=10_000, expiry_s=seconds) for seconds in (60, 600)]
    clock.advance(120)
    with pytest.raises(Expired):
        await alice.submit_transaction_async(LightningPayment(invoice=late.text, idempotency_key="l"))
    assert (await alice.submit_transaction_async(LightningPayment(invoice=later.text, idempotency_key="l"))).succeeded


async def test_the_same_key_returns_a_failure_and_another_one_tries_again(line, alice):
    invoice = await line.bob.create_invoice(amount_msat=1_000_000)
    channel = line.second.balance_msat
    hidden, channel[line.router.node_id] = channel[line.router.node_id], 0
    with pytest.raises(NoRoute):
        await alice.transfer_asset_async(BTC, 1_000, invoice.text, idempotency_key="k")
    channel[line.router.node_id] = hidden
    with pytest.raises(NoRoute):
        await alice.transfer_asset_async(BTC, 1_000, invoice.text, idempotency_key="k")
    assert (await line.bob.lookup_invoice(invoice.payment_hash)).state is InvoiceState.OPEN
    await alice.transfer_asset_async(BTC, 1_000, invoice.text, idempotency_key="another")


async def test_a_key_survives_into_the_next_process_with_its_journal(line, clock, run_ready):
    journal = MemoryJournal()
    before = line.network.spendable_msat(line.bob.node_id)
    for _ in range(2):
        layer = LightningNetwork(line.network.connect(line.alice.node_id), clock=clock, journal=journal)
        await layer.initialize_async()
        await layer.transfer_asset_async(BTC, 5, line.bob.node_id.hex(), idempotency_key="k")
        await layer.close_async()
    assert line.network.spendable_msat(line.bob.node_id) == before + 5_000


async def held_payment(line, alice, run_ready, **how):
    invoice = await line.bob.create_hold_invoice(payment_hash=HASH, amount_msat=1_000, expiry_s=60, cltv_delta=40)
    paying = asyncio.ensure_future(alice.submit_transaction_async(LightningPayment(invoice=invoice.text), **how))
    await run_ready()
    assert (await line.bob.lookup_invoice(HASH)).state is InvoiceState.ACCEPTED
    return invoice, paying


async def test_time_limit_and_cancellation_leave_the_payment_to_the_node(line, alice, run_ready):
    cancel = asyncio.Event()
    invoice, paying = await held_payment(line, alice, run_ready, cancel=cancel)
    cancel.set()
    with pytest.raises(TaskCancelled) as cancelled:
        await paying
    assert cancelled.value.goes_on is True
    assert cancelled.value.tx_id.hash == HASH
    with pytest.raises(AsyncTimeout) as late:
        await alice.submit_transaction_async(LightningPayment(invoice=invoice.text), timeout=0.01)
    assert late.value.tx_id.hash == HASH
    assert late.value.money_may_have_moved
    assert late.value.retry_safe, "an invoice is paid once, however often it is asked for"
    status = await alice.get_transaction_status_async(late.value.tx_id)
    assert (status.outcome, status.depth) == (Outcome.NONE, Depth.PENDING)
    assert not status.is_final
    await line.bob.settle_invoice(PREIMAGE)
    assert (await alice.wait_for_transaction_async(late.value.tx_id)).succeeded


async def test_waiting_ends_at_the_depth_that_was_asked_for(line, alice, clock, run_ready):
    _, paying = await held_payment(line, alice, run_ready)
    tx_id = TxId(layer="lightning", hash=HASH)
    assert (await alice.wait_for_transaction_async(tx_id, Depth.PENDING)).depth is Depth.PENDING
    waiting = asyncio.ensure_future(alice.wait_for_transaction_async(tx_id))
    await run_ready()
    await line.bob.settle_invoice(PREIMAGE)
    clock.advance(10)
    assert (await waiting).depth is Depth.FINALIZED
    await paying
    with pytest.raises(NotFound):
        await alice.wait_for_transaction_async(TxId(layer="lightning", hash=bytes(32)))


async def test_makes_watches_settles_and_cancels_invoices(line, clock, run_ready):
    layer = LightningNetwork(line.bob, clock=clock)
    await layer.initialize_async()
    plain = await layer.create_invoice_async(amount_msat=1_000, memo="x")
    assert await layer.lookup_invoice_async(plain.payment_hash) == plain
    hold = await layer.create_hold_invoice_async(payment_hash=HASH, amount_msat=2_000)
    seen = []

    async def watch():
        seen.extend([record.state async for record in layer.watch_invoice_async(HASH)])

    watching = asyncio.ensure_future(watch())
    await run_ready()
    paying = asyncio.ensure_future(line.alice.pay(hold.text, fee_limit_msat=10_000, cltv_limit=1008, time_limit_s=5))
    await run_ready()
    await layer.settle_invoice_async(PREIMAGE)
    await asyncio.gather(watching, paying)
    assert seen == [InvoiceState.OPEN, InvoiceState.ACCEPTED, InvoiceState.SETTLED]
    await layer.cancel_invoice_async(plain.payment_hash)
    assert (await layer.lookup_invoice_async(plain.payment_hash)).state is InvoiceState.CANCELED
    await layer.close_async()


async def test_life_cycle_errors_are_named(line, clock):
    layer = LightningNetwork(line.alice, clock=clock)
    with pytest.raises(AsyncRuntimeError, match="not initialised"):
        await layer.create_invoice_async(amount_msat=1)
    await layer.initialize_async()
    await layer.initialize_async()
    await layer.close_async()
    await layer.close_async()
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await layer.create_invoice_async(amount_msat=1)
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await layer.initialize_async()


async def test_a_node_on_another_network_than_configured_is_refused(line, clock):
    layer = LightningNetwork(line.alice, network="mainnet", clock=clock)
    with pytest.raises(ConfigurationError, match="regtest"):
        await layer.initialize_async()
    await layer.close_async()


async def test_many_payments_at_once_each_get_their_own_result(line, alice):
    invoices = [await line.bob.create_invoice(amount_msat=1_000) for _ in range(300)]
    payments = [LightningPayment(invoice=invoice.text) for invoice in invoices]
    results = await asyncio.gather(*map(alice.submit_transaction_async, payments))
    assert [result.tx_id.hash for result in results] == [invoice.payment_hash for invoice in invoices]
    assert all(result.succeeded for result in results)


class Unsynced:
    """A node that is behind the chain for a number of looks."""

    def __init__(self, node, looks) -> None:
        self.node, self.looks = node, looks

    async def info(self):
        self.looks -= 1
        return dataclasses.replace(await self.node.info(), synced_to_chain=self.looks < 0)

    async def close(self):
        pass


async def test_a_node_that_is_behind_for_a_moment_is_waited_for_and_one_that_stays_behind_refused(line):
    for looks, error in ((3, None), (10**6, NodeNotReady)):
        time = VirtualClock()
        layer = LightningNetwork(Unsynced(line.alice, looks), clock=time)
        starting = asyncio.ensure_future(layer.initialize_async())
        while not starting.done():
            await asyncio.sleep(0)
            await time.advance(0.1)
        if error is None:
            await starting
        else:
            with pytest.raises(error):
                await starting
        await layer.close_async()


async def test_both_test_networks_take_the_invoices_that_they_share(clock, limits):
    network = MemoryLightning(clock=clock, network="testnet4")
    payer, payee = network.add_node("payer"), network.add_node("payee")
    network.open_channel(payer.node_id, payee.node_id, local_msat=10**9)
    layer = LightningNetwork(payer, network="testnet4", clock=clock)
    await layer.initialize_async()
    invoice = await payee.create_invoice(amount_msat=1_000)
    assert (await layer.submit_transaction_async(LightningPayment(invoice=invoice.text))).succeeded
    await layer.close_async()


class Unhurried:
    """A node whose connections take until ``let_go`` to be closed."""

    def __init__(self, node):
        self._node = node
        self.closes = 0
        self.let_go = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._node, name)

    async def close(self):
        self.closes += 1
        await self.let_go.wait()


async def test_closing_goes_on_when_its_caller_stops_waiting(line):
    node, cancel = Unhurried(line.alice), asyncio.Event()
    layer = LightningNetwork(node, network="regtest", clock=line.clock)
    await layer.initialize_async()
    for bad in ({"timeout": -1}, {"cancel": "now"}):
        with pytest.raises(ValidationError):
            await layer.close_async(**bad)
    assert await layer.create_invoice_async(amount_msat=1000), "what is refused has closed nothing"
    with pytest.raises(AsyncTimeout) as timeout:
        await layer.close_async(timeout=0.01)
    assert not timeout.value.money_may_have_moved
    waiting = asyncio.create_task(layer.close_async(cancel=cancel))
    await asyncio.sleep(0)
    cancel.set()
    with pytest.raises(TaskCancelled) as cancelled:
        await waiting
    assert cancelled.value.goes_on
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await layer.create_invoice_async(amount_msat=1000)
    node.let_go.set()
    await layer.close_async()
    await layer.close_async()
    assert node.closes == 1


async def test_checking_a_proof_takes_its_limits(alice):
    proof = LightningPaymentProof(invoice="lnbcrt1", preimage=bytes(32))
    cancel = asyncio.Event()
    cancel.set()
    with pytest.raises(TaskCancelled):
        await alice.verify_proof_async(proof, cancel=cancel)
    with pytest.raises(ValidationError):
        await alice.verify_proof_async(proof, timeout=-1)
