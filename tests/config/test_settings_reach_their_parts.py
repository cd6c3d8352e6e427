"""What is set reaches the part that it is about."""

from __future__ import annotations

from typing import Any

import pytest

from layer2 import BTC, ConfigurationError, Layer2Config, Layer2Manager, SwapRefused, SystemClock
from layer2 import Layer2ProtocolType as P
from layer2.bob import DEVNET
from layer2.config import BobConfig, ConnectionPoolConfig, LightningConfig, Secret, SwapConfig
from layer2.connect import bound_of_gas, bound_of_unsafe, chain_preset, connect_chain, connect_node, fee_limits
from layer2.lightning import LndNode

POOL = ConnectionPoolConfig(
    max_connections=7, max_connections_per_host=9, idle_timeout_ms=11_000, connect_timeout_ms=1_500
)


@pytest.mark.parametrize(("network", "chain"), [("bob", "bob"), ("bob", 4242), ("devnet", "devnet")])
def test_polling_and_window_on_every_chain(network: str, chain: str | int) -> None:
    section = BobConfig(rpc_url="http://127.0.0.1:1", chain=chain, max_unconfirmed_per_key=3, poll_interval_ms=250)
    preset = chain_preset(Layer2Config(network=network, bob=section))  # type: ignore[arg-type]
    assert (preset.max_unconfirmed_per_key, preset.poll_interval_s) == (3, 0.25)
    assert chain_preset(Layer2Config.embedded()) == DEVNET


@pytest.mark.parametrize("network", ["bob", "devnet"])
@pytest.mark.parametrize("bound", [0, 10**12, 10**17])
def test_the_bound_of_gas_is_that_of_every_transaction(bound: int, network: str) -> None:
    """On development networks too, however little it is there."""
    section = BobConfig(rpc_url="http://127.0.0.1:1", max_gas_cost_wei=bound, max_fee_per_gas_wei=5)
    config = Layer2Config(network=network, bob=section)  # type: ignore[arg-type]
    limits = fee_limits(config)
    assert (limits.max_gas_cost_wei, limits.max_fee_per_gas_wei) == (bound, 5)
    assert bound_of_gas(config) == bound


def test_without_a_setting_gas_may_cost_more_on_development_networks() -> None:
    section = BobConfig(rpc_url="http://127.0.0.1:1")
    assert bound_of_gas(Layer2Config(bob=section)) == 2 * 10**15
    assert bound_of_gas(Layer2Config(network="devnet", bob=section)) == 10**17
    assert bound_of_gas(Layer2Config.embedded()) == 10**17


def test_without_a_setting_nothing_bounds_unsafe_value_on_development_networks_only() -> None:
    assert bound_of_unsafe(Layer2Config(network="bob")) == 5_000_000
    assert bound_of_unsafe(Layer2Config.embedded()) > 2**63
    for network in ("bob", "devnet", "embedded"):
        assert bound_of_unsafe(Layer2Config(network=network, swap=SwapConfig(max_unsafe_total=0))) == 0  # type: ignore[arg-type]


async def test_the_bound_on_unsafe_value_is_that_of_every_transfer() -> None:
    config = Layer2Config.embedded().with_changes(swap=SwapConfig(max_unsafe_total=50_000))
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        assert await manager.quote_cross_layer_transfer_async(BTC, 50_000, P.LIGHTNING, P.BOB)
        # The fee lies in the lock too, on the way out.
        for amount, *way in ((50_001, P.LIGHTNING, P.BOB), (50_000, P.BOB, P.LIGHTNING)):
            with pytest.raises(SwapRefused) as caught:
                await manager.quote_cross_layer_transfer_async(BTC, amount, *way)
            assert caught.value.rule == "max_unsafe"


async def test_the_connection_pool_of_both_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def connect(url: str, **options: Any) -> str:
        asked.update(options, url=url)
        return "a node"

    monkeypatch.setattr(LndNode, "connect", connect)
    config = Layer2Config(
        network="devnet",
        connection_pool=POOL,
        bob=BobConfig(rpc_url="http://127.0.0.1:1", chain="devnet"),
        lightning=LightningConfig(rest_url="https://127.0.0.1:2", macaroon=Secret(b"\x01"), network="regtest"),
    )
    assert await connect_node(config) == "a node"
    assert (asked["max_connections"], asked["connect_timeout_s"], asked["idle_timeout_s"]) == (7, 1.5, 11.0)
    monkeypatch.setattr("layer2.connect.HttpTransport", lambda _, **options: options["limits"])
    limits: Any = connect_chain(config, chain_preset(config), SystemClock())
    assert (limits.max_connections, limits.connect_timeout_s, limits.idle_timeout_s) == (7, 1.5, 11.0)


@pytest.mark.parametrize("url", ["http://10.1.2.3:8080", "http://127.8.8.8:8080"])
async def test_plain_http_that_the_settings_take_reaches_the_node(url: str) -> None:
    section = LightningConfig(rest_url=url, macaroon=Secret(b"\x01"), allow_plain_http="10." in url)
    node = await connect_node(Layer2Config(network="devnet", lightning=section))
    await node.close()
    with pytest.raises(ConfigurationError):
        LndNode.connect("http://10.1.2.3:8080", macaroon=b"\x01")
