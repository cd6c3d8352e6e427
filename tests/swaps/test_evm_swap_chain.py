"""The chain as a swap sees it, on a real EVM: what is sent once, what again, and what never."""

import asyncio
from dataclasses import replace

import pytest
from one_account import CHAIN_ID, POLICY, PREIMAGE, one_account

from layer2.errors import Expired, FeeLimitExceeded, Layer2Error, NodeConnectionError, NodeError, Reverted, StorageError
from layer2.evm import (
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    EvmClient,
    MemoryTxJournal,
    RpcError,
    SignedVariant,
    TxRecord,
    TxState,
    UnsignedTransaction,
    encode_claim,
    encode_lock,
    encode_mint,
    encode_transfer,
    sign_transaction,
)
from layer2.swaps import EvmSwapChain, ExitAgainError, LockStatus, OwnTransaction


@pytest.fixture
async def world():
    async with one_account() as world:
        yield world


async def refuse(params):
    raise RpcError(-32000, "rlp: so says an endpoint that keeps what it was sent")


async def vanish(params):
    raise NodeConnectionError("gone", request_sent=False)


class Stops(MemoryTxJournal):
    """The process stands still for a while after it has signed, or ends there."""

    def __init__(self, clock, *, seconds=0, dead=False):
        super().__init__()
        self._clock = clock
        self._seconds = seconds
        self._dead = dead

    async def put_new(self, record):
        await super().put_new(record)
        self._clock.jump_wall_clock(self._seconds)
        if self._dead:
            raise asyncio.CancelledError


async def test_a_node_that_answers_for_a_block_with_the_state_after_the_next_is_not_believed(world):
    """As anvil does while it mines: what is seen too early would vanish with the next look."""
    lock = await world.locked()
    claim = encode_claim(lock, PREIMAGE)

    async def early(params):
        world.endpoint.lies.clear()
        await world.call(claim, HTLC_ADDRESS)
        return await world.evm.call("eth_getStorageAt", [*params[:2], "latest"])

    world.endpoint.lies["eth_getStorageAt"] = early
    assert (await world.view(lock)).latest.status is LockStatus.LOCKED
    assert (await world.view(lock)).latest.preimage == PREIMAGE


async def test_a_claim_whose_time_passed_before_it_was_first_sent_never_shows_the_preimage(world):
    lock = await world.locked()
    world.journal = Stops(world.clock, seconds=200)
    await world.start()
    sent, not_after = len(world.endpoint.sent), world.now_s + 100
    with pytest.raises(NodeError):  # signed: nothing is certain from this alone
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    with pytest.raises(Expired):  # certain: it was never sent, so the payment may go back
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    assert len(world.endpoint.sent) == sent
    assert not await world.chain.was_shown("claim")


async def test_what_was_never_signed_was_shown_to_nobody(world):
    assert not await world.chain.was_shown("claim")
    lock = await world.locked()
    await world.chain.send_claim("claim", lock, PREIMAGE, not_after=world.now_s + 100)
    assert await world.chain.was_shown("claim")


async def test_a_claim_that_was_signed_before_a_crash_is_not_sent_late_either(world):
    lock = await world.locked()
    world.journal = Stops(world.clock, dead=True)
    await world.start()
    not_after = world.now_s + 100
    with pytest.raises(Layer2Error):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    sent = len(world.endpoint.sent)
    assert await world.chain.was_shown("claim")  # the next start may send it
    world.clock.jump_wall_clock(200)
    assert not await world.chain.was_shown("claim")
    await world.start()
    await world.sender._look()
    with pytest.raises(Expired):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    assert len(world.endpoint.sent) == sent


async def test_what_a_restart_sends_counts_as_sent(world):
    """A claim that the first life signed and the second sent is pursued by the third, however late."""
    lock = await world.locked()
    world.journal = Stops(world.clock, dead=True)
    await world.start()
    not_after = world.now_s + 100
    with pytest.raises(Layer2Error):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    world.endpoint.lies["eth_sendRawTransaction"] = vanish
    await world.start()
    await world.sender._look()
    assert (await world.journal.get("claim")).sent
    assert await world.chain.was_shown("claim")
    world.endpoint.lies.clear()
    world.clock.jump_wall_clock(200)
    await world.start()
    await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    assert (await world.view(lock)).latest.preimage == PREIMAGE


async def test_a_claim_that_a_liar_refused_is_pursued_however_late(world):
    lock = await world.locked()
    world.endpoint.lies["eth_sendRawTransaction"] = refuse
    not_after = world.now_s + 100
    for late in (0, 200, 200):
        world.clock.jump_wall_clock(late)
        with pytest.raises(NodeError):  # the liar may know the preimage: never again is anything certain
            await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
        assert (await world.journal.get("claim")).sent
        await world.start()
    world.endpoint.lies.clear()
    await world.chain.send_claim("claim", lock, PREIMAGE, not_after=not_after)
    assert (await world.view(lock)).latest.preimage == PREIMAGE


async def test_an_exit_that_reverted_for_good_is_tried_again(world):
    """The token may have been paused, or the transaction may have come a block too early."""
    lock = world.lock()
    await world.chain.send_claim("claim", lock, PREIMAGE, not_after=None)
    await world.chain.send_refund("refund", lock, deadline=None)
    await world.finalize()
    assert (await world.journal.get("claim")).succeeded is False
    sent = len(world.endpoint.sent)
    world.clock.jump_wall_clock(60)
    for _ in range(2):
        with pytest.raises(ExitAgainError):
            await world.chain.send_claim("claim", lock, PREIMAGE, not_after=None)
    assert len(world.endpoint.sent) == sent + 1  # one more, and not one more each time
    await world.finalize()
    await world.locked(lock)
    world.clock.jump_wall_clock(120)
    with pytest.raises(ExitAgainError):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=None)
    assert (await world.view(lock)).latest.preimage == PREIMAGE


async def test_a_refund_that_came_too_early_is_tried_again(world):
    lock = await world.locked()
    await world.chain.send_refund("refund", lock, deadline=None)
    await world.finalize()
    world.clock.jump_wall_clock(lock.timelock - world.now_s)
    with pytest.raises(ExitAgainError):
        await world.chain.send_refund("refund", lock, deadline=None)
    assert (await world.view(lock)).latest.status is LockStatus.REFUNDED


async def test_a_lock_whose_time_passed_unsent_is_left_alone(world):
    """Not an error with each block for days: until its timelock has passed, there is nothing to be done about it."""
    await world.locked()
    lock = world.lock(4_000)
    await world.call(encode_mint(world.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
    world.journal = Stops(world.clock, seconds=200)
    await world.start()
    sent, not_after = len(world.endpoint.sent), world.now_s + 100
    with pytest.raises(NodeError):
        await world.chain.send_lock("other", lock, not_after=not_after)
    await world.chain.send_lock("other", lock, not_after=not_after)
    assert len(world.endpoint.sent) == sent
    assert (await world.chain.view(lock, POLICY, lock_key="other")).own_lock is OwnTransaction.OPEN


async def test_a_lock_may_fail_for_its_price(world):
    """Nothing is bound yet, so that it keeps to what the user agreed to pay for gas, unlike a way out."""
    await world.locked()
    lock = world.lock(4_000)
    await world.call(encode_mint(world.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
    with pytest.raises(FeeLimitExceeded):
        await world.chain.send_lock("other", lock, not_after=world.now_s + 60, max_gas_wei=1)
    assert await world.journal.get("other") is None
    await world.chain.send_lock("other", lock, not_after=world.now_s + 60, max_gas_wei=10**17)
    assert (await world.view(lock)).latest.status is LockStatus.LOCKED


async def test_a_lock_is_never_sent_a_second_time(world):
    lock = await world.locked()
    sent = len(world.endpoint.sent)
    await world.finalize()
    await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)
    assert len(world.endpoint.sent) == sent


async def test_a_replaced_lock_is_not_dead_while_an_earlier_form_of_it_has_a_later_nonce(world):
    """Whom it was shown to first may still send that one, once the account's nonce comes there."""
    variants = []
    for nonce in (7, 5):
        signed = await sign_transaction(
            UnsignedTransaction(
                chain_id=CHAIN_ID,
                nonce=nonce,
                gas_limit=21_000,
                max_fee_per_gas=1,
                max_priority_fee_per_gas=1,
                to=HTLC_ADDRESS,
                value=0,
                data=b"",
            ),
            world.signer,
        )
        variants.append(SignedVariant(raw=signed.raw, hash=signed.hash, max_fee_per_gas=1, max_priority_fee_per_gas=1))
    record = TxRecord(
        key="lock",
        request_digest=b"",
        chain_id=CHAIN_ID,
        sender=world.signer.address,
        nonce=5,
        variants=tuple(variants),
        state=TxState.REPLACED,
        created_ms=0,
    )
    await world.journal.put_new(record)
    assert (await world.view(world.lock())).own_lock is OwnTransaction.OPEN
    world.journal = MemoryTxJournal()
    await world.journal.put_new(replace(record, variants=record.variants[1:]))
    await world.start()
    assert (await world.view(world.lock())).own_lock is OwnTransaction.DEAD


class LosesAnswers(MemoryTxJournal):
    """Writes, and then says that it failed: a connection to the database that broke at the commit."""

    lost = 0

    async def put_new(self, record):
        await super().put_new(record)
        self._lose()

    async def update(self, record, *, expected_version):
        await super().update(record, expected_version=expected_version)
        self._lose()

    def _lose(self):
        self.lost += 1
        raise StorageError("the connection broke at the commit")


async def test_a_write_whose_answer_was_lost_blocks_no_exit(world):
    lock = await world.locked()
    world.journal = LosesAnswers()
    await world.start()
    await world.chain.send_claim("claim", lock, PREIMAGE, not_after=world.now_s + 100)
    assert (await world.view(lock)).latest.preimage == PREIMAGE
    await world.call(encode_mint(world.signer.address, 1), TEST_TOKEN_ADDRESS)
    await world.finalize()
    assert (await world.journal.get("claim")).state is TxState.FINAL
    assert world.journal.lost >= 4


async def test_offers_are_looked_at_over_the_lane_of_user_traffic(world):
    """However many offers strangers ask for, the connections of claims and refunds stay free."""
    asked = {"user": 0, "exits": 0}

    class Lane:
        def __init__(self, name):
            self.name = name

        async def call(self, method, params):
            asked[self.name] += 1
            return await world.endpoint.call(method, params)

        async def close(self):
            pass

    transport = Lane("user")
    transport.exits = Lane("exits")
    chain = EvmSwapChain(
        client=EvmClient(transport), sender=world.sender, journal=world.journal, clock=world.clock, block_time_s=1.0
    )
    lock = world.lock()
    assert (await chain.offers.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.NEVER
    assert asked["exits"] == 0
    used = asked["user"]
    assert used > 0
    assert (await chain.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.NEVER
    assert asked["user"] == used
    assert asked["exits"] > 0


async def test_the_block_that_many_swaps_wait_at_is_asked_for_once_and_anew_below_another_head(world):
    asked = []

    async def counted(params):
        asked.append(params[0])
        return await world.evm.call("eth_getBlockByNumber", params)

    def heights():
        return [block for block in asked if block.startswith("0x")]

    async def look(*timelocks):
        locks = [world.lock(timelock=timelock) for timelock in timelocks]
        await asyncio.gather(*(world.chain.view(lock, policy, lock_key=None) for lock in locks))

    policy = replace(POLICY, confirmations=3)
    await world.evm.mine(5)
    await world.clock.advance(1)
    world.endpoint.lies["eth_getBlockByNumber"] = counted
    await world.chain.view(world.lock(), replace(POLICY, confirmations=1), lock_key=None)
    assert heights() == []
    await world.clock.advance(0.05)
    await look(*range(4_000, 4_020))
    assert len(heights()) == 1
    await world.evm.reorganise(1)
    await world.clock.advance(0.06)
    await look(4_000)
    assert heights() == heights()[:1] * 2


def refuses(world, call):
    """An endpoint on which a call with the beginning of ``call`` reverts, as with a token that is paused."""

    async def answer(params):
        if params[0]["data"].startswith("0x" + call[:4].hex()):
            raise RpcError(3, "execution reverted: paused", "0x")
        return await world.evm.call("eth_call", params)

    return answer


async def test_a_lock_that_would_revert_is_not_signed(world):
    lock = world.lock()
    await world.call(encode_mint(world.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
    with pytest.raises(NodeError):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)  # approves first
    sent = len(world.endpoint.sent)
    world.endpoint.lies["eth_call"] = refuses(world, encode_lock(lock))
    with pytest.raises(Reverted):
        await world.chain.send_lock("lock", lock, not_after=world.now_s + 60)
    assert await world.journal.get("lock") is None
    assert len(world.endpoint.sent) == sent


async def test_no_preimage_leaves_for_a_token_that_does_not_pay(world):
    lock = await world.locked()
    sent = len(world.endpoint.sent)
    world.endpoint.lies["eth_call"] = refuses(world, encode_transfer(lock.claimer, lock.amount))
    with pytest.raises(Reverted):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=world.now_s + 600)
    assert await world.journal.get("claim") is None
    assert len(world.endpoint.sent) == sent


async def test_a_new_block_tells_whose_locks_changed(world):
    lock, other = world.lock(), world.lock(timelock=4_000)
    await world.chain.offers.view(lock, POLICY, lock_key=None)
    assert await world.chain.next_block() is None, "nothing is known of what came before"
    await world.locked(lock)
    await world.clock.advance(1)
    assert await world.chain.next_block() == {lock.lock_id}
    await world.call(encode_mint(world.signer.address, other.amount), TEST_TOKEN_ADDRESS)
    await world.chain.send_lock("other", other, not_after=world.now_s + 60)
    await world.clock.advance(1)
    assert other.lock_id in await world.chain.next_block()


@pytest.mark.parametrize("cause", ["reorganisation", "no events"])
async def test_a_new_block_does_not_tell_what_it_cannot_know(world, cause):
    lock = world.lock()
    await world.view(lock)
    await world.chain.next_block()
    await world.locked(lock)
    await world.chain.next_block()
    if cause == "reorganisation":
        await world.evm.reorganise(1)
    else:
        world.endpoint.lies["eth_getLogs"] = refuse
        await world.evm.mine(1)
    await world.clock.advance(1)
    assert await world.chain.next_block() is None
