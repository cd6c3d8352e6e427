"""Bugs that were made on purpose, each as a small patch of the real engine: one for each rule that keeps the money."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

from layer2.errors import NodeConnectionError, PaymentFailed, UnknownOutcome
from layer2.provider import _service
from layer2.storage import SwapJournal, _swaps
from layer2.swaps import (
    Agreed,
    ChainView,
    Decision,
    EffectRefused,
    Failed,
    InvoiceStatus,
    InvoiceView,
    Locking,
    LockStatus,
    Offered,
    Paying,
    PaymentStatus,
    PaymentView,
    SendLock,
    Settled,
    Settling,
    _act,
    _deadlines,
    _driver,
    _reverse_client,
    _reverse_provider,
    _submarine_client,
)
from layer2.swaps._act import Actor
from layer2.swaps._driver import HashTakenError, SwapDriver
from layer2.swaps._observations import CancelRequested
from layer2.testing import _simulation_deals, _simulation_ports, _simulation_process
from layer2.testing._simulation_blocks import NEVER
from planted.planting import (
    BELIEVE,
    CLIENT,
    CONSENT,
    DEAD,
    DEPTH,
    FEE,
    GIVE_UP,
    HASH,
    HELD,
    KNOWS,
    LOCK,
    OUTLAST,
    PERSIST,
    PROVIDER,
    REVEAL,
    REVERSE,
    SUBMARINE,
    blind,
    bug,
    decide,
    forgets_until_when,
    gives_the_invoice_up_at,
    seeing,
    without_claims,
)


@bug(PERSIST)
def acts_before_it_persists():
    right = SwapDriver._observe

    async def wrong(self, swap, seen):
        decision = _driver.decide(swap.deal, swap.state, seen)
        if decision is not None:
            wanted = tuple(SimpleNamespace(effect=effect, begun=False) for effect in decision.effects)
            early = SimpleNamespace(
                deal=swap.deal, state=decision.state, effects=wanted, restored=False, version=swap.version
            )
            for one in wanted:
                await self._actor.act(early, one, lambda: None)
        return await right(self, swap, seen)

    with patch.object(SwapDriver, "_observe", wrong):
        yield


@bug(DEPTH, PROVIDER, SUBMARINE)
def pays_against_a_lock_that_is_not_deep():
    shallow = seeing(lambda _deal, seen: replace(seen, at_depth=seen.latest))

    async def in_time(self, swap):
        return None

    with decide(PROVIDER, SUBMARINE, shallow), patch.object(Actor, "_why_not_pay", in_time):
        yield


@bug(DEPTH, CLIENT, REVERSE)
def reveals_against_a_lock_that_is_not_deep():
    right = _simulation_ports.ChainPort._view

    def wrong(self, lock, policy, own_lock):
        view = right(self, lock, policy, own_lock)
        return replace(view, at_depth=view.latest) if self._process.role is CLIENT else view

    with patch.object(_simulation_ports.ChainPort, "_view", wrong):
        yield


@bug(REVEAL, CLIENT, REVERSE)
def reveals_late():
    with patch.object(_reverse_client, "may_claim", lambda *_, **__: True), decide(CLIENT, REVERSE, forgets_until_when):
        yield


@bug(GIVE_UP, PROVIDER, REVERSE)
def cancels_before_the_refund_is_final():
    def shown(_deal, seen):
        return replace(seen, finalized=seen.latest) if seen.latest.status is LockStatus.REFUNDED else seen

    with decide(PROVIDER, REVERSE, seeing(shown)):
        yield


@bug(GIVE_UP, PROVIDER, REVERSE)
def cancels_while_its_lock_may_still_come():
    with patch.object(_reverse_provider, "can_never_lock", lambda view, _: view.latest.status is LockStatus.NEVER):
        yield


@bug(GIVE_UP, CLIENT, SUBMARINE)
def gives_the_invoice_up_while_its_lock_may_still_come():
    with patch.object(_submarine_client, "can_never_lock", lambda view, _: view.latest.status is LockStatus.NEVER):
        yield


@bug(GIVE_UP, CLIENT, SUBMARINE)
def cancels_after_its_lock_was_signed():
    with gives_the_invoice_up_at(CancelRequested, "cancelled"):
        yield


@bug(DEAD, PROVIDER, SUBMARINE)
def takes_a_lost_reply_for_a_failed_payment():
    right = _simulation_ports.NodePort.pay

    async def wrong(self, invoice, **limits):
        try:
            return await right(self, invoice, **limits)
        except (UnknownOutcome, NodeConnectionError) as error:
            raise PaymentFailed("no answer") from error

    with patch.object(_simulation_ports.NodePort, "pay", wrong):
        yield


@bug(DEAD, PROVIDER, SUBMARINE)
def forgets_requests_that_are_on_their_way():
    def wrong(right, deal, state, seen):
        return right(deal, state, replace(seen, requests_open=False) if isinstance(seen, PaymentView) else seen)

    with decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(DEAD, PROVIDER, SUBMARINE)
def does_not_note_that_a_request_is_begun():
    async def wrong(self, swap_id, name, *, begun):
        return None

    with patch.object(SwapJournal, "mark_begun", wrong):
        yield


@bug(DEAD, PROVIDER, SUBMARINE)
def takes_no_record_for_a_failure():
    def wrong(right, deal, state, seen):
        if isinstance(seen, PaymentView) and seen.status is PaymentStatus.NONE:
            seen = replace(seen, status=PaymentStatus.FAILED, requests_open=False)
        return right(deal, state, seen)

    with decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(CONSENT, PROVIDER, SUBMARINE)
def signs_a_refund_while_it_pays():
    with patch.object(_service, "Failed", (Failed, Paying)):
        yield


@bug(HASH, PROVIDER, SUBMARINE)
def lets_two_swaps_have_one_hash():
    def wrong(right, deal, state, seen):
        decision = right(deal, state, seen)
        return None if decision is None else replace(decision, bind_hash=False)

    with decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(PERSIST)
def drops_a_row_of_the_outbox():
    right = SwapJournal.transition

    async def wrong(self, swap_id, *, effects, **rest):
        return await right(self, swap_id, effects=effects[:-1], **rest)

    with patch.object(SwapJournal, "transition", wrong):
        yield


@bug(GIVE_UP)
def takes_a_broken_connection_for_a_refusal():
    with patch.object(_act, "_CERTAIN", (*_act._CERTAIN, NodeConnectionError)):
        yield


@bug(KNOWS, CLIENT, SUBMARINE)
def refunds_what_it_knows_to_be_claimed():
    with blind(CLIENT, SUBMARINE, without_claims):
        yield


@bug(HELD, PROVIDER, REVERSE)
def waits_for_finality_before_it_settles():
    with decide(PROVIDER, REVERSE, seeing(without_claims)):
        yield


@bug(BELIEVE, PROVIDER, REVERSE)
def believes_to_have_settled():
    def wrong(right, deal, state, seen):
        if isinstance(state, Settling) and isinstance(seen, ChainView):
            return Decision(state=Settled(preimage=state.preimage))
        return right(deal, state, seen)

    with decide(PROVIDER, REVERSE, wrong):
        yield


@bug(HELD, PROVIDER, REVERSE)
def locks_before_the_payment_is_held():
    def wrong(right, deal, state, seen):
        if isinstance(seen, InvoiceView) and seen.status is InvoiceStatus.OPEN:
            seen = replace(seen, status=InvoiceStatus.ACCEPTED, received_msat=10**12, blocks_left=2000)
        return right(deal, state, seen)

    with decide(PROVIDER, REVERSE, wrong), patch.object(_act, "why_not_lock", lambda *_: None):
        yield


@bug(LOCK, CLIENT, SUBMARINE)
def locks_after_lock_by():
    def wrong(right, deal, state, seen):
        if isinstance(state, Agreed) and isinstance(seen, ChainView):
            return Decision(state=Locking(), effects=(SendLock(not_after=2**62),))
        return right(deal, state, seen)

    with decide(CLIENT, SUBMARINE, wrong):
        yield


@bug(GIVE_UP, CLIENT, SUBMARINE)
def forgets_its_lock_when_a_reply_is_lost():
    def wrong(right, deal, state, seen):
        if isinstance(state, Locking) and isinstance(seen, ChainView) and seen.latest.status is LockStatus.NEVER:
            return right(deal, state, EffectRefused(key="lock", reason="not there"))
        return right(deal, state, seen)

    with decide(CLIENT, SUBMARINE, wrong):
        yield


@bug(DEPTH)
def decides_by_hash():
    right = _simulation_ports.ChainPort._view

    def wrong(self, lock, policy, own_lock):
        locks = self._chain.head.locks
        known = self._chain.signed.values()
        twins = [tx.lock for tx in known if tx.lock is not None and tx.lock.preimage_hash == lock.preimage_hash]
        other = next((twin for twin in twins if locks.get(twin.lock_id, NEVER) is not NEVER), lock)
        return right(self, other, policy, own_lock)

    with patch.object(_simulation_ports.ChainPort, "_view", wrong):
        yield


@bug(OUTLAST, PROVIDER, SUBMARINE)
def agrees_on_timelocks_without_room_for_a_stuck_payment():
    with patch.object(_deadlines, "slow_s", lambda *_: 0):
        yield


@bug(HELD, PROVIDER, REVERSE)
def leaves_no_time_for_a_refund_to_be_final():
    with patch.object(_deadlines, "refund_margin_s", lambda _: -60):
        yield


@bug(REVEAL, CLIENT, REVERSE)
def leaves_no_room_to_claim():
    with patch.object(_deadlines, "claim_room_s", lambda *_: 0):
        yield


@bug(DEAD, PROVIDER, SUBMARINE)
def takes_an_invoice_for_expired_too_early():
    def wrong(right, deal, state, seen):
        if isinstance(seen, PaymentView):
            seen = replace(seen, now_s=seen.now_s + deal.terms.timing.payment_time_limit_s)
        return right(deal, state, seen)

    with decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(CONSENT, PROVIDER, SUBMARINE)
def signs_a_refund_and_pays_all_the_same():
    with patch.object(_service, "Failed", (Failed, Offered)):
        yield


@bug(LOCK)
def locks_again_with_another_timelock():
    right = _simulation_ports.ChainPort.send_lock

    async def wrong(self, key, lock, **limits):
        if key in self._chain.signed and lock.lock_id not in self._chain.head.locks:
            key, lock = f"{key}:again", replace(lock, timelock=lock.timelock + 1)
        return await right(self, key, lock, **limits)

    with patch.object(_simulation_ports.ChainPort, "send_lock", wrong):
        yield


@bug(REVEAL, CLIENT, REVERSE)
def does_not_look_at_the_clock_before_it_reveals():
    with decide(CLIENT, REVERSE, forgets_until_when):
        yield


@bug(HELD, PROVIDER, REVERSE)
def does_not_look_at_the_payment_again_before_it_locks():
    with patch.object(_act, "why_not_lock", lambda *_: None):
        yield


@bug(HELD, PROVIDER, REVERSE)
def forgets_that_a_node_gives_back_before_the_end():
    right = _simulation_deals.reverse_final_cltv
    early = max(18, _deadlines.DEVNET_TIMING.hold_expiry_delta_blocks)
    with (
        patch.object(_simulation_deals, "reverse_final_cltv", lambda *at: right(*at) - early),
        patch.object(_deadlines, "_usable_blocks", lambda timing, blocks: blocks - timing.slack_blocks),
    ):
        yield


@bug(HELD, PROVIDER, REVERSE)
def takes_blocks_of_bitcoin_for_slow():
    right = _deadlines.fast_s
    with patch.object(_deadlines, "fast_s", lambda timing, blocks: right(timing, blocks) * 3 // 2):
        yield


@bug(HASH, PROVIDER, SUBMARINE)
def binds_the_hash_in_a_write_of_its_own():
    right = _simulation_process.FaultyJournal.transition

    async def wrong(self, swap_id, *, bind_hash, **rest):
        if bind_hash is None:
            return await right(self, swap_id, bind_hash=None, **rest)
        if await self._journal.store.run(_swaps.hash_owner, bind_hash) not in (None, swap_id):
            raise HashTakenError
        moved = await right(self, swap_id, bind_hash=None, **rest)
        await self._gate.cross(self._life, act=True, what="write")
        await self._journal.store.run(_swaps._bind_hash, bind_hash, swap_id, "provider", 0)
        return moved

    with patch.object(_simulation_process.FaultyJournal, "transition", wrong):
        yield


def _pays_more():
    right = _simulation_ports.NodePort.pay

    async def wrong(self, invoice, *, fee_limit_msat, **limits):
        return await right(self, invoice, fee_limit_msat=2 * fee_limit_msat, **limits)

    return patch.object(_simulation_ports.NodePort, "pay", wrong)


@bug(FEE, PROVIDER, SUBMARINE)
def lets_a_payment_cost_more_than_it_asked_for():
    with _pays_more():
        yield


@bug(FEE, CLIENT, REVERSE)
def lets_a_payment_cost_more_than_was_allowed():
    with _pays_more():
        yield
