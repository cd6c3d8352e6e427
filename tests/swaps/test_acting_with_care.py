"""What the engine takes for certain, and what it looks at once more before it acts."""

import asyncio
from dataclasses import replace

import pytest
from engine_worlds import world_of
from swap_worlds import CLAIMED, LOCKED, NOW, PREIMAGE, REFUNDED, make_deal

from layer2.errors import (
    FeeLimitExceeded,
    InsufficientFunds,
    NodeConnectionError,
    RateLimited,
    Reverted,
    SignerError,
    StorageError,
    SwapRefused,
)
from layer2.swaps import (
    Abandoned,
    Claiming,
    Closed,
    ExitAgainError,
    Failed,
    Locked,
    LockStatus,
    NeedsAttention,
    Offered,
    Paying,
    Refunded,
    Refunding,
    Revealed,
    Role,
    Settled,
)
from layer2.terms import SwapDirection


@pytest.fixture
async def world():
    async with world_of(Role.CLIENT) as made:
        yield made


@pytest.fixture
async def provider():
    async with world_of(Role.PROVIDER) as made:
        yield made


class Payer:
    """A node that notes what it is asked to pay; each payment then hangs."""

    def __init__(self, node):
        self.node = node
        self.asked = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.node, name)

    async def pay(self, *args, **kwargs):
        self.asked.set()
        await asyncio.Event().wait()


async def decided_to_pay_but_the_lock_is_gone(provider):
    """A provider's swap in ``Paying`` whose lock was not to be seen any more just before the payment."""
    payer = Payer(provider.node)
    await provider.start(node=payer)
    swap_id = await provider.begin_as_provider()
    await provider.reach(swap_id, Offered)
    provider.chain.hidden_from_look = 2  # the first look decides, the second is made just before the payment
    provider.chain.looks = 0
    provider.lock()
    provider.engine.wake(swap_id)
    await provider.reach(swap_id, Paying)
    await provider.looked(4)
    assert not payer.asked.is_set()
    return swap_id, payer


async def test_a_lock_that_a_reorg_hides_is_paid_for_when_it_is_back(provider):
    swap_id, payer = await decided_to_pay_but_the_lock_is_gone(provider)
    assert isinstance((await provider.engine.load(swap_id)).state, Paying)
    provider.chain.hidden_from_look = None
    async with asyncio.timeout(20):
        while not payer.asked.is_set():
            await provider.clock.advance(0.5)
            await asyncio.sleep(0.001)


async def test_a_lock_that_stays_away_is_never_paid_for(provider):
    swap_id, payer = await decided_to_pay_but_the_lock_is_gone(provider)
    async with asyncio.timeout(20):
        while not isinstance((await provider.engine.load(swap_id)).state, Failed):
            await provider.clock.advance(20)
            await asyncio.sleep(0.001)
    assert not payer.asked.is_set()


async def revealed(world):
    """A swap that anyone may pay, whose claim was sent."""
    swap_id = await world.begin(pays_itself=False)
    world.lock()
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    await world.looked(2)
    assert world.chain.claims
    return swap_id


@pytest.mark.parametrize("trouble", [Reverted("the endpoint says so"), SignerError("locked")], ids=["chain", "signer"])
async def test_a_look_that_fails_says_nothing_of_the_claim_that_was_sent(world, trouble):
    swap_id = await revealed(world)
    if isinstance(trouble, SignerError):
        world.preimages.error = trouble
    else:
        world.chain.trouble = trouble
    await world.looked(12)
    assert isinstance((await world.engine.load(swap_id)).state, Revealed)
    world.chain.trouble = None
    world.chain.latest = world.chain.at_depth = replace(LOCKED, status=LockStatus.CLAIMED, preimage=PREIMAGE)
    world.engine.wake(swap_id)
    await world.looked(4)
    await world.reach(swap_id, Settled)


async def test_the_preimage_stays_while_a_reorg_has_the_lock_shallow_again(world):
    """Decided against a deep lock, the claim finds it at another place after a crash in between."""
    world.preimages.error = SignerError("locked")
    swap_id = await world.begin(pays_itself=False)
    world.lock()
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    world.lock(deep=False)
    world.preimages.error = None
    await world.start()
    await world.looked(6)
    assert world.chain.claims == []
    world.lock()
    await world.looked(6)
    assert world.chain.claims


async def refunded_while_away(world, swap_id):
    """The process comes back after the provider took its lock back for good."""
    await world.engine.close()
    world.chain.latest = world.chain.at_depth = world.chain.finalized = REFUNDED
    world.preimages.error = None
    await world.start()
    async with asyncio.timeout(20):
        while isinstance(state := (await world.engine.load(swap_id)).state, Revealed):
            await world.clock.advance(0.5)
            await asyncio.sleep(0.001)
    return state


async def test_a_claim_that_was_never_signed_is_no_loss_when_the_lock_was_refunded(world):
    """The process died between the decision and the signature and stayed away: nobody ever saw the preimage."""
    world.preimages.error = SignerError("locked")
    swap_id = await world.begin(pays_itself=False)
    world.lock()
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    assert await refunded_while_away(world, swap_id) == Closed(
        outcome="expired", reason="the lock was refunded before the claim was sent"
    )
    assert world.chain.claims == []


async def test_a_claim_that_was_sent_is_an_alarm_when_the_lock_was_refunded(world):
    swap_id = await revealed(world)
    assert isinstance(await refunded_while_away(world, swap_id), NeedsAttention)


async def test_a_preimage_that_the_chain_showed_is_known_whoever_sent_the_claim(world):
    """Somebody else claimed for us, a reorganisation took the claim away, and the lock was refunded: no reason to be calm."""
    world.preimages.error = SignerError("locked")
    swap_id = await world.begin(pays_itself=False)
    world.chain.latest = replace(LOCKED, status=LockStatus.CLAIMED, preimage=PREIMAGE)
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    assert isinstance(await refunded_while_away(world, swap_id), NeedsAttention)


async def test_a_refusal_that_lasts_fills_neither_the_store_nor_the_processor(world):
    """Gas above the bound for an hour: each look decides anew, but no faster than looks come."""
    world.chain.refusal = FeeLimitExceeded("gas is dear")
    text = (await world.network.add_node("payee").create_invoice(amount_msat=1_000, expiry_s=600)).text
    deal = make_deal(Role.CLIENT, SwapDirection.REVERSE, preimage_time_ms=1)
    terms = replace(deal.terms, invoice=text)
    await world.start(node=world.node)
    world.lock()
    swap_id = await world.begin(signed=replace(deal.signed, terms=terms))
    await world.reach(swap_id, Revealed)
    looks = world.chain.looks
    await world.looked(10)
    versions = (await world.engine.load(swap_id)).version
    assert versions <= 2 * (world.chain.looks - looks) + 8
    async with asyncio.timeout(20):
        for _ in range(200):
            await asyncio.sleep(0.001)  # no time passes by the clock, so nothing is looked at
    assert (await world.engine.load(swap_id)).version <= versions + 2


async def test_a_payment_under_way_is_not_abandoned_by_a_process_without_a_node(world):
    class Hanging:
        def __getattr__(self, name):
            return getattr(world.node, name)

        async def pay(self, *args, **kwargs):
            raise NodeConnectionError("gone", request_sent=True)

    await world.start(node=Hanging())
    swap_id = await world.begin()
    await world.reach(swap_id, Paying)
    async with asyncio.timeout(20):
        while not (await world.engine.load(swap_id)).effects[0].begun:
            await asyncio.sleep(0.001)
    await world.start(node=None)
    await world.looked(6)
    assert isinstance((await world.engine.load(swap_id)).state, Paying)


async def test_without_a_node_nothing_is_begun(world):
    swap_id = await world.begin()
    await world.reach(swap_id, Abandoned)


@pytest.mark.parametrize("refusal", [InsufficientFunds("no ether", coin="ETH"), FeeLimitExceeded("gas is dear")])
@pytest.mark.parametrize("pays_itself", [True, False])
async def test_a_claim_that_was_shown_is_pursued_whatever_prevents_the_next_one(world, refusal, pays_itself):
    """The first one reverted for good, say; the preimage is out, so giving up now would give the lock away."""
    swap_id = await world.begin(pays_itself=pays_itself)
    world.lock()
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    await world.looked(2)
    assert world.chain.claims
    world.chain.refusal = refusal
    await world.looked(12)
    assert isinstance((await world.engine.load(swap_id)).state, Revealed)
    assert [code for code, _ in world.alarms] == ["swap.exit_refused"]
    assert refusal.message in world.alarms[0][1]
    sent = len(world.chain.claims)
    world.chain.refusal = None
    await world.looked(6)
    assert len(world.chain.claims) > sent


async def test_each_failed_attempt_of_a_claim_is_an_alarm_and_no_trouble(world):
    """It may be a token that is paused, or an endpoint that lies: somebody has to look. The swap is driven on meanwhile."""
    swap_id = await world.begin()
    world.lock()
    world.engine.wake(swap_id)
    await world.reach(swap_id, Revealed)
    for failures, sent in ((1, False), (1, True), (2, False)):
        world.chain.refusal = ExitAgainError(f"failed: {failures}", failures=failures, sent=sent)
        await world.looked(4)
    assert world.alarms == [("swap.exit_failed", "failed: 1"), ("swap.exit_failed", "failed: 2")]
    world.chain.refusal = None
    await world.looked(4)
    assert world.chain.claims


@pytest.mark.parametrize(
    ("role", "direction"), [(Role.PROVIDER, SwapDirection.REVERSE), (Role.CLIENT, SwapDirection.SUBMARINE)]
)
async def test_a_refund_is_urgent_where_a_held_payment_would_go_back(role, direction):
    async with world_of(role) as world:
        deal = make_deal(role, direction)
        await world.journal.insert(deal, Locked(), idempotency_key=None, request_digest=None, bind_hash=False)
        world.lock()
        await world.start(node=world.node)
        await world.clock.advance(deal.terms.lock.timelock - NOW + 1)
        await world.reach(deal.id, Refunding)
        await world.looked(4)
        urgent = deal.terms.lock.timelock + deal.terms.timing.evm_inclusion_s
        assert set(world.chain.refund_deadlines) == {urgent if role is Role.PROVIDER else None}


@pytest.mark.parametrize(
    ("role", "direction"), [(Role.PROVIDER, SwapDirection.REVERSE), (Role.CLIENT, SwapDirection.SUBMARINE)]
)
async def test_a_refund_of_somebody_elses_that_vanishes_is_made_when_it_is_due(role, direction):
    """By a reorganisation, and nobody sends that one again."""
    async with world_of(role) as world:
        deal = make_deal(role, direction)
        await world.journal.insert(deal, Locked(), idempotency_key=None, request_digest=None, bind_hash=False)
        world.chain.latest, world.chain.at_depth, world.chain.finalized = REFUNDED, LOCKED, LOCKED
        await world.start(node=world.node)
        await world.reach(deal.id, Refunding)
        world.lock()
        await world.looked(6)
        assert world.chain.refund_deadlines == []
        await world.clock.advance(deal.terms.lock.timelock - NOW + 1)
        await world.looked(6)
        assert world.chain.refund_deadlines


async def test_an_early_refund_that_vanishes_does_not_make_another_before_the_timelock(world):
    """An endpoint that is behind shows the lock again: whatever is sent then fails, and costs gas."""
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    early = Refunded(reason="taken back early")
    await world.journal.insert(deal, early, idempotency_key=None, request_digest=None, bind_hash=False)
    world.lock()
    await world.start(node=world.node)
    await world.reach(deal.id, Refunding)
    await world.looked(6)
    assert world.chain.refund_deadlines == []
    await world.clock.advance(deal.terms.lock.timelock - NOW + 1)
    await world.looked(6)
    assert world.chain.refund_deadlines


async def test_what_should_be_over_is_alarmed_once(world):
    """The refund never takes effect: the sequencer keeps it out, say."""
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    await world.journal.insert(deal, Locked(), idempotency_key=None, request_digest=None, bind_hash=False)
    world.lock()
    await world.start(node=world.node)
    timing, timelock = deal.terms.timing, deal.terms.lock.timelock
    over = timelock + timing.evm_inclusion_s + timing.grace_s + timing.finality_s
    await world.clock.advance(over - NOW - 1)
    await world.reach(deal.id, Refunding)
    assert world.alarms == []
    await world.clock.advance(3)
    await world.looked(8)
    assert [code for code, _ in world.alarms] == ["swap.overdue"]
    assert "Refunding" in world.alarms[0][1]


async def test_a_preimage_that_could_not_be_written_down_is_still_known(world):
    """The disk fails just when the claim is seen, and then a reorganisation takes the claim away."""
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    await world.journal.insert(deal, Locked(), idempotency_key=None, request_digest=None, bind_hash=False)
    world.lock()
    write, full = world.journal.transition, asyncio.Event()

    async def to_a_full_disk(*args, **kwargs):
        full.set()
        world.lock()  # the claim is gone at the next look
        raise StorageError("the disk is full")

    world.journal.transition = to_a_full_disk
    world.chain.latest = CLAIMED
    await world.start(node=world.node)
    await asyncio.wait_for(full.wait(), 20)
    assert [code for code, _ in world.alarms] == ["storage.write_failed"]
    world.journal.transition = write
    await world.clock.advance(deal.terms.lock.timelock - NOW + 1)
    await world.reach(deal.id, Claiming)
    await world.looked(4)
    assert set(world.chain.claims) == {PREIMAGE}
    assert world.chain.refund_deadlines == []


class Unhelpful:
    """A counterparty that answers the question for an early refund with an error."""

    def __init__(self, error):
        self._error = error
        self.asked = 0

    async def refund_signature(self, deal):
        self.asked += 1
        raise self._error


@pytest.mark.parametrize(
    ("error", "alarms"),
    [
        (RateLimited("asked too often"), set()),
        (SwapRefused("no", rule="x"), set()),
        (ValueError("a mistake of ours"), {("swap.driver_failed", "ValueError")}),
    ],
)
async def test_a_counterparty_that_fails_offers_no_refund_and_a_mistake_is_an_alarm(world, caplog, error, alarms):
    counterparty = Unhelpful(error)
    await world.start(counterparty=counterparty)
    world.lock()
    await world.engine.begin(make_deal(Role.CLIENT, SwapDirection.SUBMARINE), bind_hash=True)
    async with asyncio.timeout(20):
        while counterparty.asked < 3:
            await world.clock.advance(0.5)
            await asyncio.sleep(0.001)
    assert set(world.alarms) == alarms
    failed = [record for record in caplog.records if getattr(record, "event_code", "") == "swap.step_failed"]
    assert failed == []
