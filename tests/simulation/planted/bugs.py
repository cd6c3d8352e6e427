"""Bugs that were made on purpose, each as a small patch of the real engine: one for each rule that keeps the money."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from unittest.mock import patch

from layer2.errors import NodeConnectionError, PaymentFailed, UnknownOutcome
from layer2.evm import encode_claim
from layer2.evm._tracker import Tracker
from layer2.provider import _service
from layer2.storage import SqlTxJournal, SwapJournal
from layer2.swaps import (
    Agreed,
    Cancelling,
    ChainView,
    Claim,
    Decision,
    EffectRefused,
    EvmSwapChain,
    Failed,
    InvoiceStatus,
    InvoiceView,
    Locking,
    LockStatus,
    Paying,
    PaymentStatus,
    PaymentView,
    Role,
    SendLock,
    Settled,
    Settling,
    _act,
    _deadlines,
    _driver,
    _machine,
    _reverse_client,
    _reverse_provider,
    _submarine_client,
)
from layer2.swaps._act import Actor
from layer2.swaps._driver import SwapDriver
from layer2.swaps._effects import CancelInvoice
from layer2.swaps._observations import CancelRequested
from layer2.terms import SwapDirection
from layer2.testing import _simulation_checks, _simulation_ports
from layer2.testing._simulation_chain import NEVER

SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
CLIENT, PROVIDER = Role.CLIENT, Role.PROVIDER


@dataclass(frozen=True)
class Bug:
    """``plant`` is a context manager; ``role`` and ``direction`` say whose code is wrong, so that other seeds need not be run."""

    name: str
    plant: Callable
    role: Role | None = None
    direction: SwapDirection | None = None
    real_sender: bool = False
    """Whether the bug is in what only some seeds have."""

    def concerns(self, plan):
        if self.real_sender and not (plan.real_sender and plan.timing == "devnet"):
            return False
        strategy = {CLIENT: plan.client, PROVIDER: plan.provider, None: "honest"}[self.role]
        return strategy == "honest" and self.direction in (None, plan.direction)


BUGS: list[Bug] = []


def bug(role=None, direction=None, *, real_sender=False):
    def add(plant):
        BUGS.append(Bug(plant.__name__, contextmanager(plant), role, direction, real_sender))
        return plant

    return add


def _decide(role, direction, wrong):
    """Put ``wrong(right, deal, state, seen)`` in the place of a decision file."""
    right = _machine._DECIDE[role, direction]
    changed = {(role, direction): lambda deal, state, seen: wrong(right, deal, state, seen)}
    return patch.dict(_machine._DECIDE, changed)


def _seeing(change):
    """A decision that sees the chain otherwise than it is."""

    def wrong(right, deal, state, seen):
        return right(deal, state, change(seen) if isinstance(seen, ChainView) else seen)

    return wrong


def _unclaimed(reading):
    return (
        replace(reading, status=LockStatus.LOCKED, preimage=None) if reading.status is LockStatus.CLAIMED else reading
    )


@bug()
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


@bug(PROVIDER, SUBMARINE)
def pays_against_a_lock_that_is_not_deep():
    shallow = _seeing(lambda seen: replace(seen, at_depth=seen.latest))

    async def in_time(self, swap):
        return None

    with _decide(PROVIDER, SUBMARINE, shallow), patch.object(Actor, "_why_not_pay", in_time):
        yield


@bug(CLIENT, REVERSE)
def reveals_against_a_lock_that_is_not_deep():
    right = _simulation_ports.ChainPort._view

    def wrong(self, lock, policy, own_lock):
        view = right(self, lock, policy, own_lock)
        return replace(view, at_depth=view.latest) if self._process.role is CLIENT else view

    with patch.object(_simulation_ports.ChainPort, "_view", wrong):
        yield


@bug(CLIENT, REVERSE)
def reveals_late():
    def wrong(right, deal, state, seen):
        decision = right(deal, state, seen)
        if decision is not None:
            effects = tuple(replace(e, not_after=None) if isinstance(e, Claim) else e for e in decision.effects)
            decision = replace(decision, effects=effects)
        return decision

    with patch.object(_reverse_client, "may_claim", lambda *_, **__: True), _decide(CLIENT, REVERSE, wrong):
        yield


@bug(PROVIDER, REVERSE)
def cancels_before_the_refund_is_final():
    def shown(seen):
        return replace(seen, finalized=seen.latest) if seen.latest.status is LockStatus.REFUNDED else seen

    with _decide(PROVIDER, REVERSE, _seeing(shown)):
        yield


@bug(PROVIDER, REVERSE)
def cancels_while_its_lock_may_still_come():
    with patch.object(_reverse_provider, "can_never_lock", lambda view, _: view.latest.status is LockStatus.NEVER):
        yield


@bug(CLIENT, SUBMARINE)
def gives_the_invoice_up_while_its_lock_may_still_come():
    with patch.object(_submarine_client, "can_never_lock", lambda view, _: view.latest.status is LockStatus.NEVER):
        yield


@bug(CLIENT, SUBMARINE)
def cancels_after_its_lock_was_signed():
    def wrong(right, deal, state, seen):
        if isinstance(seen, CancelRequested) and isinstance(state, Locking) and deal.own_invoice:
            return Decision(state=Cancelling(outcome="expired", reason="cancelled"), effects=(CancelInvoice(),))
        return right(deal, state, seen)

    with _decide(CLIENT, SUBMARINE, wrong):
        yield


@bug(PROVIDER, SUBMARINE)
def takes_a_lost_reply_for_a_failed_payment():
    right = _simulation_ports.NodePort.pay

    async def wrong(self, invoice, **limits):
        try:
            return await right(self, invoice, **limits)
        except (UnknownOutcome, NodeConnectionError) as error:
            raise PaymentFailed("no answer") from error

    with patch.object(_simulation_ports.NodePort, "pay", wrong):
        yield


@bug(PROVIDER, SUBMARINE)
def forgets_requests_that_are_on_their_way():
    def wrong(right, deal, state, seen):
        return right(deal, state, replace(seen, requests_open=False) if isinstance(seen, PaymentView) else seen)

    with _decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(PROVIDER, SUBMARINE)
def does_not_note_that_a_request_is_begun():
    async def wrong(self, swap_id, name, *, begun):
        return None

    with patch.object(SwapJournal, "mark_begun", wrong):
        yield


@bug(PROVIDER, SUBMARINE)
def takes_no_record_for_a_failure():
    def wrong(right, deal, state, seen):
        if isinstance(seen, PaymentView) and seen.status is PaymentStatus.NONE:
            seen = replace(seen, status=PaymentStatus.FAILED, requests_open=False)
        return right(deal, state, seen)

    with _decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug(PROVIDER, SUBMARINE)
def signs_a_refund_while_it_pays():
    with patch.object(_service, "Failed", (Failed, Paying)):
        yield


@bug(PROVIDER, SUBMARINE)
def lets_two_swaps_have_one_hash():
    def wrong(right, deal, state, seen):
        decision = right(deal, state, seen)
        return None if decision is None else replace(decision, bind_hash=False)

    with _decide(PROVIDER, SUBMARINE, wrong):
        yield


@bug()
def drops_a_row_of_the_outbox():
    right = SwapJournal.transition

    async def wrong(self, swap_id, *, effects, **rest):
        return await right(self, swap_id, effects=effects[:-1], **rest)

    with patch.object(SwapJournal, "transition", wrong):
        yield


@bug()
def takes_a_broken_connection_for_a_refusal():
    with patch.object(_act, "_CERTAIN", (*_act._CERTAIN, NodeConnectionError)):
        yield


@bug(CLIENT, SUBMARINE)
def refunds_what_it_knows_to_be_claimed():
    def shown(seen):
        return replace(seen, latest=_unclaimed(seen.latest), at_depth=_unclaimed(seen.at_depth))

    right = Actor._look

    async def look(self, swap):
        return shown(await right(self, swap))

    with _decide(CLIENT, SUBMARINE, _seeing(shown)), patch.object(Actor, "_look", look):
        yield


@bug(PROVIDER, REVERSE)
def waits_for_finality_before_it_settles():
    def shown(seen):
        return replace(seen, latest=_unclaimed(seen.latest), at_depth=_unclaimed(seen.at_depth))

    with _decide(PROVIDER, REVERSE, _seeing(shown)):
        yield


@bug(PROVIDER, REVERSE)
def believes_to_have_settled():
    def wrong(right, deal, state, seen):
        if isinstance(state, Settling) and isinstance(seen, ChainView):
            return Decision(state=Settled(preimage=state.preimage))
        return right(deal, state, seen)

    with _decide(PROVIDER, REVERSE, wrong):
        yield


@bug(PROVIDER, REVERSE)
def locks_before_the_payment_is_held():
    def wrong(right, deal, state, seen):
        if isinstance(seen, InvoiceView) and seen.status is InvoiceStatus.OPEN:
            seen = replace(seen, status=InvoiceStatus.ACCEPTED, received_msat=10**12, blocks_left=2000)
        return right(deal, state, seen)

    with _decide(PROVIDER, REVERSE, wrong), patch.object(_act, "why_not_lock", lambda *_: None):
        yield


@bug(CLIENT, SUBMARINE)
def locks_after_lock_by():
    def wrong(right, deal, state, seen):
        if isinstance(state, Agreed) and isinstance(seen, ChainView):
            return Decision(state=Locking(), effects=(SendLock(not_after=2**62),))
        return right(deal, state, seen)

    with _decide(CLIENT, SUBMARINE, wrong):
        yield


@bug(CLIENT, SUBMARINE)
def forgets_its_lock_when_a_reply_is_lost():
    def wrong(right, deal, state, seen):
        if isinstance(state, Locking) and isinstance(seen, ChainView) and seen.latest.status is LockStatus.NEVER:
            return right(deal, state, EffectRefused(key="lock", reason="not there"))
        return right(deal, state, seen)

    with _decide(CLIENT, SUBMARINE, wrong):
        yield


@bug()
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


@bug(PROVIDER, SUBMARINE)
def agrees_on_timelocks_without_room_for_a_stuck_payment():
    with patch.object(_deadlines, "slow_s", lambda *_: 0):
        yield


@bug(PROVIDER, REVERSE)
def leaves_no_time_for_a_refund_to_be_final():
    with patch.object(_deadlines, "refund_margin_s", lambda _: -60):
        yield


@bug(CLIENT, REVERSE)
def leaves_no_room_to_claim():
    with ExitStack() as stack:
        stack.enter_context(patch.object(_deadlines, "claim_room_s", lambda *_: 0))
        stack.enter_context(patch.object(_simulation_checks, "claim_room_s", lambda *_: 0))
        yield


async def _nothing(*_args):
    return None


async def _no_records(*_args, **_named):
    return []


@bug(real_sender=True)
def uses_a_nonce_again_after_a_restart():
    with ExitStack() as stack:
        stack.enter_context(patch.object(SqlTxJournal, "open_records", _no_records))
        stack.enter_context(patch.object(SqlTxJournal, "last_nonce", _nothing))
        yield


@bug(real_sender=True)
def signs_again_what_it_has_signed():
    with patch.object(SqlTxJournal, "get", _nothing):
        yield


@bug(real_sender=True)
def never_sends_again_what_the_nodes_forgot():
    with patch.object(Tracker, "_send_missing", _no_records):
        yield


@bug(CLIENT, REVERSE, real_sender=True)
def estimates_the_claim():
    right = EvmSwapChain.send_claim

    async def wrong(self, key, lock, preimage, *, not_after):
        await self._client.estimate_gas(lock.contract, encode_claim(lock, preimage), sender=self._sender.account)
        await right(self, key, lock, preimage, not_after=not_after)

    with patch.object(EvmSwapChain, "send_claim", wrong):
        yield
