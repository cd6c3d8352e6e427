"""What the tests of faults share: where swaps happen, and a PostgreSQL server of their own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from campaign_files import CAMPAIGN
from fault_campaign import table
from fault_rig import Scene
from fault_wire import Wire
from fault_world import PostgresServer
from postgres import running_postgres

from layer2.devnet import RealNetwork


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def scene(network: RealNetwork, regtest: Any, tmp_path: Path) -> Scene:
    lnds = {name: await network.connect(name) for name in ("client", "router", "provider")}  # type: ignore[arg-type]
    return Scene(network, regtest, tmp_path, lnds)


@pytest.fixture(scope="module")
def mortal_postgres() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with running_postgres() as server:
        yield PostgresServer(server)


@pytest_asyncio.fixture(loop_scope="module")
async def on_postgresql(scene: Scene, mortal_postgres: PostgresServer) -> AsyncIterator[Wire]:
    """The store of the process that stops is on PostgreSQL, behind this wire."""
    numbers = itertools.count()
    async with Wire(mortal_postgres.socket) as wire:
        scene.new_store = lambda _: mortal_postgres.create(f"swap_{next(numbers)}_{wire.port}", wire.port)
        yield wire


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CAMPAIGN:
        terminalreporter.section("what the fault campaign has passed")
        terminalreporter.write_line(table())
