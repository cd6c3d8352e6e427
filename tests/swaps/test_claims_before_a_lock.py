"""A claim that is seen just before a lock is sent again is not forgotten."""

from types import SimpleNamespace

from swap_worlds import CLAIMED, NOW, make_deal, make_view

from layer2.swaps import Locking, Role, SendLock
from layer2.swaps._act import Actor
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock


async def test_a_preimage_that_is_seen_just_before_the_lock_is_sent_again_is_known():
    """The lock is already claimed when it is sent again: the decision is told so before a reorganisation can hide the claim."""
    view = make_view(CLAIMED)

    async def look(lock, policy, *, lock_key):
        return view

    chain, node = SimpleNamespace(view=look), SimpleNamespace()
    actor = Actor(store=None, chain=chain, node=node, preimages=None, clock=VirtualClock(NOW * 1000))
    deal = make_deal(Role.PROVIDER, SwapDirection.REVERSE)
    wanted = SimpleNamespace(effect=SendLock(not_after=deal.terms.lock_by), begun=False)
    swap = SimpleNamespace(deal=deal, state=Locking(), effects=(wanted,), restored=False)
    assert await actor.act(swap, wanted, lambda: None) is view
