"""What can be seen of the world: values that the driver makes and the decisions read.

Observations arrive at least once, may repeat and may be old. A decision therefore never counts them: it compares what it sees with
the state it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

__all__ = [
    "CancelRequested",
    "ChainView",
    "EffectRefused",
    "HashTaken",
    "InvoiceStatus",
    "InvoiceView",
    "LockReading",
    "LockStatus",
    "Observation",
    "OwnTransaction",
    "PaymentStatus",
    "PaymentView",
    "RefundOffer",
    "can_never_lock",
    "seen_preimage",
]


class LockStatus(StrEnum):
    """What the contract says of a lock id."""

    NEVER = "never"
    LOCKED = "locked"
    REFUNDED = "refunded"
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReading:
    """A lock's status at one block; with the preimage exactly if it was claimed."""

    status: LockStatus
    preimage: bytes | None = field(default=None, repr=False)


class OwnTransaction(StrEnum):
    """What is known of the transaction with which we made the lock."""

    NONE = "none"
    """None was ever signed."""
    OPEN = "open"
    """Signed; it may still take effect."""
    DEAD = "dead"
    """It can never take effect: another transaction has its nonce at a finalized block, or it reverted there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainView:
    """The lock at three depths, read together, and the time."""

    latest: LockReading
    at_depth: LockReading
    """At the depth of the terms' policy."""
    finalized: LockReading
    head_timestamp: int
    finalized_timestamp: int
    now_s: int
    """Local clock."""
    own_lock: OwnTransaction = OwnTransaction.NONE


class PaymentStatus(StrEnum):
    """What our node's record says of a payment."""

    NONE = "none"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentView:
    """A payment as our node has it."""

    status: PaymentStatus
    preimage: bytes | None = field(repr=False)
    requests_open: bool
    """Whether a request of ours may still be on its way to the node."""
    now_s: int


class InvoiceStatus(StrEnum):
    """What our node's record says of an invoice."""

    OPEN = "open"
    ACCEPTED = "accepted"
    SETTLED = "settled"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceView:
    """A hold invoice of ours."""

    status: InvoiceStatus
    received_msat: int
    blocks_left: int | None
    """Until the first held part can be taken back; None if nothing is held."""
    now_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOffer:
    """The claimer's signature for an early refund, verified by the driver against the terms."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """The user wants to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRefused:
    """An effect was certainly not begun and will not be: nothing was signed, sent or paid."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HashTaken:
    """Another swap of this store has the payment hash."""


Observation: TypeAlias = (
    ChainView | PaymentView | InvoiceView | RefundOffer | CancelRequested | EffectRefused | HashTaken
)
"""Anything that can be seen of the world."""


def seen_preimage(view: ChainView) -> bytes | None:
    """The preimage, if the lock was claimed at any of the three depths."""
    for reading in (view.finalized, view.at_depth, view.latest):
        if reading.status is LockStatus.CLAIMED:
            return reading.preimage
    return None


def can_never_lock(view: ChainView, timelock: int) -> bool:
    """Whether the lock does not exist and never can: certain at a finalized block, not before."""
    absent = view.finalized.status is LockStatus.NEVER and view.latest.status is LockStatus.NEVER
    return absent and (view.finalized_timestamp >= timelock or view.own_lock is OwnTransaction.DEAD)
