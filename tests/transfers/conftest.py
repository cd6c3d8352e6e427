"""One embedded network for all tests of a module: starting one costs seconds. Managers come one for all, or as lives of one user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from layer2 import Layer2Config, Layer2Manager, StoreConfig
from layer2.devnet import EmbeddedNetwork


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as opened:
        await opened.initialize_all_async()
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[EmbeddedNetwork]:
    async with EmbeddedNetwork() as started:
        yield started


@pytest.fixture
def config(tmp_path: Path, network: EmbeddedNetwork, monkeypatch: pytest.MonkeyPatch) -> Layer2Config:
    """One network for all managers of a test, which then are lives of one user."""

    def again(**_: object) -> nullcontext[EmbeddedNetwork]:
        network.client_node = network.lightning.connect(network.client_node.node_id)
        return nullcontext(network)

    monkeypatch.setattr("layer2.devnet.EmbeddedNetwork", again)
    return Layer2Config.embedded().with_changes(store=StoreConfig(url=f"sqlite:///{tmp_path / 'journal.db'}"))
