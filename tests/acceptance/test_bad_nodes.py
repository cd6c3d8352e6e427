"""Nodes and providers that misbehave, as a user of the manager meets them: a typed error, and no money moves."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from books import balances, nothing_in_flight
from gates import Gate, Mode, http

from layer2 import (
    BTC,
    AsyncTimeout,
    AuthenticationError,
    ConfigurationError,
    FeeLimitExceeded,
    InitializationError,
    Layer2Config,
    Layer2Error,
    Layer2Manager,
    NodeConnectionError,
    NodeNotReady,
    RateLimited,
    Secret,
    SwapRefused,
    UnexpectedReply,
)
from layer2 import Layer2ProtocolType as P
from layer2.devnet import RealNetwork
from layer2.devnet._processes import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 50_000
WAYS = {"out": (P.BOB, P.LIGHTNING), "back": (P.LIGHTNING, P.BOB)}
SHORT_MS = 2_500
"""Limit of one operation, for those that would wait for an answer that never comes."""


@dataclass
class Door:
    """A client's configuration, and a gate before each of the three that he talks to."""

    config: Layer2Config
    chain: Gate
    node: Gate
    provider: Gate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as network:
        yield network


@pytest_asyncio.fixture(loop_scope="module")
async def doors(network: RealNetwork, tmp_path: Path) -> AsyncIterator[Door]:
    async with (
        Gate(network.nodes.evm_url) as chain,
        Gate(network.nodes.lnd("client").rest_url) as node,
        Gate(network.provider.url) as provider,
    ):
        config = await network.client_config(store=f"sqlite:///{tmp_path / 'client.sqlite3'}")
        assert config.bob is not None
        assert config.lightning is not None
        config = replace(
            config,
            default_timeout_ms=SHORT_MS,
            bob=replace(config.bob, rpc_url=chain.url),
            lightning=replace(config.lightning, rest_url=node.url),
            swap=replace(config.swap, provider_url=provider.url),
        )
        yield Door(config=config, chain=chain, node=node, provider=provider)


@pytest.fixture
def nothing_moves(network: RealNetwork, eventually: Any) -> Any:
    """Around what is refused: afterwards everybody holds what they held, and the account sent nothing."""

    @asynccontextmanager
    async def check() -> AsyncIterator[None]:
        token = network.token.contract
        assert token is not None
        holders = {"client": network.client.address, "contract": network.contract}

        async def state() -> tuple[Any, ...]:
            held = await balances(network.nodes, token, holders)
            nonce = await network.nodes.evm_rpc("eth_getTransactionCount", str(network.client.address), "pending")
            return held.msat, held.tokens, held.wei, nonce

        await eventually(lambda: nothing_in_flight(network.nodes))
        before = await state()
        yield
        assert await nothing_in_flight(network.nodes)
        assert await state() == before

    return check


def of_chain(result: object) -> bytes:
    return http("200 OK", json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


HALF = http("200 OK", b'{"jsonrpc": "2.0", "id": 1, "re', length=60)
HTML = http("200 OK", b"<html><body>Welcome to the hotel</body></html>", content_type="text/html")
CHAIN_TROUBLES = {
    "silent": (Mode.SILENT, b"", AsyncTimeout, "took longer"),
    "dropped": (Mode.SHUT, b"", NodeConnectionError, "broke|connection"),
    "half an answer": (Mode.CANNED, HALF, NodeConnectionError, "broke|whole"),
    "HTML": (Mode.CANNED, HTML, UnexpectedReply, "JSON|answer"),
    "empty": (Mode.CANNED, http("200 OK"), UnexpectedReply, "JSON|answer"),
    "401": (Mode.CANNED, http("401 Unauthorized"), AuthenticationError, "401|refused|credential"),
    "403": (Mode.CANNED, http("403 Forbidden"), AuthenticationError, "403|refused|credential"),
    "404": (Mode.CANNED, http("404 Not Found", b"no"), UnexpectedReply, "404"),
    "429": (Mode.CANNED, http("429 Too Many Requests"), RateLimited, "often|429|limit"),
    "500": (Mode.CANNED, http("500 Internal Server Error"), NodeConnectionError, "500"),
    "503": (Mode.CANNED, http("503 Service Unavailable"), NodeConnectionError, "503"),
}


async def fails_to_start(manager: Layer2Manager, layer: P, error: type[Layer2Error], words: str) -> None:
    with pytest.raises(InitializationError) as caught:
        await manager.initialize_all_async()
    assert set(caught.value.failures) == {layer}
    failure = caught.value.failures[layer]
    assert isinstance(failure, error), failure
    assert re.search(words, str(failure)), failure
    assert not manager.health().ok
    with pytest.raises(error):
        await manager.get_protocol_async(layer)
    for way in WAYS.values():
        with pytest.raises(error):
            await manager.cross_layer_transfer_async(BTC, SAT, *way)


@pytest.mark.parametrize("trouble", CHAIN_TROUBLES)
async def test_an_endpoint_that_fails_leaves_lightning_usable_and_is_tried_again(doors, nothing_moves, trouble):
    mode, doors.chain.answer, error, words = CHAIN_TROUBLES[trouble]
    doors.chain.set(mode)
    async with Layer2Manager(doors.config) as manager:
        async with nothing_moves():
            await fails_to_start(manager, P.BOB, error, words)
        lightning = await manager.get_protocol_async(P.LIGHTNING)
        assert (await lightning.create_invoice_async(amount_msat=1_000)).amount_msat == 1_000
        doors.chain.set(Mode.OPEN)
        asked = len(doors.node.requests)
        await manager.initialize_all_async()
        assert len(doors.node.requests) == asked, "the layer that was up is left alone"
        assert manager.health().ok
        assert await manager.get_protocol_async(P.LIGHTNING) is lightning
        assert await (await manager.get_protocol_async(P.BOB)).balance_async(BTC) > SAT


async def test_an_endpoint_that_refuses_connections(doors, nothing_moves, unused_tcp_port):
    closed = f"http://127.0.0.1:{unused_tcp_port}"
    config = replace(doors.config, bob=replace(doors.config.bob, rpc_url=closed))
    async with Layer2Manager(config) as manager, nothing_moves():
        await fails_to_start(manager, P.BOB, NodeConnectionError, "connect|reach")


async def test_an_endpoint_of_another_chain(doors, nothing_moves):
    doors.chain.lie = lambda data: data.replace(b'"0xed88"', b'"0xed89"')
    async with Layer2Manager(doors.config) as manager, nothing_moves():
        await fails_to_start(manager, P.BOB, ConfigurationError, "60809.*60808")


LND_UNSYNCED = http(
    "200 OK",
    json.dumps(
        {
            "identity_pubkey": "02" + "11" * 32,
            "alias": "behind",
            "version": "0.21.0-beta",
            "block_height": 5,
            "synced_to_chain": False,
            "chains": [{"chain": "bitcoin", "network": "regtest"}],
            "local_balance": {"sat": "0", "msat": "0"},
            "remote_balance": {"sat": "0", "msat": "0"},
        }
    ).encode(),
)
NODE_TROUBLES = {
    "silent": (Mode.SILENT, b"", AsyncTimeout, "took longer"),
    "dropped": (Mode.SHUT, b"", NodeConnectionError, "broke|connection|answer"),
    "half an answer": (Mode.CANNED, HALF, NodeConnectionError, "broke|whole|answer"),
    "HTML": (Mode.CANNED, HTML, UnexpectedReply, "JSON"),
    "empty": (Mode.CANNED, http("200 OK"), UnexpectedReply, "JSON"),
    "401": (Mode.CANNED, http("401 Unauthorized"), AuthenticationError, "401|macaroon|refused"),
    "429": (Mode.CANNED, http("429 Too Many Requests"), RateLimited, "429|often"),
    "500": (Mode.CANNED, http("500 Internal Server Error"), UnexpectedReply, "500"),
    "other network": (
        Mode.CANNED,
        LND_UNSYNCED.replace(b'"regtest"', b'"mainnet"').replace(b"false", b"true "),
        ConfigurationError,
        "mainnet.*regtest",
    ),
}


async def bob_is_usable(manager: Layer2Manager) -> None:
    bob = await manager.get_protocol_async(P.BOB)
    assert await bob.balance_async(BTC) > SAT


@pytest.mark.parametrize("trouble", NODE_TROUBLES)
async def test_an_lnd_that_fails_leaves_bob_usable_and_is_tried_again(network, doors, nothing_moves, trouble):
    mode, answer, error, words = NODE_TROUBLES[trouble]
    async with Gate("http://127.0.0.1:1", mode=mode, answer=answer) as bad:
        config = replace(doors.config, lightning=replace(doors.config.lightning, rest_url=bad.url, tls_cert=None))
        async with Layer2Manager(config) as manager, nothing_moves():
            await fails_to_start(manager, P.LIGHTNING, error, words)
            await bob_is_usable(manager)
            asked = len(bad.requests)
            await manager_still_fails(manager)
            assert len(bad.requests) > asked or mode is Mode.SHUT, "calling again tries the failed"


async def manager_still_fails(manager: Layer2Manager) -> None:
    with pytest.raises(InitializationError):
        await manager.initialize_all_async()


async def test_an_lnd_that_is_not_synchronised(doors, nothing_moves):
    async with Gate("http://127.0.0.1:1", mode=Mode.CANNED, answer=LND_UNSYNCED) as bad:
        section = replace(doors.config.lightning, rest_url=bad.url, tls_cert=None)
        config = replace(doors.config, lightning=section, default_timeout_ms=60_000)
        async with Layer2Manager(config) as manager, nothing_moves():
            await fails_to_start(manager, P.LIGHTNING, NodeNotReady, "synchronised")
            await bob_is_usable(manager)


async def test_an_lnd_that_comes_back(doors):
    doors.node.set(Mode.SHUT)
    async with Layer2Manager(doors.config) as manager:
        await fails_to_start(manager, P.LIGHTNING, NodeConnectionError, "connect|answer")
        doors.node.set(Mode.OPEN)
        await manager.initialize_all_async()
        assert manager.health().ok
        await manager.cross_layer_transfer_async(BTC, SAT, *WAYS["out"])


@pytest.mark.parametrize("whose", ["another node's", "no macaroon at all"])
async def test_a_wrong_macaroon(network, doors, nothing_moves, whose):
    foreign = network.nodes.lnd("router").macaroon_path.read_bytes()
    macaroon = Secret(foreign if whose == "another node's" else b"\x02\x01", origin=None)
    config = replace(doors.config, lightning=replace(doors.config.lightning, macaroon=macaroon))
    async with Layer2Manager(config) as manager, nothing_moves():
        await fails_to_start(manager, P.LIGHTNING, AuthenticationError, "macaroon")
        await bob_is_usable(manager)
        assert foreign.hex()[:40] not in str(manager.health())


async def test_a_foreign_certificate(network, doors, nothing_moves):
    foreign = network.nodes.lnd("router").tls_cert_path
    config = replace(doors.config, lightning=replace(doors.config.lightning, tls_cert=foreign))
    async with Layer2Manager(config) as manager, nothing_moves():
        await fails_to_start(manager, P.LIGHTNING, AuthenticationError, "certificate")
        assert doors.node.requests, "it was asked, and not believed"


@pytest.fixture
def locked_lnd(regtest, tmp_path):
    """An lnd that was never given a wallet: its URL and the path of its certificate."""
    rest, rpc, p2p = free_ports(3)
    changed = {
        "--lnddir": tmp_path / "locked",
        "--rpclisten": f"127.0.0.1:{rpc}",
        "--restlisten": f"127.0.0.1:{rest}",
        "--listen": f"127.0.0.1:{p2p}",
        "--externalip": f"127.0.0.1:{p2p}",
    }
    arguments = []
    for part in regtest.process("client").argv:
        name = part.split("=")[0]
        if name != "--noseedbackup":
            arguments.append(f"{name}={changed[name]}" if name in changed else part)
    with (tmp_path / "lnd.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    yield f"https://127.0.0.1:{rest}", tmp_path / "locked" / "tls.cert"
    process.kill()
    process.wait()


async def test_a_locked_wallet(locked_lnd, doors, nothing_moves, eventually):
    url, certificate = locked_lnd

    async def certificate_is_written():
        return certificate.exists() and certificate.read_text().rstrip().endswith("-----END CERTIFICATE-----")

    await eventually(certificate_is_written)
    config = replace(doors.config, lightning=replace(doors.config.lightning, rest_url=url, tls_cert=certificate))
    async with Layer2Manager(config) as manager, nothing_moves():

        async def answers():
            try:
                await manager.initialize_all_async()
            except InitializationError as error:
                return not isinstance(error.failures[P.LIGHTNING], NodeConnectionError)

        await eventually(answers)
        await fails_to_start(manager, P.LIGHTNING, NodeNotReady, "wallet|start")
        await bob_is_usable(manager)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", ["chain", "provider"])
@pytest.mark.parametrize("trouble", ["silent", "dropped", "half an answer", "HTML", "500"])
async def test_who_fails_later_refuses_the_transfer_before_money_moves(doors, nothing_moves, who, way, trouble):
    gate = getattr(doors, who)
    async with Layer2Manager(doors.config) as manager:
        await manager.initialize_all_async()
        async with nothing_moves():
            mode, gate.answer, _, _ = CHAIN_TROUBLES[trouble]
            gate.set(mode)
            with pytest.raises((NodeConnectionError, UnexpectedReply, AsyncTimeout)) as caught:
                await manager.cross_layer_transfer_async(BTC, SAT, *WAYS[way], timeout=SHORT_MS / 1000)
            assert not caught.value.money_may_have_moved
            gate.set(Mode.OPEN)
            assert await manager.list_transfers_async() == []
        assert (await manager.quote_cross_layer_transfer_async(BTC, SAT, *WAYS[way])).amount == SAT


def lies_about_itself(network: RealNetwork) -> dict[str, tuple[bytes, bytes, type[Layer2Error], str]]:
    contract, token = str(network.contract).encode(), str(network.token.contract).encode()
    other = b"0x" + b"77" * 20
    return {
        "contract": (b'"htlcContract":"' + contract, b'"htlcContract":"' + other, SwapRefused, "contract"),
        "token": (b'"BTC":"' + token, b'"BTC":"' + other, SwapRefused, "token"),
        "chain": (b'"chainId":60808', b'"chainId":60809', SwapRefused, "chain"),
        "network": (b'"lightningNetwork":"regtest"', b'"lightningNetwork":"mainnet"', SwapRefused, "mainnet"),
        "price": (b'"ppm":5000', b'"ppm":9999', FeeLimitExceeded, "above the bound"),
        "not accepting": (b'"accepting":true', b'"accepting":null', UnexpectedReply, "malformed"),
        "timing": (b'"graceS":5', b'"graceS":1', SwapRefused, "timing"),
    }


@pytest.mark.parametrize("lie", ["contract", "token", "chain", "network", "price", "not accepting", "timing"])
async def test_a_provider_that_lies_about_itself(network, doors, nothing_moves, lie):
    true, false, error, words = lies_about_itself(network)[lie]
    told = []

    def change(data: bytes) -> bytes:
        told.append(true in data)
        return data.replace(true, false)

    doors.provider.lie = change
    async with Layer2Manager(doors.config) as manager:
        await manager.initialize_all_async()
        async with nothing_moves():
            for way in WAYS.values():
                with pytest.raises(error, match=words) as caught:
                    await manager.cross_layer_transfer_async(BTC, SAT, *way, max_fee=500)
                assert not caught.value.money_may_have_moved
            assert any(told), "the lie was told"
            assert not any(request.startswith(b"POST") for request in doors.provider.requests)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["amount", "timelock", "claimer", "refunder", "preimageHash", "signature"])
async def test_terms_that_were_changed_after_they_were_signed(doors, nothing_moves, way, field):
    told = []
    pattern = re.compile(rb'("%s":"?(?:0x)?[0-9a-fA-F]*)([0-9a-fA-F])("?[,}])' % field.encode())

    def change(data: bytes) -> bytes:
        changed = (
            pattern.sub(lambda m: m[1] + (b"1" if m[2] != b"1" else b"2") + m[3], data)
            if b"signedTerms" in data
            else data
        )
        told.append(changed != data)
        return changed

    doors.provider.lie = change
    async with Layer2Manager(doors.config) as manager:
        await manager.initialize_all_async()
        async with nothing_moves():
            with pytest.raises((SwapRefused, UnexpectedReply)) as caught:
                await manager.cross_layer_transfer_async(BTC, SAT, *WAYS[way])
            assert not caught.value.money_may_have_moved
            assert any(told), "the lie was told"
            assert await manager.list_transfers_async() == []
