"""The bound on the tip of a transaction."""  # noqa: INP001 - found by alembic, not imported by name

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; transactions of before have no bound."""
    op.add_column("evm_tx", sa.Column("tip_bound_wei", sa.Text()))
