"""What a sender must never forget: every signed transaction, written before it is first sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from layer2.addresses import EvmAddress
from layer2.errors import StorageError

__all__ = ["MemoryTxJournal", "SignedVariant", "TxJournal", "TxRecord", "TxState"]


class TxState(StrEnum):
    """How far a logical transaction is. Inclusion is not stored: the chain tells it, and may take it back."""

    OPEN = "open"
    """Signed; it may have been sent and may be included, and is pursued until that is final."""
    ABANDONED = "abandoned"
    """Sent never, or refused by the node. Not sent any more. What was shown may be included all the same: whoever saw it can
    bring it to a block as long as its nonce is not used."""
    FINAL = "final"
    """One of its variants is in a finalized block."""
    REPLACED = "replaced"
    """Another transaction has its nonce in a finalized block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedVariant:
    """One signed form of a logical transaction.

    Later ones differ in price only; after an abandoned one also in nonce.
    """

    raw: bytes = field(repr=False)
    """May hold a preimage."""
    hash: bytes
    max_fee_per_gas: int
    max_priority_fee_per_gas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TxRecord:
    """One logical transaction. Never changed in place: an update is another record with the next version."""

    key: str
    """The idempotency key, unique in the journal."""
    request_digest: bytes
    """SHA-256 over what was asked for; the same key with another digest is a conflict."""
    chain_id: int
    sender: EvmAddress
    nonce: int
    variants: tuple[SignedVariant, ...]
    """Oldest first, never empty; the first one's hash is the id under which the transaction is known."""
    state: TxState = TxState.OPEN
    exit: bool = False
    """Claims, refunds and the like, which never wait for user traffic."""
    not_after: int | None = None
    """Unix seconds after which it must not be sent for the first time."""
    deadline: int | None = None
    """Unix seconds by which it should be included; its price grows towards it."""
    price_bound_wei: int | None = None
    """The caller's own bound on the price of gas, for replacements too."""
    tip_bound_wei: int | None = None
    """The caller's own bound on the priority fee, for replacements too."""
    sent: bool = False
    """Whether a node may have one of its signed forms. Only kept up to date where ``not_after`` is set: see ``shown``."""
    final_hash: bytes | None = None
    """The variant that became final."""
    block_number: int | None = None
    """Of the final block; None before."""
    block_hash: bytes | None = None
    succeeded: bool | None = None
    """Of the final variant: whether it took effect or reverted."""
    fee_wei: int | None = None
    """What the final variant cost."""
    created_ms: int
    version: int = 1

    @property
    def hash(self) -> bytes:
        """The id of the transaction: the hash of its first variant."""
        return self.variants[0].hash

    @property
    def shown(self) -> bool:
        """Whether anybody but us may have one of its signed forms."""
        return self.sent or self.not_after is None

    @property
    def latest(self) -> SignedVariant:
        """The variant to send."""
        return self.variants[-1]


class TxJournal(Protocol):
    """Durable storage of ``TxRecord``. Each call is one atomic, durable step; a failed one raises ``StorageError``."""

    async def still_ours(self) -> None:
        """Asked before each time that something is sent.

        Raises:
            StoreInUse: another process has the journal now, and sends what is in it.
        """
        ...

    async def get(self, key: str) -> TxRecord | None:
        """The record with this idempotency key."""
        ...

    async def by_hash(self, tx_hash: bytes) -> TxRecord | None:
        """The record of which ``tx_hash`` is a variant."""
        ...

    async def put_new(self, record: TxRecord) -> None:
        """Add a record with version 1.

        Raises:
            StorageError: its key or the hash of a variant is taken, or another record that is not abandoned has its
                (chain id, sender, nonce).
        """
        ...

    async def update(self, record: TxRecord, *, expected_version: int) -> TxRecord:
        """Put ``record`` in place of the one with its key, and give it back with version ``expected_version + 1``.

        Variants are only ever added. An abandoned record may come back OPEN with another nonce and other limits.

        Raises:
            StorageError: there is none, or it has another version, or another record that is not abandoned has its nonce.
        """
        ...

    async def open_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """Records in state OPEN, by nonce."""
        ...

    async def abandoned_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """Records in state ABANDONED, by nonce, but for those whose nonce a record in state FINAL has."""
        ...

    async def in_force(self, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
        """The record that is not abandoned and has this nonce; there is one at most."""
        ...

    async def last_nonce(self, chain_id: int, sender: EvmAddress) -> int | None:
        """The highest nonce of a record that is not abandoned; None if there is none."""
        ...


class MemoryTxJournal:
    """A journal that lives as long as the process, for tests and for callers that accept to forget."""

    def __init__(self) -> None:
        self._records: dict[str, TxRecord] = {}
        self._keys_by_hash: dict[bytes, str] = {}
        self._keys_by_nonce: dict[tuple[int, bytes, int], str] = {}
        self._open: dict[tuple[int, bytes], dict[str, int]] = {}
        self._abandoned: dict[tuple[int, bytes], set[str]] = {}
        self._last: dict[tuple[int, bytes], int] = {}

    async def still_ours(self) -> None:
        """Nothing: nobody else can have it."""

    async def get(self, key: str) -> TxRecord | None:
        """See ``TxJournal``."""
        return self._records.get(key)

    async def by_hash(self, tx_hash: bytes) -> TxRecord | None:
        """See ``TxJournal``."""
        key = self._keys_by_hash.get(tx_hash)
        return None if key is None else self._records[key]

    async def put_new(self, record: TxRecord) -> None:
        """See ``TxJournal``."""
        if record.key in self._records or record.version != 1:
            raise StorageError(f"there is a transaction with the key {record.key!r} already")
        self._check_nonce(record)
        self._check_hashes(record.variants)
        self._store(record)

    async def update(self, record: TxRecord, *, expected_version: int) -> TxRecord:
        """See ``TxJournal``."""
        current = self._records.get(record.key)
        if current is None or current.version != expected_version:
            raise StorageError(f"the transaction {record.key!r} was changed by somebody else")
        kept = len(current.variants)
        if record.variants[:kept] != current.variants:
            raise StorageError(f"the transaction {record.key!r} would lose a signed form")
        self._check_nonce(record)
        self._check_hashes(record.variants[kept:])
        updated = replace(record, version=expected_version + 1)
        self._store(updated)
        return updated

    async def open_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """See ``TxJournal``."""
        keys = self._open.get((chain_id, sender.raw), {})
        return [self._records[key] for key in sorted(keys, key=keys.__getitem__)]

    async def abandoned_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """See ``TxJournal``."""
        found: list[TxRecord] = []
        for key in self._abandoned.get((chain_id, sender.raw), ()):
            holder = self._in_force(chain_id, sender, self._records[key].nonce)
            if holder is None or holder.state is not TxState.FINAL:
                found.append(self._records[key])
        return sorted(found, key=lambda record: record.nonce)

    async def in_force(self, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
        """See ``TxJournal``."""
        return self._in_force(chain_id, sender, nonce)

    async def last_nonce(self, chain_id: int, sender: EvmAddress) -> int | None:
        """See ``TxJournal``."""
        nonce = self._last.get((chain_id, sender.raw))
        while nonce is not None and nonce >= 0:
            key = self._keys_by_nonce.get((chain_id, sender.raw, nonce))
            if key is not None and self._records[key].state is not TxState.ABANDONED:
                return nonce
            nonce -= 1
        return None

    def _in_force(self, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
        key = self._keys_by_nonce.get((chain_id, sender.raw, nonce))
        record = None if key is None else self._records[key]
        return None if record is None or record.state is TxState.ABANDONED or record.nonce != nonce else record

    def _check_nonce(self, record: TxRecord) -> None:
        holder = self._in_force(record.chain_id, record.sender, record.nonce)
        if holder is not None and holder.key != record.key and record.state is not TxState.ABANDONED:
            raise StorageError(f"nonce {record.nonce} is taken by the transaction {holder.key!r}")

    def _check_hashes(self, added: Sequence[SignedVariant]) -> None:
        if any(variant.hash in self._keys_by_hash for variant in added):
            raise StorageError("there is a transaction with these bytes already")

    def _store(self, record: TxRecord) -> None:
        account = (record.chain_id, record.sender.raw)
        self._records[record.key] = record
        if record.state is not TxState.ABANDONED:
            self._keys_by_nonce[*account, record.nonce] = record.key
            self._last[account] = max(record.nonce, self._last.get(account, record.nonce))
        for variant in record.variants:
            self._keys_by_hash[variant.hash] = record.key
        abandoned = self._abandoned.setdefault(account, set())
        (abandoned.add if record.state is TxState.ABANDONED else abandoned.discard)(record.key)
        opened = self._open.setdefault(account, {})
        if record.state is TxState.OPEN:
            opened[record.key] = record.nonce
        else:
            opened.pop(record.key, None)
