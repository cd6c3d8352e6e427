"""What client and provider say to each other over HTTP: the shapes of ``/v1``.

Resources and fields carry the names of Boltz's v2 where it has one for the same thing. Amounts are decimal strings in the asset's
base unit, bytes are hexadecimal, times are Unix seconds. Unknown fields are ignored, so that a newer side can talk to an older.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from layer2._values import Bytes, Uint
from layer2.addresses import EvmAddress
from layer2.terms import ChainTiming, DepthPolicy, SignedTerms

__all__ = [
    "Fees",
    "Info",
    "Limits",
    "Pair",
    "Problem",
    "RefundResponse",
    "ReverseRequest",
    "StatusName",
    "SubmarineRequest",
    "SwapResponse",
    "SwapStatus",
]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, serialize_by_alias=True)


class StatusName(StrEnum):
    """Where a swap stands, by Boltz's names. Information only: nothing is ever decided by it."""

    SWAP_CREATED = "swap.created"
    TRANSACTION_CONFIRMED = "transaction.confirmed"
    INVOICE_PENDING = "invoice.pending"
    INVOICE_PAID = "invoice.paid"
    INVOICE_FAILED = "invoice.failedToPay"
    INVOICE_SETTLED = "invoice.settled"
    INVOICE_EXPIRED = "invoice.expired"
    TRANSACTION_CLAIMED = "transaction.claimed"
    TRANSACTION_REFUNDED = "transaction.refunded"
    TRANSACTION_MEMPOOL = "transaction.mempool"
    SWAP_EXPIRED = "swap.expired"
    NEEDS_ATTENTION = "swap.needsAttention"


class Limits(_Model):
    """Smallest and largest amount that arrives."""

    minimal: Uint
    maximal: Uint


class Fees(_Model):
    """``ceil(amount * ppm / 1000000) + base``, in the asset's base unit."""

    ppm: int
    base: Uint


class Pair(_Model):
    """What a direction costs and how it is timed."""

    hash: str
    """Sent back with a request: if the pair changed in between, the request is refused."""
    limits: Limits
    fees: Fees
    depth_policies: tuple[tuple[Uint, DepthPolicy], ...]
    """(largest amount, depth at which the waiting party acts), in rising order."""
    timing: ChainTiming


class Info(_Model):
    """Who the provider is and where it works."""

    version: str
    chain_id: int
    htlc_contract: EvmAddress
    tokens: dict[str, EvmAddress]
    decimals: dict[str, int]
    provider_address: EvmAddress
    lightning_network: str
    lightning_node: Bytes
    submarine: Pair
    reverse: Pair
    accepting: bool
    """False while the provider takes no new swaps."""


class SubmarineRequest(_Model):
    """Ask for an invoice to be paid against a lock."""

    invoice: str
    refund_address: EvmAddress
    pair_hash: str
    request_id: Bytes | None = None
    """16 to 64 random bytes that only the client knows: the same request with the same id gets the same swap while it is open."""


class ReverseRequest(_Model):
    """Ask for a lock against the payment of a hold invoice."""

    preimage_hash: Bytes
    claim_address: EvmAddress
    onchain_amount: Uint
    """What is to arrive on the chain."""
    depth_policy: DepthPolicy
    """Depth at which the client will claim."""
    pair_hash: str
    request_id: Bytes | None = None
    """16 to 64 random bytes that only the client knows: the same request with the same id gets the same swap while it is open."""


class SwapResponse(_Model):
    """A swap was made: its signed terms hold everything."""

    id: str
    signed_terms: SignedTerms


class SwapStatus(_Model):
    """Where a swap stands at the provider."""

    id: str
    status: StatusName
    failure_reason: str | None = None


class RefundResponse(_Model):
    """The provider's consent to an early refund: its EIP-712 signature over the lock id."""

    signature: Bytes


class Problem(_Model):
    """Why a request was refused (RFC 9457 with our own members)."""

    title: str
    status: int
    detail: str
    rule: str | None = None
    """Name of the rule that refused."""
    field: str | None = None
    """Which part of the request is wrong."""
