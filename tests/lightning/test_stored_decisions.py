"""What a store has under an idempotency key is believed as far as it can have been written for this recipient."""

from __future__ import annotations

import json

import pytest

from layer2.assets import BTC
from layer2.errors import StorageError
from layer2.lightning import Decision, InvoiceState, LightningNetwork, MemoryJournal


class RewrittenJournal(MemoryJournal):
    """A journal into which somebody else wrote."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self._written = written

    async def begin(self, key, digest):
        await super().begin(key, digest)
        return Decision(self._written)


@pytest.fixture
async def paying(line):
    """Pays 1,500 satoshi under a key for which the store has the given text."""
    layers = []

    async def pay(recipient, written):
        layer = LightningNetwork(line.alice, network="regtest", clock=line.clock, journal=RewrittenJournal(written))
        layers.append(layer)
        await layer.initialize_async()
        await layer.transfer_asset_async(BTC, 1_500, recipient, idempotency_key="order-7")

    yield pay
    for layer in layers:
        await layer.close_async()


async def test_another_invoice_than_the_one_that_was_asked_for_is_not_paid(line, paying):
    asked, other = [await node.create_invoice(amount_msat=1_500_000) for node in (line.bob, line.router)]
    with pytest.raises(StorageError, match="'order-7' the store has another invoice") as caught:
        await paying(asked.text, json.dumps({"invoice": other.text}))
    assert "take another idempotency key" in caught.value.hint
    for each in (line.bob, asked), (line.router, other):
        assert (await each[0].lookup_invoice(each[1].payment_hash)).state is InvoiceState.OPEN
    await paying(asked.text.upper(), json.dumps({"invoice": asked.text}))


@pytest.mark.parametrize(
    "written", ["", "[]", "{}", "null", "1", '{"invoice": "lnbc1", "preimage": "42"}', '{"invoice": 1, "preimage": 1}']
)
async def test_a_decision_that_cannot_be_read_is_damage(line, paying, written):
    invoice = await line.bob.create_invoice(amount_msat=1_500_000)
    before = line.network.spendable_msat(line.alice.node_id)
    for recipient in (invoice.text, line.bob.node_id.hex()):
        with pytest.raises(StorageError, match="'order-7' cannot be read"):
            await paying(recipient, written)
    assert line.network.spendable_msat(line.alice.node_id) == before
