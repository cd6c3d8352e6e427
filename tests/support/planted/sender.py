"""Bugs in how transactions are numbered, signed, kept and estimated: in the real sender, which only some seeds have."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

from layer2.evm import encode_claim
from layer2.evm._delivery import Delivery
from layer2.evm._tracker import Tracker
from layer2.storage import SqlTxJournal
from layer2.swaps import EvmSwapChain
from planted.planting import CLIENT, ESTIMATE, REVERSE, SENT, bug


async def _nothing(*_args):
    return None


async def _no_records(*_args, **_named):
    return []


@bug(SENT, real_sender=True)
def uses_a_nonce_again_after_a_restart():
    with ExitStack() as stack:
        stack.enter_context(patch.object(SqlTxJournal, "open_records", _no_records))
        stack.enter_context(patch.object(SqlTxJournal, "last_nonce", _nothing))
        yield


@bug(SENT, real_sender=True)
def signs_again_what_it_has_signed():
    with patch.object(SqlTxJournal, "get", _nothing):
        yield


@bug(SENT, real_sender=True)
def never_sends_again_what_the_nodes_forgot():
    with patch.object(Tracker, "_send_missing", _no_records):
        yield


@bug(SENT, real_sender=True)
def keeps_the_bound_of_what_stands_before_an_exit():
    right = Delivery.bump

    async def wrong(self, live, *, times, for_exit=False):
        return await right(self, live, times=times)

    with patch.object(Delivery, "bump", wrong):
        yield


@bug(ESTIMATE, CLIENT, REVERSE, real_sender=True)
def estimates_the_claim():
    right = EvmSwapChain.send_claim

    async def wrong(self, key, lock, preimage, *, not_after):
        await self._client.estimate_gas(lock.contract, encode_claim(lock, preimage), sender=self._sender.account)
        await right(self, key, lock, preimage, not_after=not_after)

    with patch.object(EvmSwapChain, "send_claim", wrong):
        yield
