"""The epoch in which an idempotency key was used."""  # noqa: INP001 - found by alembic, not imported by name

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. What was decided before is of the first epoch: in a store that was restored, of one that has ended."""
    op.add_column("operation", sa.Column("epoch", sa.Integer(), nullable=False, server_default="0"))
