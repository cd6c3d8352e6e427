"""Fixtures for tests on an anvil of their own: started with any arguments, and senders on it."""

import asyncio
import socket
import subprocess
from dataclasses import dataclass

import pytest

from layer2._clock import SystemClock
from layer2.evm import EvmClient, HttpLimits, HttpTransport, MemoryTxJournal, SenderSettings, TxSender
from layer2.signers import LocalSigner
from layer2.transactions import Depth

ANVIL_KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
)
CHAIN_ID = 60808


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Anvil:
    url: str
    client: EvmClient
    process: subprocess.Popen

    async def rpc(self, method, *params):
        return await self.client.request(method, *params)

    async def mine(self, blocks=1):
        await self.rpc("anvil_mine", hex(blocks))


@pytest.fixture
async def start_anvil(node_binaries):
    """Starts anvil with the given arguments; one block for each transaction unless they say otherwise."""
    started = []

    async def start(*arguments):
        port = _free_port()
        command = [str(node_binaries.anvil), "--optimism", "--chain-id", str(CHAIN_ID), "--port", str(port)]
        if "--slots-in-an-epoch" not in arguments:
            command += ["--slots-in-an-epoch", "1"]
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [*command, "--silent", *arguments], stdout=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{port}"
        anvil = Anvil(url, EvmClient(HttpTransport(url, limits=HttpLimits(attempts=1))), process)
        started.append(anvil)
        while True:
            try:
                await anvil.client.chain_id()
                return anvil
            except ConnectionError:
                assert process.poll() is None, "anvil ended"
                await asyncio.sleep(0.02)

    yield start
    for anvil in started:
        await anvil.client.close()
        anvil.process.kill()
        anvil.process.wait()


@pytest.fixture
async def make_sender():
    """Makes started senders, closed at the end."""
    senders = []

    async def make(
        anvil,
        *,
        signer=None,
        journal=None,
        transport=None,
        limits=None,
        clock=None,
        data_fee=None,
        **settings,
    ):
        settings = {"poll_interval_s": 0.05, "idle_poll_interval_s": 0.1, "heads_max_age_s": 0.0, **settings}
        client = EvmClient(transport) if transport is not None else anvil.client
        sender = TxSender(
            client,
            signer or LocalSigner.from_hex(ANVIL_KEYS[0]),
            journal if journal is not None else MemoryTxJournal(),
            chain_id=CHAIN_ID,
            clock=clock or SystemClock(),
            limits=limits,
            data_fee=data_fee,
            settings=SenderSettings(layer="bob", **settings),
        )
        senders.append(sender)
        await sender.start()
        return sender

    yield make
    for sender in senders:
        await sender.close()


class Tap:
    """A transport through which a test sees every request, and answers some itself."""

    def __init__(self, url):
        self.inner = HttpTransport(url)
        self.calls = []
        self.hooks = {}

    def sent(self):
        return [params[0] for method, params in self.calls if method == "eth_sendRawTransaction"]

    async def call(self, method, params):
        self.calls.append((method, params))
        hook = self.hooks.get(method)
        if hook is not None:
            return await hook(params)
        return await self.inner.call(method, params)

    async def close(self):
        await self.inner.close()


@pytest.fixture
async def tap():
    taps = []

    def make(anvil):
        taps.append(Tap(anvil.url))
        return taps[-1]

    yield make
    for made in taps:
        await made.close()


@pytest.fixture
def until():
    """Looks until a condition holds."""

    async def look(condition):
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.01)

    return look


@pytest.fixture
def mined(until):
    """Whether a transaction succeeded, after as many blocks as it took."""

    async def mine(anvil, sender, tx_hash):
        async def included():
            await anvil.mine()
            return (await sender.status(tx_hash)).at_least(Depth.INCLUDED)

        await until(included)
        return (await sender.wait(tx_hash)).succeeded

    return mine
