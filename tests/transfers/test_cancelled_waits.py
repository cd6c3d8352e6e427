"""A wait that is cancelled ends the wait: what it waited for goes on, and the error says so."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from layer2 import BTC, Depth, Layer2Manager, LightningPayment, TaskCancelled
from layer2 import Layer2ProtocolType as P

pytestmark = pytest.mark.asyncio(loop_scope="module")

Wait = Callable[[asyncio.Event], Awaitable[object]]


async def for_a_transfer(manager: Layer2Manager) -> Wait:
    transfer = await manager.start_cross_layer_transfer_async(BTC, 20_000, P.BOB, P.LIGHTNING)
    return lambda cancel: transfer.result_async(cancel=cancel)


async def for_all_transfers(manager: Layer2Manager) -> Wait:
    await manager.start_cross_layer_transfer_async(BTC, 20_000, P.BOB, P.LIGHTNING)
    return lambda cancel: manager.wait_idle_async(cancel=cancel)


async def for_a_transaction(manager: Layer2Manager) -> Wait:
    bob = await manager.get_protocol_async(P.BOB)
    tx_id = await bob.transfer_asset_async(BTC, 5, f"0x{'11' * 20}")
    return lambda cancel: bob.wait_for_transaction_async(tx_id, Depth.FINALIZED, cancel=cancel)


async def for_a_payment(manager: Layer2Manager) -> Wait:
    assert manager.embedded_network is not None
    held = await manager.embedded_network.merchant_node.create_hold_invoice(
        payment_hash=secrets.token_bytes(32), amount_msat=1_000_000, expiry_s=3600, cltv_delta=40
    )
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    begun = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, begun.set)
    with pytest.raises(TaskCancelled):
        await lightning.submit_transaction_async(LightningPayment(invoice=held.text), cancel=begun)
    tx_id = f"lightning:{held.payment_hash.hex()}"
    return lambda cancel: lightning.wait_for_transaction_async(tx_id, cancel=cancel)


@pytest.mark.parametrize("kind", [for_a_transfer, for_all_transfers, for_a_transaction, for_a_payment])
async def test_what_was_waited_for_goes_on(
    manager: Layer2Manager, kind: Callable[[Layer2Manager], Awaitable[Wait]]
) -> None:
    wait = await kind(manager)
    for delay_s in (0.02, 0):
        cancel = asyncio.Event()
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, cancel.set)
        else:
            cancel.set()
        with pytest.raises(TaskCancelled) as caught:
            await wait(cancel)
        assert (caught.value.goes_on, caught.value.retry_safe) == (True, True)
