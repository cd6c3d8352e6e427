"""A hundred and twenty transfers in one run, ten of them made to fail: each ends, and nothing is lost or made."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from mixed_run import EACH_WAY, EXPECTED_ENDS, MORE_EACH_WAY, compare, fail_in_every_way, finished, many, prepared


@pytest.mark.slow
async def test_a_hundred_and_twenty_transfers_end_and_the_books_balance(regtest, eventually, say):
    async with prepared(regtest, eventually) as run, asyncio.timeout(900):
        await many(run, EACH_WAY)
        settled_s = time.time() - run.began_s
        await asyncio.gather(many(run, MORE_EACH_WAY), fail_in_every_way(run))
        await finished(run, within_s=300)
        took_s = time.time() - run.began_s

        assert {name for name, end in run.ends.items() if end not in EXPECTED_ENDS.get(name, {"settled"})} == set()
        assert set(run.ends) > set(EXPECTED_ENDS)
        assert len(run.proofs) == 2 * (EACH_WAY + MORE_EACH_WAY)
        states = Counter(
            [transfer.state.value for manager in run.managers async for transfer in manager.transfers_async()]
        )
        say(f"120 transfers in {took_s:.0f} s (100 of them in the first {settled_s:.0f} s): {dict(states)}")
        refunds = await compare(run, say)
        # Both kinds of refund were really there: after the timelock the client's and two of the provider's.
        assert (refunds.late, refunds.early) == (3, 3)
