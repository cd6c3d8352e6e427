"""Transfers as a store holds them, read beside the process that drives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from layer2._transfer_view import step, transfer_of
from layer2.errors import AsyncRuntimeError, NotFound
from layer2.storage import Store, SwapJournal
from layer2.swaps import Role, every_unfinished
from layer2.transfers import Transfer, TransferEvent, TransferState

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.assets import AssetRegistry
    from layer2.proofs import TransferProof
    from layer2.protocol import Timeout
    from layer2.swaps import StoredSwap

__all__ = ["StoredTransfers"]

_PAGE = 200


class StoredTransfers:
    """See ``layer2.transfers.read_transfers``."""

    def __init__(self, url: str, clock: Clock, registry: AssetRegistry) -> None:
        self._url = url
        self._registry = registry
        self._clock = clock
        self._stack = AsyncExitStack()
        self._journal: SwapJournal | None = None

    async def __aenter__(self) -> Self:
        if await asyncio.to_thread(_is_there, self._url):
            store = await Store.open(self._url, clock=self._clock, read_only=True)
            self._stack.push_async_callback(store.close)
            self._journal = SwapJournal(store, Role.CLIENT)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def get(self, transfer_id: str) -> Transfer:
        """One transfer. Raises ``NotFound``."""
        return transfer_of(await self._load(transfer_id), self, self._registry)

    async def page(
        self, *, state: TransferState | None = None, limit: int = 100, after: str | None = None
    ) -> list[Transfer]:
        """Transfers, newest first; ``after`` is the last id of the page before."""
        found: list[Transfer] = []
        while self._journal is not None and len(found) < limit:
            swaps = await self._journal.page(kinds=None, limit=_PAGE, after=after)
            views = [transfer_of(swap, self, self._registry) for swap in swaps]
            found += [view for view in views if state is None or view.state is state]
            if len(swaps) < _PAGE:
                break
            after = swaps[-1].id
        return found[:limit]

    async def unfinished(self) -> list[Transfer]:
        """Transfers that a process has yet to drive, those included that are settled and watched to finality; exits first."""
        if self._journal is None:
            return []
        return [transfer_of(swap, self, self._registry) async for swap in every_unfinished(self._journal)]

    async def proof(self, transfer_id: str) -> TransferProof:
        """The proof that was made of a transfer. Raises ``NotFound``: there is none yet."""
        from layer2.proofs import TransferProof

        await self._load(transfer_id)
        assert self._journal is not None
        text = await self._journal.proof(transfer_id)
        if text is None:
            raise NotFound(f"no proof of transfer {transfer_id} was made yet")
        return TransferProof.from_json(text)

    async def transfer_events(self, transfer_id: str) -> AsyncIterator[TransferEvent]:
        """What happened so far."""
        await self._load(transfer_id)
        assert self._journal is not None
        for event in await self._journal.events(transfer_id):
            yield step(transfer_id, event.version, event.state, event.at_ms)

    async def transfer_result(
        self,
        transfer_id: str,  # noqa: ARG002 - the interface of what a handle asks
        timeout: Timeout,  # noqa: ARG002 - the same
        cancel: asyncio.Event | None,  # noqa: ARG002 - the same
    ) -> TransferProof:
        """Not here: nothing is driven."""
        raise AsyncRuntimeError("this store is open for reading only", hint="ask the process that drives it")

    async def transfer_cancel(self, transfer_id: str) -> bool:  # noqa: ARG002 - the interface of what a handle asks
        """Not here: nothing is driven."""
        raise AsyncRuntimeError("this store is open for reading only", hint="ask the process that drives it")

    async def _load(self, transfer_id: str) -> StoredSwap:
        if self._journal is None:
            raise NotFound(f"no transfer {transfer_id[:40]} in this store")
        return await self._journal.load(transfer_id)


def _is_there(url: str) -> bool:
    """Whether there is anything to read: before the first transfer there is no file."""
    scheme, _, path = url.partition("://")
    if scheme != "sqlite":
        return True
    return path not in ("", "/", "/:memory:") and Path(path.removeprefix("/").partition("?")[0]).is_file()
