"""The stores of simulated processes, and the provider's answer to who asks for an early refund, which it reads from there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from layer2.errors import StorageError
from layer2.swaps import ChainView, Role, StoredSwap
from layer2.testing._simulation_blocks import NEVER
from layer2.testing._simulation_keys import SimulatedSigner
from layer2.testing._simulation_loop import ProcessClock
from layer2.testing._simulation_process import SimulatedProcess

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from layer2.lightning import PaymentRecord
    from layer2.provider import ProviderService
    from layer2.storage import Store, SwapJournal
    from layer2.terms import DepthPolicy, Lock

__all__ = ["journal_for", "service_of", "wrong_in_history"]

_stores: dict[tuple[int, Role], Store] = {}
"""Opening a store costs more than a run, so each process keeps one for each role and empties it."""


class _FromTheStore:
    """Stands for the engine where the provider's service only reads."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process
        self._read: dict[str, tuple[int, StoredSwap]] = {}

    async def load(self, swap_id: str) -> StoredSwap:
        # Asked for again and again; nothing else writes to this store.
        writes, swap = self._read.get(swap_id, (-1, None))
        if swap is None or writes != self._process.writes:
            swap = await self._process.journal.load(swap_id)
            self._read[swap_id] = self._process.writes, swap
        return swap

    async def swaps_on(self, lock_id: bytes) -> tuple[StoredSwap, ...]:  # noqa: ARG002 (the interface's)
        """None besides the one that is asked for: no two deals of a run have the same lock."""
        return ()

    async def hash_owner(self, payment_hash: bytes) -> str | None:  # noqa: ARG002 (the interface's)
        """Nobody: what the node says of the payment decides."""
        return None

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """What the provider's node has on record."""
        return self._process.lightning.payment_record(self._process.name, payment_hash)

    async def look(self, lock: Lock, policy: DepthPolicy) -> ChainView:
        """The lock as the chain has it now."""
        chain, now = self._process.chain, self._process.loop.now
        head = chain.head
        readings = (head, chain.deep(head, now, policy), chain.finalized(head, now))
        latest, at_depth, finalized = (block.locks.get(lock.lock_id, NEVER) for block in readings)
        return ChainView(
            latest=latest,
            at_depth=at_depth,
            finalized=finalized,
            head_timestamp=head.timestamp,
            finalized_timestamp=readings[2].timestamp,
            now_s=self._process.clock.now_ms() // 1000,
        )


def service_of(process: SimulatedProcess) -> ProviderService:
    """The provider's service, of which only the consent to a refund is asked for."""
    from layer2.config import ProviderConfig
    from layer2.provider import ProviderService

    nothing: Any = None
    reader: Any = _FromTheStore(process)
    return ProviderService(
        engine=reader,
        inventory=nothing,
        room=nothing,
        node=reader,
        signer=SimulatedSigner(process.account),
        place=nothing,
        settings=ProviderConfig(),
        depth=(),
        clock=process.clock,
        version="simulated",
        hashes=nothing,
        hash_owner=reader.hash_owner,
        swaps_on=reader.swaps_on,
        made_for=nothing,
        look=reader.look,
    )


async def journal_for(role: Role, clock: ProcessClock) -> SwapJournal:
    """An empty journal."""
    from layer2.storage import Store, SwapJournal

    key = (os.getpid(), role)
    if key not in _stores:
        _stores[key] = await Store.open("sqlite://", clock=clock, inline=True)
    store = _stores[key]
    store.clock = clock
    await store.run(_empty)
    return SwapJournal(store, role)


async def wrong_in_history(store: Store, swap_id: str) -> str | None:
    """What does not fit in the history of a swap, or None."""
    from layer2.storage import swaps

    try:
        await store.run(swaps.verify_history, swap_id)
    except StorageError as error:
        return str(error)
    return None


def _empty(conn: Connection) -> None:
    # By the driver itself: what SQLAlchemy adds to a statement takes longer than a run can spare.
    database: Any = conn.connection.driver_connection
    for table in ("swap_proof", "swap_effect", "swap_event", "used_hash", "swap", "evm_variant", "evm_tx"):
        database.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
