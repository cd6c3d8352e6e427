"""The mixed run again, while the provider is killed all the time and the chain undoes its newest blocks.

It takes a quarter of an hour, so it runs only if asked for: ``make campaign-real``. ``LAYER2_SEED`` repeats the moments of the kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crash_rig import EndedTooSoonError, provider_child
from mixed_run import EACH_WAY, EXPECTED_ENDS, MORE_EACH_WAY, compare, fail_in_every_way, finished, many, prepared

from layer2.config import DepthRule
from layer2.devnet import NodeBinaries, RegtestNetwork

UNDONE, EVERY = 3, 10
"""So many blocks are undone each time that so many were added."""
LONGEST_LIFE_S = 10.0
TIMING = {"evm_inclusion_s": 30, "safe_lag_s": 8, "finality_s": 16}
"""What a transaction needs that may be undone before it is safe, four blocks deep."""
DEPTH = (DepthRule(depth="safe"),)


@dataclass
class Fire:
    """What happens to the network while it works."""

    kills: int = 0
    too_soon: int = 0
    """Lives that ended before the provider was ready."""
    reorganisations: int = 0
    undone: int = 0
    """Transactions in the blocks that went."""


async def kill_again_and_again(config_path: Path, rng: random.Random, fire: Fire) -> None:
    """Serve; each time that the provider is ready, end it within seconds as a crash does."""
    while True:
        child = provider_child(str(config_path), None)
        try:
            await child.ready
            await asyncio.sleep(rng.uniform(0, LONGEST_LIFE_S))
            fire.kills += child.running
        except EndedTooSoonError:
            fire.too_soon += 1
        finally:
            await child.stop()


async def reorganise_again_and_again(nodes: RegtestNetwork, fire: Fire) -> None:
    """Undo the newest blocks, with all that was in them, each time that some more were added."""
    at = int(await nodes.evm_rpc("eth_blockNumber"), 16)
    while True:
        await asyncio.sleep(0.2)
        head = int(await nodes.evm_rpc("eth_blockNumber"), 16)
        if head < at + EVERY:
            continue
        blocks = [await nodes.evm_rpc("eth_getBlockByNumber", hex(head - back), False) for back in range(UNDONE)]
        await nodes.evm_rpc("anvil_reorg", UNDONE, [])
        fire.reorganisations += 1
        fire.undone += sum(len(block["transactions"]) for block in blocks)
        at = int(await nodes.evm_rpc("eth_blockNumber"), 16)


@asynccontextmanager
async def under_fire(run: Any, config_path: Path, rng: random.Random) -> AsyncIterator[Fire]:
    fire = Fire()
    await run.network.provider.stop()
    tasks = [
        asyncio.create_task(kill_again_and_again(config_path, rng, fire)),
        asyncio.create_task(reorganise_again_and_again(run.network.nodes, fire)),
    ]
    try:
        yield fire
        assert not any(task.done() for task in tasks), "the fire went out"
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    await run.network.provider.start()


def settings(run: Any, folder: Path) -> Path:
    path = folder / "provider.toml"
    path.write_text(run.network.provider.config.to_toml())
    path.chmod(0o600)
    return path


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif("LAYER2_CAMPAIGN" not in os.environ, reason="make campaign-real runs it: a quarter of an hour")
async def test_every_transfer_ends_whatever_is_killed_and_undone(node_binaries, eventually, say, tmp_path):
    seed = int(os.environ.get("LAYER2_SEED", time.time_ns() % 1_000_000))
    binaries: NodeBinaries = node_binaries
    async with (
        RegtestNetwork(binaries=binaries, evm_safe_lag_blocks=UNDONE + 1) as nodes,
        prepared(nodes, eventually, timing=TIMING, depth=DEPTH) as run,
        asyncio.timeout(3_000),
    ):
        run.patient, run.limit_s = True, 1_200
        async with under_fire(run, settings(run, tmp_path), random.Random(seed)) as fire:
            await many(run, EACH_WAY)
            await asyncio.gather(many(run, MORE_EACH_WAY), fail_in_every_way(run))
        await finished(run, within_s=600)
        took_s = time.time() - run.began_s
        say(f"seed {seed}: 120 transfers in {took_s:.0f} s: {dict(Counter(run.ends.values()))}; {fire}")
        refunds = await compare(run, say)
        say(f"{refunds}")

    assert set(run.ends) > set(EXPECTED_ENDS)
    assert len(run.ends) == 2 * (EACH_WAY + MORE_EACH_WAY) + len(EXPECTED_ENDS)
    assert fire.kills > 10
    assert fire.reorganisations > 10
    assert fire.undone > 10
