"""An old copy of the store, restored after transfers went on: nothing is sent twice, and everything ends as the chain says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from layer2 import BTC, Layer2Config, Layer2Manager, SystemClock, Transfer, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.evm import LOCKUP_TOPIC, EvmClient
from layer2.storage import Store, restore_copy

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SAT = 20_000
OUT, BACK = (P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)


async def state_of(network: EmbeddedNetwork) -> tuple[int, int, int]:
    """Locks ever made, transactions of the user's account, and what its node can spend."""
    client = EvmClient(network.transport())
    locks = [
        log
        async for logs in client.logs(
            from_block=0, to_block=await client.block_number(), address=network.contract, topics=[LOCKUP_TOPIC]
        )
        for log in logs
    ]
    nonce = await client.nonce(network.client_signer.address)
    node = network.lightning.connect(network.client_node.node_id)
    return len(locks), nonce, (await node.info()).spendable_msat


async def life(
    config: Layer2Config, way: tuple[P, P], when: Callable[[Transfer], bool], copy: Path
) -> tuple[str, TransferState]:
    """Make a transfer to its end, and take a copy of the store at the first moment at which ``when`` holds."""
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, *way)
        while not when(await manager.get_transfer_async(transfer.id)):
            await asyncio.sleep(0.002)
        async with await Store.open(config.store_url, clock=SystemClock(), read_only=True) as store:
            await store.backup(copy)
        await transfer.result_async()
        await manager.wait_idle_async()
        return transfer.id, (await manager.get_transfer_async(transfer.id)).state


@pytest.mark.parametrize(
    ("way", "state"),
    [
        (OUT, TransferState.AGREED),
        (OUT, TransferState.LOCKING),
        (OUT, TransferState.LOCKED),
        (BACK, TransferState.AGREED),
        (BACK, TransferState.PAYING),
        (BACK, TransferState.CLAIMING),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value.value,
)
async def test_an_old_copy_sends_nothing_twice_and_ends_as_the_chain_says(
    config: Layer2Config, network: EmbeddedNetwork, tmp_path: Path, way: tuple[P, P], state: TransferState
) -> None:
    order = list(TransferState)
    copy = tmp_path / "copy.db"
    transfer_id, ended = await life(config, way, lambda t: order.index(t.state) >= order.index(state), copy)
    assert ended is TransferState.SETTLED
    before = await state_of(network)

    assert await restore_copy(config.store_url, copy, clock=SystemClock(), key=None, replace=True) is not None
    async with await Store.open(config.store_url, clock=SystemClock(), adopt=True):
        pass
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        async with asyncio.timeout(60):
            await manager.wait_idle_async()
        restored = await manager.get_transfer_async(transfer_id)
        assert restored.state is TransferState.SETTLED
        assert await state_of(network) == before
        assert not manager.health().needs_attention
        await manager.cross_layer_transfer_async(BTC, SAT, *way)
        await manager.wait_idle_async()
    assert (await state_of(network))[0] == before[0] + 1
