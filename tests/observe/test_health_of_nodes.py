"""A node that dies after the start, and one that comes back, as ``health()`` shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from layer2 import Health, HealthState, Layer2Config, Layer2Manager, NodeConnectionError, SystemClock
from layer2.devnet import EmbeddedEvm
from layer2.lightning import MemoryNode


class Impatient(SystemClock):
    """Nobody waits longer than a moment."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


@pytest.fixture
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded(), clock=Impatient()) as opened:
        await opened.initialize_all_async()
        yield opened


async def becomes(manager: Layer2Manager, holds: Callable[[Health], bool]) -> Health:
    clock = SystemClock()
    while not holds(health := manager.health()):
        await clock.sleep(0.05)
    return health


async def dead(*_: object, **__: object) -> object:
    raise NodeConnectionError("the node is gone")


async def test_an_endpoint_that_dies_and_comes_back(manager: Layer2Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = await becomes(manager, lambda health: health.ok)
    assert {"health", "swap.heads", "bob.tracker", "bob.queue", "bob.exits"} <= set(healthy.tasks)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEvm, "call", dead)
        sick = await becomes(
            manager,
            lambda health: {health.protocols["bob"].state, health.tasks["swap.heads"].state} == {HealthState.DEGRADED},
        )
        assert sick.state is HealthState.DEGRADED
        assert sick.protocols["lightning"].state is HealthState.OK
        assert sick.protocols["bob"].reason == "the node is gone"
        assert sick.protocols["bob"].since_ms > healthy.protocols["bob"].since_ms
        assert sick.tasks["swap.heads"].restarts > 0
    again = await becomes(manager, lambda health: health.ok)
    assert again.tasks["swap.heads"].restarts > 0
    assert again.protocols["bob"].reason is None


async def test_a_lightning_node_that_dies(manager: Layer2Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryNode, "info", dead)
    sick = await becomes(manager, lambda health: health.protocols["lightning"].state is HealthState.DEGRADED)
    assert (sick.state, sick.protocols["bob"].state) == (HealthState.DEGRADED, HealthState.OK)
