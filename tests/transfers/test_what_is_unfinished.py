"""Whatever ends while a transfer is unfinished says by when it must run again."""

from __future__ import annotations

import secrets

import pytest

from layer2 import BTC, AsyncTimeout, Layer2Config, Layer2Manager, Transfer, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.lightning import InvoiceState

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 50_000


async def locked_transfer(manager: Layer2Manager) -> Transfer:
    """A transfer to a payee who holds the payment: it stays locked."""
    network = manager.embedded_network
    assert isinstance(network, EmbeddedNetwork)
    held = await network.merchant_node.create_hold_invoice(
        payment_hash=secrets.token_bytes(32), amount_msat=SAT * 1000, expiry_s=3600, cltv_delta=40
    )
    started = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=held.text)
    async for record in network.merchant_node.watch_invoice(held.payment_hash):
        if record.state is InvoiceState.ACCEPTED:
            break
    async for event in started.events():
        if event.state is TransferState.LOCKED:
            break
    return await manager.get_transfer_async(started.id)


async def test_a_time_limit_and_a_close_name_the_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "layer2")
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        transfer = await locked_transfer(manager)
        assert transfer.act_by is not None
        for wait in (transfer.result_async(timeout=0.01), manager.wait_idle_async(timeout=0.01)):
            with pytest.raises(AsyncTimeout) as caught:
                await wait
            assert caught.value.run_again_by == transfer.act_by
        assert manager.health().run_again_by == transfer.act_by
    # The embedded provider is closed as well: it has paid and not yet claimed.
    said = [record for record in caplog.records if getattr(record, "event_code", "") == "swap.unfinished"]
    times = [record.event_data["run_again_by"] for record in said]  # type: ignore[attr-defined]
    assert transfer.act_by in times
    assert all(time is not None for time in times)
    assert all("run again by 20" in record.getMessage() for record in said)
    assert len(said) == 2
