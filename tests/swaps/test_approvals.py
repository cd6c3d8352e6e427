"""What a swap pays for the token's leave to lock, and what it does if that does not come."""

from dataclasses import replace

import pytest
from one_account import one_account

from layer2.errors import NodeError, Reverted
from layer2.evm import HTLC_ADDRESS, TEST_TOKEN_ADDRESS, encode_allowance, encode_mint
from layer2.swaps import LockStatus, WaitsForBlockError


@pytest.fixture
async def world():
    async with one_account() as made:
        yield made


def allows(world, amount):
    """An endpoint, or a token, that never shows a greater allowance than ``amount``."""

    async def answer(params):
        if params[0]["data"].startswith("0x" + encode_allowance(world.signer.address, HTLC_ADDRESS)[:4].hex()):
            shown = await world.evm.call("eth_call", params)
            return f"0x{min(int(shown, 16), amount):064x}"
        return await world.evm.call("eth_call", params)

    return answer


async def test_an_allowance_that_does_not_appear_is_paid_for_once(world):
    lock = world.lock()
    await world.call(encode_mint(world.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
    sent = len(world.endpoint.sent)
    world.endpoint.lies["eth_call"] = allows(world, lock.amount - 1)
    with pytest.raises(NodeError):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)  # approves first
    for key in ("lock", "lock", "another"):
        await world.evm.mine(1)
        with pytest.raises(Reverted, match="allowance of 999 instead of 1000"):
            await world.chain.send_lock(key, lock, not_after=world.now_s + 60)
    assert len(world.endpoint.sent) == sent + 1
    assert await world.journal.get("lock") is None


async def test_a_token_that_allows_no_more_than_is_needed_is_locked(world):
    world.endpoint.lies["eth_call"] = allows(world, 2**96 - 1)
    await world.locked()


async def test_an_endpoint_that_is_behind_the_approval_is_waited_for(world):
    lock = world.lock()
    await world.call(encode_mint(world.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
    with pytest.raises(NodeError):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)  # approves first
    sent = len(world.endpoint.sent)
    old = allows(world, 0)

    async def behind(params):
        return await (old(params) if params[1] == "latest" else world.evm.call("eth_call", params))

    world.endpoint.lies["eth_call"] = behind
    for _ in range(2):
        with pytest.raises(WaitsForBlockError):
            await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)
    del world.endpoint.lies["eth_call"]
    await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)
    assert (await world.view(lock)).latest.status is LockStatus.LOCKED
    assert len(world.endpoint.sent) == sent + 1


async def test_an_approval_that_fails_ends_the_lock(world):
    lock = replace(world.lock(), token=world.lock().contract)  # which has no such method
    sent = len(world.endpoint.sent)

    async def nothing(params):
        return f"0x{0:064x}"

    world.endpoint.lies["eth_call"] = nothing
    with pytest.raises(NodeError):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)  # approves first
    with pytest.raises(Reverted, match="approval"):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)
    assert len(world.endpoint.sent) == sent + 1
