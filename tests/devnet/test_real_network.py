"""Transfers on real nodes: what the demonstration and the tests of transfers stand on."""

import asyncio

import pytest

from layer2 import BTC, Layer2Manager, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.devnet import RealNetwork
from layer2.errors import ConfigurationError, NodeConnectionError


@pytest.fixture
async def network(regtest):
    async with RealNetwork(regtest) as network:
        yield network


async def test_value_crosses_both_ways_and_each_proof_verifies(network):
    async with Layer2Manager(await network.client_config()) as manager:
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        before = await bob.balance_async(BTC)
        for source, destination in ((P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)):
            async with asyncio.timeout(60):
                proof = await manager.cross_layer_transfer_async(BTC, 100_000, source, destination)
            assert await manager.verify_cross_layer_proof_async(proof)
        fee = (await manager.list_transfers_async())[-1].quote.fee
        assert await bob.balance_async(BTC) == before - fee


async def test_an_account_without_a_lightning_node_pays_a_third_party_and_is_paid_by_it(network):
    merchant = await network.connect("router")
    account = await network.new_account(tokens=1_000_000)
    config = await network.client_config(account=account, lightning=None)
    async with Layer2Manager(config) as manager, asyncio.timeout(60):
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        invoice = await merchant.create_invoice(amount_msat=50_000_500, memo="coffee", expiry_s=120)
        await manager.cross_layer_transfer_async(BTC, 50_001, P.BOB, P.LIGHTNING, recipient=invoice.text)
        assert (await merchant.lookup_invoice(invoice.payment_hash)).state == "settled"
        left = await bob.balance_async(BTC)

        transfer = await manager.start_cross_layer_transfer_async(BTC, 70_000, P.LIGHTNING, P.BOB, payer="anyone")
        paying = asyncio.create_task(
            merchant.pay(transfer.invoice, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=30)
        )
        await transfer.result_async()
        assert (await paying).state == "succeeded"
        assert await bob.balance_async(BTC) == left + 70_000


async def test_a_provider_that_was_stopped_comes_back_under_its_url_with_what_was_open(network):
    async with Layer2Manager(await network.client_config()) as manager, asyncio.timeout(60):
        await manager.initialize_all_async()
        transfer = await manager.start_cross_layer_transfer_async(BTC, 20_000, P.BOB, P.LIGHTNING)
        url = network.provider.url
        await network.provider.stop()
        with pytest.raises(NodeConnectionError):
            await manager.quote_cross_layer_transfer_async(BTC, 20_000, P.BOB, P.LIGHTNING)
        await network.provider.start()
        assert network.provider.url == url
        await transfer.result_async()
        assert (await manager.get_transfer_async(transfer.id)).state is TransferState.SETTLED


async def test_its_settings_are_a_file_that_works(network, tmp_path):
    config = await network.client_config()
    file = tmp_path / "layer2.toml"
    file.write_text(config.to_toml())
    assert await asyncio.to_thread(type(config).load, file, environ={}) == config
    assert network.client.key_file.stat().st_mode & 0o077 == 0


async def test_a_folder_that_was_used_before_is_refused_before_anything_is_started(tmp_path):
    (tmp_path / "account-1.key").write_text("of an earlier network")
    with pytest.raises(ConfigurationError, match="is not empty"):
        async with RealNetwork(directory=tmp_path):
            pytest.fail("it was taken")
    assert [path.name for path in tmp_path.iterdir()] == ["account-1.key"]
