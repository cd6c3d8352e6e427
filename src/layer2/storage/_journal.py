"""The journal of the swap engine, on a ``Store``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from layer2._inputs import check_text
from layer2.storage import _api as swaps
from layer2.storage._rows import HashTaken, NewSwap, StoredEvent, StoredSwap
from layer2.storage._tables import swap_proof
from layer2.swaps import HashTakenError

if TYPE_CHECKING:
    from layer2.storage._runner import Store
    from layer2.swaps import Deal, Effect, Observation, Role, State

__all__ = ["SwapJournal"]


class SwapJournal:
    """Implements ``layer2.swaps.EngineStore`` for the swaps of one role."""

    def __init__(self, store: Store, role: Role) -> None:
        self._store = store
        self._role = role

    @property
    def store(self) -> Store:
        """Where it is kept."""
        return self._store

    def _now_ms(self) -> int:
        return self._store.clock.now_ms()

    async def load(self, swap_id: str) -> StoredSwap:
        """One swap. Raises ``NotFound``; ``ValidationError``: an id is text."""
        check_text(swap_id, "transfer_id")
        return await self._store.run(swaps.load_swap, swap_id)

    async def unfinished(self, *, exits: bool, after: str | None, limit: int) -> list[StoredSwap]:
        """See ``SwapStore``."""
        return await self._store.run(swaps.page_active, role=self._role, exits=exits, after_id=after, limit=limit)

    async def by_key(self, idempotency_key: str) -> StoredSwap | None:
        """The swap that was begun under a key."""
        return await self._store.run(swaps.by_idempotency_key, idempotency_key)

    async def hash_known(self, payment_hash: bytes) -> bool:
        """Whether any swap of this store ever had the hash."""
        return await self._store.run(swaps.hash_known, payment_hash)

    async def next_preimage_time(self) -> int:
        """A ``t`` for a fresh preimage, never given out before."""
        return await self._store.run(swaps.next_preimage_time, self._now_ms())

    async def page(self, *, kinds: frozenset[str] | None, limit: int, after: str | None) -> list[StoredSwap]:
        """Swaps of this role, newest first."""
        return await self._store.run(swaps.list_swaps, role=self._role, kinds=kinds, limit=limit, after=after)

    async def insert(
        self, deal: Deal, state: State, *, idempotency_key: str | None, request_digest: str | None, bind_hash: bool
    ) -> StoredSwap:
        """See ``EngineStore``."""
        new = NewSwap(
            deal=deal, state=state, idempotency_key=idempotency_key, request_digest=request_digest, bind_hash=bind_hash
        )

        def work(conn: Connection) -> StoredSwap:
            inserted = swaps.insert_swap(conn, new, at_ms=self._now_ms())
            return swaps.load_swap(conn, inserted.id)

        try:
            return await self._store.run(work)
        except HashTaken as error:
            raise HashTakenError(str(error)) from error

    async def transition(
        self,
        swap_id: str,
        *,
        expected_version: int,
        state: State,
        seen: Observation,
        effects: tuple[Effect, ...],
        bind_hash: bytes | None,
    ) -> StoredSwap:
        """See ``SwapStore``."""

        def work(conn: Connection) -> StoredSwap:
            swaps.apply_transition(
                conn,
                swap_id=swap_id,
                expected_version=expected_version,
                state=state,
                observation=seen,
                effects=effects,
                bind_hash=bind_hash,
                at_ms=self._now_ms(),
            )
            return swaps.load_swap(conn, swap_id)

        try:
            return await self._store.run(work)
        except HashTaken as error:
            raise HashTakenError(str(error)) from error

    async def events(self, swap_id: str) -> list[StoredEvent]:
        """Its history, oldest first."""
        return await self._store.run(swaps.history, swap_id)

    async def mark_begun(self, swap_id: str, name: str, *, begun: bool) -> None:
        """See ``SwapStore``."""
        await self._store.run(swaps.mark_begun, swap_id=swap_id, key=name, begun=begun)

    async def put_proof(self, swap_id: str, block_hash: bytes, proof: str) -> None:
        """Keep the newest proof of a swap."""

        def work(conn: Connection) -> None:
            conn.execute(delete(swap_proof).where(swap_proof.c.swap_id == swap_id))
            conn.execute(
                insert(swap_proof).values(
                    swap_id=swap_id, block_hash=block_hash.hex(), proof=proof, made_at_ms=self._now_ms()
                )
            )

        await self._store.run(work)

    async def proof(self, swap_id: str) -> str | None:
        """The newest proof of a swap, as JSON."""

        def work(conn: Connection) -> str | None:
            found: str | None = conn.execute(
                select(swap_proof.c.proof).where(swap_proof.c.swap_id == swap_id)
            ).scalar_one_or_none()
            return found

        return await self._store.run(work)
