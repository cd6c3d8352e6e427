"""What goes into the store and comes out of it, and what can go wrong in between.

None of these shows deal, state, effect or observation in its repr: they hold preimages and invoices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from layer2.errors import StorageError

if TYPE_CHECKING:
    from layer2.swaps._effects import Effect
    from layer2.swaps._observations import Observation
    from layer2.swaps._states import Deal, State

__all__ = [
    "EffectStatus",
    "HashTaken",
    "Inserted",
    "NewSwap",
    "StaleVersion",
    "StoredEffect",
    "StoredEvent",
    "StoredSwap",
]


class StaleVersion(StorageError):
    """The swap is not at the version from which a decision was made: read it again and decide anew."""

    swap_id: str | None = None

    def __init__(self, swap_id: str = "", expected: int = 0) -> None:
        super().__init__(f"swap {swap_id} is not at version {expected} any more", retry_safe=True)
        self.swap_id = swap_id


class HashTaken(StorageError):
    """Another swap of this store has the payment hash, for ever."""

    swap_id: str | None = None
    owner: str | None = None

    def __init__(self, swap_id: str = "", owner: str = "") -> None:
        super().__init__(f"the payment hash of swap {swap_id} belongs to swap {owner}")
        self.swap_id = swap_id
        self.owner = owner


class EffectStatus(StrEnum):
    """Where an effect of the outbox stands."""

    PENDING = "pending"
    DONE = "done"
    SUPERSEDED = "superseded"
    """A later state did not want it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSwap:
    """A swap to be stored."""

    deal: Deal = field(repr=False)
    state: State = field(repr=False)
    effects: tuple[Effect, ...] = field(default=(), repr=False)
    idempotency_key: str | None = None
    request_digest: str | None = None
    """What the key was used for: equal for equal requests."""
    bind_hash: bool = False
    """Claim the payment hash at once; else the transition that needs it does."""
    wake_at_ms: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted:
    """The swap of a request: new, or the one that the same request made before."""

    id: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEffect:
    """A row of the outbox."""

    swap_id: str
    key: str
    version: int
    """Of the swap when it was last wanted; ``mark_effect`` asks for it."""
    effect: Effect = field(repr=False)
    status: EffectStatus
    attempts: int
    begun: bool
    """A request for it was begun, and its end was never seen."""
    last_error: str | None
    created_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSwap:
    """A swap as it stands."""

    deal: Deal = field(repr=False)
    state: State = field(repr=False)
    state_kind: str
    version: int
    active: bool
    restored: bool
    """It came with a restored copy: no payment and no lock may be begun for it."""
    effects: tuple[StoredEffect, ...]
    """Pending ones, in the order in which they are wanted."""
    wake_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int
    idempotency_key: str | None
    request_digest: str | None
    note: str

    @property
    def id(self) -> str:
        """The swap's id."""
        return self.deal.id


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One step of a swap's history."""

    swap_id: str
    version: int
    kind: str
    """Of the observation; ``created`` for the first."""
    observation: Observation | None = field(repr=False)
    """None for the first."""
    state_before: str
    state_after: str
    state: State = field(repr=False)
    at_ms: int
    checksum: str
