"""A rescue shows no preimage for a lock that is not what a transfer was to bring."""

from __future__ import annotations

import pytest
from rescues import SAT, make_lock, pay_and_lose_the_store, plan_of, rescue_of, tokens

from layer2 import EvmAddress, Layer2Config
from layer2.devnet import EmbeddedNetwork
from layer2.swaps import LockStatus, RescueAction

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_a_lock_that_was_not_agreed_on_is_never_claimed(config: Layer2Config, network: EmbeddedNetwork) -> None:
    """A provider that holds a payment makes a lock of one unit with its hash: the claim of that would show the preimage."""
    plan = await pay_and_lose_the_store(config, network)
    payment_hash = plan.found.lock.preimage_hash
    async with rescue_of(network, network.provider_signer) as (_, chain):
        dust = await make_lock(network, chain, payment_hash, seconds=3_000, by_provider=True, amount=1)

    async def agreed(asked: bytes) -> frozenset[bytes]:
        return frozenset({plan.found.lock.lock_id} if asked == payment_hash else ())

    before = await tokens(network)
    async with rescue_of(network, network.client_signer, agreed=agreed) as (work, _):
        seen = await plan_of(work, dust)
        assert (seen.action, seen.preimage) == (RescueAction.NOT_AGREED, None)
        assert not await work.send(seen, late=True, confirmed=True)
    async with rescue_of(network, network.client_signer, token=EvmAddress(raw=bytes(range(20)))) as (work, _):
        assert (await plan_of(work, plan.found.lock)).action is RescueAction.NOT_AGREED, "of another token"
    assert await tokens(network) == before
    async with rescue_of(network, network.client_signer, agreed=agreed) as (work, _):
        seen = await plan_of(work, plan.found.lock)
        assert (seen.action, seen.agreed) == (RescueAction.CLAIM, True)
        assert await work.send(seen)
        assert await work.wait(seen) is LockStatus.CLAIMED
    assert await tokens(network) == before + SAT
    async with rescue_of(network, network.client_signer) as (work, _):
        seen = await plan_of(work, dust)
        assert await work.send(seen, confirmed=True), "the preimage is out: nothing is lost any more"
        assert await work.wait(seen) is LockStatus.CLAIMED
    assert await tokens(network) == before + SAT + 1
