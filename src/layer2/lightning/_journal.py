"""Idempotency keys: what a key was first used for, and what was decided then."""

from __future__ import annotations

from typing import Protocol

from layer2.errors import IdempotencyConflict

__all__ = ["MemoryJournal", "OperationJournal"]


class OperationJournal(Protocol):
    """Keeps, for each idempotency key, the digest of the arguments and the decision that was taken under it.

    The decision names what will be sent (the invoice to pay), and is stored before it is sent. Paying it is idempotent by
    itself, so whoever finds a decision goes on from there.
    """

    async def begin(self, key: str, digest: bytes) -> str | None:
        """Bind the key to the arguments. Returns the decision taken under it, None if there is none yet.

        Raises:
            IdempotencyConflict: the key is bound to other arguments.
        """
        ...

    async def finish(self, key: str, outcome: str) -> str:
        """Store the decision, unless there is one. Returns the one that stands."""
        ...


class MemoryJournal:
    """A journal that lasts as long as the process."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._outcomes: dict[str, str] = {}

    async def begin(self, key: str, digest: bytes) -> str | None:
        """Bind the key to the arguments."""
        if self._digests.setdefault(key, digest) != digest:
            raise IdempotencyConflict(
                "the idempotency key was used with other arguments", key=key, hint="take a new key"
            )
        return self._outcomes.get(key)

    async def finish(self, key: str, outcome: str) -> str:
        """Store the decision, unless there is one."""
        return self._outcomes.setdefault(key, outcome)
