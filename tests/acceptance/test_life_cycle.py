"""A manager's life on real nodes: opened twice, used too early, too late or from elsewhere, closed while it works."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import warnings

import pytest

from layer2 import (
    BTC,
    AsyncRuntimeError,
    EvmAddress,
    EvmCall,
    IdempotencyConflict,
    Layer2Error,
    Layer2Manager,
    StoreInUse,
    TransferState,
)
from layer2 import Layer2ProtocolType as P
from layer2.lightning import InvoiceState

SAT = 50_000
OUT, BACK = (P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)
OTHER_PROCESS = """
import asyncio, sys
from layer2 import Layer2Config, Layer2Manager, StoreInUse

async def main():
    try:
        async with Layer2Manager(Layer2Config.load(sys.argv[1], environ={})) as manager:
            await manager.initialize_all_async()
            print("opened", len(await manager.list_transfers_async()))
    except StoreInUse as error:
        print("in use by", error.holder)

asyncio.run(main())
"""


def somebody() -> EvmAddress:
    return EvmAddress(raw=secrets.token_bytes(20))


async def test_a_second_process_on_the_store_is_told_who_has_it(network, tmp_path):
    config = await network.client_config()
    file = tmp_path / "layer2.toml"
    file.write_text(config.to_toml())
    file.chmod(0o600)

    async def other_process() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER_PROCESS, str(file), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().strip()

    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        await manager.cross_layer_transfer_async(BTC, SAT, *OUT)
        assert (await other_process()).startswith("in use by")
        assert str(os.getpid()) in await other_process()
        with pytest.raises(StoreInUse, match="in use"):
            async with Layer2Manager(config):
                pass
        await manager.wait_idle_async()
    assert await other_process() == "opened 1"


async def test_use_before_it_is_initialised_and_after_it_is_closed(network):
    manager = Layer2Manager(await network.client_config())
    with pytest.raises(AsyncRuntimeError, match="initialize_all_async"):
        await manager.cross_layer_transfer_async(BTC, SAT, *OUT)
    await manager.initialize_all_async()
    bob = await manager.get_protocol_async(P.BOB)
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    await manager.close_async()
    await manager.close_async()
    for call in (
        manager.cross_layer_transfer_async(BTC, SAT, *OUT),
        manager.get_protocol_async(P.BOB),
        manager.initialize_all_async(),
        bob.transfer_asset_async(BTC, 1, somebody()),
        lightning.create_invoice_async(amount_msat=1_000),
    ):
        with pytest.raises(AsyncRuntimeError, match="closed") as caught:
            await call
        assert not caught.value.money_may_have_moved


async def test_use_from_another_event_loop(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        for make in (
            lambda: manager.cross_layer_transfer_async(BTC, SAT, *OUT),
            lambda: bob.transfer_asset_async(BTC, 1, somebody()),
        ):
            with pytest.raises(AsyncRuntimeError, match="loop"):
                await asyncio.to_thread(lambda make=make: asyncio.run(make()))


async def test_use_after_fork(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        with warnings.catch_warnings():
            # That forking beside threads is unwise is just what the refusal is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                manager.cross_layer_transfer_async(BTC, SAT, *OUT).send(None)
            except AsyncRuntimeError as error:
                os._exit(0 if "fork" in str(error) else 3)
            except BaseException:  # noqa: BLE001 - the child of a test must not go on as a test
                os._exit(4)
            os._exit(5)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await manager.cross_layer_transfer_async(BTC, SAT, *OUT)


async def test_closed_with_work_in_flight_the_next_one_ends_it(network, eventually):
    config = await network.client_config()
    manager = Layer2Manager(config)
    await manager.initialize_all_async()
    bob = await manager.get_protocol_async(P.BOB)
    payees = [somebody() for _ in range(40)]
    calls = [EvmCall(to=payee, value_wei=9, idempotency_key=f"wage of {payee}") for payee in payees]
    working = [asyncio.ensure_future(bob.submit_transaction_async(call)) for call in calls]
    started = [await manager.start_cross_layer_transfer_async(BTC, SAT, *way) for way in (OUT, BACK, OUT, BACK)]
    waiting = [asyncio.ensure_future(transfer.result_async()) for transfer in started]

    async def bound() -> bool:
        return all([(await manager.get_transfer_async(each.id)).state is not TransferState.AGREED for each in started])

    await eventually(bound)
    async with asyncio.timeout(60):
        await manager.close_async()
        ended = await asyncio.gather(*working, *waiting, return_exceptions=True)
    assert [end for end in ended if isinstance(end, BaseException) and not isinstance(end, Layer2Error)] == []
    assert not manager.health().ok

    async with Layer2Manager(config) as manager, asyncio.timeout(180):
        await manager.initialize_all_async()
        for transfer in started:
            proof = await (await manager.get_transfer_async(transfer.id)).result_async()
            assert await manager.verify_cross_layer_proof_async(proof)
        bob = await manager.get_protocol_async(P.BOB)
        for status in await asyncio.gather(*map(bob.submit_transaction_async, calls)):
            assert (await bob.wait_for_transaction_async(status.tx_id)).succeeded
    for payee in payees:
        assert int(await network.nodes.evm_rpc("eth_getBalance", str(payee), "latest"), 16) == 9


async def test_the_same_key_with_other_arguments_sends_nothing(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        lightning = await manager.get_protocol_async(P.LIGHTNING)
        merchant = await network.connect("router")
        payee = somebody()

        proof = await manager.cross_layer_transfer_async(BTC, SAT, *OUT, idempotency_key="order 17")
        tx_id = await bob.transfer_asset_async(BTC, 5, payee, idempotency_key="wage")
        assert (await bob.wait_for_transaction_async(tx_id)).succeeded
        first = await merchant.create_invoice(amount_msat=5_000)
        second = await merchant.create_invoice(amount_msat=6_000)
        paid = await lightning.transfer_asset_async(BTC, 5, first.text, idempotency_key="coffee")

        held = await bob.balance_async(BTC)
        for call in (
            manager.cross_layer_transfer_async(BTC, SAT + 1, *OUT, idempotency_key="order 17"),
            manager.cross_layer_transfer_async(BTC, SAT, *BACK, idempotency_key="order 17"),
            bob.transfer_asset_async(BTC, 6, payee, idempotency_key="wage"),
            lightning.transfer_asset_async(BTC, 6, second.text, idempotency_key="coffee"),
        ):
            with pytest.raises(IdempotencyConflict) as caught:
                await call
            assert not caught.value.money_may_have_moved
        assert await manager.cross_layer_transfer_async(BTC, SAT, *OUT, idempotency_key="order 17") == proof
        assert await bob.transfer_asset_async(BTC, 5, payee, idempotency_key="wage") == tx_id
        assert await lightning.transfer_asset_async(BTC, 5, first.text, idempotency_key="coffee") == paid
        assert await bob.balance_async(BTC) == held
        assert await bob.balance_async(BTC, payee) == 5
        assert (await merchant.lookup_invoice(second.payment_hash)).state is InvoiceState.OPEN
        assert len(await manager.list_transfers_async()) == 1
