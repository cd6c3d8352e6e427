"""What the driver needs of the outside world, narrow enough to be simulated to the last detail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar, runtime_checkable

from layer2.errors import NodeNotReady
from layer2.swaps._effects import Effect
from layer2.swaps._observations import ChainView, Observation
from layer2.swaps._states import Deal, State
from layer2.terms import DepthPolicy, Lock

__all__ = [
    "Ask",
    "Counterparty",
    "ExitAgainError",
    "NoCounterparty",
    "StoredEffect",
    "StoredSwap",
    "SwapChain",
    "SwapStore",
    "WaitsForBlockError",
    "ask_at_once",
    "every_unfinished",
    "offers_of",
]

T = TypeVar("T")
PAGE: Final = 200
"""Swaps read at once."""


class WaitsForBlockError(NodeNotReady):
    """Something of ours must be included first. No fault: it is tried again at the usual pace."""


class ExitAgainError(WaitsForBlockError):
    """A claim or refund failed for good ``failures`` times. The next attempt is on its way (``sent``), or waits for its time."""

    def __init__(self, message: str, *, failures: int, sent: bool) -> None:
        super().__init__(message)
        self.failures = failures
        self.sent = sent


class Ask(Protocol):
    """Makes one network operation when it is its turn. ``what`` names it in errors."""

    async def __call__(self, what: str, question: Callable[[], Awaitable[T]], /) -> T:
        """What ``question()`` gives."""
        ...


async def ask_at_once(what: str, question: Callable[[], Awaitable[T]], /) -> T:
    """``Ask`` without turns."""
    del what  # a name for errors, of which it raises none
    return await question()


class SwapChain(Protocol):
    """The EVM chain as a swap sees it. Every ``send`` is idempotent by its key: asked again, it sends the same bytes again.

    A send raises ``Expired``, ``InsufficientFunds``, ``FeeLimitExceeded`` or ``SignerError`` only if nothing was signed and
    nothing will be; a ``NodeError`` says nothing about the outcome, but for ``WaitsForBlockError``, which only asks for patience.
    A claim or refund of which an attempt failed for good raises ``ExitAgainError``, whether the next is on its way or waits.
    """

    async def view(self, lock: Lock, policy: DepthPolicy, *, lock_key: str | None) -> ChainView:
        """The lock at three depths now, and what became of our own lock transaction sent under ``lock_key``."""
        ...

    async def send_lock(self, key: str, lock: Lock, *, not_after: int, max_gas_wei: int) -> None:
        """Lock, unless nothing was signed under ``key`` yet and the clock is past ``not_after``.

        It offers no more for its gas than ``max_gas_wei``; 0: no bound but the sender's.
        """
        ...

    async def send_claim(self, key: str, lock: Lock, preimage: bytes, *, not_after: int | None) -> None:
        """Claim, unless nothing was signed under ``key`` yet and either clock, ours or the chain's, is past ``not_after``."""
        ...

    async def send_refund(self, key: str, lock: Lock, *, deadline: int | None) -> None:
        """Refund after the timelock, at prices that grow towards ``deadline`` (Unix seconds), if there is one."""
        ...

    async def send_refund_early(self, key: str, lock: Lock, signature: bytes) -> None:
        """Refund with the claimer's signature."""
        ...

    async def was_shown(self, key: str) -> bool:
        """Whether anybody but us can know what was sent under ``key``: False only if nothing was or ever will be."""
        ...

    async def safe_lag_s(self) -> int:
        """By how many seconds the safe head is behind the head."""
        ...

    async def next_block(self) -> frozenset[bytes] | None:
        """Wait for a new head. Gives the ids of the locks that changed with it; None if that is not known.

        Only a wake-up: it may return without a new head, name locks that did not change, and miss some.
        """
        ...


@runtime_checkable
class _HasOffers(Protocol):
    @property
    def offers(self) -> SwapChain: ...


def offers_of(chain: SwapChain) -> SwapChain:
    """What looks at offers that bind nobody yet: a way of its own where ``chain`` has one, so that exits never wait for it."""
    return chain.offers if isinstance(chain, _HasOffers) else chain


class Counterparty(Protocol):
    """Whom we swap with. Nothing that it says is believed."""

    async def refund_signature(self, deal: Deal) -> bytes | None:
        """The claimer's signature for an early refund, verified against the lock; None if it gives none now."""
        ...


class NoCounterparty:
    """A provider never asks its clients for anything."""

    async def refund_signature(self, deal: Deal) -> bytes | None:
        """None."""
        del deal
        return None


class StoredEffect(Protocol):
    """One row of the outbox."""

    @property
    def effect(self) -> Effect:
        """What is wanted."""
        ...

    @property
    def begun(self) -> bool:
        """Whether a request for it was begun and its end never seen."""
        ...


class StoredSwap(Protocol):
    """A swap as the store has it."""

    @property
    def deal(self) -> Deal:
        """What never changes."""
        ...

    @property
    def state(self) -> State:
        """Where it stands."""
        ...

    @property
    def version(self) -> int:
        """Number of the last row of its history."""
        ...

    @property
    def effects(self) -> tuple[StoredEffect, ...]:
        """What is wanted now."""
        ...

    @property
    def restored(self) -> bool:
        """Whether it came with a restored copy of a store: then no payment and no lock may be begun for it."""
        ...

    @property
    def created_at_ms(self) -> int:
        """When it was stored, Unix milliseconds."""
        ...

    @property
    def updated_at_ms(self) -> int:
        """When its state changed last, Unix milliseconds."""
        ...


Swap_co = TypeVar("Swap_co", bound=StoredSwap, covariant=True)


class SwapStore(Protocol):
    """The journal. Every method is one database transaction; where it raises, nothing was written."""

    async def load(self, swap_id: str) -> StoredSwap:
        """One swap. Raises ``NotFound``."""
        ...

    async def unfinished(self, *, exits: bool, after: str | None, limit: int) -> Sequence[StoredSwap]:
        """Swaps that are not final, a page at a time, in the order of their ids: those on their way out, or all others."""
        ...

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
        """Write the new state, its history row and its effects. Raises ``HashTaken`` or ``StaleVersion``."""
        ...

    async def mark_begun(self, swap_id: str, name: str, *, begun: bool) -> None:
        """Remember that a request for an effect is begun, or that its end was seen."""
        ...


class _Pages(Protocol[Swap_co]):
    async def unfinished(self, *, exits: bool, after: str | None, limit: int) -> Sequence[Swap_co]: ...


async def every_unfinished(store: _Pages[Swap_co]) -> AsyncIterator[Swap_co]:
    """Every swap of a store that is not final; those on their way out come first."""
    for exits in (True, False):
        after: str | None = None
        while page := await store.unfinished(exits=exits, after=after, limit=PAGE):
            for swap in page:
                yield swap
            after = page[-1].deal.id
