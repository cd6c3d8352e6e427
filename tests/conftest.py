"""Fixtures that the whole suite shares: real nodes, PostgreSQL and the detector of blocking calls.

The real network is started once, in a thread with an event loop of its own, because each test has another loop. Tests use its
plain values (URLs, paths, keys) directly; its coroutine methods are carried over to its loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from postgres import running_postgres

from layer2.devnet import NodeBinaries, RegtestNetwork, ensure_binaries, find_binaries
from layer2.errors import Layer2Error

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
_REAL_FIXTURES = {"anvil", "node_binaries", "regtest"}
_missing_nodes: list[str] = []
_shared: list[SharedRegtest] = []

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background with interrupts ignored, and every child inherits that: the tests of Ctrl-C
    # would then test nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class SharedRegtest:
    """A ``RegtestNetwork`` in its own thread, with the same attributes; coroutine methods can be awaited on any loop."""

    def __init__(self, network: RegtestNetwork) -> None:
        self.network = network
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="regtest-network", daemon=True)

    def start(self) -> None:
        self._thread.start()
        try:
            self._run(self.network.__aenter__())
        except BaseException:
            self._end_loop()
            raise

    def stop(self) -> None:
        self._run(self.network.__aexit__(None, None, None))
        self._end_loop()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.network, name)
        if not inspect.iscoroutinefunction(value):
            return value

        @functools.wraps(value)
        async def carried(*args: Any, **kwargs: Any) -> Any:
            return await self._carry(value(*args, **kwargs))

        return carried

    async def _carry(self, coroutine: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    @asynccontextmanager
    async def mining_paused(self) -> AsyncIterator[None]:
        pause = self.network.mining_paused()
        await self._carry(pause.__aenter__())
        try:
            yield
        finally:
            await self._carry(pause.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def node_binaries() -> NodeBinaries:
    """btcd, lnd and anvil. Where they are missing, the tests that need them fail in CI and are skipped elsewhere."""
    try:
        found = ensure_binaries(progress=print) if IN_CI else find_binaries()
    except Layer2Error as error:
        reason = str(error)
    else:
        if found is not None:
            return found
        reason = "the node programs are not built: 'make nodes' builds them"
    if IN_CI:
        pytest.fail(f"CI runs the tests on real nodes, but {reason}", pytrace=False)
    _missing_nodes.append(reason)
    pytest.skip(f"REAL NODES ARE MISSING: {reason}")


@pytest.fixture(scope="session")
def regtest(node_binaries: NodeBinaries) -> Iterator[SharedRegtest]:
    """The network of real nodes that all tests share. Whoever stops one of its nodes starts it again."""
    shared = SharedRegtest(RegtestNetwork(binaries=node_binaries))
    shared.start()
    _shared.append(shared)
    yield shared
    _shared.remove(shared)
    shared.stop()


@pytest.fixture(scope="session")
def anvil(regtest: SharedRegtest) -> str:
    """URL of the shared network's EVM chain."""
    return regtest.evm_url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server with nothing in it but its first database."""
    with running_postgres() as server:
        yield server.get_uri()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL (libpq form) of an empty PostgreSQL database of the test's own."""
    psycopg = pytest.importorskip("psycopg")
    name = f"test_{os.urandom(8).hex()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    base, _, query = postgres_server.partition("?")
    yield f"{base.rsplit('/', 1)[0]}/{name}?{query}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call in code of this package, on a running event loop, fails the test with ``BlockingError``."""
    with blockbuster_ctx("layer2") as detector:
        for function in detector.functions.values():
            # Reading the settings is a few small files, once, before anything runs: it may happen where a manager is made.
            function.can_block_in("layer2/config.py", {"embedded", "load"})
        yield detector


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _REAL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed and _shared and "regtest" in getattr(item, "fixturenames", ()):
        for name, tail in _shared[0].network.log_tails(25).items():
            report.sections.append((f"end of the log of {name}", tail))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in dict.fromkeys(_missing_nodes):
        terminalreporter.section("REAL NODES ARE MISSING", red=True, bold=True)
        terminalreporter.write_line(f"Every test that needs btcd, lnd or anvil was skipped: {reason}")
