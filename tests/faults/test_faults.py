"""One fault of each kind that is cheap, on the nodes that all tests share. All of them, at all moments: `test_campaign.py`.

An lnd that was killed is not among them: others find no route over it for a long time, in which all tests after it would fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fault_endpoint import Lie, LyingEndpoint
from fault_rig import BACK, OUT, Fault, Places, Plan, Scene, run_swaps
from fault_world import PostgresServer, a_standby_takes_over, blocks_are_undone, it_lies, the_disk_is_full

if TYPE_CHECKING:
    from fault_wire import Wire

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AT = (
    Plan(OUT, "client", "send_raw: before, 2"),
    Plan(OUT, "provider", "pay: before"),
    Plan(BACK, "client", "pay: before"),
    Plan(BACK, "provider", "send_raw: before, 2"),
)
"""One process of each role and direction, just before it binds or spends something for the first time."""


async def make(scene: Scene, title: str, fault: Fault) -> None:
    told = await run_swaps(scene, AT, fault)
    print(f"\n{title}: {told}")
    assert set(told.ends) <= {"settled", "SwapRefunded", "SwapExpired"}


async def test_a_process_that_lost_its_store_sends_nothing_any_more(
    scene: Scene, on_postgresql: Wire, mortal_postgres: PostgresServer
) -> None:
    # What has passed its last question is the same act, which its node knows: so this is asked before.
    moments = (
        Plan(OUT, "client", "commit: after, 3"),
        Plan(OUT, "provider", "commit: after, 3"),
        Plan(BACK, "client", "commit: after, 3"),
        Plan(BACK, "provider", "commit: after, 3"),
    )
    told = await run_swaps(scene, moments, a_standby_takes_over(mortal_postgres, first_ends=False))
    print(f"\na standby takes the store over: {told}")
    assert set(told.ends) <= {"settled", "SwapRefunded", "SwapExpired"}


async def test_an_endpoint_that_hangs(scene: Scene, regtest: Any) -> None:
    async with LyingEndpoint(regtest.evm_url) as endpoint:
        scene.client = scene.provider = Places(evm=endpoint.url)
        await make(scene, "endpoint: hangs", it_lies(endpoint, Lie.HANGS, for_s=3))


async def test_a_block_is_undone(scene: Scene, regtest: Any) -> None:
    await make(scene, "reorganisation of one block", blocks_are_undone(regtest, 1, "drop", times=2))


async def test_the_disk_is_full(scene: Scene) -> None:
    await make(scene, "disk full", the_disk_is_full(for_s=2))
