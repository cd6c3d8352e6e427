"""Client and provider die again and again within one swap, each at a random point of each of its lives.

``LAYER2_SEED`` repeats the points at which they die.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from campaign_files import CAMPAIGN
from crash_campaign import told_of_many
from crash_child import ClientJob
from crash_rig import AT_ONCE_WAITING, LIMIT_S, STORES, Provider, client_lives, free_port
from crash_stage import AMOUNT, BACK, OUT, Stage

from layer2 import TransferProof

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("store_kind", STORES),
]

SEED = int(os.environ.get("LAYER2_SEED", "1"))
SWAPS = 25 if CAMPAIGN else 1
"""For each way."""
LATEST_POINT = 8
"""Of a life, at which it ends: hardly any later life passes more."""


@dataclass(frozen=True)
class Ended:
    """One swap: how often each side died, and how it ended."""

    client_deaths: int
    provider_deaths: int
    outcome: str
    why: str


async def swap(stage: Stage, way: tuple[str, str], seed: str, *, dead: bool = False) -> Ended:
    rng = random.Random(seed)
    of_client, of_provider = ([rng.randint(1, LATEST_POINT) for _ in range(rng.randint(3, 5))] for _ in "12")
    lender, user = await stage.new_account(), await stage.new_account()
    port = free_port()
    provider = Provider(await stage.provider_settings(lender, port), of_provider)
    path = await stage.client_settings(user, f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(LIMIT_S):
            await provider.start()
            recipient = await stage.dead_invoice() if dead else None
            job = ClientJob(path, *way, AMOUNT, recipient, seed, patient=True, to_rest=CAMPAIGN)
            runs = await client_lives(job, of_client)
            where = f"{seed}: {of_client} and {of_provider}"
            assert runs[-1].ended is not None, f"{where}: the last run of the client reported no end"
            outcome, text, why = runs[-1].ended
            proof = TransferProof.from_json(text) if text is not None else None
            await stage.check_client(user, way, proof, recipient, f"{where}: {outcome}")
            await stage.check_provider(lender, way, proof)
            if CAMPAIGN:
                await provider.at_rest()
            provider_deaths = sum(run.killed for run in provider.runs)
    finally:
        await provider.stop()
    return Ended(sum(run.killed for run in runs), provider_deaths, outcome, why)


async def all_of(stage: Stage, title: str, way: tuple[str, str], swaps: int, *, dead: bool = False) -> set[str]:
    """So many swaps. Both sides must have died in each that was locked, and twice on the average."""
    limit = asyncio.Semaphore(AT_ONCE_WAITING)

    async def one(number: int) -> Ended:
        async with limit:
            return await swap(stage, way, f"{SEED}, {title}, {number}", dead=dead)

    async with asyncio.TaskGroup() as group:  # who fails must leave no process behind
        tasks = [group.create_task(one(number)) for number in range(swaps)]
    ended = [task.result() for task in tasks]
    deaths = [sum(made.client_deaths for made in ended), sum(made.provider_deaths for made in ended)]
    told_of_many(title, sum(deaths), Counter(made.outcome for made in ended))
    for made in ended:
        print(f"  {made.client_deaths} + {made.provider_deaths} deaths: {made.outcome} {made.why}")
    # A client that dies until its time to lock has passed leaves its provider nothing to do.
    assert all(made.client_deaths and (made.provider_deaths or made.outcome == "SwapExpired") for made in ended)
    assert min(deaths) >= 2 * swaps
    return {made.outcome for made in ended}


async def test_both_sides_die_again_and_again(stage: Stage) -> None:
    out, back = await asyncio.gather(
        all_of(stage, "both, bob -> lightning", OUT, SWAPS), all_of(stage, "both, lightning -> bob", BACK, SWAPS)
    )
    assert "settled" in out & back
    assert out | back <= {"settled", "SwapExpired", "SwapRefunded"}
    await stage.finish()


@pytest.mark.skipif(not CAMPAIGN, reason="make campaign-crash runs it: some minutes")
async def test_both_sides_die_again_and_again_where_nothing_can_be_paid(stage: Stage) -> None:
    ends = await all_of(stage, "both, early refund", OUT, SWAPS, dead=True)
    assert "SwapRefunded" in ends
    assert ends <= {"SwapRefunded", "SwapExpired", "nothing begun"}
    await stage.finish()
