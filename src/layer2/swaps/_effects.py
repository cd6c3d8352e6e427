"""What a swap can do to the world, as data.

An effect is stored with the state that wants it, in one transaction, before it is begun. It is done at least once; its key makes
every repetition the same act. Whether it worked is never read from its answer but from the next look at the world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from layer2.swaps._states import State

__all__ = [
    "CancelInvoice",
    "Claim",
    "Decision",
    "Effect",
    "PayInvoice",
    "Refund",
    "RefundEarly",
    "SendLock",
    "SettleInvoice",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLock:
    """Sign and send the lock, not after ``not_after`` (Unix seconds)."""

    not_after: int
    name = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Claim the lock. ``preimage`` None: derive it (reverse client)."""

    preimage: bytes | None = field(repr=False)
    not_after: int | None
    """Do not send for the first time after this, by our clock or the chain's (Unix seconds); None: whenever."""
    name = "claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Take the lock back after its timelock."""

    name = "refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundEarly:
    """Take the lock back with the claimer's signature."""

    signature: bytes
    name = "refund_early"


@dataclass(frozen=True, slots=True, kw_only=True)
class PayInvoice:
    """Pay the invoice of the terms. A submarine provider looks at the lock once more before it does."""

    name = "pay"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleInvoice:
    """Take the held payment."""

    preimage: bytes = field(repr=False)
    name = "settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelInvoice:
    """Give the held payment back, or close our own unpaid invoice."""

    name = "cancel"


Effect: TypeAlias = SendLock | Claim | Refund | RefundEarly | PayInvoice | SettleInvoice | CancelInvoice
"""Anything that a swap can do to the world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The next state, and every effect that is wanted in it. Effects of before that are not among them are given up."""

    state: State
    effects: tuple[Effect, ...] = ()
    bind_hash: bool = False
    """Claim the payment hash for this swap in the same transaction; if another has it, this one fails instead."""
    alarm: str | None = None
    """A code to log at error level: somebody should look."""
