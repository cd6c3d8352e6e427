"""The examples of the original specification, in Python, against real nodes."""

from __future__ import annotations

import asyncio
import secrets
import signal
import threading
import time
from collections import Counter
from hashlib import sha256

import pytest

from layer2 import (
    BTC,
    AsyncTimeout,
    Depth,
    EvmAddress,
    EvmCall,
    Layer2Manager,
    Layer2ManagerSync,
    NodeConnectionError,
    Outcome,
    TaskCancelled,
    TransferProof,
)
from layer2 import Layer2ProtocolType as P
from layer2.bob import BobClient
from layer2.lightning import InvoiceState
from layer2.testing import ANY, MockFailure, MockLayer2Protocol

SAT = 100_000
MANY = 10_000


async def submit_with_timeout(protocol, tx, seconds):
    try:
        async with asyncio.timeout(seconds):
            return await protocol.submit_transaction_async(tx)
    except TimeoutError as error:
        raise AsyncTimeout("Transaction submission timed out") from error


async def cancellable_transfer(protocol, asset_id, amount, recipient, cancel):
    return await protocol.transfer_asset_async(asset_id, amount, recipient, cancel=cancel)


async def process_transactions(protocol, txs):
    return await asyncio.gather(*map(protocol.submit_transaction_async, txs), return_exceptions=True)


@pytest.fixture
async def manager(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        yield manager


@pytest.fixture
async def bob(manager):
    return await manager.get_protocol_async(P.BOB)


def somebody() -> EvmAddress:
    return EvmAddress(raw=secrets.token_bytes(20))


async def test_initialise_get_a_protocol_transfer_and_verify_its_proof(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        assert isinstance(bob, BobClient)
        held = await bob.balance_async(BTC)
        proof = await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        assert await manager.verify_cross_layer_proof_async(proof)
        assert held - await bob.balance_async(BTC) == SAT + proof.terms.provider_fee
        read_again = TransferProof.from_json(proof.to_json())
        report = await manager.check_cross_layer_proof_async(read_again)
        assert report.verdict()
        lightning = await manager.get_protocol_async(P.LIGHTNING)
        received = await lightning.node.lookup_invoice(proof.terms.lock.preimage_hash)
        assert received.state is InvoiceState.SETTLED
        assert received.received_msat == SAT * 1000


@pytest.mark.slow
async def test_ten_thousand_transactions_of_one_key_go_in_once_each(network, bob, eventually, say):
    rpc = network.nodes.evm_rpc
    account = str(bob.account)
    first_nonce = int(await rpc("eth_getTransactionCount", account, "latest"), 16)
    first_block = int(await rpc("eth_blockNumber"), 16)
    payees = [somebody() for _ in range(MANY)]
    began_s = time.monotonic()
    results = await process_transactions(bob, [EvmCall(to=payee, value_wei=1 + i) for i, payee in enumerate(payees)])
    submitted_s = time.monotonic() - began_s
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert len({result.tx_id for result in results}) == MANY

    async def all_in():
        return int(await rpc("eth_getTransactionCount", account, "latest"), 16) == first_nonce + MANY

    await eventually(all_in)
    included_s = time.monotonic() - began_s
    say(f"{MANY} transactions of one key: taken in {submitted_s:.1f} s, included in {included_s:.1f} s")

    found = []
    for number in range(first_block + 1, int(await rpc("eth_blockNumber"), 16) + 1):
        block = await rpc("eth_getBlockByNumber", hex(number), True)
        ours = {tx["hash"]: tx for tx in block["transactions"] if tx["from"].lower() == account.lower()}
        receipts = await rpc("eth_getBlockReceipts", hex(number)) if ours else []
        found += [
            (ours[receipt["transactionHash"]], receipt) for receipt in receipts if receipt["transactionHash"] in ours
        ]
    assert sorted(int(tx["nonce"], 16) for tx, _ in found) == list(range(first_nonce, first_nonce + MANY))
    assert {receipt["status"] for _, receipt in found} == {"0x1"}
    sent = Counter((str(payee).lower(), 1 + i) for i, payee in enumerate(payees))
    assert Counter((tx["to"].lower(), int(tx["value"], 16)) for tx, _ in found) == sent
    assert {tx["hash"] for tx, _ in found} == {"0x" + result.tx_id.hash.hex() for result in results}
    for i in (0, MANY // 2, MANY - 1):
        assert int(await rpc("eth_getBalance", str(payees[i]), "latest"), 16) == 1 + i
        assert (await bob.get_transaction_status_async(results[i].tx_id)).succeeded


async def test_submit_with_timeout_in_time(bob):
    status = await submit_with_timeout(bob, EvmCall(to=somebody(), value_wei=1), 60)
    assert status.at_least(Depth.PENDING)
    status = await bob.wait_for_transaction_async(status.tx_id)
    assert status.outcome is Outcome.SUCCEEDED


async def test_submit_with_timeout_too_late_goes_on_under_its_key(network, bob):
    payee = somebody()
    call = EvmCall(to=payee, value_wei=7, gas_limit=21_000, idempotency_key=f"rent {payee}")
    anvil = network.nodes.process("anvil")
    anvil.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(AsyncTimeout, match="timed out") as caught:
            await submit_with_timeout(bob, call, 0.5)
    finally:
        anvil.send_signal(signal.SIGCONT)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.money_may_have_moved
    status = await bob.submit_transaction_async(call)
    status = await bob.wait_for_transaction_async(status.tx_id)
    assert status.succeeded
    again = await bob.submit_transaction_async(call)
    assert again.tx_id == status.tx_id
    assert int(await network.nodes.evm_rpc("eth_getBalance", str(payee), "latest"), 16) == 7


async def test_cancellable_transfer_that_nobody_cancels(network, bob):
    payee = somebody()
    tx_id = await cancellable_transfer(bob, BTC, SAT, payee, asyncio.Event())
    assert (await bob.wait_for_transaction_async(tx_id)).succeeded
    assert await bob.balance_async(BTC, payee) == SAT


async def test_cancellable_transfer_cancelled_before_it_began_sends_nothing(network, bob):
    payee, cancel = somebody(), asyncio.Event()
    nonce = await network.nodes.evm_rpc("eth_getTransactionCount", str(bob.account), "pending")
    cancel.set()
    with pytest.raises(TaskCancelled) as caught:
        await cancellable_transfer(bob, BTC, SAT, payee, cancel)
    assert caught.value.goes_on is False
    assert not caught.value.money_may_have_moved
    # What comes after it takes the very next number, so nothing of it is waiting anywhere.
    other = await bob.transfer_asset_async(BTC, 1, somebody())
    assert (await bob.wait_for_transaction_async(other)).succeeded
    after = await network.nodes.evm_rpc("eth_getTransactionCount", str(bob.account), "pending")
    assert int(after, 16) == int(nonce, 16) + 1
    assert await bob.balance_async(BTC, payee) == 0


async def test_cancellable_transfer_cancelled_in_flight_says_that_it_goes_on(network, manager, eventually):
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    merchant = await network.connect("router")
    preimage = secrets.token_bytes(32)
    invoice = await merchant.create_hold_invoice(
        payment_hash=sha256(preimage).digest(), amount_msat=SAT * 1000, memo="", expiry_s=600, cltv_delta=80
    )
    cancel = asyncio.Event()
    paying = asyncio.create_task(cancellable_transfer(lightning, BTC, SAT, invoice.text, cancel))

    async def held():
        return (await merchant.lookup_invoice(invoice.payment_hash)).state is InvoiceState.ACCEPTED

    await eventually(held)
    cancel.set()
    with pytest.raises(TaskCancelled) as caught:
        await paying
    assert caught.value.goes_on is True
    assert caught.value.tx_id.hash == invoice.payment_hash
    await merchant.settle_invoice(preimage)
    status = await lightning.wait_for_transaction_async(caught.value.tx_id)
    assert status.succeeded
    assert status.preimage == preimage


async def test_the_mock_stands_where_the_layer_stood(network):
    async def pay_supplier(manager, amount):
        bob = await manager.get_protocol_async(P.BOB)
        try:
            return await bob.transfer_asset_async(BTC, amount, network.client.address)
        except NodeConnectionError:
            return None

    real = await network.client_config()
    async with Layer2Manager(real) as manager:
        await manager.initialize_all_async()
        tx_id = await pay_supplier(manager, 5)
        bob = await manager.get_protocol_async(P.BOB)
        assert (await bob.wait_for_transaction_async(tx_id)).succeeded

    async with MockLayer2Protocol(P.BOB) as mock, Layer2Manager(protocols={P.BOB: mock}) as manager:
        mock.expect("transfer_asset_async", BTC, 5, ANY).returns(tx_id)
        mock.expect("transfer_asset_async", BTC, 6, ANY).raises(NodeConnectionError("refused"))
        await manager.initialize_all_async()
        assert await pay_supplier(manager, 5) == tx_id
        assert await pay_supplier(manager, 6) is None
    with pytest.raises(MockFailure, match="missing"):
        async with MockLayer2Protocol(P.BOB) as mock:
            mock.expect("transfer_asset_async", BTC, 5, ANY).returns(tx_id)


def _both_ways(config):
    with Layer2ManagerSync(config) as manager:
        manager.initialize_all_sync()
        bob = manager.get_protocol_sync(P.BOB)
        held = bob.balance_sync(BTC)
        out = manager.cross_layer_transfer_sync(BTC, SAT, P.BOB, P.LIGHTNING, cancel=threading.Event())
        back = manager.cross_layer_transfer_sync(BTC, SAT, P.LIGHTNING, P.BOB)
        assert manager.verify_cross_layer_proof_sync(out)
        assert manager.verify_cross_layer_proof_sync(back)
        return held - bob.balance_sync(BTC) - out.terms.provider_fee


async def test_the_sync_wrapper_from_a_thread(network):
    assert await asyncio.to_thread(_both_ways, await network.client_config()) == 0


async def test_the_sync_wrapper_from_a_notebook_whose_loop_is_running(network, no_blocking_calls):
    config = await network.client_config()
    # A cell blocks its notebook's loop, which is what notebooks expect; the provider here needs another one.
    no_blocking_calls.deactivate()

    async def cell():
        assert asyncio.get_running_loop().is_running()
        return _both_ways(config)

    assert await asyncio.to_thread(asyncio.run, cell()) == 0
