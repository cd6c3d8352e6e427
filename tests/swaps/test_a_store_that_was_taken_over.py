"""Another process has the store: nothing is driven or done here any more, and whoever waits is told."""

import asyncio

import pytest
from swap_worlds import CLAIMED, LOCKED, NOW, PREIMAGE, make_deal, make_view

from layer2 import HealthState
from layer2.errors import StoreInUse
from layer2.lightning import InvoiceRecord, InvoiceState
from layer2.storage import Store, SwapJournal
from layer2.swaps import Agreed, NoCounterparty, Offered, Role, SettleInvoice, Settling, SwapEngine
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock

LOST = StoreInUse.by("process 7 on another host", "postgresql://somewhere/else")


class Chain:
    """Shows a claim that is not deep enough for anything more to be decided."""

    async def view(self, lock, policy, *, lock_key):
        return make_view(CLAIMED, CLAIMED, LOCKED)

    async def next_block(self):
        await asyncio.Event().wait()


class Node:
    """Holds a payment, and counts what it is asked to do."""

    def __init__(self):
        self.settled = 0

    async def lookup_invoice(self, payment_hash):
        return InvoiceRecord(
            payment_hash=payment_hash,
            text="lnbc1",
            state=InvoiceState.ACCEPTED,
            amount_msat=1,
            received_msat=1,
            created_at=NOW,
            expires_at=NOW + 60,
            is_hold=True,
        )

    async def settle_invoice(self, preimage):
        assert preimage == PREIMAGE
        self.settled += 1


class Guard:
    """Whether the store is still ours."""

    lost = False

    async def __call__(self, *, certain=False):
        if self.lost:
            raise LOST


class LostJournal(SwapJournal):
    """One whose next transition shows that another process has the store."""

    async def transition(self, *args, **kwargs):
        raise LOST


async def test_an_act_is_not_done_and_who_waits_is_told(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock, node, guard = VirtualClock(NOW * 1000), Node(), Guard()
    deal = make_deal(Role.PROVIDER, SwapDirection.REVERSE)
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        journal = SwapJournal(store, Role.PROVIDER)
        swap = await journal.insert(deal, Offered(), idempotency_key=None, request_digest=None, bind_hash=False)
        await journal.transition(
            deal.id,
            expected_version=swap.version,
            state=Settling(preimage=PREIMAGE),
            seen=make_view(CLAIMED, CLAIMED, LOCKED),
            effects=(SettleInvoice(preimage=PREIMAGE),),
            bind_hash=None,
        )
        engine = engine_of(journal, clock, node, guard)
        guard.lost = True
        await engine.start()
        with pytest.raises(StoreInUse, match="another host"):
            await engine.wait_for(deal.id, lambda state: state.final)
        with pytest.raises(StoreInUse, match="another host"):
            await engine.wait_for(deal.id, lambda state: state.final)
        with pytest.raises(StoreInUse, match="another host"):
            engine.check_not_lost()
        await clock.sleep(60)
        assert node.settled == 0
        assert engine.active == 0
        assert engine.tasks["swap.store"].state is HealthState.FAILED
        await engine.close()


async def test_all_swaps_are_let_go_when_one_write_shows_it(no_blocking_calls):
    no_blocking_calls.deactivate()
    clock = VirtualClock(NOW * 1000)
    deals = [make_deal(Role.CLIENT, SwapDirection.SUBMARINE, id=number * 32) for number in "12"]
    async with await Store.open("sqlite://", clock=clock, inline=True) as store, clock.autojump():
        journal = LostJournal(store, Role.CLIENT)
        for deal in deals:
            await journal.insert(deal, Agreed(), idempotency_key=None, request_digest=None, bind_hash=False)
        engine = engine_of(journal, clock, None, Guard())
        await engine.start()
        with pytest.raises(StoreInUse):
            await engine.wait_for(deals[0].id, lambda state: state.final)
        with pytest.raises(StoreInUse):
            await engine.wait_for(deals[1].id, lambda state: state.final)
        await clock.sleep(1)
        assert engine.active == 0
        await engine.close()


def engine_of(journal, clock, node, guard):
    return SwapEngine(
        store=journal,
        chain=Chain(),
        node=node,
        counterparty=NoCounterparty(),
        clock=clock,
        poll_s=1.0,
        preimages=None,
        still_ours=guard,
    )
