"""Code that runs for a transfer or a transaction finds their ids in context variables: an application's own records can carry them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from layer2 import BTC, ETH, TRANSFER_ID, TX_ID, Layer2Config, Layer2Manager
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork

FRIEND = "0x" + "0b" * 20
Seen = list[tuple[str, str | None, str | None]]


@pytest.fixture
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as opened:
        await opened.initialize_all_async()
        yield opened


def network_of(manager: Layer2Manager) -> EmbeddedNetwork:
    assert manager.embedded_network is not None
    return manager.embedded_network


@pytest.fixture
def seen(manager: Layer2Manager, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the signer, the chain and the node were asked, with the ids of the context in which they were asked it."""
    found: Seen = []
    network = network_of(manager)

    def watch(owner: Any, name: str, what: Any) -> None:
        asked = getattr(owner, name)

        async def watched(*args: Any, **kwargs: Any) -> Any:
            found.append((what(*args), TRANSFER_ID.get(), TX_ID.get()))
            return await asked(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(type(network.client_signer), "sign_digest", lambda self, _digest: f"sign {self.address}")
    watch(network.evm, "call", lambda method, _params: method)
    watch(network.client_node, "pay", lambda _text: "pay")
    watch(network.client_node, "keysend", lambda *_: "keysend")
    watch(network.client_node, "lookup_payment", lambda _hash: "lookup")
    return found


def ids(seen: Seen, what: str) -> set[tuple[str | None, str | None]]:
    return {(transfer, tx) for asked, transfer, tx in seen if asked == what}


async def test_a_transaction_on_bob_is_sent_and_looked_at_under_its_id(manager: Layer2Manager, seen: Seen) -> None:
    bob = await manager.get_protocol_async(P.BOB)
    tx_id = await bob.transfer_asset_async(ETH, 7, FRIEND)
    assert ids(seen, "eth_sendRawTransaction") == {(None, str(tx_id))}
    await bob.wait_for_transaction_async(tx_id)
    seen.clear()
    await bob.get_transaction_status_async(tx_id)
    assert (None, str(tx_id)) in {(transfer, tx) for _, transfer, tx in seen}
    assert (TRANSFER_ID.get(), TX_ID.get()) == (None, None)


async def test_a_payment_over_lightning_is_made_under_its_id(manager: Layer2Manager, seen: Seen) -> None:
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    merchant = network_of(manager).merchant_node
    invoice = await merchant.create_invoice(amount_msat=9_000)
    tx_id = await lightning.transfer_asset_async(BTC, 9, invoice.text)
    assert ids(seen, "pay") == {(None, str(tx_id))}
    tx_id = await lightning.transfer_asset_async(BTC, 9, merchant.node_id.hex())
    assert ids(seen, "keysend") == {(None, str(tx_id))}
    seen.clear()
    await lightning.get_transaction_status_async(tx_id)
    assert ids(seen, "lookup") == {(None, str(tx_id))}


@pytest.mark.parametrize("source", [P.BOB, P.LIGHTNING])
async def test_what_a_transfer_signs_sends_pays_and_logs_carries_its_id(
    manager: Layer2Manager, seen: Seen, source: P
) -> None:
    records: list[tuple[str, str | None, str | None]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.__dict__["event_code"], record.__dict__["transfer_id"], TRANSFER_ID.get()))

    handler = Handler()
    logger = logging.getLogger("layer2")
    logger.addHandler(handler)
    level, _ = logger.level, logger.setLevel(logging.DEBUG)
    try:
        there = P.LIGHTNING if source is P.BOB else P.BOB
        recipient = (
            (await network_of(manager).merchant_node.create_invoice(amount_msat=20_000_000)).text
            if source is P.BOB
            else None
        )
        transfer = await manager.start_cross_layer_transfer_async(BTC, 20_000, source, there, recipient=recipient)
        async with asyncio.timeout(60):
            await transfer.result_async()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    ours = f"sign {network_of(manager).client_signer.address}"
    assert {pair[0] for pair in ids(seen, ours)} == {transfer.id}
    sent = {pair for pair in ids(seen, "eth_sendRawTransaction") if pair[0] == transfer.id}
    assert sent
    assert all(tx is not None and tx.startswith("bob:") for _, tx in sent)
    if source is P.LIGHTNING:
        assert {transfer_id for transfer_id, _ in ids(seen, "pay")} == {transfer.id}
        assert all(tx is not None and tx.startswith("lightning:") for _, tx in ids(seen, "pay"))
    mine = [record for record in records if record[1] == transfer.id]
    assert {"swap.transition"} <= {code for code, *_ in mine}
    assert [record for record in mine if record[2] != transfer.id] == []
    assert (TRANSFER_ID.get(), TX_ID.get()) == (None, None)
