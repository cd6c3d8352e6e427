"""A claim or refund that failed for good is tried again: soon enough for its deadline, and not so often that it burns the account."""

from itertools import pairwise

import pytest
from one_account import POLICY, PREIMAGE, one_account

from layer2.evm import FeeLimits, LockPhase, TxState, decode_transaction
from layer2.swaps import DEVNET_TIMING, ExitAgainError, FoundLock, LockStatus, Rescue, RescueAction, RescuePlan
from layer2.swaps._attempts import next_attempt_ms

GWEI = 10**9
HOUR = 3600


@pytest.fixture
async def world():
    async with one_account() as world:
        yield world


def attempts(*, deadline, until, first=1_000_000, block_time_s=2.0, fails_after=0):
    """The seconds at which attempts are made that all fail, each ``fails_after`` seconds after it was made."""
    made, now = [first], first + fails_after
    while now < until:
        due = next_attempt_ms(
            len(made), last_made_ms=made[-1] * 1000, now_ms=now * 1000, deadline=deadline, block_time_s=block_time_s
        )
        now = now if due is None else -(-due // 1000)
        if now >= until:
            break
        made.append(now)
        now += max(fails_after, 1)
    return made


def pauses(made):
    return [later - earlier for earlier, later in pairwise(made)]


def test_the_pause_doubles_up_to_an_hour():
    assert pauses(attempts(deadline=None, until=1_000_000 + 5 * HOUR)) == [
        60,
        120,
        240,
        480,
        960,
        1920,
        3600,
        3600,
        3600,
    ]


@pytest.mark.parametrize("left_s", [40, 100, 600, HOUR, 7 * HOUR, 72 * HOUR])
def test_an_attempt_is_made_shortly_before_the_deadline_however_many_have_failed(left_s):
    """The token may be unpaused, or the endpoint may be mended, at any moment: three quarters of what was left then are still left."""
    deadline = 1_000_000 + left_s
    made = attempts(deadline=deadline, until=deadline)
    for at, pause in zip(made, pauses(made), strict=False):
        assert pause <= max(10, (deadline - at) / 4 + 1)
    assert deadline - made[-1] <= 20
    assert len(made) < 40 + left_s / HOUR


def test_after_the_deadline_the_pause_grows_with_the_delay():
    deadline = 1_000_000
    made = attempts(deadline=deadline, first=deadline - 20, until=deadline + 24 * HOUR)
    for at, pause in zip(made, pauses(made), strict=False):
        assert at < deadline or pause <= max(10, at - deadline)
    assert len(made) < 45


def test_what_took_long_to_fail_is_tried_again_at_once():
    made = attempts(deadline=1_000_000 + 2 * HOUR, until=1_000_000 + HOUR, fails_after=1200)
    assert pauses(made) == [1200, 1200]


def test_a_clock_that_was_set_back_is_no_reason_to_wait():
    times = {"deadline": None, "block_time_s": 2.0, "last_made_ms": 9_000_000}
    assert next_attempt_ms(5, now_ms=8_999_999, **times) is None
    assert next_attempt_ms(5, now_ms=9_000_000, **times) == 9_000_000 + 960_000


def shows_failures(world):
    """An endpoint that shows every transaction as included and failed."""

    async def answer(params):
        receipt = await world.evm.call("eth_getTransactionReceipt", params)
        return receipt and {**receipt, "status": "0x0"}

    return answer


async def claim_for(world, lock, seconds, *, step_s=30, restart=False):
    """Look each ``step_s`` seconds, as a driver does; what is sent becomes final, and failed, by the next look. The sent ones."""
    before, errors = len(world.endpoint.sent), []
    for _ in range(seconds // step_s):
        sent = len(world.endpoint.sent)
        try:
            await world.chain.send_claim("claim", lock, PREIMAGE, not_after=None)
        except ExitAgainError as error:
            errors.append(error)
        if len(world.endpoint.sent) > sent:
            await world.finalize()
        if restart:
            await world.start()
        world.clock.jump_wall_clock(step_s)
    return world.endpoint.sent[before:], errors


@pytest.mark.parametrize("restart", [False, True], ids=["one process", "many"])
async def test_an_endpoint_that_shows_every_claim_as_failed_does_not_burn_the_account(world, restart):
    lock = await world.locked()
    world.endpoint.lies["eth_getTransactionReceipt"] = shows_failures(world)
    sent, errors = await claim_for(world, lock, 6 * HOUR, step_s=60, restart=restart)
    assert 5 < len(sent) < 30, "without a pause there are hundreds"
    assert len({error.failures for error in errors}) == len(sent)
    assert {error.sent for error in errors} == {True, False}


async def test_the_next_attempt_still_goes_out_before_the_deadline(world):
    lock = world.lock(timelock=600)
    sent, _ = await claim_for(world, lock, 480, step_s=10)
    assert len(sent) > 3, "there is no lock yet: each fails"
    await world.locked(lock)
    await claim_for(world, lock, 60, step_s=5)
    view = await world.view(lock)
    assert view.latest.status is LockStatus.CLAIMED
    assert view.now_s < lock.timelock


@pytest.mark.parametrize("sent", [True, False])
async def test_a_rescue_says_whether_it_sent_a_refund_that_failed_before(world, sent):
    class Chain:
        async def send_refund(self, key, lock, *, deadline):
            raise ExitAgainError("failed for good: 1", failures=1, sent=sent)

    lock = world.lock()
    found = FoundLock(lock=lock, block_number=1, block_timestamp=1, phase=LockPhase.LOCKED)
    plan = RescuePlan(found=found, action=RescueAction.REFUND, refunder=True, policy=POLICY)
    work = Rescue(
        client=world.client,
        chain=Chain(),
        journal=world.journal,
        signer=world.signer,
        contract=lock.contract,
        token=lock.token,
        chain_id=lock.chain_id,
        timing=DEVNET_TIMING,
        policy_for=lambda _amount: POLICY,
        clock=world.clock,
    )
    if sent:
        assert await work.send(plan)
    else:
        with pytest.raises(ExitAgainError):
            await work.send(plan)


async def test_an_attempt_that_is_tried_again_tips_little_whatever_the_endpoint_says(world):
    lock = await world.locked()
    limit = FeeLimits().exit_again_max_tip_wei

    async def dear(params):
        history = await world.evm.call("eth_feeHistory", params)
        return {**history, "reward": [[hex(50 * GWEI)]] * len(history["reward"])}

    async def swallow(params):
        return "0x" + decode_transaction(bytes.fromhex(params[0][2:])).hash.hex()

    world.endpoint.lies.update({"eth_feeHistory": dear, "eth_getTransactionReceipt": shows_failures(world)})
    await world.start()
    first, _ = await claim_for(world, lock, 5, step_s=5)
    assert [tip(raw) for raw in first] == [50 * GWEI], "what must not fail for its price, the first time"
    world.clock.jump_wall_clock(60)
    world.endpoint.lies["eth_sendRawTransaction"] = swallow
    with pytest.raises(ExitAgainError):
        await world.chain.send_claim("claim", lock, PREIMAGE, not_after=None)
    await world.start()  # what was written holds for the next process too
    for _ in range(60):
        await world.evm.mine(1)
        world.clock.jump_wall_clock(30)
        await world.clock.advance(30)
        await world.sender._look()
    again = await world.journal.get("claim:2")
    assert again.state is TxState.OPEN
    tips = [variant.max_priority_fee_per_gas for variant in again.variants]
    assert len(tips) > 3, "its price was raised"
    assert max(tips) <= limit
    assert tips[0] <= limit // 4


def tip(raw):
    return decode_transaction(bytes.fromhex(raw[2:])).transaction.max_priority_fee_per_gas
