"""The provider itself, without HTTP: offers, checks, inventory, and consent to early refunds.

Each refusal is a ``SwapRefused`` whose ``rule`` names the check. What is decided about money after the terms are signed is not
here but in ``layer2.swaps``: ``_submarine_provider`` and ``_reverse_provider``.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from layer2 import Clock
from layer2.addresses import EvmAddress
from layer2.assets import AssetForm, convert_amount
from layer2.config import DepthRule, ProviderConfig
from layer2.errors import AmountError, InvoiceError, NotFound, SwapRefused
from layer2.lightning import Feature, Invoice, LightningNode, NodeInfo, PaymentState, decode_invoice
from layer2.protocol import Signer
from layer2.provider._hashes import Hashes
from layer2.provider._inventory import Inventory
from layer2.provider._repeats import Asked, KeptSwap, Repeats
from layer2.provider._room import Room, Wanted
from layer2.provider._status import status_of
from layer2.provider._synced import SyncedNode
from layer2.provider._turns import Turns
from layer2.signers import sign_digest
from layer2.swaps import (
    TIMELOCK_SPREAD_S,
    ChainView,
    Deal,
    Failed,
    Fees,
    Info,
    Limits,
    LockStatus,
    Pair,
    ReverseRequest,
    Role,
    StoredSwap,
    SubmarineRequest,
    SwapEngine,
    SwapResponse,
    SwapStatus,
    check_invoice,
    depth_wait_s,
    reverse_final_cltv,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
    token_units,
)
from layer2.terms import ChainTiming, DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms

__all__ = ["ProviderPlace", "ProviderService"]

logger: Final = logging.getLogger("layer2.provider")
MSAT = 1000
MAX_INVOICE_CHARACTERS: Final = 2_048
"""A swap is kept for ever, with the invoice in its terms, and whoever asks for one need not pay. Usual ones have some hundreds."""
_TRIES: Final = TIMELOCK_SPREAD_S.bit_length() - 1
"""To find a timelock that no other offer for the same invoice and account has, and that clients still take."""
ANY_AMOUNT = 2**63 - 1
"""Satoshi; stands where a depth rule has no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPlace:
    """Where a provider works."""

    chain_id: int
    contract: EvmAddress
    token: AssetForm
    timing: ChainTiming


def _refuse(rule: str, message: str) -> SwapRefused:
    return SwapRefused(message, rule=rule)


class ProviderService:
    """Makes offers and answers for them. One per engine."""

    def __init__(
        self,
        *,
        engine: SwapEngine,
        inventory: Inventory,
        room: Room,
        node: LightningNode,
        signer: Signer,
        place: ProviderPlace,
        settings: ProviderConfig,
        depth: tuple[DepthRule, ...],
        clock: Clock,
        version: str,
        hashes: Hashes,
        hash_owner: Callable[[bytes], Awaitable[str | None]],
        swaps_on: Callable[[bytes], Awaitable[Sequence[StoredSwap]]],
        made_for: Callable[[str], Awaitable[KeptSwap | None]],
        look: Callable[[Lock, DepthPolicy], Awaitable[ChainView]],
        random_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._engine = engine
        self._inventory = inventory
        self._node = node
        self._synced = SyncedNode(node, clock)
        self._signer = signer
        self._place = place
        self._settings = settings
        self.accepting = settings.accept_new
        """The switch that stops new swaps and nothing else."""
        self._depth = depth
        self._clock = clock
        self.version = version
        self._hashes = hashes
        self._hash_owner = hash_owner
        self._swaps_on = swaps_on
        self._repeats = Repeats(made_for)
        self._look = look
        self._random_id = random_id
        self._room = room
        # Offers are checked against the inventory and stored one after the other: two at once could both take the last room.
        self._offering = Turns()

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    def _to_sat(self, token_amount: int) -> int:
        return convert_amount(token_amount, self._place.token.decimals, self._place.token.asset.decimals)

    def _to_token(self, amount_sat: int) -> int:
        return convert_amount(amount_sat, self._place.token.asset.decimals, self._place.token.decimals)

    def _fee_sat(self, amount_sat: int) -> int:
        """The fee, of whole units of the token."""
        return self._to_sat(token_units(self._settings.fee(amount_sat), self._place.token, up=True))

    def _pair(self) -> Pair:
        offer, token = self._settings, self._place.token
        pair = Pair(
            hash="",
            limits=Limits(
                minimal=token_units(offer.min_amount, token, up=True),
                maximal=token_units(offer.max_amount, token, up=False),
            ),
            fees=Fees(ppm=offer.fee_basis_points * 100, base=token_units(offer.fee_base, token, up=True)),
            depth_policies=tuple(
                (token_units(rule.up_to or ANY_AMOUNT, token, up=False), rule.policy()) for rule in self._depth
            ),
            timing=self._place.timing,
        )
        digest = hashlib.sha256(pair.model_dump_json().encode()).hexdigest()[:32]
        return pair.model_copy(update={"hash": digest})

    def _depth_policy(self, amount_sat: int) -> DepthPolicy:
        return next(rule for rule in self._depth if rule.up_to is None or amount_sat <= rule.up_to).policy()

    async def info(self) -> Info:
        """Who we are and what we offer."""
        node = await self._node.info()
        token = self._place.token
        assert token.contract is not None
        pair = self._pair()
        return Info(
            version=self.version,
            chain_id=self._place.chain_id,
            htlc_contract=self._place.contract,
            tokens={token.asset.name: token.contract},
            decimals={token.asset.name: token.decimals},
            provider_address=self._signer.address,
            lightning_network=node.network,
            lightning_node=node.node_id,
            submarine=pair,
            reverse=pair,
            accepting=self.accepting,
        )

    async def create_submarine(self, request: SubmarineRequest, *, origin: str | None = None) -> SwapResponse:
        """Offer to pay an invoice against a lock. ``origin`` is who asks, as far as that is known: a network address.

        The same request with the same request id gets the same swap.

        Raises:
            SwapRefused: ``rule`` names the check; InsufficientFunds: not enough gas of ours; NodeNotReady: too many ask at a
                time, or our node is behind its chain.
        """
        return await self._repeats.once(request, lambda asked: self._offer_submarine(request, origin, asked))

    async def _offer_submarine(self, request: SubmarineRequest, origin: str | None, asked: Asked) -> SwapResponse:
        self._check_request(request.pair_hash, request.refund_address)
        if len(request.invoice) > MAX_INVOICE_CHARACTERS:
            raise _refuse("invoice", f"the invoice is longer than {MAX_INVOICE_CHARACTERS} characters")
        node = await self._synced.info()
        now = self._now_s()
        try:
            invoice = decode_invoice(request.invoice)
        except InvoiceError as error:
            raise _refuse("invoice", f"the invoice is malformed: {error}") from error
        amount_sat = self._check_invoice(invoice, node, now)
        fee_sat = self._fee_sat(amount_sat)
        routing_msat = fee_sat * MSAT * self._settings.routing_fee_limit_percent // 100
        policy = self._depth_policy(amount_sat)
        timing = self._place.timing
        lock_by = submarine_lock_by(timing, now)
        check_invoice(invoice, provider_node=node.node_id, timing=timing, policy=policy, now_s=now)
        timelock = submarine_timelock(timing, invoice.expires_at, invoice.min_final_cltv_delta)
        longest = now + timing.max_timelock_s
        assert invoice.amount_msat is not None
        wanted = Wanted(
            direction=SwapDirection.SUBMARINE,
            amount_sat=amount_sat + fee_sat,
            policy=policy,
            pay_msat=invoice.amount_msat + routing_msat,
            spendable_msat=node.spendable_msat,
        )
        # What costs the most comes last: the search of the chain. An offer may give way only after that, when all is well that the
        # invoice tells.
        await self._hashes.check_store(invoice.payment_hash, SwapDirection.SUBMARINE)
        await self._room.check(wanted, origin)
        await self._hashes.check_submarine(invoice.payment_hash, invoice.timestamp, origin=origin)
        async with self._offering.turn(origin):
            # What was read before the turn came may be paid out by now.
            wanted = replace(wanted, spendable_msat=(await self._node.info()).spendable_msat)
            await self._room.require(wanted, origin)
            await self._hashes.check_one_way(invoice.payment_hash)
            lock = self._lock(
                invoice.payment_hash, amount_sat + fee_sat, self._signer.address, request.refund_address, timelock
            )
            lock = await self._fresh(lock, longest, policy)
            signed = await self._sign(
                SwapDirection.SUBMARINE,
                lock,
                invoice.text,
                invoice.amount_msat,
                fee_sat,
                routing_msat,
                lock_by,
                policy,
                now,
            )
            return await self._store(signed, invoice, origin, asked)

    async def create_reverse(self, request: ReverseRequest, *, origin: str | None = None) -> SwapResponse:
        """Offer a lock against the payment of a hold invoice. ``origin`` is who asks, as far as that is known: a network address.

        The same request with the same request id gets the same swap.

        Raises:
            SwapRefused: ``rule`` names the check; InsufficientFunds: not enough gas of ours; NodeNotReady: too many ask at a
                time, or our node is behind its chain.
        """
        return await self._repeats.once(request, lambda asked: self._offer_reverse(request, origin, asked))

    async def _offer_reverse(self, request: ReverseRequest, origin: str | None, asked: Asked) -> SwapResponse:
        self._check_request(request.pair_hash, request.claim_address)
        payment_hash = request.preimage_hash
        if len(payment_hash) != 32:
            raise _refuse("hash", "a preimage hash has 32 bytes")
        try:
            amount_sat = self._to_sat(request.onchain_amount)
        except AmountError as error:
            raise _refuse("amount", error.message) from error
        self._check_limits(amount_sat)
        fee_sat = self._fee_sat(amount_sat)
        timing, policy = self._place.timing, request.depth_policy
        if depth_wait_s(timing, policy) > timing.finality_s:
            # Our lock is bound for so much longer, and nothing is safer than what is final.
            raise _refuse("depth_policy", "so many confirmations take longer than finality: ask for finalized")
        await self._hashes.check_store(payment_hash, SwapDirection.REVERSE)
        wanted = Wanted(
            direction=SwapDirection.REVERSE, amount_sat=amount_sat, policy=policy, token=request.onchain_amount
        )
        await self._room.check(wanted, origin)
        if (await self._synced.info()).receivable_msat < (amount_sat + fee_sat) * MSAT:
            raise _refuse("liquidity", "the channels cannot receive so much now")
        # What costs the most comes last: the search of the chain.
        await self._hashes.check_reverse(payment_hash, origin=origin)
        async with self._offering.turn(origin):
            await self._room.require(wanted, origin)
            await self._hashes.check_unknown(payment_hash)
            record = await self._node.create_hold_invoice(
                payment_hash=payment_hash,
                amount_msat=(amount_sat + fee_sat) * MSAT,
                memo="swap to BOB",
                expiry_s=timing.invoice_expiry_s,
                cltv_delta=reverse_final_cltv(timing, policy),
            )
            invoice = decode_invoice(record.text)
            # Counted from here, however long the request has waited: the deadlines must cover the invoice's whole life.
            now = self._now_s()
            timelock = reverse_timelock(timing, policy, now)
            lock = self._lock(payment_hash, amount_sat, request.claim_address, self._signer.address, timelock)
            assert invoice.amount_msat is not None
            lock_by = reverse_lock_by(timing, now)
            signed = await self._sign(
                SwapDirection.REVERSE, lock, invoice.text, invoice.amount_msat, fee_sat, 0, lock_by, policy, now
            )
            return await self._store(signed, invoice, origin, asked)

    async def status(self, swap_id: str) -> SwapStatus:
        """Where a swap of ours stands. Raises ``NotFound``."""
        return status_of(await self._engine.load(swap_id))

    async def follow(self, swap_id: str) -> AsyncGenerator[SwapStatus, None]:
        """Where a swap of ours stands, then each change of that, ending after a final state. Raises ``NotFound``."""
        last: SwapStatus | None = None
        async with aclosing(self._engine.follow(swap_id)) as swaps:
            async for swap in swaps:
                status = status_of(swap)
                if status != last:
                    yield status
                last = status

    async def sign_refund(self, swap_id: str) -> bytes:
        """Our consent to an early refund of a submarine lock that we shall never pay for.

        Raises:
            NotFound: no such swap; SwapRefused: it is not dead for certain, or not locked as deep as the terms say.
        """
        swap = await self._engine.load(swap_id)
        if swap.deal.direction is not SwapDirection.SUBMARINE:
            raise NotFound("no submarine swap has this id")
        # Failed is stored before this line can be reached and nothing leads out of it, so nothing is paid after the signature. It
        # is good for the lock, whichever swap it was asked for: so every swap on this lock must be dead, and no other follows.
        if not all(
            isinstance(other.state, Failed) for other in (swap, *await self._swaps_on(swap.deal.terms.lock.lock_id))
        ):
            raise _refuse("not_failed", "the payment is not dead for certain")
        await self._check_refundable(swap)
        from layer2.evm import cooperative_refund_digest

        return await sign_digest(self._signer, cooperative_refund_digest(swap.deal.terms.lock))

    async def _check_refundable(self, swap: StoredSwap) -> None:
        """What the store cannot tell of a life that it has forgotten, the contract and the node can."""
        terms, lock = swap.deal.terms, swap.deal.terms.lock
        if (await self._look(lock, terms.depth_policy)).at_depth.status is not LockStatus.LOCKED:
            raise _refuse("not_locked", "the lock is not there, or not deep enough yet")
        payment = await self._node.lookup_payment(lock.preimage_hash)
        # Of two offers for one invoice a copy does not know which was paid for.
        ours = swap.restored or await self._hash_owner(lock.preimage_hash) in (None, swap.deal.id)
        if ours and payment.state not in (PaymentState.NONE, PaymentState.FAILED):
            raise _refuse("not_failed", "the invoice is being paid, or was")

    def _check_request(self, pair_hash: str, account: EvmAddress) -> None:
        if not self.accepting:
            raise _refuse("accept_new", "no new swaps are accepted now")
        if pair_hash != self._pair().hash:
            raise _refuse("pair_hash", "fees or limits have changed; ask for them again")
        if account.is_zero or account in (self._signer.address, self._place.contract, self._place.token.contract):
            raise _refuse("address", f"{account} cannot be the account of a client")

    def _check_limits(self, amount_sat: int) -> None:
        low, high = self._settings.min_amount, self._settings.max_amount
        if not low <= amount_sat <= high:
            raise _refuse("limits", f"{amount_sat} satoshi is not within {low}..{high}")

    def _check_invoice(self, invoice: Invoice, node: NodeInfo, now: int) -> int:
        if invoice.network != node.network:
            raise _refuse("network", f"the invoice is for {invoice.network}, not {node.network}")
        if invoice.amount_msat is None:
            raise _refuse("amount", "the invoice has no amount")
        if invoice.expires_at <= now:
            raise _refuse("expiry", "the invoice has expired")
        if invoice.has_feature(Feature.AMP):
            # A node that pays it does so with hashes of its own making: the preimage of this one would never be learnt.
            raise _refuse("features", "an AMP invoice has no preimage to swap for")
        amount_sat = -(-invoice.amount_msat // MSAT)
        self._check_limits(amount_sat)
        if self._to_sat(token_units(amount_sat, self._place.token, up=True)) != amount_sat:
            raise _refuse("amount", f"{amount_sat} satoshi are no whole units of the token")
        return amount_sat

    def _lock(self, payment_hash: bytes, sat: int, claimer: EvmAddress, refunder: EvmAddress, timelock: int) -> Lock:
        token = self._place.token.contract
        assert token is not None
        return Lock(
            chain_id=self._place.chain_id,
            contract=self._place.contract,
            preimage_hash=payment_hash,
            amount=self._to_token(sat),
            token=token,
            claimer=claimer,
            refunder=refunder,
            timelock=timelock,
        )

    async def _fresh(self, lock: Lock, longest: int, policy: DepthPolicy) -> Lock:
        """The lock, a little longer where another offer has the same one: consent to its early refund would be consent for both.

        A store that was lost may have had that other offer. Consent is given only to what is locked, and the contract never forgets
        a lock: so one that it does not know has none.

        The more offers there are for one invoice and one account, the wider the choice, so that few look-ups find a free one.
        """
        for width in range(_TRIES):
            tried = replace(lock, timelock=lock.timelock + secrets.randbelow(2**width))
            if tried.timelock > longest or await self._swaps_on(tried.lock_id):
                continue
            if (await self._look(tried, policy)).latest.status is LockStatus.NEVER:
                return tried
        raise _refuse("offers", "too many offers were made for this invoice")

    async def _sign(
        self,
        direction: SwapDirection,
        lock: Lock,
        invoice: str,
        invoice_msat: int,
        fee_sat: int,
        routing_msat: int,
        lock_by: int,
        policy: DepthPolicy,
        now: int,
    ) -> SignedTerms:
        terms = SwapTerms(
            swap_id=self._random_id(),
            direction=direction,
            lock=lock,
            invoice=invoice,
            invoice_amount_msat=invoice_msat,
            provider_fee=self._to_token(fee_sat),
            routing_fee_limit_msat=routing_msat,
            lock_by=lock_by,
            depth_policy=policy,
            timing=self._place.timing,
            created_at=now,
        )
        return SignedTerms(terms=terms, signature=await sign_digest(self._signer, terms.digest))

    async def _store(self, signed: SignedTerms, invoice: Invoice, origin: str | None, asked: Asked) -> SwapResponse:
        deal = Deal(
            id=signed.terms.swap_id,
            role=Role.PROVIDER,
            signed=signed,
            invoice_expires_at=invoice.expires_at,
            invoice_final_cltv=invoice.min_final_cltv_delta,
        )
        # An offer binds no hash, in either direction: the first step that money hangs on does.
        swap: StoredSwap = await self._engine.begin(
            deal, idempotency_key=asked.key, request_digest=asked.digest, bind_hash=False
        )
        self._inventory.offered(swap.deal.id, origin)
        return SwapResponse(id=swap.deal.id, signed_terms=signed)
