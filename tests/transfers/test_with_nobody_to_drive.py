"""A manager without a signer, or without a layer that did not start: what it knows of transfers, and says of them, all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from locked_transfers import SAT, locked_transfer
from served_chains import served

from layer2 import (
    BTC,
    AsyncRuntimeError,
    BobConfig,
    ConfigurationError,
    HealthState,
    InitializationError,
    Layer2Config,
    Layer2Manager,
    NodeConnectionError,
    NotFound,
    TransferState,
    ValidationError,
)
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.lightning import MemoryNode
from layer2.testing import MockLayer2Protocol

pytestmark = pytest.mark.asyncio(loop_scope="module")


def only_bob(config: Layer2Config, endpoint: str) -> Layer2Config:
    """Settings on the same store with ``[bob]`` alone: nothing to sign with, no Lightning node, no provider."""
    return Layer2Config(network="devnet", bob=BobConfig(chain="devnet", rpc_url=endpoint), store=config.store)


async def test_who_only_reads_lists_transfers_and_verifies_proofs(
    config: Layer2Config, network: EmbeddedNetwork
) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        proof = await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        await manager.wait_idle_async()
        locked = await locked_transfer(manager)
        settled = next(each for each in await manager.list_transfers_async() if each.id != locked.id)

    async with served(network) as endpoint, Layer2Manager(only_bob(config, endpoint)) as reader:
        with pytest.raises(AsyncRuntimeError, match="initialize_all_async"):
            await reader.list_transfers_async()
        await reader.initialize_all_async()
        assert await reader.verify_cross_layer_proof_async(proof)
        assert not await reader.verify_cross_layer_proof_async(replace(proof, preimage=bytes(32), checksum=b""))
        assert await reader.get_transfer_proof_async(settled.id) == proof

        assert [each.id for each in await reader.list_transfers_async()] == [locked.id, settled.id]
        assert [each.id for each in await reader.list_transfers_async(state="settled")] == [settled.id]
        assert [each.id for each in await reader.list_transfers_async(after=locked.id)] == [settled.id]
        assert [each.id async for each in reader.transfers_async()] == [locked.id, settled.id]
        with pytest.raises(ValidationError, match="none of"):
            await reader.list_transfers_async(state="lost")
        with pytest.raises(NotFound):
            await reader.get_transfer_async("00" * 16)

        assert await (await reader.get_transfer_async(settled.id)).result_async() == proof
        shown = await reader.get_transfer_async(locked.id)
        assert (shown.state, shown.act_by, shown.quote) == (locked.state, locked.act_by, locked.quote)
        assert [event.state async for event in shown.events()][-1] is TransferState.LOCKED
        for ask in (shown.result_async(), shown.cancel_async()):
            with pytest.raises(AsyncRuntimeError, match="drives"):
                await ask
        with pytest.raises(ConfigurationError, match="signer"):
            await reader.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        health = reader.health()
        assert (health.unfinished_transfers, health.run_again_by) == (1, locked.act_by)


async def test_a_layer_that_was_replaced_is_named(config: Layer2Config) -> None:
    async with Layer2Manager(config, protocols={"bob": MockLayer2Protocol("bob")}) as manager:
        await manager.initialize_all_async()
        with pytest.raises(ConfigurationError, match="protocols= replaces bob") as caught:
            await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        assert "embedded" not in str(caught.value)


async def test_without_bob_a_proof_cannot_be_checked_and_the_error_says_why(
    config: Layer2Config, network: EmbeddedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        proof = await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
        await manager.wait_idle_async()
    monkeypatch.setattr(type(network.evm), "call", gone)
    async with Layer2Manager(config) as manager:
        with pytest.raises(InitializationError):
            await manager.initialize_all_async()
        with pytest.raises(NodeConnectionError, match="the node is gone"):
            await manager.verify_cross_layer_proof_async(proof)
        (transfer,) = await manager.list_transfers_async()
        # It was made and kept before.
        assert await transfer.result_async() == proof


async def gone(*_: object, **__: object) -> object:
    raise NodeConnectionError("the node is gone")


async def test_with_the_lightning_node_down_at_the_start_health_shows_what_is_unfinished(
    config: Layer2Config,
    network: EmbeddedNetwork,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        locked = await locked_transfer(manager)
    assert locked.act_by is not None
    caplog.clear()

    def said() -> list[int | None]:
        records = [record for record in caplog.records if getattr(record, "event_code", "") == "swap.unfinished"]
        return [record.event_data["run_again_by"] for record in records]  # type: ignore[attr-defined]

    caplog.set_level("INFO", "layer2")
    with monkeypatch.context() as down:
        down.setattr(MemoryNode, "info", gone)
        async with Layer2Manager(config) as manager:
            with pytest.raises(InitializationError) as caught:
                await manager.initialize_all_async()
            assert list(caught.value.failures) == [P.LIGHTNING]
            health = manager.health()
            assert health.state is HealthState.DEGRADED
            assert (health.unfinished_transfers, health.run_again_by) == (1, locked.act_by)
            assert (await manager.get_transfer_async(locked.id)).state is TransferState.LOCKED
        assert said() == [locked.act_by]

    async with Layer2Manager(config) as manager:
        with monkeypatch.context() as down:
            down.setattr(MemoryNode, "info", gone)
            with pytest.raises(InitializationError):
                await manager.initialize_all_async()
        # The second try brings the node up and takes the transfer up, which from then on is driven.
        await manager.initialize_all_async()
        health = manager.health()
        assert (health.unfinished_transfers, health.run_again_by) == (1, locked.act_by)
        assert "swap.heads" in health.tasks
