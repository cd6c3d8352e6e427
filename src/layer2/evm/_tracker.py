"""Follows open transactions to finality: inclusion, reorganisations, replacement, and what has to be sent again."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from layer2._observe import log_event, operation_context
from layer2.errors import Layer2Error
from layer2.evm._journal import TxState
from layer2.evm._live import Inclusion, LivePool, LiveTx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layer2._clock import Clock
    from layer2.addresses import EvmAddress
    from layer2.evm._client import EvmClient, Header, Receipt
    from layer2.evm._delivery import Delivery, SenderSettings
    from layer2.evm._journal import TxJournal, TxRecord
    from layer2.evm._refused import RefusedTransactions
    from layer2.evm._status import Heads

__all__ = ["Tracker"]

_log = logging.getLogger("layer2.evm")

_MISSING_LOOKS = 2
"""How often a nonce must be seen used at the finalized head without a receipt of ours before it counts as replaced."""
_LOOKS_OF_LAG = 5
"""How often an endpoint may not know the block that was the head before it counts as reorganised away."""
_RESENDS_AT_ONCE = 16
_BLOCKS_BEFORE_BUMP = 2
_EXIT_URGENCY_S = 600
"""The price of an exit grows by a step for each halving of the time that is left, counted from here."""


class Tracker:
    """One look at the chain for all open transactions of an account. ``look`` never raises for one transaction's sake."""

    def __init__(
        self,
        client: EvmClient,
        account: EvmAddress,
        journal: TxJournal,
        pool: LivePool,
        delivery: Delivery,
        heads: Heads,
        refused: RefusedTransactions,
        settings: SenderSettings,
        clock: Clock,
    ) -> None:
        self._client = client.exits
        self._account = account
        self._journal = journal
        self._pool = pool
        self._delivery = delivery
        self._heads = heads
        self._refused = refused
        self._settings = settings
        self._clock = clock
        self._head: Header | None = None
        self._safe_done = -1
        self._lags = 0

    @property
    def head(self) -> Header | None:
        """The newest head seen."""
        return self._head

    async def look(self) -> None:
        """Compare the open transactions with the chain, write what is final, send again what is missing.

        Raises:
            NodeError: the endpoint does not answer; nothing was changed.
        """
        head = await self._client.header("latest")
        if head is None:
            return
        previous = self._head
        if previous is not None and previous.hash != head.hash:
            known = await self._client.header(previous.number)
            if known is None and self._lags < _LOOKS_OF_LAG:
                self._lags += 1  # a replica that is behind the one asked before, or a chain that became shorter
                return
            if known is None or known.hash != previous.hash:
                text = f"block {previous.number} was reorganised away"
                log_event(_log, logging.WARNING, "evm.reorg", text, block_number=previous.number)
                await self._recheck(self._pool.up_to(previous.number))
        self._lags = 0
        self._head = head
        self._pool.advance(await self._client.nonce(self._account))
        await self._refused.follow()
        await self._find_included(
            [live for nonce, live in self._pool.waiting.items() if nonce < self._pool.chain_nonce]
        )
        await self._deepen()
        await self._send_missing(new_head=previous is not None and previous.hash != head.hash)

    async def _find_included(self, candidates: Iterable[LiveTx]) -> None:
        lives = list(candidates)
        receipts = await asyncio.gather(*(self._receipt(live) for live in lives))
        canonical: dict[int, bytes | None] = {}
        for number in sorted({receipt.block_number for receipt in receipts if receipt is not None}):
            header = await self._client.header(number)
            canonical[number] = None if header is None else header.hash
        for live, receipt in zip(lives, receipts, strict=True):
            if receipt is not None and canonical[receipt.block_number] == receipt.block_hash and live.inclusion is None:
                self._pool.include(live, _inclusion(receipt))

    async def _receipt(self, live: LiveTx) -> Receipt | None:
        for variant in reversed(live.record.variants):
            receipt = await self._client.receipt(variant.hash)
            if receipt is not None:
                return receipt
        return None

    async def _recheck(self, lives: Iterable[LiveTx]) -> list[LiveTx]:
        """Take back what is no longer in the chain, and give those that certainly are in it."""
        groups: dict[int, list[LiveTx]] = {}
        for live in lives:
            if live.inclusion is not None:
                groups.setdefault(live.inclusion.block_number, []).append(live)
        confirmed: list[LiveTx] = []
        for number, group in groups.items():
            header = await self._client.header(number)
            for live in group:
                if header is not None and live.inclusion is not None and header.hash == live.inclusion.block_hash:
                    confirmed.append(live)
                elif header is not None or self._lags >= _LOOKS_OF_LAG:
                    self._pool.exclude(live)
                    self._warn("evm.tx_reorged", live, "is in the chain no more: it is sent again")
        return confirmed

    async def _deepen(self) -> None:
        safe = await self._heads.safe()
        if safe is not None and safe.number > self._safe_done:
            for live in self._pool.up_to(safe.number):
                live.wake()
            self._safe_done = safe.number
        finalized = await self._heads.finalized()
        if finalized is None:
            return
        for live in await self._recheck(self._pool.up_to(finalized.number)):
            await self._finish(live)
        await self._find_replaced(finalized.number)

    async def _finish(self, live: LiveTx) -> None:
        seen = live.inclusion
        if seen is None:
            return
        record = replace(
            live.record,
            state=TxState.FINAL,
            final_hash=seen.tx_hash,
            block_number=seen.block_number,
            block_hash=seen.block_hash,
            succeeded=seen.succeeded,
            fee_wei=seen.fee_wei,
        )
        await self._close(live, record)

    async def _find_replaced(self, finalized: int) -> None:
        """Nonces that the finalized chain has used for other transactions than ours."""
        waiting = sorted(self._pool.waiting.items())
        if not waiting or waiting[0][0] >= self._pool.chain_nonce:
            return
        used = await self._client.nonce(self._account, finalized)
        for nonce, live in waiting:
            if nonce >= used:
                break
            receipt = await self._receipt(live)
            live.missing_seen = live.missing_seen + 1 if receipt is None else 0
            if live.missing_seen >= _MISSING_LOOKS:
                self._warn("evm.tx_replaced", live, "can never take effect: its nonce was used by another")
                await self._close(live, replace(live.record, state=TxState.REPLACED))

    async def _close(self, live: LiveTx, record: TxRecord) -> None:
        await self._journal.update(record, expected_version=live.record.version)
        self._pool.remove(live)

    async def _send_missing(self, *, new_head: bool) -> None:
        now = self._clock.monotonic_s()
        settings = self._settings
        waiting = [live for nonce, live in sorted(self._pool.waiting.items()) if nonce >= self._pool.chain_nonce]
        urgent = [index for index, live in enumerate(waiting) if live.record.exit]
        last_exit = urgent[-1] if urgent else -1
        sends = []
        for index, live in enumerate(waiting[:_RESENDS_AT_ONCE]):
            if live.busy:
                continue
            steps = self._steps(waiting[index:])
            # Where no blocks come, a higher price helps nobody.
            live.blocks_passed += new_head and (index == 0 or index <= last_exit)
            if live.blocks_passed >= _BLOCKS_BEFORE_BUMP and now - live.priced_s >= settings.bump_after_s / steps:
                sends.append(self._send(live, steps, for_exit=index <= last_exit))
            elif live.sent_s is None or now - live.sent_s >= settings.resend_after_s or not live.accepted:
                sends.append(self._send(live, 0, for_exit=False))
        await asyncio.gather(*sends)

    async def _send(self, live: LiveTx, steps: int, *, for_exit: bool) -> None:
        try:
            with operation_context(tx_id=self._delivery.tx_id(live)):
                if steps:
                    await self._delivery.raise_price(live, times=steps, for_exit=for_exit)
                else:
                    await self._delivery.again(live)
        except Layer2Error as error:
            self._warn("evm.resend_failed", live, f"could not be sent again: {error}")

    def _warn(self, code: str, live: LiveTx, what: str) -> None:
        tx_id = self._delivery.tx_id(live)
        log_event(_log, logging.WARNING, code, f"transaction {tx_id} {what}", tx_id=tx_id)

    def _steps(self, behind: list[LiveTx]) -> int:
        """By how many steps to raise the price: more as the nearest deadline among it and those behind it comes closer."""
        deadlines = [live.record.deadline for live in behind if live.record.exit and live.record.deadline is not None]
        if not deadlines:
            return 1
        left = min(deadlines) - self._clock.now_ms() // 1000
        steps = 1
        while left < _EXIT_URGENCY_S >> (steps - 1) and steps < 8:
            steps += 1
        return steps


def _inclusion(receipt: Receipt) -> Inclusion:
    return Inclusion(
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
        tx_hash=receipt.tx_hash,
        succeeded=receipt.succeeded,
        fee_wei=receipt.fee_wei,
    )
