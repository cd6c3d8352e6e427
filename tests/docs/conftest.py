"""Examples share one embedded network: all of them run on one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from layer2 import Layer2Config, Layer2Manager


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        yield manager
