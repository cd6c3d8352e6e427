"""What a sender knows of the transactions that are not final yet, and which nonces are free. Nothing here waits."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from layer2.errors import StorageError
from layer2.evm._journal import SignedVariant, TxRecord
from layer2.evm._transactions import SignedTransaction, UnsignedTransaction, decode_transaction

__all__ = ["Inclusion", "LivePool", "LiveTx", "live_from", "variant_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """In which block a transaction was seen, and which of its variants."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    succeeded: bool
    fee_wei: int


@dataclass(slots=True, eq=False)
class LiveTx:
    """An open record with what only this process knows of it."""

    record: TxRecord
    tx: UnsignedTransaction
    """The newest variant, decoded."""
    cost_wei: int
    """The most it takes from the account, besides what is included already."""
    born_s: float
    sent_s: float | None = None
    """When it was last handed to a node, on the monotonic clock."""
    maybe_taken: bool = False
    """Whether a node may have it: it took it, or its answer was lost."""
    unsent: bool = False
    """Whether it was written down as sent, and no connection for it was made yet."""
    accepted: bool = False
    priced_s: float = 0.0
    """When its price was last set."""
    blocks_passed: int = 0
    """New heads that left it out while it was next in line, at its present price."""
    busy: bool = False
    """Whether somebody is sending or repricing it now."""
    inclusion: Inclusion | None = None
    missing_seen: int = 0
    """How often in a row its nonce was used at the finalized head while no variant had a receipt."""
    refusal: str | None = None
    """What the node last said against it."""
    _waiters: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def nonce(self) -> int:
        return self.record.nonce

    def wake(self) -> None:
        """Something about it changed: let those who wait look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def change(self) -> asyncio.Future[None]:
        """Done at the next ``wake``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter


class LivePool:
    """The live transactions of one account: by nonce while they are not included, by block afterwards."""

    def __init__(self) -> None:
        self.next_nonce = 0
        self.chain_nonce = 0
        self.waiting: dict[int, LiveTx] = {}
        self.included: dict[int, set[LiveTx]] = {}
        self.contested: dict[int, list[TxRecord]] = {}
        """By nonce, abandoned transactions that somebody may have and can still bring to a block."""
        self.committed_wei = 0
        self._by_hash: dict[bytes, LiveTx] = {}
        self._by_key: dict[str, LiveTx] = {}
        self._holes: list[int] = []

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[LiveTx]:
        return iter(list(self._by_key.values()))

    def by_hash(self, tx_hash: bytes) -> LiveTx | None:
        """The live transaction of which this is a variant."""
        return self._by_hash.get(tx_hash)

    def by_key(self, key: str) -> LiveTx | None:
        """The live transaction with this idempotency key."""
        return self._by_key.get(key)

    def free_nonce(self) -> int:
        """The lowest nonce that nothing has or had. It stays free until a transaction with it is added."""
        while self._holes and (not self.is_free(self._holes[0]) or self._holes[0] in self.contested):
            heapq.heappop(self._holes)
        if self._holes:
            return self._holes[0]
        while self.next_nonce in self.waiting or self.next_nonce in self.contested:
            self.next_nonce += 1
        return self.next_nonce

    def is_free(self, nonce: int) -> bool:
        """Whether neither the chain nor a waiting transaction has it. An abandoned one may."""
        return nonce >= self.chain_nonce and nonce not in self.waiting

    @property
    def blocking_hole(self) -> int | None:
        """A free nonce below that of a waiting transaction, which cannot be included before it is used."""
        nonce = self.free_nonce()
        return nonce if any(other > nonce for other in self.waiting) else None

    @property
    def blocking_contested(self) -> list[int]:
        """Nonces of abandoned transactions that waiting ones stand behind."""
        last = max(self.waiting, default=-1)
        return [nonce for nonce in sorted(self.contested) if nonce < last and self.is_free(nonce)]

    def advance(self, chain_nonce: int) -> None:
        """The chain has used all nonces below ``chain_nonce``."""
        self.chain_nonce = chain_nonce
        self.next_nonce = max(self.next_nonce, chain_nonce)

    def add(self, live: LiveTx) -> None:
        """A transaction was signed and journalled, or is followed again."""
        self._uncontest(live.record)
        self.waiting[live.nonce] = live
        self.committed_wei += live.cost_wei
        self._by_key[live.record.key] = live
        self.index(live)
        self._count_to(live.nonce)

    def index(self, live: LiveTx) -> None:
        """Its variants changed."""
        for variant in live.record.variants:
            self._by_hash[variant.hash] = live

    def reprice(self, live: LiveTx, record: TxRecord, tx: UnsignedTransaction) -> None:
        """It has a new variant."""
        extra = tx.max_cost_wei - live.tx.max_cost_wei
        live.record, live.tx = record, tx
        live.cost_wei += extra
        self.committed_wei += extra
        self.index(live)

    def include(self, live: LiveTx, inclusion: Inclusion) -> None:
        """It is in a block that is canonical now."""
        self._leave(live)
        live.inclusion = inclusion
        live.accepted = live.maybe_taken = True
        live.missing_seen = 0
        self.included.setdefault(inclusion.block_number, set()).add(live)
        live.wake()

    def exclude(self, live: LiveTx) -> None:
        """Its block is no longer canonical: it waits again."""
        self._leave(live)
        live.inclusion = None
        live.sent_s = None
        self.waiting[live.nonce] = live
        self.committed_wei += live.cost_wei
        live.wake()

    def abandon(self, live: LiveTx, record: TxRecord) -> None:
        """It was abandoned. The next transaction takes its nonce, unless somebody may have it: then only that one itself may."""
        self.remove(live)
        if record.shown:
            self.contest(record)
        else:
            heapq.heappush(self._holes, live.nonce)

    def contest(self, record: TxRecord) -> None:
        """An abandoned transaction that somebody may have."""
        self._uncontest(record)
        self.contested.setdefault(record.nonce, []).append(record)
        self._count_to(record.nonce)

    def remove(self, live: LiveTx) -> None:
        """It is final, replaced or abandoned."""
        self._leave(live)
        self._by_key.pop(live.record.key, None)
        for variant in live.record.variants:
            self._by_hash.pop(variant.hash, None)
        live.wake()

    def up_to(self, block_number: int) -> Iterable[LiveTx]:
        """Included ones in blocks not above ``block_number``."""
        return [live for number, group in self.included.items() if number <= block_number for live in group]

    def _count_to(self, nonce: int) -> None:
        for skipped in range(self.next_nonce, nonce):
            heapq.heappush(self._holes, skipped)
        self.next_nonce = max(self.next_nonce, nonce + 1)

    def _uncontest(self, record: TxRecord) -> None:
        """Its own nonce is no longer reserved for it as an abandoned one; a nonce that it had before stays contested."""
        group = [other for other in self.contested.pop(record.nonce, []) if other.key != record.key]
        if group:
            self.contested[record.nonce] = group

    def _leave(self, live: LiveTx) -> None:
        if self.waiting.get(live.nonce) is live:
            del self.waiting[live.nonce]
            self.committed_wei -= live.cost_wei
        if live.inclusion is not None:
            group = self.included.get(live.inclusion.block_number)
            if group is not None:
                group.discard(live)
                if not group:
                    del self.included[live.inclusion.block_number]


def live_from(record: TxRecord, *, now_s: float, extra_wei: int = 0) -> LiveTx:
    """A live transaction from its record, decoded from the bytes that are sent.

    Raises:
        StorageError: somebody else signed it. At a higher price it would be signed with our key.
    """
    signed = decode_transaction(record.latest.raw)
    tx = signed.transaction
    if (signed.sender, tx.chain_id, tx.nonce) != (record.sender, record.chain_id, record.nonce):
        raise StorageError(
            f"the store was tampered with: the transaction {record.key!r} is not of {record.sender} on chain "
            f"{record.chain_id} with nonce {record.nonce}",
            hint="do not use this store; restore a copy that nobody else could write",
        )
    return LiveTx(record=record, tx=tx, cost_wei=tx.max_cost_wei + extra_wei, born_s=now_s, priced_s=now_s)


def new_record(signed: SignedTransaction, key: str, digest: bytes, created_ms: int) -> TxRecord:
    """The journal's record of a transaction in its first form."""
    tx = signed.transaction
    return TxRecord(
        key=key,
        request_digest=digest,
        chain_id=tx.chain_id,
        sender=signed.sender,
        nonce=tx.nonce,
        variants=(variant_of(signed.raw, signed.hash, tx),),
        created_ms=created_ms,
    )


def variant_of(raw: bytes, tx_hash: bytes, tx: UnsignedTransaction) -> SignedVariant:
    """The journal's form of a signed transaction."""
    return SignedVariant(
        raw=raw,
        hash=tx_hash,
        max_fee_per_gas=tx.max_fee_per_gas,
        max_priority_fee_per_gas=tx.max_priority_fee_per_gas,
    )
