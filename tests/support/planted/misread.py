"""Bugs that take the world for what it is not: a block for final, a clock for the chain's, a receipt or a word for the lock."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from layer2.swaps import LockReading, LockStatus, OwnTransaction, _deadlines
from layer2.swaps._observations import ChainView
from layer2.testing._simulation_blocks import NEVER, LockCall
from layer2.testing._simulation_ports import ChainPort, CounterpartyPort
from planted.planting import (
    BELIEVE,
    CLIENT,
    DEPTH,
    FINAL,
    GIVE_UP,
    PROVIDER,
    REFUNDABLE,
    REVEAL,
    REVERSE,
    SUBMARINE,
    blind,
    bug,
    decide,
    gives_the_invoice_up_at,
    seeing,
)


def _newest_for_final(_deal, seen):
    return replace(seen, finalized=seen.latest)


def _deep_for_final(_deal, seen):
    return replace(seen, finalized=seen.at_depth)


def _newest_for_deep(_deal, seen):
    return replace(seen, at_depth=seen.latest)


@bug(FINAL, CLIENT, SUBMARINE)
def stops_at_the_newest_block_as_client_that_locked():
    with decide(CLIENT, SUBMARINE, seeing(_newest_for_final)):
        yield


@bug(FINAL, CLIENT, REVERSE)
def stops_at_the_newest_block_as_client_that_claims():
    with decide(CLIENT, REVERSE, seeing(_newest_for_final)):
        yield


@bug(FINAL, PROVIDER, SUBMARINE)
def stops_at_the_newest_block_as_provider_that_claims():
    with decide(PROVIDER, SUBMARINE, seeing(_newest_for_final)):
        yield


@bug(FINAL, PROVIDER, REVERSE)
def stops_at_the_newest_block_as_provider_that_locked():
    with decide(PROVIDER, REVERSE, seeing(_newest_for_final)):
        yield


@bug(FINAL, CLIENT)
def stops_at_the_agreed_depth_as_client():
    with decide(CLIENT, SUBMARINE, seeing(_deep_for_final)), decide(CLIENT, REVERSE, seeing(_deep_for_final)):
        yield


@bug(FINAL, PROVIDER)
def stops_at_the_agreed_depth_as_provider():
    with decide(PROVIDER, SUBMARINE, seeing(_deep_for_final)), decide(PROVIDER, REVERSE, seeing(_deep_for_final)):
        yield


@bug(DEPTH, CLIENT, SUBMARINE)
def says_that_it_is_settled_before_that_is_deep():
    with decide(CLIENT, SUBMARINE, seeing(_newest_for_deep)):
        yield


def _time_of_the_head(_deal, seen):
    return replace(seen, finalized_timestamp=seen.head_timestamp)


@bug(GIVE_UP, CLIENT, SUBMARINE)
def takes_the_heads_time_for_the_final_one_as_client():
    with decide(CLIENT, SUBMARINE, seeing(_time_of_the_head)):
        yield


@bug(GIVE_UP, PROVIDER, REVERSE)
def takes_the_heads_time_for_the_final_one_as_provider():
    with decide(PROVIDER, REVERSE, seeing(_time_of_the_head)):
        yield


@bug(GIVE_UP)
def takes_a_replaced_lock_for_dead_before_that_is_final():
    right = ChainPort._own

    def wrong(self, key):
        tx = None if key is None or not key.endswith(":lock") else self._chain.signed.get(key)
        if tx is not None and tx.rival is not None and self._head()[1].found(tx.rival) is not None:
            return OwnTransaction.DEAD
        return right(self, key)

    with patch.object(ChainPort, "_own", wrong):
        yield


def _by_its_own_clock(_deal, seen):
    return replace(seen, head_timestamp=max(seen.head_timestamp, seen.now_s))


def _a_second_early(_deal, seen):
    return replace(seen, head_timestamp=seen.head_timestamp + 1)


@bug(REFUNDABLE, CLIENT, SUBMARINE)
def refunds_by_its_own_clock_as_client():
    with blind(CLIENT, SUBMARINE, _by_its_own_clock):
        yield


@bug(REFUNDABLE, PROVIDER, REVERSE)
def refunds_by_its_own_clock_as_provider():
    with blind(PROVIDER, REVERSE, _by_its_own_clock):
        yield


@bug(REFUNDABLE, CLIENT, SUBMARINE)
def refunds_a_second_early_as_client():
    with blind(CLIENT, SUBMARINE, _a_second_early):
        yield


@bug(REFUNDABLE, PROVIDER, REVERSE)
def refunds_a_second_early_as_provider():
    with blind(PROVIDER, REVERSE, _a_second_early):
        yield


@bug(REVEAL, CLIENT, REVERSE)
def forgets_that_the_chains_clock_may_run_ahead():
    from layer2.swaps import _reverse_client

    right = _deadlines.may_claim

    def wrong(timing, policy, **at):
        return right(replace(timing, evm_clock_skew_s=0), policy, **at)

    with patch.object(_reverse_client, "may_claim", wrong):
        yield


def _read(change):
    """``change(port, lock, reading)`` of the newest state, and of the others with it."""
    right = ChainPort._view

    def wrong(self, lock, policy, own_lock):
        view = right(self, lock, policy, own_lock)
        readings = {name: change(self, lock, getattr(view, name)) for name in ("latest", "at_depth", "finalized")}
        return replace(view, **readings)

    return patch.object(ChainPort, "_view", wrong)


def _own_success(port, lock, call):
    """Whether a transaction of our own did it; None if there is none yet."""
    mine = (tx for tx in port._chain.signed.values() if tx.account == port._process.account.raw)
    founds = [port._chain.head.found(tx) for tx in mine if tx.lock == lock and tx.call is call]
    return next((found for found in founds if found is not None), None)


@bug(BELIEVE)
def sees_a_claim_only_by_its_own_receipt():
    def change(port, lock, reading):
        known = any(
            tx.call is LockCall.CLAIM and tx.account == port._process.account.raw for tx in port._chain.signed.values()
        )
        if reading.status is LockStatus.CLAIMED and known and not _own_success(port, lock, LockCall.CLAIM):
            return LockReading(status=LockStatus.LOCKED)
        return reading

    with _read(change):
        yield


@bug(BELIEVE)
def sees_a_refund_only_by_its_own_receipt():
    def change(port, lock, reading):
        if reading.status is LockStatus.REFUNDED and not _own_success(port, lock, LockCall.REFUND):
            return LockReading(status=LockStatus.LOCKED)
        return reading

    with _read(change):
        yield


@bug(BELIEVE, CLIENT, REVERSE)
def takes_a_claim_in_a_block_for_a_claim_that_succeeded():
    def change(port, lock, reading):
        mine = (tx for tx in port._chain.signed.values() if tx.account == port._process.account.raw)
        claim = next((tx for tx in mine if tx.call is LockCall.CLAIM), None)
        if claim is not None and port._chain.head.found(claim) is not None:
            return LockReading(status=LockStatus.CLAIMED, preimage=claim.preimage)
        return reading

    with _read(change):
        yield


@bug(BELIEVE, CLIENT, REVERSE)
def believes_its_provider_that_it_locked():
    def change(port, lock, reading):
        sent = any(tx.sent and tx.lock == lock and tx.call is LockCall.LOCK for tx in port._chain.signed.values())
        if sent and reading is NEVER and port._process.role is CLIENT:
            return LockReading(status=LockStatus.LOCKED)
        return reading

    with _read(change):
        yield


@bug(BELIEVE, CLIENT, SUBMARINE)
def believes_its_provider_that_it_will_not_pay():
    with gives_the_invoice_up_at(ChainView, "it says so"):
        yield


@bug(BELIEVE, CLIENT, SUBMARINE)
def takes_any_signature_for_consent():
    right = CounterpartyPort.refund_signature

    async def wrong(self, deal):
        await right(self, deal)
        return await self._answer(deal)

    with patch.object(CounterpartyPort, "refund_signature", wrong):
        yield
