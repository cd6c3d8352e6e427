"""A write may have been made although it failed: what it stands for must be told all the same."""

import asyncio

from swap_worlds import LOCKED, NEVER, NOW, make_deal, make_view

from layer2.errors import StorageError
from layer2.signers import LocalSigner
from layer2.storage import Store, SwapJournal
from layer2.swaps import (
    Agreed,
    Closed,
    Locked,
    Locking,
    NeedsAttention,
    NoCounterparty,
    Paying,
    PreimageSource,
    Role,
    SwapEngine,
)
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock


class Chain:
    """A chain that shows what it is told to."""

    def __init__(self, view):
        self.shown = view

    async def view(self, lock, policy, *, lock_key):
        return self.shown

    async def send_lock(self, key, lock, *, not_after, max_gas_wei):
        self.shown = make_view(LOCKED, LOCKED, NEVER)

    async def next_block(self):
        await asyncio.Event().wait()


class FailingJournal(SwapJournal):
    """Its first transition is committed, and fails nevertheless."""

    failed = False

    async def transition(self, *args, **kwargs):
        moved = await super().transition(*args, **kwargs)
        if not self.failed:
            self.failed = True
            raise StorageError("the disk failed while committing")
        return moved


async def _engine(journal, clock, chain, **hooks):
    return SwapEngine(
        store=journal,
        chain=chain,
        node=None,
        counterparty=NoCounterparty(),
        clock=clock,
        poll_s=1.0,
        **{"preimages": None, **hooks},
    )


async def test_a_change_whose_commit_seemed_to_fail_is_told_to_who_follows(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock = VirtualClock(NOW * 1000)
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        changes = []
        engine = await _engine(FailingJournal(store, Role.CLIENT), clock, Chain(make_view()), on_change=changes.append)
        await engine.begin(deal, bind_hash=False)
        await engine.wait_for(deal.id, lambda state: isinstance(state, Locked))
        await engine.close()
        assert [type(swap.state) for swap in changes] == [Agreed, Locking, Locked]


async def test_each_process_raises_the_alarm_of_a_swap_that_needs_attention(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock = VirtualClock(NOW * 1000)
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        journal = SwapJournal(store, Role.CLIENT)
        await journal.insert(
            deal, NeedsAttention(reason="lost"), idempotency_key=None, request_digest=None, bind_hash=False
        )
        alarms = []
        engine = await _engine(journal, clock, Chain(make_view()), on_alarm=lambda *alarm: alarms.append(alarm))
        await engine.start()
        await clock.sleep(0.5)
        await engine.close()
        assert alarms == [(deal, "swap.needs_attention", "lost")]
        assert not isinstance((await journal.load(deal.id)).state, Closed)


async def test_what_is_refused_again_and_again_is_not_asked_for_without_a_pause(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock = VirtualClock(NOW * 1000)
    deal = make_deal(Role.CLIENT, SwapDirection.REVERSE, preimage_time_ms=1)
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        journal = SwapJournal(store, Role.CLIENT)
        await journal.insert(deal, Paying(), idempotency_key=None, request_digest=None, bind_hash=False)
        # The signer holds another key, so the claim is refused for as long as anybody tries.
        engine = await _engine(
            journal,
            clock,
            Chain(make_view(LOCKED, LOCKED, NEVER)),
            preimages=PreimageSource(LocalSigner(b"\x07" * 32)),
        )
        await engine.start()
        await clock.sleep(20)
        await engine.close()
        assert (await journal.load(deal.id)).version <= 2 * 20 + 2
