"""Idempotency keys that came with a copy of a store, which somebody else may have written, and which does not know what came later."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from layer2._clock import SystemClock
from layer2._crypto import sha256
from layer2.assets import BTC
from layer2.errors import IdempotencyConflict, NoRoute, StorageError, UnknownOutcome
from layer2.lightning import InvoiceState, LightningNetwork
from layer2.storage import SqlOperationJournal, Store, restore_copy
from layer2.transactions import LightningPayment

SATOSHI = 1_500
KEY = "order-7"


@pytest.fixture
def life(line, tmp_path):
    """One life of alice's process on a store."""

    @asynccontextmanager
    async def begin(name="first", *, adopt=False):
        async with await Store.open(f"sqlite:///{tmp_path}/{name}.db", clock=SystemClock(), adopt=adopt) as store:
            layer = LightningNetwork(
                line.network.connect(line.alice.node_id),
                network="regtest",
                clock=line.clock,
                random_bytes=random.Random(3).randbytes,
                journal=SqlOperationJournal(store),
            )
            await layer.initialize_async()
            try:
                yield layer, store
            finally:
                await layer.close_async()

    return begin


@pytest.fixture
def restored(life, tmp_path):
    """The next life, on a copy of the store in which every key has the decision ``written``, if that is given."""

    @asynccontextmanager
    async def begin(store, written=None):
        copy = tmp_path / "copy.db"
        await store.backup(copy)
        if written is not None:
            with closing(sqlite3.connect(copy)) as database, database:
                assert database.execute("UPDATE operation SET outcome = ?", (written,)).rowcount
        await restore_copy(f"sqlite:///{tmp_path}/next.db", copy, clock=SystemClock(), key=None)
        async with life("next", adopt=True) as (layer, _):
            yield layer

    return begin


@pytest.fixture
async def recipients(line):
    invoice = await line.bob.create_invoice(amount_msat=SATOSHI * 1_000)
    return {"invoice": invoice.text, "keysend": line.bob.node_id.hex()}


def sendable(line):
    return line.network.spendable_msat(line.alice.node_id)


@pytest.mark.parametrize("to", ["invoice", "keysend"])
async def test_nobody_whom_the_writer_of_a_copy_names_is_paid(line, life, restored, recipients, to):
    thief = await line.router.create_invoice(amount_msat=SATOSHI * 1_000)
    written = json.dumps({"invoice": thief.text} if to == "invoice" else {"preimage": "42" * 32})
    async with life() as (layer, store):
        await layer.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY)
        before = sendable(line)
        async with restored(store, written) as later:
            with pytest.raises((StorageError, UnknownOutcome)):
                await later.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY)
    assert sendable(line) == before
    assert (await line.router.lookup_invoice(thief.payment_hash)).state is InvoiceState.OPEN


@pytest.mark.parametrize("to", ["invoice", "keysend"])
async def test_what_was_paid_before_is_found_at_the_node(line, life, restored, recipients, to):
    async with life() as (layer, store):
        tx_id = await layer.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY)
        before = sendable(line)
        async with restored(store) as later:
            assert await later.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY) == tx_id
    assert sendable(line) == before


async def test_what_failed_before_failed(line, life, restored, recipients):
    channel = line.second.balance_msat
    hidden, channel[line.router.node_id] = channel[line.router.node_id], 0
    async with life() as (layer, store):
        with pytest.raises(NoRoute):
            await layer.transfer_asset_async(BTC, SATOSHI, recipients["invoice"], idempotency_key=KEY)
        channel[line.router.node_id] = hidden
        async with restored(store) as later:
            with pytest.raises(NoRoute):
                await later.transfer_asset_async(BTC, SATOSHI, recipients["invoice"], idempotency_key=KEY)


async def test_what_is_still_on_its_way_is_waited_for_and_not_begun_again(line, life, restored, run_ready, monkeypatch):
    """It may fail between the look and a second payment of the same invoice."""
    preimage = bytes(range(32))
    held = await line.bob.create_hold_invoice(
        payment_hash=sha256(preimage), amount_msat=SATOSHI * 1_000, expiry_s=3_600, cltv_delta=40
    )
    async with life() as (layer, store):
        first = asyncio.ensure_future(layer.transfer_asset_async(BTC, SATOSHI, held.text, idempotency_key=KEY))
        while (await line.bob.lookup_invoice(held.payment_hash)).state is not InvoiceState.ACCEPTED:
            await asyncio.sleep(0.01)
        async with restored(store) as later:
            monkeypatch.setattr(later._node, "pay", None)
            again = asyncio.ensure_future(later.transfer_asset_async(BTC, SATOSHI, held.text, idempotency_key=KEY))
            await asyncio.sleep(0.1)
            assert not again.done()
            await line.bob.settle_invoice(preimage)
            while not again.done():
                line.clock.advance(10)
                await asyncio.sleep(0.01)
            assert await again == await first


@pytest.mark.parametrize("to", ["invoice", "keysend"])
async def test_what_the_node_has_no_record_of_is_refused_and_another_key_pays(
    line, life, restored, recipients, to, monkeypatch
):
    async with life() as (layer, store):

        async def die(*args, **kwargs):
            raise SystemError("the process ends here")

        monkeypatch.setattr(layer._node, "pay", die)
        monkeypatch.setattr(layer._node, "keysend", die)
        with pytest.raises(SystemError):
            await layer.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY)
        before = sendable(line)
        async with restored(store) as later:
            for _ in range(2):
                with pytest.raises(UnknownOutcome, match="restored") as caught:
                    await later.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key=KEY)
            assert "another idempotency key" in caught.value.hint
            assert not caught.value.retry_safe
            assert caught.value.tx_id is not None
            assert sendable(line) == before
            await later.transfer_asset_async(BTC, SATOSHI, recipients[to], idempotency_key="another")
    assert sendable(line) < before


async def test_submitting_an_invoice_again_follows_the_same_rule(line, life, restored, recipients, monkeypatch):
    payment = LightningPayment(invoice=recipients["invoice"], idempotency_key=KEY)
    async with life() as (layer, store):

        async def die(*args, **kwargs):
            raise SystemError("the process ends here")

        monkeypatch.setattr(layer._node, "pay", die)
        with pytest.raises(SystemError):
            await layer.submit_transaction_async(payment)
        before = sendable(line)
        async with restored(store) as later:
            with pytest.raises(UnknownOutcome, match="restored"):
                await later.submit_transaction_async(payment)
            assert sendable(line) == before


async def test_a_key_under_which_nothing_was_decided_is_as_good_as_new(line, life, restored, recipients):
    async with life() as (_, store):
        await SqlOperationJournal(store).begin(KEY, b"\x01")
        async with restored(store) as later:
            tx_id = await later.transfer_asset_async(BTC, SATOSHI, recipients["keysend"], idempotency_key=KEY)
            before = sendable(line)
            assert await later.transfer_asset_async(BTC, SATOSHI, recipients["keysend"], idempotency_key=KEY) == tx_id
            with pytest.raises(IdempotencyConflict):
                await later.transfer_asset_async(BTC, 1, recipients["keysend"], idempotency_key=KEY)
    assert sendable(line) == before
