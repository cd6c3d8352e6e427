"""Idempotency keys: what a key was first used for, and what was decided then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from layer2.errors import IdempotencyConflict

__all__ = ["Decision", "MemoryJournal", "OperationJournal"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided under an idempotency key."""

    text: str
    """What will be sent."""
    restored: bool = False
    """It came with a restored copy of a store: others may have written it, and the life that it does not know of may have sent it.
    So nothing is sent for it any more; what there is of it is looked up."""


class OperationJournal(Protocol):
    """Keeps, for each idempotency key, the digest of the arguments and the decision that was taken under it.

    The decision names what will be sent (the invoice to pay), and is stored before it is sent. Paying it is idempotent by
    itself, so whoever finds a decision goes on from there. Before there is a decision nothing was sent, and a key is bound to
    nothing: a call that was refused leaves it to the next one.
    """

    async def begin(self, key: str, digest: bytes) -> Decision | None:
        """Note the arguments. Returns the decision taken under the key, None if there is none yet.

        Raises:
            IdempotencyConflict: the decision was taken with other arguments.
        """
        ...

    async def finish(self, key: str, digest: bytes, outcome: str) -> str:
        """Store the decision, unless there is one. Returns the one that stands.

        Raises:
            IdempotencyConflict: other arguments were noted meanwhile.
        """
        ...


class MemoryJournal:
    """A journal that lasts as long as the process."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._outcomes: dict[str, str] = {}

    async def begin(self, key: str, digest: bytes) -> Decision | None:
        """See ``OperationJournal``."""
        if key not in self._outcomes:
            self._digests[key] = digest
        self._check(key, digest)
        outcome = self._outcomes.get(key)
        return None if outcome is None else Decision(outcome)

    async def finish(self, key: str, digest: bytes, outcome: str) -> str:
        """See ``OperationJournal``."""
        self._check(key, digest)
        return self._outcomes.setdefault(key, outcome)

    def _check(self, key: str, digest: bytes) -> None:
        if self._digests[key] != digest:
            raise IdempotencyConflict.of(key)
