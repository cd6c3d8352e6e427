"""What a store holds, in few numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, true

from layer2.evm._journal import TxState
from layer2.storage._meta import epoch
from layer2.storage._tables import evm_tx, operation, swap

__all__ = ["StoreContents", "contents"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContents:
    """Counts, and when something changed last."""

    swaps: int
    unfinished: int
    transactions: int
    open_transactions: int
    """Signed, and not final yet."""
    operations: int
    newest_change_ms: int | None
    """Unix milliseconds; None: nothing ever happened."""
    restored: int
    """How often the store was restored from a copy."""


def contents(conn: Connection) -> StoreContents:
    """Count what the store holds."""
    swaps, swap_ms = conn.execute(select(func.count(), func.max(swap.c.updated_at_ms)).select_from(swap)).one()
    txs, tx_ms = conn.execute(select(func.count(), func.max(evm_tx.c.created_at_ms)).select_from(evm_tx)).one()
    ops, op_ms = conn.execute(select(func.count(), func.max(operation.c.begun_at_ms)).select_from(operation)).one()
    return StoreContents(
        swaps=swaps,
        unfinished=conn.execute(select(func.count()).select_from(swap).where(swap.c.active.is_(true()))).scalar_one(),
        transactions=txs,
        open_transactions=conn.execute(
            select(func.count()).select_from(evm_tx).where(evm_tx.c.state == TxState.OPEN.value)
        ).scalar_one(),
        operations=ops,
        newest_change_ms=max((ms for ms in (swap_ms, tx_ms, op_ms) if ms is not None), default=None),
        restored=epoch(conn),
    )
