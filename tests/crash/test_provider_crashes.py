"""The provider's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from crash_rig import LIMIT_S, Child, EndedTooSoonError, free_port, provider_child, settings

from layer2 import BTC, Layer2Config, Layer2Manager, NodeError, SwapExpired, SwapRefunded, TransferProof
from layer2.devnet import RealNetwork
from layer2.evm import EvmClient, HttpTransport, encode_balance_of
from layer2.lightning import InvoiceState, decode_invoice

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AMOUNT = 20_000
TOKENS = 10_000_000
AT_ONCE = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> Any:
    async with RealNetwork(regtest) as started:
        yield started


async def balance(client: EvmClient, network: RealNetwork, owner: Any) -> int:
    assert network.token.contract is not None
    return int.from_bytes(await client.call(network.token.contract, encode_balance_of(owner)))


class Provider:
    """A provider process that is started again as soon as it was killed."""

    def __init__(self, config_path: str, kill_at: int | None) -> None:
        self.config_path = config_path
        self.kill_at = kill_at
        self.child: Child = provider_child(config_path, kill_at)
        self.first = self.child
        self.keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        while not await self._is_ready():
            self.first = self.child = provider_child(self.config_path, self.kill_at)
        self.keeper = asyncio.create_task(self._keep())

    async def _is_ready(self) -> bool:
        try:
            await self.child.ready
        except EndedTooSoonError:
            return False
        return True

    async def _keep(self) -> None:
        while True:
            await self.child.finished()
            self.child = provider_child(self.config_path, None)
            await self._is_ready()

    async def stop(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        await self.child.stop()


async def transfer(manager: Layer2Manager, way: tuple[str, str], recipient: str | None, key: str) -> TransferProof:
    """Ask until the provider is there to agree; what was agreed goes on by itself."""
    while True:
        try:
            return await manager.cross_layer_transfer_async(BTC, AMOUNT, *way, recipient=recipient, idempotency_key=key)
        except NodeError:
            await asyncio.sleep(0.2)


async def one(
    network: RealNetwork, folder: Path, way: tuple[str, str], kill_at: int | None, recipient: str | None
) -> tuple[list[str], bool, str]:
    lender, user = await network.new_account(tokens=TOKENS), await network.new_account(tokens=TOKENS)
    port = free_port()
    provider = Provider(settings(network, lender, "provider", folder, port=port), kill_at)
    outcome = "settled"
    chain = EvmClient(HttpTransport(network.nodes.evm_url))
    try:
        async with asyncio.timeout(LIMIT_S):
            await provider.start()
            path = settings(network, user, "client", folder, provider_url=f"http://127.0.0.1:{port}")
            config = await asyncio.to_thread(Layer2Config.load, path)
            async with Layer2Manager(config) as manager:
                await manager.initialize_all_async()
                try:
                    proof = await transfer(manager, way, recipient, f"crash {kill_at}")
                except (SwapRefunded, SwapExpired) as error:
                    outcome = type(error).__name__
                    assert await balance(chain, network, user.address) == TOKENS
                    assert await balance(chain, network, lender.address) == TOKENS
                else:
                    await settled_on_both_sides(network, chain, proof, way, user, lender)
    finally:
        run = provider.first.run
        await provider.stop()
        await chain.close()
    return run.points, run.killed and kill_at is not None and len(run.points) == kill_at, outcome


async def settled_on_both_sides(
    network: RealNetwork, chain: EvmClient, proof: TransferProof, way: tuple[str, str], user: Any, lender: Any
) -> None:
    amount = proof.terms.lock.amount
    sign = -1 if way[0] == "bob" else 1
    assert await balance(chain, network, user.address) == TOKENS + sign * amount
    assert await balance(chain, network, lender.address) == TOKENS - sign * amount
    payee = await network.connect("client" if way[0] == "bob" else "provider")
    payment_hash = decode_invoice(proof.terms.invoice).payment_hash
    while (await payee.lookup_invoice(payment_hash)).state is not InvoiceState.SETTLED:
        await asyncio.sleep(0.2)


async def every_point(network: RealNetwork, folder: Path, way: tuple[str, str], expected: str, recipients: Any) -> int:
    points, killed, outcome = await one(network, folder, way, None, await recipients())
    assert not killed
    assert outcome == expected
    limit = asyncio.Semaphore(AT_ONCE)

    async def at(number: int) -> tuple[str, str]:
        async with limit:
            reached, was_killed, ended = await one(network, folder, way, number, await recipients())
            return (reached[-1] if was_killed else "not reached"), ended

    ends = await asyncio.gather(*(at(number) for number in range(1, len(points) + 1)))
    hit = [name for name, _ in ends if name != "not reached"]
    print(f"\nprovider, {way[0]} -> {way[1]}, {expected}: {len(hit)} points of {len(points)} hit")
    for name in sorted(set(hit)):
        print(f"  {hit.count(name):3} x {name}")
    assert len(hit) >= len(points) // 2, "most points must be reached again, or the run shows nothing"
    for name, ended in ends:
        assert ended in (expected, "SwapExpired", "SwapRefunded"), f"killed at {name}: {ended}"
    return len(hit)


async def nobody() -> None:
    return None


@pytest.mark.parametrize("way", [("bob", "lightning"), ("lightning", "bob")], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(network: RealNetwork, tmp_path: Path, way: tuple[str, str]) -> None:
    assert await every_point(network, tmp_path, way, "settled", nobody) > 5


async def test_killed_anywhere_on_the_way_to_an_early_refund(network: RealNetwork, tmp_path: Path) -> None:
    merchant = await network.connect("router")

    async def dead_invoice() -> str:
        invoice = await merchant.create_invoice(amount_msat=AMOUNT * 1000, expiry_s=100)
        await merchant.cancel_invoice(invoice.payment_hash)
        return invoice.text

    assert await every_point(network, tmp_path, ("bob", "lightning"), "SwapRefunded", dead_invoice) > 3
