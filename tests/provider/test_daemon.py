"""The daemon on a real EVM and an in-memory Lightning network: how it starts, refuses to start, and ends."""

import asyncio
import json
import signal
import socket
from dataclasses import replace

import aiohttp
import pytest

from layer2 import EvmAddress, Layer2Config, ProviderConfig
from layer2.config import AssetConfig, BobConfig, LightningConfig, Secret, SignerConfig, StoreConfig, SwapConfig
from layer2.devnet import EmbeddedNetwork
from layer2.errors import (
    AsyncRuntimeError,
    ConfigurationError,
    NodeConnectionError,
    NodeNotReady,
    StoreInUse,
    SwapRefused,
)
from layer2.provider import ProviderDaemon
from layer2.swaps import HttpProvider, SubmarineRequest

OFFER = ProviderConfig(listen_port=0, min_amount=1_000, shutdown_grace_s=2)
CONFIG = Layer2Config(network="devnet", store=StoreConfig(url="sqlite://"), provider=OFFER)


class Node:
    """A node with other answers about itself."""

    def __init__(self, node, **changes):
        self._node = node
        self.changes = changes

    def __getattr__(self, name):
        return getattr(self._node, name)

    async def info(self):
        if "error" in self.changes:
            raise self.changes["error"]
        return replace(await self._node.info(), **self.changes)


class Transport:
    """A chain with other answers to some methods."""

    def __init__(self, transport, **answers):
        self._transport = transport
        self.answers = answers
        self.closed = False

    async def call(self, method, params):
        if method in self.answers:
            return self.answers[method]
        return await self._transport.call(method, params)

    async def close(self):
        self.closed = True


@pytest.fixture
async def network():
    async with EmbeddedNetwork(block_time_s=0.05, with_provider=False) as network:
        yield network


@pytest.fixture
def daemon_of(network):
    def make(config=CONFIG, **parts):
        defaults = {"signer": network.provider_signer, "node": network.provider_node, "transport": network.transport()}
        return ProviderDaemon(config, **defaults | parts)

    return make


async def offer(network, client):
    record = await network.merchant_node.create_invoice(amount_msat=5_000_000, memo="", expiry_s=1_000)
    info = await client.info()
    return await client.create_submarine(
        SubmarineRequest(
            invoice=record.text, refund_address=network.client_signer.address, pair_hash=info.submarine.hash
        )
    )


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_it_serves_on_a_free_port_until_it_is_told_to_stop(network, daemon_of):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with daemon_of() as daemon:
        serving = asyncio.create_task(daemon.serve())
        assert daemon.url == f"http://127.0.0.1:{daemon.port}"
        client = HttpProvider(daemon.url)
        info = await client.info()
        assert (info.chain_id, info.lightning_network) == (60808, "regtest")
        assert info.provider_address == network.provider_signer.address
        assert (await offer(network, client)).signed_terms.verify()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert not serving.done()
        daemon.stop()
        await serving
        await client.close()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await get(daemon.url + "/v1/version")
    await daemon.close()


async def test_open_swaps_are_taken_up_by_the_next_process(network, daemon_of, tmp_path, caplog):
    caplog.set_level("INFO", "layer2")
    config = CONFIG.with_changes(store=StoreConfig(url=f"sqlite:///{tmp_path}/provider.sqlite3"))
    async with daemon_of(config) as daemon:
        client = HttpProvider(daemon.url)
        response = await offer(network, client)
        await client.close()
    said = next(record for record in caplog.records if getattr(record, "event_code", "") == "swap.unfinished")
    assert (said.event_data["run_again_by"], len(said.event_data["swaps"])) == (None, 1)
    assert daemon.run_again_by is None
    async with daemon_of(config) as daemon:
        assert daemon.runtime.inventory.active == 1
        assert daemon.runtime.inventory.lightning_bound_msat() > 5_000_000
        status, text = await get(f"{daemon.url}/v1/swap/{response.id}")
        assert (status, json.loads(text)["status"]) == (200, "swap.created")


async def test_a_store_of_another_chain_is_refused(network, daemon_of, tmp_path):
    config = CONFIG.with_changes(store=StoreConfig(url=f"sqlite:///{tmp_path}/provider.sqlite3"))
    async with daemon_of(config) as daemon:
        client = HttpProvider(daemon.url)
        await offer(network, client)
        await client.close()
    async with EmbeddedNetwork(block_time_s=0.05, with_provider=False) as anew:
        parts = {"signer": network.provider_signer, "node": anew.provider_node, "transport": anew.transport()}
        with pytest.raises(ConfigurationError, match="another chain with the id 60808") as caught:
            await daemon_of(config, **parts).start()
        assert "new store" in caught.value.hint
    async with daemon_of(config) as daemon:
        assert daemon.runtime.inventory.active == 1


async def test_one_process_for_one_store(daemon_of, tmp_path):
    config = CONFIG.with_changes(store=StoreConfig(url=f"sqlite:///{tmp_path}/provider.sqlite3"))
    async with daemon_of(config):
        with pytest.raises(StoreInUse):
            await daemon_of(config).start()


async def test_the_switch_stops_new_swaps_only(network, daemon_of):
    async with daemon_of() as daemon:
        client = HttpProvider(daemon.url)
        made = await offer(network, client)
        daemon.accept_new = False
        with pytest.raises(SwapRefused) as caught:
            await offer(network, client)
        assert caught.value.rule == "accept_new"
        assert (await client.status(made.id)).id == made.id
        assert (await client.info()).accepting is False
        status, text = await get(daemon.url + "/v1/health/ready")
        assert status == 503
        assert list(json.loads(text)["problems"]) == ["accept_new"]
        daemon.accept_new = True
        await offer(network, client)
        await client.close()


async def test_the_configuration_can_start_it_switched_off(network, daemon_of):
    config = CONFIG.with_changes(provider=replace(OFFER, accept_new=False))
    async with daemon_of(config) as daemon:
        assert daemon.accept_new is False


async def test_closing_ends_open_streams_in_order(network, daemon_of):
    async with aiohttp.ClientSession() as session:
        async with daemon_of() as daemon:
            client = HttpProvider(daemon.url)
            response = await offer(network, client)
            await client.close()
            answer = await session.get(f"{daemon.url}/v1/swap/{response.id}/events")
            assert await answer.content.readuntil(b"\n\n") == b"retry: 3000\n\n"
            assert b"swap.created" in await answer.content.readuntil(b"\n\n")
        # A whole chunked body: a cut one would raise here.
        assert await answer.content.read() == b""
        answer.close()


async def test_readiness_names_what_is_missing(network, daemon_of):
    node = Node(network.provider_node)
    async with daemon_of(node=node) as daemon:
        assert (await get(daemon.url + "/v1/health/ready"))[0] == 200
    node = Node(network.provider_node)
    async with daemon_of(node=node) as daemon:
        node.changes["error"] = NodeConnectionError("cannot reach 10.1.2.3")
        status, text = await get(daemon.url + "/v1/health/ready")
        assert status == 503
        assert json.loads(text)["problems"] == {"lightning": "NodeConnectionError"}
        assert (await get(daemon.url + "/v1/health/live"))[0] == 200


@pytest.mark.parametrize(("proxies", "accounts"), [(OFFER.trusted_proxies, 2), (("192.0.2.1",), 1)])
async def test_only_the_proxies_of_the_configuration_are_believed(daemon_of, proxies, accounts):
    offer = replace(OFFER, trusted_proxies=proxies, requests_per_minute=1)
    asked = []
    async with daemon_of(replace(CONFIG, provider=offer)) as daemon, aiohttp.ClientSession() as session:
        for number in range(2):
            headers = {"X-Forwarded-For": f"198.51.100.{number}"}
            async with session.post(daemon.url + "/v1/swap/reverse", json={}, headers=headers) as answer:
                asked.append(answer.status)
    assert asked == [400, 400 if accounts == 2 else 429]


async def test_metrics_show_open_swaps(network, daemon_of):
    async with daemon_of() as daemon:
        client = HttpProvider(daemon.url)
        await offer(network, client)
        await client.close()
        _, text = await get(daemon.url + "/metrics")
    assert "layer2_provider_open_swaps 1.0" in text
    assert 'layer2_provider_swap_states_total{direction="submarine",status="swap.created"} 1.0' in text


class TestRefusesToStart:
    async def start(self, daemon, key, words):
        with pytest.raises(ConfigurationError) as caught:
            await daemon.start()
        assert caught.value.key == key
        assert words in str(caught.value)
        await daemon.close()

    async def test_on_a_port_that_is_taken(self, daemon_of):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config = CONFIG.with_changes(provider=replace(OFFER, listen_port=port))
            await self.start(daemon_of(config), "provider.listen_port", f"port {port} of 127.0.0.1 is in use")

    async def test_on_an_address_that_is_not_ours(self, daemon_of):
        config = CONFIG.with_changes(provider=replace(OFFER, listen_host="192.0.2.1"))
        await self.start(daemon_of(config), "provider.listen_host", "192.0.2.1")

    async def test_on_another_chain(self, network, daemon_of):
        other = Transport(network.transport(), eth_chainId="0x1")
        await self.start(daemon_of(transport=other), "bob.rpc_url", "serves chain 1, not 60808")

    @pytest.mark.parametrize(("code", "words"), [("0x", "no contract"), ("0x6001", "not the HTLC contract")])
    async def test_without_the_contracts_code(self, network, daemon_of, code, words):
        other = Transport(network.transport(), eth_getCode=code)
        await self.start(daemon_of(transport=other), "bob.htlc_contract", words)

    async def test_with_a_token_that_is_none(self, daemon_of):
        asset = AssetConfig(contract=EvmAddress(raw=b"\x77" * 20))
        await self.start(daemon_of(CONFIG.with_changes(assets={"BTC": asset})), "assets.BTC.contract", "no token")

    async def test_with_a_token_of_other_decimals(self, network, daemon_of):
        asset = AssetConfig(contract=network.token.contract, contract_decimals=18)
        config = CONFIG.with_changes(assets={"BTC": asset})
        await self.start(daemon_of(config), "assets.BTC.contract_decimals", "has 8 decimals, not 18")

    async def test_with_a_node_of_another_network(self, network, daemon_of):
        node = Node(network.provider_node, network="mainnet")
        await self.start(daemon_of(node=node), "lightning.network", "mainnet, not on regtest")

    async def test_without_a_lightning_node(self, daemon_of):
        await self.start(daemon_of(node=None), "lightning", "[lightning]")

    async def test_without_an_account(self, daemon_of):
        await self.start(daemon_of(signer=None), "signer", "[signer]")

    async def test_without_an_endpoint(self, daemon_of):
        config = CONFIG.with_changes(bob=BobConfig(chain="devnet"))
        await self.start(daemon_of(config, transport=None), "bob.rpc_url", "no public endpoint")

    async def test_without_a_known_token(self, daemon_of):
        config = CONFIG.with_changes(network="bob-sepolia", bob=BobConfig(chain="bob-sepolia"))
        await self.start(daemon_of(config), "assets.BTC", "chain 808813")

    async def test_with_a_certificate_that_cannot_be_read(self, daemon_of, tmp_path):
        lightning = LightningConfig(
            rest_url="https://127.0.0.1:1", macaroon=Secret("00"), tls_cert=tmp_path / "missing.cert"
        )
        config = CONFIG.with_changes(lightning=lightning)
        await self.start(daemon_of(config, node=None), "lightning.tls_cert", "certificate")

    def test_without_a_section(self, network):
        with pytest.raises(ConfigurationError, match=r"\[provider\]"):
            ProviderDaemon(Layer2Config(network="devnet"))

    async def test_while_the_node_is_not_synchronised(self, network, daemon_of):
        with pytest.raises(NodeNotReady):
            await daemon_of(node=Node(network.provider_node, synced_to_chain=False)).start()

    async def test_and_leaves_nothing_open(self, network, daemon_of, tmp_path):
        config = CONFIG.with_changes(store=StoreConfig(url=f"sqlite:///{tmp_path}/provider.sqlite3"))
        for _ in range(2):
            with pytest.raises(NodeNotReady):
                await daemon_of(config, node=Node(network.provider_node, synced_to_chain=False)).start()
        async with daemon_of(config):
            pass


async def test_the_account_of_the_configuration_is_used(network, daemon_of):
    key = "0x" + "11" * 32
    config = CONFIG.with_changes(signer=SignerConfig(private_key=Secret(key)))
    async with daemon_of(config, signer=None) as daemon:
        status, text = await get(daemon.url + "/v1/info")
        assert status == 200
        assert json.loads(text)["providerAddress"] == "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


async def test_the_depth_rules_are_those_of_the_configuration(network, daemon_of):
    from layer2.config import DepthRule

    rules = (DepthRule(up_to=50_000, depth="included", confirmations=4), DepthRule(depth="finalized"))
    async with daemon_of(CONFIG.with_changes(swap=SwapConfig(depth=rules))) as daemon:
        pair = json.loads((await get(daemon.url + "/v1/swap/submarine"))[1])
    assert pair["depthPolicies"][0] == ["50000", {"depth": 2, "confirmations": 4}]
    assert pair["depthPolicies"][1][1]["depth"] == 4


async def test_life_cycle_mistakes_are_named(daemon_of):
    daemon = daemon_of()
    with pytest.raises(AsyncRuntimeError, match="does not run"):
        _ = daemon.url
    async with daemon:
        with pytest.raises(AsyncRuntimeError, match="started before"):
            await daemon.start()
    with pytest.raises(AsyncRuntimeError):
        await daemon.start()


async def test_what_was_passed_in_stays_open(network, daemon_of):
    transport = Transport(network.transport())
    async with daemon_of(transport=transport):
        pass
    assert not transport.closed
    assert (await network.provider_node.info()).synced_to_chain
