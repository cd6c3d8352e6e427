"""What the store looks like to SQLAlchemy Core. The migrations make it; a test compares the two.

JSON is kept as text that this package writes and reads itself: the checksums of the history are taken over those very bytes, and a
database must not reorder or round them. Times are Unix milliseconds. Hashes and ids are lower-case hexadecimal.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)

__all__ = [
    "evm_tx",
    "evm_variant",
    "meta",
    "metadata",
    "operation",
    "swap",
    "swap_effect",
    "swap_event",
    "swap_proof",
    "used_hash",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about the store itself: identity, epoch, owner, the last preimage time."""

swap = Table(
    "swap",
    metadata,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("state_kind", Text, nullable=False),
    Column("shape", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("deal_shape", Integer, nullable=False),
    Column("deal", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("wake_at_ms", BigInteger),
    Column("epoch", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("request_digest", Text),
    Column("payment_hash", Text, nullable=False, index=True),
    Column("lock_id", Text, nullable=False, index=True),
    Column("note", Text, nullable=False),
)
"""One row a swap: what was agreed (``deal``) and where it stands (``state``)."""

Index("ix_swap_active", swap.c.id, sqlite_where=swap.c.active.is_(true()), postgresql_where=swap.c.active.is_(true()))
Index("ix_swap_created", swap.c.created_at_ms, swap.c.id)

swap_event = Table(
    "swap_event",
    metadata,
    Column("swap_id", Text, ForeignKey("swap.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("shape", Integer, nullable=False),
    Column("observation", Text, nullable=False),
    Column("state_before", Text, nullable=False),
    Column("state_after", Text, nullable=False),
    Column("state_shape", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("checksum", Text, nullable=False),
    PrimaryKeyConstraint("swap_id", "version"),
)
"""Append-only: what was seen, and what it made of the swap. ``checksum`` chains each row to the one before."""

swap_effect = Table(
    "swap_effect",
    metadata,
    Column("swap_id", Text, ForeignKey("swap.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("shape", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("begun", Boolean, nullable=False),
    Column("last_error", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("swap_id", "key"),
)
"""The outbox: what a state wants done. Per swap and key there is one row for ever."""

swap_proof = Table(
    "swap_proof",
    metadata,
    Column("swap_id", Text, ForeignKey("swap.id"), primary_key=True),
    Column("block_hash", Text, nullable=False),
    Column("proof", Text, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
)
"""The newest proof of a settled swap; made again when a reorg takes its block away."""

used_hash = Table(
    "used_hash",
    metadata,
    Column("payment_hash", Text, primary_key=True),
    Column("swap_id", Text, ForeignKey("swap.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""At most one swap per hash, in any role, for ever: rows are never deleted or changed."""

evm_tx = Table(
    "evm_tx",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("exit", Boolean, nullable=False),
    Column("not_after", BigInteger),
    Column("deadline", BigInteger),
    Column("price_bound_wei", Text),
    Column("sent", Boolean, nullable=False),
    Column("final_hash", Text),
    Column("block_number", BigInteger),
    Column("block_hash", Text),
    Column("succeeded", Boolean),
    Column("fee_wei", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("tip_bound_wei", Text),
)
"""One row a logical transaction of ours."""

_IN_FORCE: Final = evm_tx.c.state != text("'abandoned'")
Index(
    "uq_evm_tx_nonce",
    evm_tx.c.chain_id,
    evm_tx.c.sender,
    evm_tx.c.nonce,
    unique=True,
    sqlite_where=_IN_FORCE,
    postgresql_where=_IN_FORCE,
)
_OPEN: Final = evm_tx.c.state == text("'open'")
Index(
    "ix_evm_tx_open",
    evm_tx.c.chain_id,
    evm_tx.c.sender,
    evm_tx.c.nonce,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)

evm_variant = Table(
    "evm_variant",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("tx_key", Text, ForeignKey("evm_tx.key"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("raw", Text, nullable=False),
    Column("max_fee_per_gas", Text, nullable=False),
    Column("max_priority_fee_per_gas", Text, nullable=False),
    UniqueConstraint("tx_key", "ordinal"),
)
"""Every signed form of a transaction, for ever: any of them may be the one that a block holds."""

operation = Table(
    "operation",
    metadata,
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("outcome", Text),
    Column("begun_at_ms", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("scope", "key"),
)
"""What an idempotency key was first used for, and what was decided then, in which epoch."""
