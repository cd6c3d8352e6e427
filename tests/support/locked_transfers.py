"""A transfer on the embedded network that stays where it is."""

from __future__ import annotations

import secrets

from layer2 import BTC, Layer2Manager, Transfer, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.lightning import InvoiceState

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
