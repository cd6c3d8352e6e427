"""A reorganisation takes the lock, the claim or the refund away once: the swap ends as it would have, and nothing is missing.

It is not deeper than what the terms call deep enough. Its transactions wait for other blocks, or are forgotten, so that somebody has to
send them again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest
from tales import LIMIT_S, REVERSE, SUBMARINE, Legs, Story, Tale, check_books, check_client, check_provider
from two_parties import two_parties
from virtual_time import LoopClock, run_in_virtual_time

from layer2.evm import LockPhase

if TYPE_CHECKING:
    from blockbuster import BlockBuster

pytestmark = pytest.mark.slow

CASES = {
    "submarine lock": (SUBMARINE, Story.PAID, LockPhase.LOCKED, "settled"),
    "submarine claim": (SUBMARINE, Story.PAID, LockPhase.CLAIMED, "settled"),
    "submarine refund": (SUBMARINE, Story.UNPAYABLE, LockPhase.REFUNDED, "SwapRefunded"),
    "reverse lock": (REVERSE, Story.PAID, LockPhase.LOCKED, "settled"),
    "reverse claim": (REVERSE, Story.PAID, LockPhase.CLAIMED, "settled"),
    "reverse refund": (REVERSE, Story.CALLED_OFF, LockPhase.REFUNDED, "SwapExpired"),
}


@pytest.mark.parametrize("transactions", ["wait", "drop"])
@pytest.mark.parametrize("case", CASES)
def test_it_ends_all_the_same(case: str, transactions: Literal["wait", "drop"], no_blocking_calls: BlockBuster) -> None:
    direction, story, phase, end = CASES[case]
    no_blocking_calls.deactivate()

    async def main(clock: LoopClock) -> None:
        async with two_parties(clock, behind_door=False) as parties:
            before = await parties.holdings()
            tale = Tale(parties, clock, direction, story)

            async def undo_once() -> None:
                while parties.terms is None or await parties.lock_phase(parties.terms.lock.lock_id) is not phase:
                    await clock.sleep(0.1)
                await clock.sleep(0.7)  # both look at least once meanwhile, and no block comes
                assert await tale.undo(phase, transactions) == 1

            async with asyncio.timeout(LIMIT_S):
                undoing = asyncio.create_task(undo_once())
                told = await tale.transfer()
                await undoing
                await parties.client.wait_idle_async()
                while parties.daemon.runtime.inventory.active:
                    await clock.sleep(0.1)
                await tale.rest()
            legs = await check_books(parties, tale.before or before, tale.payer)
            assert told == end
            assert legs == Legs(end == "settled", end == "settled")
            check_client(parties)
            await check_provider(parties)

    run_in_virtual_time(main)
