"""What the crash tests share: one network for each module, and stores on both databases."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from campaign_files import CAMPAIGN
from crash_books import CrashBooks
from crash_campaign import is_done, table, take_told
from crash_stage import Stage

from layer2.devnet import RealNetwork
from layer2.evm import EvmClient, HttpTransport


def pytest_runtest_setup(item: pytest.Item) -> None:
    if CAMPAIGN and is_done(item.nodeid):
        pytest.skip("the campaign has passed it already")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CAMPAIGN:
        terminalreporter.section("what the crash campaign has passed")
        terminalreporter.write_line(table())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def stage(
    request: pytest.FixtureRequest, network: RealNetwork, tmp_path: Path, new_store: Any, store_kind: str
) -> AsyncIterator[Stage]:
    lnds = {name: await network.connect(name) for name in ("client", "router", "provider")}
    chain = EvmClient(HttpTransport(network.nodes.evm_url))
    books = await CrashBooks.open(network, lnds)
    take_told()
    yield Stage(network, tmp_path, new_store, chain, lnds, books, request.node.nodeid, store_kind)
    await chain.close()


@pytest.fixture
def new_store(request: pytest.FixtureRequest, store_kind: str) -> Callable[[], str]:
    """Makes URLs of stores that nobody used; empty where a file beside the settings will do."""
    if store_kind == "sqlite":
        return lambda: ""
    server: str = request.getfixturevalue("postgres_server")
    base, _, query = server.partition("?")

    def create() -> str:
        name = f"crash_{secrets.token_hex(8)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{base.rsplit('/', 1)[0]}/{name}?{query}"

    return create
