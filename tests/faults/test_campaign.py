"""Everything that can happen to the environment of a swap, on real nodes of their own: `make campaign-faults`.

In each test swaps of both ways run at once. In each of them one process, the client's or the provider's, stops itself at another
point, around its commits and around what leaves it; then the fault happens, all go on within it, and after a while it is mended.
All must end, and the books must balance to the last millisatoshi, base unit and wei.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from campaign_files import CAMPAIGN, ENDS
from fault_campaign import Moments, keep, left
from fault_endpoint import Lie, LyingEndpoint
from fault_rig import Fault, Places, Plan, Scene, run_swaps
from fault_wire import Wire
from fault_world import (
    PostgresServer,
    a_node_dies,
    a_standby_takes_over,
    a_wire,
    another_chain,
    anvil_dies,
    blocks_are_undone,
    forget_failures,
    it_lies,
    it_stands_still,
    postgresql_dies,
    the_disk_is_full,
)

from layer2.config import DepthRule
from layer2.devnet import NodeBinaries, RealNetwork, RegtestNetwork

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CAMPAIGN, reason="make campaign-faults runs it: three hours"),
]

UNDONE = 3
TIMING = {"evm_inclusion_s": 30, "safe_lag_s": 8, "finality_s": 16}
"""What a transaction needs that may be undone before it is safe, four blocks deep, and whose node may be gone for a while."""
DEPTH = (DepthRule(depth="safe"),)
AT_ONCE = 8
BREAKS = {"cut": "is cut", "stall": "falls silent"}
UNDONE_ARE = {"wait": "wait for later ones", "drop": "are forgotten"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(node_binaries: NodeBinaries) -> AsyncIterator[RegtestNetwork]:
    async with RegtestNetwork(binaries=node_binaries, evm_safe_lag_blocks=UNDONE + 1) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(nodes: RegtestNetwork) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(nodes, timing=TIMING, depth=DEPTH) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moments(network: RealNetwork, nodes: RegtestNetwork, tmp_path_factory: pytest.TempPathFactory) -> Moments:
    return await Moments.of(await scene_on(network, nodes, tmp_path_factory.mktemp("calm")))


@pytest_asyncio.fixture(loop_scope="module")
async def scene(network: RealNetwork, nodes: RegtestNetwork, tmp_path: Path) -> Scene:
    return await scene_on(network, nodes, tmp_path)


async def scene_on(network: RealNetwork, nodes: RegtestNetwork, folder: Path) -> Scene:
    lnds = {name: await network.connect(name) for name in ("client", "router", "provider")}  # type: ignore[arg-type]
    timing = "\n".join(f"{name} = {value}" for name, value in TIMING.items())
    toml = f'[provider.timing]\n{timing}\n[[swap.depth]]\ndepth = "safe"\n'
    return Scene(network, nodes, folder, lnds, toml=toml)


async def run(scene: Scene, title: str, plans: list[Plan], fault: Fault) -> None:
    while plans := left(title, plans):
        told = await run_swaps(scene, plans[:AT_ONCE], fault)
        print(f"\n{title}: {told}")
        await forget_failures(scene.nodes)
        assert {end.partition(":")[0] for end in told.ends} <= set(ENDS)
        keep(title, told)


@pytest.mark.parametrize("name", ["client", "provider"])
async def test_an_lnd_is_killed(scene: Scene, moments: Moments, nodes: RegtestNetwork, name: str) -> None:
    await run(scene, f"the lnd of the {name} is killed", moments.plans(), a_node_dies(nodes, name))


async def test_anvil_is_killed(scene: Scene, moments: Moments, nodes: RegtestNetwork) -> None:
    await run(scene, "anvil is killed", moments.plans(), anvil_dies(nodes))


async def test_postgresql_is_killed(
    scene: Scene, moments: Moments, on_postgresql: Wire, mortal_postgres: PostgresServer
) -> None:
    await run(scene, "PostgreSQL is killed", moments.plans(), postgresql_dies(mortal_postgres))


@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("where", ["EVM endpoint", "lnd", "provider"])
async def test_a_wire_breaks(scene: Scene, moments: Moments, nodes: RegtestNetwork, where: str, how: str) -> None:
    async with AsyncExitStack() as stack:
        wires: list[Wire] = []
        if where == "EVM endpoint":
            wires = [await stack.enter_async_context(Wire(nodes.evm_url))]
            scene.client = scene.provider = Places(evm=wires[0].url)
        elif where == "lnd":
            ends = [nodes.lnd(name).rest_url for name in ("client", "provider")]  # type: ignore[arg-type]
            wires = [await stack.enter_async_context(Wire(end)) for end in ends]
            scene.client, scene.provider = Places(lnd=wires[0].url), Places(lnd=wires[1].url)
        chosen = moments.plans("client") if where == "provider" else moments.plans()
        await run(scene, f"the wire to the {where} {BREAKS[how]}", chosen, a_wire(wires, how))


@pytest.mark.parametrize("how", ["cut", "stall"])
async def test_the_wire_to_postgresql_breaks(scene: Scene, moments: Moments, on_postgresql: Wire, how: str) -> None:
    await run(scene, f"the wire to PostgreSQL {BREAKS[how]}", moments.plans(), a_wire([on_postgresql], how))


@pytest.mark.parametrize("lie", [lie for lie in Lie if lie is not Lie.NONE])
async def test_an_endpoint_lies(scene: Scene, moments: Moments, nodes: RegtestNetwork, lie: Lie) -> None:
    async with LyingEndpoint(nodes.evm_url) as endpoint:
        scene.client = scene.provider = Places(evm=endpoint.url)
        await run(scene, f"the endpoint {lie.value}", moments.plans(), it_lies(endpoint, lie))


async def test_an_endpoint_leads_to_another_chain(scene: Scene, moments: Moments, nodes: RegtestNetwork) -> None:
    async with LyingEndpoint(nodes.evm_url) as endpoint:
        scene.client = scene.provider = Places(evm=endpoint.url)
        await run(scene, "the endpoint leads to another chain", moments.plans(), another_chain(nodes, endpoint))


@pytest.mark.parametrize("how", ["wait", "drop"])
async def test_blocks_are_undone(scene: Scene, moments: Moments, nodes: RegtestNetwork, how: str) -> None:
    """Whatever was sent up to the moment is undone with the newest blocks, and comes back in others, or must be sent again."""
    await run(
        scene,
        f"three blocks are undone four times, their transactions {UNDONE_ARE[how]}",
        moments.plans(),
        blocks_are_undone(nodes, UNDONE, how),
    )


@pytest.mark.parametrize("first_ends", [False, True], ids=["while it works", "when all is over"])
async def test_a_standby_takes_over(
    scene: Scene, moments: Moments, on_postgresql: Wire, mortal_postgres: PostgresServer, first_ends: bool
) -> None:
    # Just before something leaves a process nothing is asked any more: it is the same act, which its node knows.
    when = "when all is over" if first_ends else "at once"
    chosen = [plan for plan in moments.plans() if plan.at is not None and "under way" not in plan.at]
    await run(
        scene,
        f"a standby takes the store over, the first comes back {when}",
        chosen,
        a_standby_takes_over(mortal_postgres, first_ends=first_ends),
    )


async def test_the_disk_is_full(scene: Scene, moments: Moments) -> None:
    await run(scene, "the disk is full", moments.plans(), the_disk_is_full())


@pytest.mark.parametrize("who", ["client", "provider"])
async def test_a_process_stands_still_past_its_deadlines(
    scene: Scene, moments: Moments, nodes: RegtestNetwork, who: str
) -> None:
    # A client that is away loses nothing; a provider may have paid for a lock that went back, or given a payment back too late.
    scene.may_lose = "provider" if who == "provider" else ""
    await run(scene, f"the {who} stands still past its deadlines", moments.plans(who), it_stands_still(nodes))  # type: ignore[arg-type]
