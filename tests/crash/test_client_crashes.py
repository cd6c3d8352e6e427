"""The client's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from crash_child import ClientJob
from crash_rig import LIMIT_S, client_to_the_end, settings

from layer2 import BTC, TransferProof
from layer2.bob import DEVNET
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import EvmClient, HttpTransport, encode_balance_of

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AMOUNT = 20_000
TOKENS = 10_000_000
AT_ONCE = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(regtest: Any) -> Any:
    async with RealNetwork(regtest) as started:
        yield started


async def token_balance(network: RealNetwork, account: DevnetAccount) -> int:
    client = EvmClient(HttpTransport(network.nodes.evm_url))
    try:
        assert network.token.contract is not None
        return int.from_bytes(await client.call(network.token.contract, encode_balance_of(account.address)))
    finally:
        await client.close()


async def one(
    network: RealNetwork, folder: Path, way: tuple[str, str], kill_at: int | None, recipient: str | None = None
) -> tuple[list[str], bool, str]:
    """One transfer with one kill. Gives the points reached, whether it was killed, and how it ended."""
    account = await network.new_account(tokens=TOKENS)
    path = settings(network, account, "client", folder, provider_url=network.provider.url)
    job = ClientJob(path, *way, AMOUNT, recipient, f"crash {kill_at}", kill_at)
    async with asyncio.timeout(LIMIT_S):
        first, last = await client_to_the_end(job)
    assert last.ended is not None, f"killed at {first.points[-1:]}: the second run reported no end"
    outcome, proof_text = last.ended
    moved = await token_balance(network, account) - TOKENS
    if outcome == "settled":
        assert proof_text is not None
        proof = TransferProof.from_json(proof_text)
        lock = proof.terms.lock
        assert moved == (-lock.amount if way[0] == "bob" else lock.amount), f"killed at {first.points[-1]}"
    else:
        assert moved == 0, f"killed at {first.points[-1:]}: {outcome}"
    return first.points, first.killed, outcome


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
    print(f"\n{way[0]} -> {way[1]}, {expected}: {len(hit)} points of {len(points)} hit")
    for name in sorted(set(hit)):
        print(f"  {hit.count(name):3} x {name}")
    assert len(hit) >= len(points) - 3, "most points must be reached again, or the run shows nothing"
    for name, ended in ends:
        assert ended in (expected, "SwapExpired"), f"killed at {name}: {ended}"
    return len(hit)


async def nobody() -> None:
    return None


@pytest.mark.parametrize("way", [("bob", "lightning"), ("lightning", "bob")], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(network: RealNetwork, tmp_path: Path, way: tuple[str, str]) -> None:
    assert BTC.decimals == 8
    assert DEVNET.chain_id == network.nodes.evm_chain_id
    assert await every_point(network, tmp_path, way, "settled", nobody) > 10


async def test_killed_anywhere_on_the_way_to_an_early_refund(network: RealNetwork, tmp_path: Path) -> None:
    merchant = await network.connect("router")

    async def dead_invoice() -> str:
        invoice = await merchant.create_invoice(amount_msat=AMOUNT * 1000, expiry_s=300)
        await merchant.cancel_invoice(invoice.payment_hash)
        return invoice.text

    assert await every_point(network, tmp_path, ("bob", "lightning"), "SwapRefunded", dead_invoice) > 10
