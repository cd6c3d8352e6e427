"""What the crash tests share: one network for each module, and stores on both databases."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from layer2.devnet import RealNetwork


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as started:
        yield started


@pytest.fixture
def new_store(request: pytest.FixtureRequest, store_kind: str) -> Callable[[], str]:
    """Makes URLs of stores that nobody used; empty where a file beside the settings will do."""
    if store_kind == "sqlite":
        return lambda: ""
    server: str = request.getfixturevalue("postgres_server")
    base, _, query = server.partition("?")
    numbers = itertools.count()

    def create() -> str:
        name = f"crash_{request.node.name.translate(NAMES)}_{next(numbers)}".lower()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name[-60:]}"')
        return f"{base.rsplit('/', 1)[0]}/{name[-60:]}?{query}"

    return create


NAMES = str.maketrans(dict.fromkeys("[]-> ", "_"))
