"""What an older version of the package left unfinished, this one ends: the same store, the same nodes, another wheel.

The older version is the commit that ``BASE`` names. It is installed beside this one and runs in processes of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from crash_rig import LIMIT_S, free_port, settings

from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import EvmClient, HttpTransport, encode_balance_of

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
THIS = ROOT / "src"
CHILD = ROOT / "tests" / "support" / "upgrade_child.py"
AMOUNT, TOKENS = 20_000, 10_000_000
OUT, BACK = ("bob", "lightning"), ("lightning", "bob")
STEPS = [(OUT, "locking"), (OUT, "locked"), (OUT, "settled"), (BACK, "paying"), (BACK, "claiming")]
"""Where the old version stops; what is settled is not final yet."""


@pytest.fixture(scope="module")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the older version of the package, made from its own sources alone."""
    base = (Path(__file__).parent / "BASE").read_text().strip()
    if subprocess.run(["git", "cat-file", "-e", base], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip(f"this checkout has no history that reaches back to {base}")
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    archive = subprocess.run(["git", "archive", base], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True)
    return site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as started:
        yield started


class Life:
    """One process of one version of the package."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def until(self, start: str) -> str:
        """Wait for a line that starts so; gives the rest of it."""
        assert self._process.stdout is not None
        while not any(line.startswith(start) for line in self.said):
            read = await self._process.stdout.readline()
            assert read, f"it ended without {start!r}: {self.said}"
            self.said.append(read.decode().strip())
        return self.said[-1].removeprefix(start).strip()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def life(version: Path, *args: str) -> AsyncIterator[Life]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, *args, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(version)}
    )
    running = Life(process)
    try:
        assert await running.until("package") == str(version / "layer2" / "__init__.py")
        yield running
    finally:
        await running.kill()


@dataclass(frozen=True)
class Deal:
    """One client and one provider, each with a store that outlives its processes."""

    network: RealNetwork
    user: DevnetAccount
    lender: DevnetAccount
    folder: Path
    port: int

    @classmethod
    async def made(cls, network: RealNetwork, folder: Path) -> Deal:
        user, lender = await network.new_account(tokens=TOKENS), await network.new_account(tokens=TOKENS)
        return cls(network, user, lender, folder, free_port())

    @asynccontextmanager
    async def provider(self, version: Path) -> AsyncIterator[None]:
        path = settings(self.network, self.lender, "provider", self.folder, port=self.port)
        async with life(version, "provider", path) as serving:
            await serving.until("ready")
            yield

    @asynccontextmanager
    async def client(self, version: Path, way: tuple[str, str]) -> AsyncIterator[Life]:
        url = f"http://127.0.0.1:{self.port}"
        path = settings(self.network, self.user, "client", self.folder, provider_url=url)
        async with life(version, "client", path, *way, str(AMOUNT), "upgrade") as moving:
            yield moving

    async def moved(self, way: tuple[str, str] | None) -> None:
        """Check what came of the user's tokens; None: nothing."""
        contract = self.network.token.contract
        assert contract is not None
        client = EvmClient(HttpTransport(self.network.nodes.evm_url))
        try:
            tokens = int.from_bytes(await client.call(contract, encode_balance_of(self.user.address)))
        finally:
            await client.close()
        if way == OUT:
            assert TOKENS - 2 * AMOUNT < tokens <= TOKENS - AMOUNT
        else:
            assert tokens == TOKENS + (AMOUNT if way == BACK else 0)


async def test_both_sides_are_upgraded_in_the_middle_of_a_transfer(
    network: RealNetwork, old_version: Path, tmp_path: Path
) -> None:
    """Client and provider of the old version are killed when the client has come to a step; the new ones go on from there."""

    async def upgrade(way: tuple[str, str], step: str) -> str:
        deal = await Deal.made(network, tmp_path)
        async with deal.provider(old_version), deal.client(old_version, way) as old:
            await old.until(f"state {step}")
        async with deal.provider(THIS), deal.client(THIS, way) as new:
            ended = await new.until("ended")
        assert f"state {step}" in new.said, "the history of the old life is there too"
        await deal.moved(way if ended == "settled" else None)
        return ended

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        ends = [group.create_task(upgrade(way, step)) for way, step in STEPS]
    # On a busy machine a payment may not be held as long as two processes take to start.
    assert {"settled"} <= {end.result() for end in ends} <= {"settled", "SwapExpired", "SwapRefunded"}
    assert ends[STEPS.index((OUT, "settled"))].result() == "settled"


async def test_an_old_side_and_a_new_one_understand_each_other(
    network: RealNetwork, old_version: Path, tmp_path: Path
) -> None:
    async def transfer(way: tuple[str, str], *, client: Path, provider: Path) -> None:
        deal = await Deal.made(network, tmp_path)
        async with deal.provider(provider), deal.client(client, way) as running:
            assert await running.until("ended") == "settled"
        await deal.moved(way)

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        for way in (OUT, BACK):
            group.create_task(transfer(way, client=old_version, provider=THIS))
            group.create_task(transfer(way, client=THIS, provider=old_version))
