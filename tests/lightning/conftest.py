import asyncio
import heapq
import random
import subprocess

import pytest

from layer2.devnet._processes import free_ports
from layer2.lightning import ChannelPolicy, LndNode, MemoryLightning


class ManualClock:
    """Time stands still until ``advance``."""

    def __init__(self) -> None:
        self._now_ms = 1_700_000_000_000
        self._sleepers = []
        self._count = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now_ms + round(seconds * 1000), self._count, waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)
        while self._sleepers and self._sleepers[0][0] <= self._now_ms:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)


class Line:
    """alice - router - bob, with 10 million satoshi on alice's side and 5 million each way behind the router."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.network = MemoryLightning(clock=clock, random_bytes=random.Random(7).randbytes)
        self.alice, self.router, self.bob = (self.network.add_node(name) for name in ("alice", "router", "bob"))
        policy = ChannelPolicy(base_fee_msat=1_000, fee_ppm=100, cltv_delta=40)
        self.first = self.network.open_channel(
            self.alice.node_id, self.router.node_id, local_msat=10**10, remote_msat=10**9, policy=policy
        )
        self.second = self.network.open_channel(
            self.router.node_id, self.bob.node_id, local_msat=5 * 10**9, remote_msat=5 * 10**9, policy=policy
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def line(clock: ManualClock) -> Line:
    return Line(clock)


LIMITS = {"fee_limit_msat": 10_000_000, "cltv_limit": 1008, "time_limit_s": 30}


@pytest.fixture
def limits() -> dict:
    return dict(LIMITS)


async def settle_loop() -> None:
    """Let every task that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def run_ready():
    return settle_loop


@pytest.fixture
def connect_lnd(regtest):
    """Makes a connection to a real lnd by its name. Not async: it reads the credentials from files."""

    def connect(name, **options) -> LndNode:
        lnd = regtest.lnd(name)
        return LndNode.from_files(
            lnd.rest_url, macaroon_path=lnd.macaroon_path, tls_cert_path=lnd.tls_cert_path, **options
        )

    return connect


@pytest.fixture
def walletless_lnd(regtest, tmp_path):
    """Starts an lnd that has no wallet yet, with more arguments if given; gives a connection to it."""
    arguments = [part for part in regtest.process("client").argv if part != "--noseedbackup"]
    port, rpc_port, p2p_port = free_ports(3)
    changes = {
        "--lnddir": str(tmp_path),
        "--rpclisten": f"127.0.0.1:{rpc_port}",
        "--restlisten": f"127.0.0.1:{port}",
        "--listen": f"127.0.0.1:{p2p_port}",
        "--externalip": f"127.0.0.1:{p2p_port}",
    }
    arguments = [f"{name}={changes[name]}" if (name := part.split("=")[0]) in changes else part for part in arguments]
    started = []

    def certificate() -> str | None:
        path = tmp_path / "tls.cert"
        text = path.read_text() if path.exists() else ""
        return text if text.rstrip().endswith("-----END CERTIFICATE-----") else None

    def launch(*more: str) -> None:
        with (tmp_path / "log").open("wb") as log:
            started.append(subprocess.Popen([*arguments, *more], stdout=log, stderr=log))

    async def start(*more: str) -> LndNode:
        launch(*more)
        async with asyncio.timeout(60):
            while (text := certificate()) is None:
                await asyncio.sleep(0.05)
        return LndNode.connect(f"https://127.0.0.1:{port}", macaroon=None, certificate=text)

    yield start
    for process in started:
        process.kill()
        process.wait()
