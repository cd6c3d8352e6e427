"""Every order of the steps of one small swap: what both parties do, blocks, reorganisations, payments, crashes, lost replies.

Time is seconds, a block comes each second, two make a lock deep enough and three final: so few that all that can happen is looked at
until everything is over. ``LAYER2_CAMPAIGN=1`` lets twice as much go wrong; ``DEPTH`` bounds the number of steps instead.
"""

import os
from dataclasses import replace
from unittest.mock import patch

import planted
import pytest
from interleavings import Search
from small_world import Case
from swap_worlds import states_of

from layer2.swaps import ChainView, Role
from layer2.swaps._act import Actor
from layer2.swaps._machine import _DECIDE
from layer2.terms import SwapDirection

pytestmark = pytest.mark.slow

SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
DEPTH = int(os.environ.get("DEPTH", "1000000"))
CASES = [
    Case(SUBMARINE),
    Case(SUBMARINE, own_invoice=False),
    Case(SUBMARINE, hostile=Role.CLIENT),
    Case(SUBMARINE, hostile=Role.PROVIDER),
    Case(SUBMARINE, hostile=Role.PROVIDER, own_invoice=False),
    Case(REVERSE),
    Case(REVERSE, pays_itself=False),
    Case(REVERSE, hostile=Role.CLIENT),
    Case(REVERSE, hostile=Role.CLIENT, strangers=True),
    Case(REVERSE, hostile=Role.PROVIDER),
    Case(REVERSE, hostile=Role.PROVIDER, pays_itself=False),
]
if "LAYER2_CAMPAIGN" in os.environ:
    CASES = [replace(case, reorgs=2, crashes=2, breaks=2) for case in CASES]


BUGS = {bug.name: bug for bug in planted.BUGS}
FOUND = (
    "pays_against_a_lock_that_is_not_deep",
    "reveals_late",
    "cancels_before_the_refund_is_final",
    "cancels_while_its_lock_may_still_come",
    "gives_the_invoice_up_while_its_lock_may_still_come",
    "cancels_after_its_lock_was_signed",
    "forgets_requests_that_are_on_their_way",
    "takes_no_record_for_a_failure",
    "signs_a_refund_while_it_pays",
    "takes_a_broken_connection_for_a_refusal",
    "refunds_what_it_knows_to_be_claimed",
    "waits_for_finality_before_it_settles",
    "believes_to_have_settled",
    "locks_before_the_payment_is_held",
    "locks_after_lock_by",
    "forgets_its_lock_when_a_reply_is_lost",
    "agrees_on_timelocks_without_room_for_a_stuck_payment",
    "leaves_no_time_for_a_refund_to_be_final",
    "leaves_no_room_to_claim",
)
"""The others are of the driver, the store, the simulator's ports, or of two swaps at a time."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_order_of_steps_breaks_a_promise(case, capsys):
    found = Search(case).run(depth=DEPTH)
    with capsys.disabled():
        print(f"\n{found}", end="")
    assert found.broken is None, str(found)
    assert found.complete or "DEPTH" in os.environ


@pytest.mark.parametrize("direction", list(SwapDirection))
@pytest.mark.parametrize("role", list(Role))
def test_every_state_of_a_party_is_met(role, direction):
    """But for the one that needs somebody, which no order of steps leads to."""
    met = set()
    for case in CASES:
        if case.direction is direction and case.hostile is not role:
            search = Search(replace(case, reorgs=1, crashes=0, breaks=0))
            search.run()
            met |= {name for name, _ in search.seen(role)}
    assert met == {kind.__name__ for kind in states_of(role, direction)} - {"NeedsAttention"}


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_bug_is_found(name):
    bug = BUGS[name]
    for case in CASES:
        # Whose program is wrong must not be played by a hostile party, which has none.
        if bug.direction not in (None, case.direction) or (bug.role is not None and bug.role is case.hostile):
            continue
        with bug.plant():
            found = Search(replace(case, reorgs=0, crashes=0, breaks=1)).run()
        if found.broken is not None:
            assert len(found.story) > 1, str(found)
            return
    pytest.fail("no order of steps shows it")


def test_a_story_is_a_shortest_one():
    """A client that reveals against a lock in the newest block: the lock is sent, a block comes, the client sees it and claims."""
    right = _DECIDE[Role.CLIENT, REVERSE]

    def shallow(deal, state, seen):
        return right(deal, state, replace(seen, at_depth=seen.latest) if isinstance(seen, ChainView) else seen)

    look = Actor._look

    async def looks(self, swap):
        view = await look(self, swap)
        return replace(view, at_depth=view.latest) if swap.deal.role is Role.CLIENT else view

    with patch.dict(_DECIDE, {(Role.CLIENT, REVERSE): shallow}), patch.object(Actor, "_look", looks):
        found = Search(Case(REVERSE, hostile=Role.PROVIDER)).run()
    assert found.broken == "no early reveal: client"
    steps = [line.split("s  ")[1].split(":")[0] for line in found.story]
    assert sorted(steps) == [
        "a block",
        "client looks at its chain",
        "client looks at its chain",
        "the hostile provider sends",
    ], str(found)
