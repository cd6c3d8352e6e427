"""A start that fails, takes too long or is cancelled, wherever it stands: the same call again does all that is left of it."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from layer2 import (
    BTC,
    AsyncRuntimeError,
    AsyncTimeout,
    HealthState,
    InitializationError,
    Layer2Config,
    Layer2Manager,
    NodeConnectionError,
    StorageError,
    TaskCancelled,
    TransferState,
)
from layer2 import Layer2ProtocolType as P
from layer2.bob import BobClient
from layer2.lightning import LightningNetwork
from layer2.storage import Store
from layer2.swaps import SwapEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000
STEPS = {
    "the store": (Store, "open"),
    "BOB": (BobClient, "initialize_async"),
    "Lightning": (LightningNetwork, "initialize_async"),
    "transfers": (SwapEngine, "start"),
}
REFUSALS = {
    "the store": StorageError("no room on the disk"),
    "BOB": NodeConnectionError("the endpoint is down"),
    "Lightning": NodeConnectionError("the node is down"),
    "transfers": StorageError("no room on the disk"),
}


class Stumbling:
    """One step of the start, which waits for ``go_on`` or raises the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        owner, name = STEPS[step]
        real = getattr(owner, name)

        async def stumble(*args: Any, **kwargs: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                if self.error is not None:
                    raise self.error
                await self.go_on.wait()
            return await real(*args, **kwargs)

        monkeypatch.setattr(owner, name, staticmethod(stumble) if owner is Store else stumble)


async def is_up(manager: Layer2Manager) -> None:
    """Everything that a start brings up is there."""
    assert manager.health().state is HealthState.OK
    assert "swap.heads" in manager.health().tasks
    bob = await manager.get_protocol_async(P.BOB)
    assert await bob.balance_async(BTC) > 0
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    await lightning.create_invoice_async(amount_msat=1_000)
    assert (await manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)).amount == SAT


@pytest.mark.parametrize("step", STEPS)
async def test_after_an_error(config: Layer2Config, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    stumbling = Stumbling(monkeypatch, step)
    stumbling.error = REFUSALS[step]
    manager = Layer2Manager(config)
    try:
        with pytest.raises(InitializationError if step in ("BOB", "Lightning") else StorageError):
            await manager.initialize_all_async()
        await manager.initialize_all_async()
        await is_up(manager)
    finally:
        await manager.close_async()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["timeout", "cancel", "task"])
async def test_after_it_was_ended(config: Layer2Config, monkeypatch: pytest.MonkeyPatch, step: str, how: str) -> None:
    stumbling = Stumbling(monkeypatch, step)
    manager, cancel = Layer2Manager(config), asyncio.Event()
    try:
        start = asyncio.create_task(
            manager.initialize_all_async(timeout=1.0 if how == "timeout" else None, cancel=cancel)
        )
        async with asyncio.timeout(30):
            await stumbling.reached.wait()
            if how == "cancel":
                cancel.set()
            elif how == "task":
                start.cancel()
            ends = {"timeout": AsyncTimeout, "cancel": TaskCancelled, "task": asyncio.CancelledError}
            with pytest.raises(ends[how]):
                await start
        assert manager.health().state is HealthState.STARTING
        stumbling.go_on.set()
        await manager.initialize_all_async()
        await is_up(manager)
    finally:
        await manager.close_async()


def frames(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


async def test_each_call_gets_an_error_of_its_own_for_a_layer_that_did_not_start(
    config: Layer2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumbling = Stumbling(monkeypatch, "BOB")
    stumbling.error = NodeConnectionError("the endpoint is down", endpoint="here")
    stumbling.error.__cause__ = OSError("refused")
    async with Layer2Manager(config) as manager:
        with pytest.raises(InitializationError):
            await manager.initialize_all_async()
        for ask in (
            lambda: manager.get_protocol_async(P.BOB),
            lambda: manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING),
            lambda: manager.get_transfer_proof_async("00" * 16),
        ):
            errors = []
            for _ in range(3):
                with pytest.raises(NodeConnectionError, match="is down") as caught:
                    await ask()
                errors.append(caught.value)
            assert len({id(error) for error in errors}) == len(errors)
            assert len({frames(error) for error in errors}) == 1
            assert all(error.fields() == stumbling.error.fields() for error in errors)
            assert all(isinstance(error.__cause__, OSError) for error in errors)


@pytest.mark.parametrize("step", ["Lightning", "transfers"])
async def test_what_is_not_there_yet_says_so(config: Layer2Config, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    stumbling = Stumbling(monkeypatch, step)
    async with Layer2Manager(config) as manager:
        start = asyncio.create_task(manager.initialize_all_async())
        await stumbling.reached.wait()
        assert manager.health().state is HealthState.STARTING
        with pytest.raises(AsyncRuntimeError, match="not initialised"):
            await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        with pytest.raises(AsyncRuntimeError, match="not initialised"):
            await manager.list_transfers_async()
        if step == "Lightning":
            with pytest.raises(AsyncRuntimeError, match="not initialised"):
                await manager.get_protocol_async(P.LIGHTNING)
        stumbling.go_on.set()
        await start
        await is_up(manager)


async def test_started_twice_at_once(config: Layer2Config) -> None:
    manager = Layer2Manager(config)
    try:
        await asyncio.gather(manager.initialize_all_async(), manager.initialize_all_async())
        await is_up(manager)
    finally:
        await manager.close_async()


async def test_closed_while_its_store_is_being_opened(config: Layer2Config, monkeypatch: pytest.MonkeyPatch) -> None:
    stumbling = Stumbling(monkeypatch, "the store")
    manager = Layer2Manager(config)
    start = asyncio.create_task(manager.initialize_all_async(timeout=1.0))
    await stumbling.reached.wait()
    with pytest.raises(AsyncTimeout):
        await start
    await manager.close_async()
    stumbling.go_on.set()
    async with Layer2Manager(config) as after:
        await after.initialize_all_async()


async def test_what_an_earlier_process_left_is_taken_up_by_the_second_attempt(
    config: Layer2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        begun = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    stumbling = Stumbling(monkeypatch, "transfers")
    stumbling.error = StorageError("no room on the disk")
    async with Layer2Manager(config) as manager:
        with pytest.raises(StorageError):
            await manager.initialize_all_async()
        await manager.initialize_all_async()
        async with asyncio.timeout(60):
            await manager.wait_idle_async()
        assert (await manager.get_transfer_async(begun.id)).state is TransferState.SETTLED
