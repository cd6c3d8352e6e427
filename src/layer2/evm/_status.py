"""Heads of the chain, and the status of a transaction on both axes: what became of it, and how deep that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from layer2.errors import NodeError, Reverted
from layer2.evm._fields import as_address, as_data, as_quantity
from layer2.evm._journal import TxJournal, TxRecord, TxState
from layer2.transactions import Depth, Outcome, TxId, TxStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from layer2._clock import Clock
    from layer2.evm._client import EvmClient, Header, Receipt
    from layer2.evm._live import LiveTx

__all__ = ["Heads", "StatusReader"]

_UNSUPPORTED_CODES = frozenset({-32601, -32602, -39001, -32000})


class Heads:
    """The safe and finalized heads, asked at most once in ``max_age_s``.

    An old answer is never wrong here, only less deep than what is true by now.
    """

    def __init__(self, client: EvmClient, clock: Clock, *, max_age_s: float) -> None:
        self._client = client
        self._clock = clock
        self._max_age_s = max_age_s
        self._known: dict[str, tuple[float, Header | None]] = {}

    async def safe(self) -> Header | None:
        """The newest block derived from L1; None where the endpoint has no such head."""
        return await self._head("safe")

    async def finalized(self) -> Header | None:
        """The newest block derived from finalized L1 data; None where the endpoint has no such head."""
        return await self._head("finalized")

    async def _head(self, tag: Literal["safe", "finalized"]) -> Header | None:
        asked_at, header = self._known.get(tag, (0.0, None))
        now = self._clock.monotonic_s()
        if tag not in self._known or now - asked_at >= self._max_age_s:
            try:
                header = await self._client.header(tag)
            except NodeError as error:
                if error.code not in _UNSUPPORTED_CODES:
                    raise
                header = None
            self._known[tag] = (now, header)
        return header

    async def depth_of(self, block_number: int) -> Depth:
        """How deep a canonical block at this height is."""
        finalized = await self.finalized()
        if finalized is not None and block_number <= finalized.number:
            return Depth.FINALIZED
        safe = await self.safe()
        return Depth.SAFE if safe is not None and block_number <= safe.number else Depth.INCLUDED


class StatusReader:
    """Tells the status of any transaction, its own account's or not, from the chain, the journal and what is live."""

    def __init__(
        self,
        client: EvmClient,
        journal: TxJournal,
        heads: Heads,
        live: Callable[[bytes], LiveTx | None],
        *,
        layer: str,
    ) -> None:
        self._client = client
        self._journal = journal
        self._heads = heads
        self._live = live
        self._layer = layer

    async def status(self, tx_hash: bytes) -> TxStatus:
        """What is known now. A transaction that nobody knows is UNKNOWN, not failed: pools are private."""
        tx_id = self._id(tx_hash)
        found = await self._on_chain(tx_id, tx_hash)
        if found is not None:
            return found
        record = await self._journal.by_hash(tx_hash)
        if record is not None:
            return await self._of_record(tx_id, record)
        if await self._client.transaction(tx_hash) is not None:
            return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)
        return TxStatus(tx_id=tx_id, outcome=Outcome.UNKNOWN, depth=Depth.NONE)

    async def wait(self, tx_hash: bytes, depth: Depth, *, clock: Clock, pause_s: float) -> TxStatus:
        """Ask every ``pause_s`` until the outcome is known at ``depth``; for ``Depth.PENDING`` until a node has it."""
        while True:
            status = await self.status(tx_hash)
            decided = status.outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REPLACED)
            if status.at_least(depth) and (decided or depth <= Depth.PENDING):
                return status
            await clock.sleep(pause_s)

    async def canonical_receipt(self, tx_hash: bytes) -> Receipt | None:
        """The receipt, if its block is the canonical one at its height."""
        receipt = await self._client.receipt(tx_hash)
        if receipt is None:
            return None
        header = await self._client.header(receipt.block_number)
        return receipt if header is not None and header.hash == receipt.block_hash else None

    async def _on_chain(self, tx_id: TxId, tx_hash: bytes) -> TxStatus | None:
        receipt = await self.canonical_receipt(tx_hash)
        if receipt is None:
            return None
        asked = tx_id.hash == tx_hash
        return TxStatus(
            tx_id=tx_id,
            outcome=Outcome.SUCCEEDED if receipt.succeeded else Outcome.FAILED,
            depth=await self._heads.depth_of(receipt.block_number),
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            fee=receipt.fee_wei,
            reason=None if receipt.succeeded else await self._reason(receipt),
            replaced_by=None if asked else self._id(tx_hash),
        )

    async def _of_record(self, tx_id: TxId, record: TxRecord) -> TxStatus:
        for variant in reversed(record.variants):
            if variant.hash != tx_id.hash:
                found = await self._on_chain(tx_id, variant.hash)
                if found is not None:
                    return found
        if record.state is TxState.FINAL:
            # The endpoint has forgotten the receipt, or lags; that it was final does not change.
            return TxStatus(
                tx_id=tx_id,
                outcome=Outcome.SUCCEEDED if record.succeeded else Outcome.FAILED,
                depth=Depth.FINALIZED,
                block_number=record.block_number,
                block_hash=record.block_hash,
                fee=record.fee_wei,
                replaced_by=None if record.final_hash in (None, tx_id.hash) else self._id(record.final_hash),
            )
        if record.state is TxState.REPLACED:
            return TxStatus(tx_id=tx_id, outcome=Outcome.REPLACED, depth=Depth.FINALIZED)
        live = self._live(tx_id.hash)
        if live is not None and live.accepted:
            return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)
        known = await self._client.transaction(record.latest.hash)
        if known is not None:
            return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)
        reason = live.refusal if live is not None else None
        if record.state is TxState.ABANDONED:
            reason = "the node refused it, and it is not sent any more" if record.shown else "it was never sent"
        return TxStatus(tx_id=tx_id, outcome=Outcome.DROPPED, depth=Depth.NONE, reason=reason)

    async def _reason(self, receipt: Receipt) -> str | None:
        """Why it reverted, by calling it again on the state before its block; a guess if others stood before it."""
        try:
            fields = await self._client.transaction(receipt.tx_hash)
            if fields is None:
                return None
            to = fields.get("to")
            await self._client.call(
                None if to is None else as_address(to, "to"),
                as_data(fields.get("input"), "input"),
                block=max(receipt.block_number - 1, 0),
                sender=as_address(fields.get("from"), "from"),
                value_wei=as_quantity(fields.get("value"), "value"),
            )
        except Reverted as error:
            return error.reason
        except NodeError:
            return None
        return None

    def _id(self, tx_hash: bytes) -> TxId:
        return TxId(layer=self._layer, hash=tx_hash)
