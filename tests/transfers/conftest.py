"""One embedded network and one manager for all tests of a module: starting them costs seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from layer2 import Layer2Config, Layer2Manager


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as opened:
        await opened.initialize_all_async()
        yield opened
