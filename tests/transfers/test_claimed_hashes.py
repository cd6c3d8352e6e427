"""A hash that was claimed on the contract is refused by both sides, whatever their stores know of it."""

import pytest

from layer2 import BTC, Layer2Config, Layer2Manager, NodeError, SwapRefused
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedEvm
from layer2.evm import CLAIM_TOPIC
from layer2.storage import SwapJournal
from layer2.swaps import SubmarineRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("source", "destination"), [(P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)])
async def test_an_endpoint_without_events_stops_the_client_with_a_reason(manager, monkeypatch, source, destination):
    honest = EmbeddedEvm.call

    async def silent(self, method, params):
        if method == "eth_getLogs":
            raise NodeError("there are no events here")
        return await honest(self, method, params)

    monkeypatch.setattr(EmbeddedEvm, "call", silent)
    with pytest.raises(NodeError, match="no events"):
        await manager.start_cross_layer_transfer_async(BTC, 50_000, source, destination)
    assert manager.health().unfinished_transfers == 0


async def test_a_hash_that_the_chain_shows_is_refused_by_a_client_that_forgot_it(monkeypatch):
    """A lock on it could be claimed by the provider with nothing paid."""
    forgotten = False
    honest = SwapJournal.hash_known

    async def hash_known(self, payment_hash):
        return not forgotten and await honest(self, payment_hash)

    monkeypatch.setattr(SwapJournal, "hash_known", hash_known)
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        merchant = manager.embedded_network.merchant_node
        invoice = (await merchant.create_invoice(amount_msat=50_000_000)).text
        await manager.cross_layer_transfer_async(BTC, 50_000, P.BOB, P.LIGHTNING, recipient=invoice)
        forgotten = True
        with pytest.raises(SwapRefused, match="claimed on the contract") as caught:
            await manager.cross_layer_transfer_async(BTC, 50_000, P.BOB, P.LIGHTNING, recipient=invoice)
    assert caught.value.rule == "hash"


async def test_the_provider_searches_too(manager, monkeypatch):
    searched = []
    honest = EmbeddedEvm.call

    async def call(self, method, params):
        if method == "eth_getLogs":
            searched.append(params[0]["topics"])
        return await honest(self, method, params)

    monkeypatch.setattr(EmbeddedEvm, "call", call)
    service = manager.embedded_network.runtime.service
    record = await manager.embedded_network.merchant_node.create_invoice(amount_msat=50_000_000)
    request = SubmarineRequest(
        invoice=record.text,
        refund_address=manager.embedded_network.client_signer.address,
        pair_hash=(await service.info()).submarine.hash,
    )
    await service.create_submarine(request)
    assert searched == [["0x" + CLAIM_TOPIC.hex(), None, "0x" + record.payment_hash.hex()]]
