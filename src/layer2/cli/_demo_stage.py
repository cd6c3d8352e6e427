"""The two networks on which the demonstration runs: everything in this process, or real nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2 import Layer2Config, Layer2Manager

if TYPE_CHECKING:
    from layer2.cli._cli import Cli
    from layer2.devnet import RealNetwork
    from layer2.lightning import LightningNode

__all__ = ["Stage", "embedded_stage", "real_stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Who takes part."""

    manager: Layer2Manager
    merchant: LightningNode
    """A third party's Lightning node."""
    simulated: tuple[str, ...]
    real: tuple[str, ...]


@asynccontextmanager
async def embedded_stage(cli: Cli) -> AsyncIterator[Stage]:
    """Simulated Lightning, a real EVM."""
    cli.step("starting the embedded network")
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        with cli.working("starting"):
            await manager.initialize_all_async()
        network = manager.embedded_network
        assert network is not None
        yield Stage(
            manager=manager,
            merchant=network.merchant_node,
            simulated=("Lightning: four nodes in memory, with real invoices, signatures and hash locks",),
            real=("the EVM: the HTLC contract's bytecode, receipts and state tries, in this process",),
        )


def real_stage(cli: Cli) -> AbstractAsyncContextManager[Stage]:
    """btcd, three lnd and anvil."""
    from layer2.devnet import RealNetwork

    return _real_stage(cli, RealNetwork(progress=cli.step))


@asynccontextmanager
async def _real_stage(cli: Cli, devnet: RealNetwork) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        with cli.working("starting real nodes; the first time they are built, which takes some minutes"):
            network = await stack.enter_async_context(devnet)
            manager = await stack.enter_async_context(Layer2Manager(await network.client_config()))
            await manager.initialize_all_async()
        yield Stage(
            manager=manager,
            merchant=await network.connect("router"),
            simulated=(),
            real=(
                "Lightning: three lnd on btcd (regtest)",
                "the EVM: anvil, with BOB's chain id",
                "the provider, over HTTP",
            ),
        )
