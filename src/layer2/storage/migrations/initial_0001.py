"""The first schema."""  # noqa: INP001 - found by alembic, not imported by name

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables."""
    _swaps()
    _swap_history()
    _transactions()
    _rest()


def _swaps() -> None:
    op.create_table(
        "swap",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("state_kind", sa.Text(), nullable=False),
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("deal_shape", sa.Integer(), nullable=False),
        sa.Column("deal", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("wake_at_ms", sa.BigInteger()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("request_digest", sa.Text()),
        sa.Column("payment_hash", sa.Text(), nullable=False),
        sa.Column("lock_id", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_swap"),
        sa.UniqueConstraint("idempotency_key", name="uq_swap_idempotency_key"),
    )
    op.create_index(
        "ix_swap_active",
        "swap",
        ["id"],
        sqlite_where=sa.text("active IS 1"),
        postgresql_where=sa.text("active IS true"),
    )
    op.create_index("ix_swap_created", "swap", ["created_at_ms", "id"])
    op.create_index("ix_swap_lock_id", "swap", ["lock_id"])
    op.create_index("ix_swap_payment_hash", "swap", ["payment_hash"])


def _swap_history() -> None:
    op.create_table(
        "swap_event",
        sa.Column("swap_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("observation", sa.Text(), nullable=False),
        sa.Column("state_before", sa.Text(), nullable=False),
        sa.Column("state_after", sa.Text(), nullable=False),
        sa.Column("state_shape", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["swap_id"], ["swap.id"], name="fk_swap_event_swap_id"),
        sa.PrimaryKeyConstraint("swap_id", "version", name="pk_swap_event"),
    )
    op.create_table(
        "swap_effect",
        sa.Column("swap_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["swap_id"], ["swap.id"], name="fk_swap_effect_swap_id"),
        sa.PrimaryKeyConstraint("swap_id", "key", name="pk_swap_effect"),
    )
    op.create_table(
        "swap_proof",
        sa.Column("swap_id", sa.Text(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["swap_id"], ["swap.id"], name="fk_swap_proof_swap_id"),
        sa.PrimaryKeyConstraint("swap_id", name="pk_swap_proof"),
    )
    op.create_table(
        "used_hash",
        sa.Column("payment_hash", sa.Text(), nullable=False),
        sa.Column("swap_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["swap_id"], ["swap.id"], name="fk_used_hash_swap_id"),
        sa.PrimaryKeyConstraint("payment_hash", name="pk_used_hash"),
    )


def _transactions() -> None:
    op.create_table(
        "evm_tx",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("exit", sa.Boolean(), nullable=False),
        sa.Column("not_after", sa.BigInteger()),
        sa.Column("deadline", sa.BigInteger()),
        sa.Column("price_bound_wei", sa.Text()),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.Column("final_hash", sa.Text()),
        sa.Column("block_number", sa.BigInteger()),
        sa.Column("block_hash", sa.Text()),
        sa.Column("succeeded", sa.Boolean()),
        sa.Column("fee_wei", sa.Text()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_evm_tx"),
    )
    op.create_index(
        "ix_evm_tx_open",
        "evm_tx",
        ["chain_id", "sender", "nonce"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "uq_evm_tx_nonce",
        "evm_tx",
        ["chain_id", "sender", "nonce"],
        unique=True,
        sqlite_where=sa.text("state != 'abandoned'"),
        postgresql_where=sa.text("state != 'abandoned'"),
    )
    op.create_table(
        "evm_variant",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("tx_key", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("max_fee_per_gas", sa.Text(), nullable=False),
        sa.Column("max_priority_fee_per_gas", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tx_key"], ["evm_tx.key"], name="fk_evm_variant_tx_key"),
        sa.PrimaryKeyConstraint("hash", name="pk_evm_variant"),
        sa.UniqueConstraint("tx_key", "ordinal", name="uq_evm_variant_tx_key_ordinal"),
    )


def _rest() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "operation",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_operation"),
    )
