"""A rescue on an embedded network, and locks of which no store knows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from layer2 import BTC, EvmAddress, Layer2Config, Layer2Manager, NodeNotReady
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.evm import EvmClient, MemoryTxJournal, SenderSettings, TxSender, encode_balance_of
from layer2.lightning import InvoiceState, LightningNode, PaymentRecord
from layer2.protocol import Signer
from layer2.swaps import (
    DEVNET_TIMING,
    EvmSwapChain,
    Locked,
    Locking,
    LockStatus,
    Rescue,
    RescueAction,
    RescuePlan,
)
from layer2.terms import DepthPolicy, Lock, SwapDirection
from layer2.transactions import Depth

SAT: Final = 20_000
POLICY: Final = DepthPolicy(depth=Depth.INCLUDED, confirmations=2)


@asynccontextmanager
async def rescue_of(
    network: EmbeddedNetwork,
    signer: Signer,
    node: LightningNode | None = None,
    policy: DepthPolicy = POLICY,
    agreed: Callable[[bytes], Awaitable[frozenset[bytes]]] | None = None,
    token: EvmAddress | None = None,
) -> AsyncIterator[tuple[Rescue, EvmSwapChain]]:
    assert network.token.contract is not None
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
            token=token or network.token.contract,
            chain_id=network.evm.chain_id,
            timing=DEVNET_TIMING,
            policy_for=lambda _amount: policy,
            clock=network.clock,
            node=node,
            agreed=agreed,
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


async def plans(work: Rescue) -> list[RescuePlan]:
    return [await work.plan(found) for found in await work.find(from_block=0)]


async def standing(work: Rescue) -> RescuePlan | None:
    found = [plan for plan in await plans(work) if plan.action is not RescueAction.NONE]
    assert len(found) <= 1
    return found[0] if found else None


async def until_the_provider_locked(network: EmbeddedNetwork) -> None:
    async def locked() -> bool:
        states = [
            swap.state for swap in network.runtime.engine.open_swaps if swap.deal.direction is SwapDirection.REVERSE
        ]
        return any(isinstance(state, Locking | Locked) for state in states)

    await until(locked)


async def pay_and_lose_the_store(config: Layer2Config, network: EmbeddedNetwork) -> RescuePlan:
    """Until the provider's lock stands and our process, which would claim it, has gone with its store."""
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        await manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB)
        await until_the_provider_locked(network)
    Path(config.store_url.removeprefix("sqlite:///")).unlink()
    async with rescue_of(network, network.client_signer) as (work, _):
        plan: list[RescuePlan] = []

        async def deep() -> bool:
            seen = await standing(work)
            plan[:] = [] if seen is None else [seen]
            return seen is not None and seen.action is RescueAction.CONFIRM

        await until(deep)
        return plan[0]


async def plan_of(work: Rescue, lock: Lock) -> RescuePlan:
    (found,) = [found for found in await work.find(from_block=0) if found.lock == lock]
    return await work.plan(found)


async def make_lock(
    network: EmbeddedNetwork,
    chain: EvmSwapChain,
    preimage_hash: bytes,
    *,
    seconds: int,
    by_provider: bool = False,
    amount: int = SAT,
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
        amount=amount,
        token=network.token.contract,
        claimer=client if by_provider else provider,
        refunder=provider if by_provider else client,
        timelock=head.timestamp + seconds,
    )

    async def locked() -> bool:
        try:
            await chain.send_lock(f"lock {lock.lock_id.hex()}", lock, not_after=lock.timelock)
        except NodeNotReady:
            return False  # the allowance of the contract is being included
        return (await chain.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.LOCKED

    await until(locked)
    return lock


async def pay_and_hold(network: EmbeddedNetwork, preimage_hash: bytes) -> asyncio.Task[PaymentRecord]:
    """The provider's node holds a payment of which no store knows. The task ends with the payment."""
    held = await network.provider_node.create_hold_invoice(
        payment_hash=preimage_hash, amount_msat=SAT * 1000, memo="", expiry_s=600, cltv_delta=400
    )
    paying = asyncio.create_task(
        network.merchant_node.pay(held.text, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=30)
    )

    async def accepted() -> bool:
        return (await network.provider_node.lookup_invoice(preimage_hash)).state is InvoiceState.ACCEPTED

    await until(accepted)
    return paying


async def make_a_providers_lock(network: EmbeddedNetwork, preimage_hash: bytes, *, seconds: int = 600) -> Lock:
    async with rescue_of(network, network.provider_signer) as (_, chain):
        return await make_lock(network, chain, preimage_hash, seconds=seconds, by_provider=True)


async def claim_as_the_client(network: EmbeddedNetwork, lock: Lock, preimage: bytes) -> None:
    async with rescue_of(network, network.client_signer) as (_, chain):
        await chain.send_claim(f"claim {lock.lock_id.hex()}", lock, preimage, not_after=None)

        async def claimed() -> bool:
            return (await chain.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.CLAIMED

        await until(claimed)


class OnItsLoop:
    """A node in memory, for code on another loop."""

    def __init__(self, node: LightningNode) -> None:
        self._node, self._loop = node, asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object, **options: object) -> object:
            asked = getattr(self._node, name)(*arguments, **options)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, self._loop))

        return call

    async def close(self) -> None:
        pass


async def command(*arguments: str, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "layer2", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    assert "Traceback" not in err.decode()
    return out.decode()
