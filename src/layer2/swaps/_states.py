"""The states of a swap: one frozen dataclass each, holding just what that state has.

A swap is one of four machines, by role and direction. ``Deal`` is what never changes during its life. Every state says with
``watches`` what has to be looked at while it lasts; that is also all that recovery does: look, then decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeAlias

from layer2.terms import SignedTerms, SwapDirection, SwapTerms

__all__ = [
    "Abandoned",
    "Agreed",
    "AwaitingLock",
    "Cancelling",
    "Claiming",
    "Closed",
    "Deal",
    "Failed",
    "Invoiced",
    "Locked",
    "Locking",
    "NeedsAttention",
    "Offered",
    "Paid",
    "Paying",
    "Refunded",
    "Refunding",
    "Revealed",
    "Role",
    "Settled",
    "Settling",
    "State",
    "Watch",
]


class Role(StrEnum):
    """Who we are in a swap."""

    CLIENT = "client"
    PROVIDER = "provider"


class Watch(StrEnum):
    """What a state has to look at."""

    CHAIN = "chain"
    PAYMENT = "payment"
    INVOICE = "invoice"
    REFUND_OFFER = "refund_offer"
    """The counterparty's signature for an early refund."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What never changes during a swap's life."""

    id: str
    """Our own id of it: the transfer id, 32 hexadecimal digits."""
    role: Role
    signed: SignedTerms
    invoice_expires_at: int
    """Unix seconds; read from the terms' invoice when the swap is made."""
    invoice_final_cltv: int
    """Blocks that the invoice asks for at its end."""
    pays_itself: bool = True
    """Reverse client: whether our own node pays the invoice; False if anyone may."""
    own_invoice: bool = False
    """Submarine client: whether the invoice is of our own node, which then gives it up when the swap fails."""
    preimage_time_ms: int | None = None
    """Reverse client: ``t`` from which the preimage is derived. The preimage itself is never stored before it is revealed."""
    routing_fee_limit_msat: int = 0
    """The most that our own node pays for routing."""
    max_gas_wei: int = 0
    """The most that the swap's transactions may cost us together."""

    @property
    def terms(self) -> SwapTerms:
        """What both sides agreed on."""
        return self.signed.terms

    @property
    def direction(self) -> SwapDirection:
        """Which way the value goes."""
        return self.signed.terms.direction


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    watches: ClassVar[frozenset[Watch]] = frozenset()
    final: ClassVar[bool] = False
    """Nothing can follow any more; the swap is not loaded again."""
    settled: ClassVar[bool] = False
    committed: ClassVar[bool] = True
    """Whether money may be moving: from here on the swap goes on, whoever stops waiting."""
    cancellable: ClassVar[bool] = False
    """Whether the user can still have it abandoned: nothing of ours is bound."""
    exit: ClassVar[bool] = False
    """Whether it is on its way out with a deadline."""

    @property
    def urgent(self) -> bool:
        """Whether money may be moving: it never queues behind offers and plans, which bind nothing that cannot be given up."""
        return self.committed or self.exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed(_State):
    """Client: terms are signed, nothing has been sent."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    cancellable: ClassVar[bool] = True
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered(_State):
    """Submarine provider: terms are signed; waits for the client's lock."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced(_State):
    """Reverse provider: terms are signed, the hold invoice is open; waits for its payment to be held."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.INVOICE})
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Locking(_State):
    """Our lock is decided: signed, sent, or about to be. It may take effect until its timelock has passed."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked(_State):
    """Our lock stands; the counterparty is to act."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN, Watch.REFUND_OFFER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid(_State):
    """Submarine client: the claim showed the preimage, so the invoice is paid and we never refund; not yet deep enough."""

    preimage: bytes = field(repr=False)
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Paying(_State):
    """A Lightning payment is decided: under way, or about to be. Submarine provider and reverse client."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN, Watch.PAYMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitingLock(_State):
    """Reverse client: the invoice can be paid by anyone; waits for the provider's lock.

    Until we reveal, whoever paid has the payment back; what may hang on the sequencer counts from here on.
    """

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    cancellable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed(_State):
    """Reverse client: the preimage may be out. The claim is pursued until claimed or refunded is final."""

    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    exit: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming(_State):
    """The invoice is paid, the preimage known, the lock is being claimed: by a submarine provider, or for it by its client."""

    preimage: bytes = field(repr=False)
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    exit: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling(_State):
    """Reverse provider: the claim showed the preimage, the held payment is being taken."""

    preimage: bytes = field(repr=False)
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN, Watch.INVOICE})
    exit: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunding(_State):
    """The lock is being taken back: after its timelock, or early with the claimer's signature."""

    signature: bytes | None = field(default=None, repr=False)
    """The claimer's EIP-712 signature of an early refund."""
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    exit: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling(_State):
    """Our lock can never be claimed, so the invoice is given up: a payment held for it goes back, nobody can pay it any more."""

    outcome: str
    """Of the swap, once that is done: ``refunded`` or ``expired``."""
    reason: str
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.INVOICE})
    exit: ClassVar[bool] = True
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_State):
    """Submarine provider: the invoice will never be paid by us, so the client may have its refund signed at any time.

    Final for us: nothing of ours was bound, and the signature is made on request.
    """

    reason: str
    final: ClassVar[bool] = True
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(_State):
    """Our side is settled at the depth of the terms; watched on until that is final."""

    preimage: bytes = field(repr=False)
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})
    settled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded(_State):
    """Our lock was taken back at the depth of the terms; watched on until that is final."""

    reason: str
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned(_State):
    """Nothing of ours was ever bound."""

    reason: str
    final: ClassVar[bool] = True
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(_State):
    """Over, for ever: ``outcome`` is settled, refunded, returned (a payment came back) or expired."""

    outcome: str
    reason: str = ""
    preimage: bytes | None = field(default=None, repr=False)
    final: ClassVar[bool] = True
    committed: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsAttention(_State):
    """Something that cannot happen while the assumptions hold. A person must look; it is still watched."""

    reason: str
    preimage: bytes | None = field(default=None, repr=False)
    watches: ClassVar[frozenset[Watch]] = frozenset({Watch.CHAIN})


State: TypeAlias = (
    Agreed
    | Offered
    | Invoiced
    | Locking
    | Locked
    | Paid
    | Paying
    | AwaitingLock
    | Revealed
    | Claiming
    | Settling
    | Refunding
    | Cancelling
    | Failed
    | Settled
    | Refunded
    | Abandoned
    | Closed
    | NeedsAttention
)
"""Any state of a swap, in either role and direction."""
