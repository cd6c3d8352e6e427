"""A rescue on an embedded network, and locks of which no store knows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from layer2 import NodeNotReady
from layer2.devnet import EmbeddedNetwork
from layer2.evm import EvmClient, MemoryTxJournal, SenderSettings, TxSender, encode_balance_of
from layer2.lightning import LightningNode
from layer2.protocol import Signer
from layer2.swaps import DEVNET_TIMING, EvmSwapChain, LockStatus, Rescue, RescuePlan
from layer2.terms import DepthPolicy, Lock
from layer2.transactions import Depth

SAT: Final = 20_000
POLICY: Final = DepthPolicy(depth=Depth.INCLUDED, confirmations=2)


@asynccontextmanager
async def rescue_of(
    network: EmbeddedNetwork, signer: Signer, node: LightningNode | None = None, policy: DepthPolicy = POLICY
) -> AsyncIterator[tuple[Rescue, EvmSwapChain]]:
    client, journal = EvmClient(network.transport()), MemoryTxJournal()
    sender = TxSender(
        client,
        signer,
        journal,
        chain_id=network.evm.chain_id,
        clock=network.clock,
        settings=SenderSettings(poll_interval_s=0.2),
    )
    await sender.start()
    chain = EvmSwapChain(client=client, sender=sender, journal=journal, clock=network.clock, block_time_s=1)
    try:
        work = Rescue(
            client=client,
            chain=chain,
            journal=journal,
            signer=signer,
            contract=network.contract,
            chain_id=network.evm.chain_id,
            timing=DEVNET_TIMING,
            policy_for=lambda _amount: policy,
            clock=network.clock,
            node=node,
        )
        yield work, chain
    finally:
        await sender.close()


async def tokens(network: EmbeddedNetwork) -> int:
    assert network.token.contract is not None
    client = EvmClient(network.transport())
    return int.from_bytes(await client.call(network.token.contract, encode_balance_of(network.client_signer.address)))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.05)


async def plan_of(work: Rescue, lock: Lock) -> RescuePlan:
    (found,) = [found for found in await work.find(from_block=0) if found.lock == lock]
    return await work.plan(found)


async def make_lock(
    network: EmbeddedNetwork, chain: EvmSwapChain, preimage_hash: bytes, *, seconds: int, by_provider: bool = False
) -> Lock:
    """A lock of the client's for the provider, or the other way round, of which no store knows."""
    client, provider = network.client_signer.address, network.provider_signer.address
    head = await EvmClient(network.transport()).header()
    assert head is not None
    assert network.token.contract is not None
    lock = Lock(
        chain_id=network.evm.chain_id,
        contract=network.contract,
        preimage_hash=preimage_hash,
        amount=SAT,
        token=network.token.contract,
        claimer=client if by_provider else provider,
        refunder=provider if by_provider else client,
        timelock=head.timestamp + seconds,
    )

    async def locked() -> bool:
        try:
            await chain.send_lock(f"lock {preimage_hash.hex()}", lock, not_after=lock.timelock)
        except NodeNotReady:
            return False  # the allowance of the contract is being included
        return (await chain.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.LOCKED

    await until(locked)
    return lock


async def command(*arguments: str, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "layer2", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    assert "Traceback" not in err.decode()
    return out.decode()
