"""What becomes of transactions that the node refused: whoever saw one can bring it to a block, as long as its nonce is free."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from layer2._observe import log_event
from layer2.errors import UnknownOutcome
from layer2.evm._fillers import is_filler
from layer2.evm._journal import TxState
from layer2.evm._live import live_from
from layer2.transactions import TxId

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.addresses import EvmAddress
    from layer2.evm._journal import TxJournal, TxRecord
    from layer2.evm._live import LivePool
    from layer2.evm._status import StatusReader

__all__ = ["RefusedTransactions", "refused"]

_log = logging.getLogger("layer2.evm")


def refused(record: TxRecord, reason: str, *, layer: str) -> UnknownOutcome:
    """What the caller of a refused transaction is told: a refusal is an endpoint's word, which others need not share."""
    return UnknownOutcome(
        f"the node refuses the transaction {record.hash.hex()}: {reason}",
        hint="it is not sent any more, but who saw it may still have it included: ask for its status, or ask again with the same "
        "idempotency key, which never pays twice",
        tx_id=TxId(layer=layer, hash=record.hash),
        retry_safe=False,
    )


def _used_up(record: TxRecord, *, layer: str) -> UnknownOutcome:
    return UnknownOutcome(
        f"the transaction {record.hash.hex()}, which the node refused, is not signed again: nonce {record.nonce} of "
        f"{record.sender} is used by another, as far as the node says",
        hint="so that it is never paid twice, its key signs at that nonce only. Look at another endpoint or a block explorer "
        "whether another transaction has that nonce in a final block: then this one can never take effect; take another "
        "idempotency key",
        tx_id=TxId(layer=layer, hash=record.hash),
        retry_safe=False,
    )


class RefusedTransactions:
    """Follows abandoned transactions of one account that somebody may have.

    Only one transaction can ever use a nonce. So an abandoned one is signed again at its own nonce only: that another has used it
    is no more than the endpoint's word. Nobody else gets its nonce but a transfer of nothing, so that those behind it can be
    included. Exits, which take effect once whatever their nonce, are signed again at any.
    """

    def __init__(
        self,
        journal: TxJournal,
        pool: LivePool,
        reader: StatusReader,
        clock: Clock,
        account: EvmAddress,
        *,
        chain_id: int,
        layer: str,
    ) -> None:
        self._journal = journal
        self._pool = pool
        self._reader = reader
        self._clock = clock
        self._account = account
        self._chain_id = chain_id
        self._layer = layer

    async def load(self) -> None:
        """Take up what the journal holds."""
        for record in await self._journal.abandoned_records(self._chain_id, self._account):
            if record.shown:
                self._pool.contest(record)

    async def follow(self) -> None:
        """Compare them with the chain, whose nonce ``pool`` knows: what is included after all is open again.

        Raises:
            NodeError: the endpoint does not answer; StorageError: the journal does not.
        """
        for nonce in sorted(self._pool.contested):
            if nonce < self._pool.chain_nonce:
                await self._follow(nonce)

    def nonce_again(self, record: TxRecord, *, is_exit: bool) -> int | None:
        """The nonce at which an abandoned transaction may be signed again; None: any.

        Raises:
            UnknownOutcome: none, because it may still take effect as it was signed before.
        """
        if not record.shown:
            return None
        if self._pool.is_free(record.nonce):
            return record.nonce
        if not is_exit:
            raise _used_up(record, layer=self._layer)
        return None

    async def _follow(self, nonce: int) -> None:
        """The chain has used this nonce."""
        holder = await self._journal.in_force(self._chain_id, self._account, nonce)
        found = [await self._journal.get(record.key) for record in self._pool.contested.get(nonce, ())]
        records = [record for record in found if record is not None and record.state is TxState.ABANDONED]
        winner = await self._included(records)
        if holder is not None and holder.state is not TxState.FINAL and is_filler(holder):
            if winner is None and holder.state is TxState.OPEN:
                return  # not decided yet
            await self._give_way(holder)
        elif holder is not None or not records:
            if holder is None or holder.state is not TxState.OPEN:
                self._pool.contested.pop(nonce, None)
            return
        # Where nothing of ours has the nonce, it is followed like any whose nonce somebody used, until that is final.
        reopened = winner or min(records, key=is_filler)
        record = await self._journal.update(replace(reopened, state=TxState.OPEN), expected_version=reopened.version)
        live = live_from(record, now_s=self._clock.monotonic_s())
        live.maybe_taken = True
        self._pool.add(live)
        tx_id = TxId(layer=self._layer, hash=record.hash)
        what = "is in the chain" if winner is not None else "is followed, because its nonce is used"
        log_event(
            _log,
            logging.WARNING,
            "evm.refused_followed",
            f"transaction {tx_id}, which was refused, {what}",
            tx_id=tx_id,
        )

    async def _included(self, records: list[TxRecord]) -> TxRecord | None:
        for record in records:
            for variant in record.variants:
                if await self._reader.canonical_receipt(variant.hash) is not None:
                    return record
        return None

    async def _give_way(self, filler: TxRecord) -> None:
        """A nonce has one record in force: that of the transaction which the chain has."""
        abandoned = replace(filler, state=TxState.ABANDONED)
        record = await self._journal.update(abandoned, expected_version=filler.version)
        live = self._pool.by_key(filler.key)
        if live is not None:
            self._pool.abandon(live, record)
