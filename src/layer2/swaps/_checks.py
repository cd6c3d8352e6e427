"""What a client checks of a provider's terms before any of its money moves. Every check has a name, which the refusal carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2.addresses import EvmAddress
from layer2.errors import SwapRefused, ValidationError
from layer2.lightning import Feature, Invoice, decode_invoice
from layer2.swaps._deadlines import (
    TIMELOCK_SPREAD_S,
    claim_room_s,
    depth_wait_s,
    min_invoice_life_s,
    reverse_final_cltv,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.swaps._preimage import FORBIDDEN_HASHES
from layer2.terms import ChainTiming, DepthPolicy, SignedTerms, SwapDirection

if TYPE_CHECKING:
    from layer2.swaps._requests import Place
    from layer2.swaps._wire import Info, Pair

__all__ = [
    "Expected",
    "check_invoice",
    "check_provider",
    "check_reverse_terms",
    "check_submarine_terms",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the client asked for and knows by itself."""

    chain_id: int
    contract: EvmAddress
    token: EvmAddress
    token_amount: int
    """What arrives (reverse) or what the invoice is worth (submarine), in the token's base unit."""
    invoice_msat: int
    """Submarine: of the invoice. Reverse: what arrives, in msat."""
    provider: EvmAddress
    """Who gave the price."""
    own_account: EvmAddress
    """Refunder of a submarine lock, claimer of a reverse lock."""
    max_fee: int
    """In the token's base unit."""
    max_fee_msat: int
    payment_hash: bytes
    invoice: str | None
    """Submarine: the invoice that is to be paid."""
    timing: ChainTiming
    min_depth: DepthPolicy
    lightning_network: str
    now_s: int
    own_node: bytes | None = None
    """Reverse: of the Lightning node that pays, if it is ours."""


def _require(holds: bool, rule: str, message: str) -> None:
    if not holds:
        raise SwapRefused(f"the provider's terms are refused: {message}", rule=rule, hint="nothing was sent")


def check_provider(info: Info, place: Place, direction: SwapDirection) -> Pair:
    """Refuse a provider that is another than the configured one, or of another place, or takes nothing now. Returns its price.

    Raises:
        SwapRefused: ``rule`` names the check.
    """
    if place.provider is not None and info.provider_address != place.provider:
        raise SwapRefused(
            f"the provider is {info.provider_address}, not {place.provider}",
            rule="provider",
            hint="if yours has a new account, and tells you so by another way, change swap.provider_address",
        )
    if info.chain_id != place.chain_id or info.htlc_contract != place.contract:
        raise SwapRefused(
            f"the provider works on chain {info.chain_id} with contract {info.htlc_contract}, "
            f"not on chain {place.chain_id} with {place.contract}",
            rule="place",
        )
    if info.lightning_network != place.lightning_network:
        raise SwapRefused(f"the provider's Lightning is {info.lightning_network}", rule="network")
    if info.tokens.get(place.token.asset.name) != place.token.contract:
        raise SwapRefused(f"the provider does not swap the token {place.token.contract}", rule="token")
    if (decimals := info.decimals.get(place.token.asset.name)) != place.token.decimals:
        # Every amount it names would be worth something else here.
        raise SwapRefused(
            f"the provider counts {place.token.contract} with {decimals} decimals, not with {place.token.decimals}",
            rule="decimals",
        )
    if not info.accepting:
        raise SwapRefused("the provider accepts no new swaps now", rule="accepting")
    pair = info.submarine if direction is SwapDirection.SUBMARINE else info.reverse
    if pair.timing != place.timing:
        raise SwapRefused("the provider counts with other timing constants than this network's", rule="timing")
    return pair


def check_invoice(
    invoice: Invoice, *, provider_node: bytes, timing: ChainTiming, policy: DepthPolicy, now_s: int
) -> None:
    """Refuse an invoice that a provider cannot pay against a lock that is made from now on; both sides count alike.

    Raises:
        SwapRefused: ``rule`` is ``payee``, ``expiry`` or ``timelock``.
    """
    if invoice.payee == provider_node:
        raise SwapRefused("the invoice is of the provider's own node", rule="payee", hint="ask another provider")
    if invoice.expires_at < submarine_lock_by(timing, now_s) + min_invoice_life_s(timing, policy):
        raise SwapRefused(
            "the invoice expires before it could be paid",
            rule="expiry",
            hint="ask the payee for one that lives longer",
        )
    timelock = submarine_timelock(timing, invoice.expires_at, invoice.min_final_cltv_delta)
    if timelock > now_s + timing.max_timelock_s:
        raise SwapRefused(
            "the invoice lives or is held for so long that the lock would be too long",
            rule="timelock",
            hint="ask the payee for one that expires sooner, or with a smaller final CLTV delta",
        )


def _common(signed: SignedTerms, want: Expected, direction: SwapDirection) -> None:
    terms, lock = signed.terms, signed.terms.lock
    _require(terms.direction is direction, "direction", f"they are for a {terms.direction} swap")
    _require(lock.chain_id == want.chain_id, "chain", f"chain {lock.chain_id} instead of {want.chain_id}")
    _require(lock.contract == want.contract, "contract", f"contract {lock.contract} instead of {want.contract}")
    _require(lock.token == want.token, "token", f"token {lock.token} instead of {want.token}")
    _require(lock.preimage_hash == want.payment_hash, "hash", "another payment hash")
    _require(want.payment_hash not in FORBIDDEN_HASHES, "hash", "a hash whose preimage the contract cannot take")
    _require(terms.timing == want.timing, "timing", "other timing constants than those of this network")
    _require(terms.depth_policy == want.min_depth, "depth", "another depth than asked for")
    _require(abs(terms.created_at - want.now_s) <= terms.timing.clock_skew_s + 60, "clock", "their clock is not ours")
    _require(
        lock.timelock - want.now_s <= terms.timing.max_timelock_s,
        "timelock",
        f"the timelock {lock.timelock} is too far ahead",
    )
    _require(
        not terms.provider.is_zero and terms.provider != want.own_account, "provider", "the provider is no other party"
    )
    # Somebody between us and the provider could give the provider's price, and sign terms as whoever they like.
    _require(
        terms.provider == want.provider, "provider", f"{terms.provider} would sign, {want.provider} gave the price"
    )
    try:
        signed.verify()
    except ValidationError as error:
        raise SwapRefused(f"the provider's terms are refused: {error.message}", rule="signature") from error


def check_submarine_terms(signed: SignedTerms, want: Expected) -> Invoice:
    """Refuse terms under which a lock could be lost or cost more than asked. Returns the decoded invoice.

    Raises:
        SwapRefused: ``rule`` names the check.
    """
    terms, lock = signed.terms, signed.terms.lock
    _common(signed, want, SwapDirection.SUBMARINE)
    _require(terms.invoice == want.invoice, "invoice", "another invoice")
    _require(terms.invoice_amount_msat == want.invoice_msat, "amount", "another invoice amount")
    _require(lock.refunder == want.own_account, "refunder", "the refund would go to somebody else")
    _require(lock.amount == want.token_amount + terms.provider_fee, "amount", "the lock is not amount plus fee")
    _require(
        terms.provider_fee <= want.max_fee, "fee", f"the fee {terms.provider_fee} is above the bound {want.max_fee}"
    )
    _require(terms.lock_by > want.now_s, "lock_by", "they have expired")
    _require(terms.lock_by <= terms.created_at + terms.timing.lock_window_s, "lock_by", "the time to lock is too long")
    _require(lock.timelock > terms.lock_by + terms.timing.evm_inclusion_s, "timelock", "the lock would expire at once")
    invoice = decode_invoice(terms.invoice)
    # Both sides count with the same constants, and the provider's margins are in them: more is only time in which the money lies.
    needed = submarine_timelock(terms.timing, invoice.expires_at, invoice.min_final_cltv_delta)
    beyond_s = lock.timelock - needed
    _require(
        beyond_s <= TIMELOCK_SPREAD_S,
        "timelock",
        f"the lock would last {beyond_s} s longer than the invoice needs, and {TIMELOCK_SPREAD_S} s is the most",
    )
    return invoice


def check_reverse_terms(signed: SignedTerms, want: Expected) -> Invoice:
    """Refuse terms under which a payment could be lost or cost more than asked. Returns the decoded hold invoice.

    Raises:
        SwapRefused: ``rule`` names the check.
        InvoiceError: the provider's invoice is malformed.
    """
    terms, lock = signed.terms, signed.terms.lock
    timing, policy = terms.timing, terms.depth_policy
    _common(signed, want, SwapDirection.REVERSE)
    _require(lock.claimer == want.own_account, "claimer", "the claim would go to somebody else")
    _require(lock.amount == want.token_amount, "amount", f"the lock holds {lock.amount} instead of {want.token_amount}")
    invoice = decode_invoice(terms.invoice)
    _require(invoice.network == want.lightning_network, "network", f"the invoice is for {invoice.network}")
    _require(invoice.payment_hash == want.payment_hash, "hash", "the invoice has another payment hash")
    _require(
        invoice.amount_msat == terms.invoice_amount_msat, "amount", "the invoice has another amount than the terms"
    )
    _require(invoice.payee != want.own_node, "payee", "the provider's node is our own, which does not pay itself")
    # A node pays such an invoice with preimages of its own making: the payee would have the money without ours.
    _require(not invoice.has_feature(Feature.AMP), "features", "an AMP invoice is not paid against the preimage")
    fee_msat = terms.invoice_amount_msat - want.invoice_msat
    _require(fee_msat >= 0, "amount", "the invoice is below what arrives")
    # The invoice's amount and the lock's stand for the same, so their fees must too.
    _require(
        terms.provider_fee * want.invoice_msat == fee_msat * want.token_amount,
        "fee",
        "the fee in the terms is not the fee in the invoice",
    )
    _require(
        terms.provider_fee <= want.max_fee, "fee", f"the fee {terms.provider_fee} is above the bound {want.max_fee}"
    )
    _require(fee_msat <= want.max_fee_msat, "fee", f"it costs {fee_msat} msat, the bound is {want.max_fee_msat}")
    _require(want.now_s < invoice.expires_at, "expiry", "the invoice has expired")
    _require(
        invoice.expires_at <= terms.created_at + timing.invoice_expiry_s + timing.clock_skew_s,
        "expiry",
        "it lives too long",
    )
    room = (
        timing.evm_inclusion_s + depth_wait_s(timing, policy) + timing.evm_clock_skew_s + claim_room_s(timing, policy)
    )
    _require(lock.timelock - invoice.expires_at >= room, "timelock", "the timelock leaves too little time to claim")
    _require(
        invoice.min_final_cltv_delta <= reverse_final_cltv(timing, policy) + timing.slack_blocks,
        "cltv",
        "the payment could be held for too long",
    )
    return invoice
