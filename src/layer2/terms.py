"""What two parties agree on before money moves: the hash-time-lock on the EVM chain and the terms of a swap around it.

The provider signs the terms (EIP-712) with the key that claims (submarine) or refunds (reverse) the lock, so they can be shown to
anybody later: they are the first part of every transfer proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from layer2._crypto import eth_address, keccak256, recover
from layer2._values import Bytes, Uint, Value
from layer2.addresses import EvmAddress
from layer2.errors import ValidationError
from layer2.transactions import Depth

__all__ = ["ChainTiming", "DepthPolicy", "Lock", "SignedTerms", "SwapDirection", "SwapTerms"]


class SwapDirection(StrEnum):
    """Which way the value goes, by the field's names."""

    SUBMARINE = "submarine"
    """From the chain to Lightning: the client locks, the provider pays the invoice and claims."""
    REVERSE = "reverse"
    """From Lightning to the chain: the client's payment is held, the provider locks, the client claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthPolicy(Value):
    """How deep an event on the chain must be before somebody acts on it."""

    depth: Depth
    """INCLUDED (with ``confirmations``), SAFE or FINALIZED."""
    confirmations: int = 1
    """Blocks from the event's own to the head, both counted; only for INCLUDED."""

    def __post_init__(self) -> None:
        if self.depth not in (Depth.INCLUDED, Depth.SAFE, Depth.FINALIZED) or not 1 <= self.confirmations <= 10_000:
            raise ValidationError("a depth policy is included with 1..10000 confirmations, safe or finalized")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTiming(Value):
    """The constants from which every deadline of a swap is computed; agreed in the quote and stored with the swap.

    Times are seconds unless the name says blocks. See ``layer2.swaps`` for the formulas.
    """

    name: str
    bitcoin_block_ms: int
    """Mean time between Bitcoin blocks, in milliseconds."""
    bitcoin_poisson: bool
    """Whether blocks come at random; False where they are mined on a schedule."""
    bitcoin_rate_margin_percent: int
    """How far the real mean may be from ``bitcoin_block_ms``, either way."""
    evm_block_s: int
    evm_inclusion_s: int
    """D: a transaction with a sufficient fee is included within this time."""
    evm_clock_skew_s: int
    """How far a block's timestamp may run ahead of true time."""
    clock_skew_s: int
    """How far the clocks of the two parties and their nodes may differ."""
    safe_lag_s: int
    """Longest usual time from inclusion to ``safe``."""
    finality_s: int
    """Longest usual time from inclusion to ``finalized``."""
    lock_window_s: int
    """From the quote to the latest moment at which a submarine client may lock."""
    invoice_expiry_s: int
    """Life of invoices that the swap makes itself."""
    payment_time_limit_s: int
    """For how long new payment attempts are started."""
    route_cltv_blocks: int
    """Longest time lock of a payment's route before its final hop."""
    hold_expiry_delta_blocks: int
    """lnd gives a held payment back this many blocks before it expires; at least 18."""
    onchain_resolve_blocks: int
    """Bitcoin blocks to resolve an HTLC on chain."""
    slack_blocks: int
    """Blocks by which two parties' views of the height may differ."""
    grace_s: int
    """For noticing and acting."""
    max_timelock_s: int
    """Longest time from now to a lock's timelock that a party accepts."""


class _WithLockId(Value):
    """Room for the id of a lock once it was computed: no field, so that it is neither compared, shown, written nor copied."""

    __slots__ = ("_lock_id",)

    _lock_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock(_WithLockId):
    """A hash-time-lock in the HTLC contract. Its id commits to every field."""

    chain_id: int
    contract: EvmAddress
    preimage_hash: Bytes
    """SHA-256 of the preimage: the Lightning payment hash."""
    amount: Uint
    """In the token's base unit."""
    token: EvmAddress
    claimer: EvmAddress
    refunder: EvmAddress
    timelock: int
    """Unix seconds; refundable from the first block whose timestamp is not below it."""

    def __post_init__(self) -> None:
        if len(self.preimage_hash) != 32:
            raise ValidationError("a preimage hash has 32 bytes", field="preimage_hash")
        if not (0 < self.amount < 2**256 and 0 < self.timelock < 2**64 and 0 < self.chain_id < 2**64):
            raise ValidationError("amount, timelock and chain id of a lock must be positive and fit their types")

    @property
    def lock_id(self) -> bytes:
        """``keccak256(abi.encode(chainid, contract, preimageHash, amount, token, claimer, refunder, timelock))``."""
        try:
            return self._lock_id
        except AttributeError:
            # No field can change, and each look at the lock and each line about it asks for the id.
            lock_id = self._computed_id()
            object.__setattr__(self, "_lock_id", lock_id)
            return lock_id

    def _computed_id(self) -> bytes:
        words = (
            self.chain_id.to_bytes(32),
            self.contract.raw.rjust(32, b"\0"),
            self.preimage_hash,
            self.amount.to_bytes(32),
            self.token.raw.rjust(32, b"\0"),
            self.claimer.raw.rjust(32, b"\0"),
            self.refunder.raw.rjust(32, b"\0"),
            self.timelock.to_bytes(32),
        )
        return keccak256(b"".join(words))

    @property
    def domain_separator(self) -> bytes:
        """The EIP-712 domain of everything signed about locks: name ``layer2``, version ``1``, chain id, HTLC contract."""
        return keccak256(
            keccak256(_DOMAIN_TYPE)
            + keccak256(b"layer2")
            + keccak256(b"1")
            + self.chain_id.to_bytes(32)
            + self.contract.raw.rjust(32, b"\0")
        )


_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_TERMS_TYPE = (
    b"SwapTerms(bytes16 swapId,string direction,bytes32 lockId,string invoice,uint256 invoiceAmountMsat,"
    b"uint256 providerFee,uint256 routingFeeLimitMsat,uint256 lockBy,uint256 depth,uint256 confirmations,"
    b"uint256 createdAt,string timing)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapTerms(Value):
    """Everything a swap is bound to. Fixed before the first signature; never changed afterwards."""

    swap_id: str
    """128 random bits, 32 hexadecimal digits."""
    direction: SwapDirection
    lock: Lock
    invoice: str = field(repr=False)
    """Submarine: the invoice that the provider pays. Reverse: the provider's hold invoice."""
    invoice_amount_msat: Uint
    provider_fee: Uint
    """In the token's base unit. Submarine: locked on top of the amount. Reverse: kept back from it."""
    routing_fee_limit_msat: Uint
    """Submarine: the most that the provider spends on routing, out of its fee. Reverse: 0."""
    lock_by: int
    """Unix seconds: a submarine client must not lock later; a reverse provider does not lock later."""
    depth_policy: DepthPolicy
    """Depth at which the waiting party acts on the lock."""
    timing: ChainTiming
    created_at: int
    """Unix seconds."""

    def __post_init__(self) -> None:
        if len(self.swap_id) != 32 or not set(self.swap_id) <= set("0123456789abcdef"):
            raise ValidationError("a swap id is 32 lower-case hexadecimal digits", field="swap_id")
        numbers = ("invoice_amount_msat", "provider_fee", "routing_fee_limit_msat", "lock_by", "created_at")
        for name in numbers:
            if not 0 <= getattr(self, name) < 2**256:
                raise ValidationError(f"{name} must be a number from 0 to 2**256 - 1", field=name)

    @property
    def provider(self) -> EvmAddress:
        """The provider's EVM account: claimer of a submarine lock, refunder of a reverse lock."""
        return self.lock.claimer if self.direction is SwapDirection.SUBMARINE else self.lock.refunder

    @property
    def digest(self) -> bytes:
        """The EIP-712 digest that the provider signs, in the lock's domain."""
        struct = keccak256(
            keccak256(_TERMS_TYPE)
            + bytes.fromhex(self.swap_id).ljust(32, b"\0")
            + keccak256(self.direction.value.encode())
            + self.lock.lock_id
            + keccak256(self.invoice.encode())
            + self.invoice_amount_msat.to_bytes(32)
            + self.provider_fee.to_bytes(32)
            + self.routing_fee_limit_msat.to_bytes(32)
            + self.lock_by.to_bytes(32)
            + int(self.depth_policy.depth).to_bytes(32)
            + self.depth_policy.confirmations.to_bytes(32)
            + self.created_at.to_bytes(32)
            + keccak256(self.timing.to_json().encode())
        )
        return keccak256(b"\x19\x01" + self.lock.domain_separator + struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTerms(Value):
    """Terms with the provider's signature (65 bytes: r, s, v with v 27 or 28)."""

    terms: SwapTerms
    signature: Bytes

    def verify(self) -> Self:
        """Give itself back if the signature is by ``terms.provider``.

        Raises:
            ValidationError: it is not.
        """
        if len(self.signature) != 65 or self.signature[64] not in (27, 28):
            raise ValidationError("a signature of terms has 65 bytes and ends in 27 or 28", field="signature")
        public = recover(self.terms.digest, self.signature[:64], self.signature[64] - 27)
        if public is None or eth_address(public) != self.terms.provider.raw:
            raise ValidationError("the terms are not signed by the provider's account", field="signature")
        return self
