"""``default_timeout_ms`` limits single network operations, never what waits for a transfer or a payment."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import pytest

from layer2 import BTC, DEFAULT, AsyncTimeout, Depth, Layer2Config, Layer2Manager, LightningPayment, TransferState
from layer2 import Layer2ProtocolType as P


async def test_the_default_is_no_limit_and_a_limit_is_one() -> None:
    async with Layer2Manager(Layer2Config.embedded(default_timeout_ms=1_000)) as manager:
        await manager.initialize_all_async(timeout=DEFAULT)
        network = manager.embedded_network
        assert network is not None
        bob, lightning = await manager.get_protocol_async(P.BOB), await manager.get_protocol_async(P.LIGHTNING)
        transfer = await manager.start_cross_layer_transfer_async(BTC, 20_000, P.LIGHTNING, P.BOB, payer="anyone")
        held = await network.merchant_node.create_hold_invoice(
            payment_hash=hashlib.sha256(preimage := secrets.token_bytes(32)).digest(),
            amount_msat=1_000_000,
            memo="",
            expiry_s=3_600,
            cltv_delta=40,
        )
        paying = asyncio.create_task(
            lightning.submit_transaction_async(LightningPayment(invoice=held.text), timeout=None)
        )
        payment = f"lightning:{held.payment_hash.hex()}"
        while not (await lightning.get_transaction_status_async(payment)).at_least(Depth.PENDING):
            await asyncio.sleep(0.01)
        sent = await bob.transfer_asset_async(BTC, 5, "0x" + "11" * 20)
        waits = [
            asyncio.create_task(wait)
            for wait in (
                transfer.result_async(timeout=DEFAULT),
                manager.wait_idle_async(timeout=DEFAULT),
                lightning.wait_for_transaction_async(payment, timeout=DEFAULT),
                bob.wait_for_transaction_async(sent, Depth.FINALIZED, timeout=DEFAULT),
            )
        ]
        with pytest.raises(AsyncTimeout):
            await transfer.result_async(timeout=1.5)
        assert not [wait for wait in waits[:3] if wait.done()]
        await network.merchant_node.settle_invoice(preimage)
        assert transfer.invoice is not None
        await network.merchant_node.pay(transfer.invoice, fee_limit_msat=100_000, cltv_limit=2_000, time_limit_s=60)
        async with asyncio.timeout(60):
            await asyncio.gather(paying, *waits)
        assert (await manager.get_transfer_async(transfer.id)).state is TransferState.SETTLED
