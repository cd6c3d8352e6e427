"""Transfers as a store holds them, with nobody here to drive them: read beside the process that does, or for want of a layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from layer2._inputs import check_text, check_whole
from layer2._transfer_view import ends_a_wait, failure_of, step, transfer_of
from layer2.errors import AsyncRuntimeError, ConfigurationError, Layer2Error, NotFound, ValidationError, another
from layer2.storage import Store, SwapJournal
from layer2.swaps import NeedsAttention, Role, every_unfinished, log_unfinished, run_again_by
from layer2.transfers import Transfer, TransferEvent, TransferState

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2._proving import Prover
    from layer2.assets import AssetRegistry
    from layer2.proofs import TransferProof
    from layer2.protocol import Timeout
    from layer2.storage import StoredSwap

__all__ = ["StoredTransfers", "UndrivenTransfers", "page_of"]

_PAGE = 200


async def page_of(
    journal: SwapJournal,
    view: Callable[[StoredSwap], Transfer],
    *,
    state: TransferState | str | None,
    limit: int,
    after: str | None,
) -> list[Transfer]:
    """Transfers, newest first; ``after`` is the last id of the page before.

    Raises:
        ValidationError: ``state`` is none, or ``limit`` no number in 1..1000. NotFound: no transfer has the id ``after``.
    """
    check_whole(limit, "limit", least=1, below=1001)
    if after is not None:
        check_text(after, "after")
    try:
        wanted = None if state is None else TransferState(state)
    except ValueError as error:
        known = ", ".join(TransferState)
        raise ValidationError(f"state is {state!r:.40}, which is none of {known}", field="state") from error
    found: list[Transfer] = []
    size = min(limit, _PAGE)
    while len(found) < limit:
        swaps = await journal.page(kinds=None, limit=size, after=after)
        views = [view(swap) for swap in swaps]
        found += [each for each in views if wanted is None or each.state is wanted]
        if len(swaps) < size:
            break
        after = swaps[-1].id
    return found[:limit]


class _Records:
    """Transfers of a store. Implements ``TransferHost`` as far as that goes where nothing is driven."""

    def __init__(self, registry: AssetRegistry, journal: SwapJournal | None, hint: str) -> None:
        self._registry = registry
        self._journal = journal
        self._hint = hint

    def _view(self, swap: StoredSwap) -> Transfer:
        return transfer_of(swap, self, self._registry)

    async def get(self, transfer_id: str) -> Transfer:
        """One transfer. Raises ``NotFound``."""
        return self._view(await self._load(transfer_id))

    async def by_key(self, idempotency_key: str) -> Transfer | None:
        """The transfer that was begun under a key; None if there is none."""
        swap = None if self._journal is None else await self._journal.by_key(idempotency_key)
        return None if swap is None else self._view(swap)

    async def page(
        self, *, state: TransferState | str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Transfer]:
        """Transfers, newest first; ``after`` is the last id of the page before."""
        if self._journal is None:
            return []
        return await page_of(self._journal, self._view, state=state, limit=limit, after=after)

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
        self, transfer_id: str, _timeout: Timeout, _cancel: asyncio.Event | None, /
    ) -> TransferProof:
        """How a transfer ended; one that has not is not waited for, since nothing here drives it."""
        swap = await self._load(transfer_id)
        if not ends_a_wait(swap.state):
            raise AsyncRuntimeError(f"nothing here drives transfer {transfer_id}", hint=self._hint)
        if (failure := failure_of(swap)) is not None:
            raise failure
        return await self.proof(transfer_id)

    async def transfer_cancel(self, transfer_id: str, _timeout: Timeout, /) -> bool:
        """Not here: nothing is driven."""
        raise AsyncRuntimeError(f"nothing here drives transfer {transfer_id[:40]}", hint=self._hint)

    async def _load(self, transfer_id: str) -> StoredSwap:
        if self._journal is None:
            raise NotFound(f"no transfer {transfer_id[:40]} in this store")
        return await self._journal.load(transfer_id)


class StoredTransfers(_Records):
    """See ``layer2.transfers.read_transfers``."""

    def __init__(self, url: str, clock: Clock, registry: AssetRegistry) -> None:
        super().__init__(registry, None, "ask the process that drives it: this store is open for reading only")
        self._url = url
        self._clock = clock
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if await asyncio.to_thread(_is_there, self._url):
            store = await Store.open(self._url, clock=self._clock, read_only=True)
            self._stack.push_async_callback(store.close)
            self._journal = SwapJournal(store, Role.CLIENT)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def unfinished(self) -> list[Transfer]:
        """Transfers that a process has yet to drive, those included that are settled and watched to finality; exits first."""
        if self._journal is None:
            return []
        return [self._view(swap) async for swap in every_unfinished(self._journal)]


class UndrivenTransfers(_Records):
    """The transfers of a manager that cannot drive them: it has no signer, or a layer did not start.

    ``prover`` is there if BOB is; else ``failure`` says why it is not, or BOB is not configured. What is unfinished stays as
    ``load`` found it, since no other process writes to the store.
    """

    def __init__(
        self, registry: AssetRegistry, store: Store, prover: Prover | None, failure: Layer2Error | None
    ) -> None:
        journal = SwapJournal(store, Role.CLIENT)
        super().__init__(registry, journal, "configure [bob], [signer] and what failed to start, and initialise again")
        self._unfinished = journal
        self._open: tuple[StoredSwap, ...] = ()
        self._prover = prover
        self._failure = failure

    async def load(self) -> None:
        """Look what is unfinished."""
        self._open = tuple([swap async for swap in every_unfinished(self._unfinished)])

    async def proof(self, transfer_id: str) -> TransferProof:
        """The proof of a settled transfer, made now if there is none yet and BOB is there."""
        return await (super().proof(transfer_id) if self._prover is None else self._prover.proof_of(transfer_id))

    def prover(self, what: str) -> Prover:
        """What verifies proofs; raises what is missing for it."""
        if self._prover is not None:
            return self._prover
        if self._failure is not None:
            raise another(self._failure)
        raise ConfigurationError(f"{what} needs BOB", key="bob", hint="add a [bob] section")

    @property
    def active(self) -> int:
        """Number of unfinished transfers."""
        return len(self._open)

    @property
    def attention(self) -> set[str]:
        """Ids of those that a person must look at."""
        return {swap.deal.id for swap in self._open if isinstance(swap.state, NeedsAttention)}

    @property
    def run_again_by(self) -> int | None:
        """Unix seconds by which a process must drive them; None if nothing of ours is bound."""
        return run_again_by(self._open)

    def close(self) -> None:
        """Log by when they must be driven."""
        log_unfinished(self._open)


def _is_there(url: str) -> bool:
    """Whether there is anything to read: before the first transfer there is no file."""
    scheme, _, path = url.partition("://")
    if scheme != "sqlite":
        return True
    return path not in ("", "/", "/:memory:") and Path(path.removeprefix("/").partition("?")[0]).is_file()
