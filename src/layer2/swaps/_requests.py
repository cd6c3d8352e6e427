"""The client's way to a swap: what was asked for, the provider's price, signed terms, every check, and the deal.

Nothing here moves money. It ends with a ``Deal`` that the engine stores and drives.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from layer2._clock import Clock
from layer2.addresses import EvmAddress
from layer2.assets import MAX_AMOUNT, AssetForm, convert_amount
from layer2.errors import (
    AmountError,
    Expired,
    FeeLimitExceeded,
    InsufficientFunds,
    InvoiceError,
    NodeConnectionError,
    SwapRefused,
    UnexpectedReply,
)
from layer2.lightning import Feature, Invoice, LightningNode, PaymentState, decode_invoice
from layer2.swaps._checks import Expected, check_invoice, check_provider, check_reverse_terms, check_submarine_terms
from layer2.swaps._deadlines import (
    DEFAULT_FINAL_CLTV,
    expected_s,
    own_invoice_life_s,
    reverse_timelock,
    submarine_timelock,
    worst_s,
)
from layer2.swaps._ports import Ask, StoredSwap, ask_at_once
from layer2.swaps._preimage import FORBIDDEN_HASHES, PreimageSource
from layer2.swaps._provider_client import ProviderApi
from layer2.swaps._states import Deal, Role
from layer2.swaps._units import token_units
from layer2.swaps._unsafe import UnsafeBound
from layer2.terms import ChainTiming, DepthPolicy, SwapDirection
from layer2.transactions import Depth

if TYPE_CHECKING:
    from layer2.swaps._wire import Info, Pair, SwapResponse

__all__ = ["Account", "Place", "Price", "SwapRequests"]

MSAT: Final = 1000
_ASK_AGAIN_S: Final = (1.0, 3.0)
"""Pauses before a request is repeated whose answer did not come."""
_LOST_ON_THE_WAY: Final = (502, 504)
"""Statuses with which a proxy says that it passed the request on and got no answer."""


class Account(Protocol):
    """What is asked of our account on the chain before anything is agreed."""

    @property
    def address(self) -> EvmAddress:
        """Whose it is."""
        ...

    async def token_balance(self) -> int:
        """In the token's base unit."""
        ...

    async def check_decimals(self, decimals: int) -> None:
        """Raise ``AssetError`` unless the token has so many. It is asked once."""
        ...

    async def check_gas(self, swaps: int) -> int:
        """The most that the gas of one swap may cost, in wei; raises ``InsufficientFunds`` if the account cannot pay it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where we swap."""

    chain_id: int
    contract: EvmAddress
    token: AssetForm
    timing: ChainTiming
    lightning_network: str
    provider: EvmAddress | None = None
    """The account that the provider must have; None: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a swap costs, from the provider's public figures."""

    info: Info
    pair: Pair
    amount_sat: int
    provider_fee_sat: int
    routing_limit_sat: int
    max_gas_wei: int
    policy: DepthPolicy
    seconds_expected: int
    seconds_worst: int
    expires_at: int
    """Unix seconds: the figures are asked again after that."""


class SwapRequests:
    """Asks one provider for swaps on behalf of one account. ``ask`` makes each operation over the network."""

    def __init__(
        self,
        *,
        provider: ProviderApi,
        account: Account,
        node: LightningNode | None,
        place: Place,
        preimages: PreimageSource,
        next_preimage_time: Callable[[], Awaitable[int]],
        hash_known: Callable[[bytes], Awaitable[bool]],
        hash_claimed: Callable[[bytes, int], Awaitable[bool]],
        depth_policy: Callable[[int], DepthPolicy],
        open_swaps: Callable[[], Sequence[StoredSwap]],
        max_unsafe: int,
        safe_lag_s: Callable[[], Awaitable[int]],
        max_safe_lag_s: int,
        clock: Clock,
        ask: Ask = ask_at_once,
    ) -> None:
        self._ask = ask
        self._provider = provider
        self._account = account
        self._node = node
        self.place = place
        self._preimages = preimages
        self._next_preimage_time = next_preimage_time
        self._hash_known = hash_known
        self._hash_claimed = hash_claimed
        self._depth_policy = depth_policy
        self._open_swaps = open_swaps
        self._unsafe = UnsafeBound(
            token=place.token,
            open_swaps=open_swaps,
            max_unsafe=max_unsafe,
            safe_lag_s=safe_lag_s,
            max_safe_lag_s=max_safe_lag_s,
            ask=ask,
        )
        self._clock = clock

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    def _to_token(self, sat: int) -> int:
        return convert_amount(sat, self.place.token.asset.decimals, self.place.token.decimals)

    def _to_sat(self, token: int) -> int:
        return convert_amount(token, self.place.token.decimals, self.place.token.asset.decimals)

    async def price(self, direction: SwapDirection, amount_sat: int, *, max_fee_sat: int, pays_itself: bool) -> Price:
        """What the provider asks now. Refuses a provider of another place.

        Raises:
            SwapRefused: another provider or place, it accepts nothing now, or the amount is outside its limits.
            AssetError: the token has other decimals than the settings say.
            FeeLimitExceeded: above a bound; ``quote`` is the ``Price``.
        """
        # With others than it has, the whole price would be paid for a fraction of the amount, or a multiple of it be locked.
        check = partial(self._account.check_decimals, self.place.token.decimals)
        await self._ask("asking the token for its decimals", check)
        info = await self._ask("asking a provider for its price", self._provider.info)
        pair = check_provider(info, self.place, direction)
        low, high = self._to_sat(pair.limits.minimal), self._to_sat(pair.limits.maximal)
        if not low <= amount_sat <= high:
            raise SwapRefused(
                f"the provider swaps {low} to {high} satoshi at a time, not {amount_sat}",
                rule="limits",
                hint=f"{'move more at a time' if amount_sat < low else 'split the amount'}, or ask another provider",
            )
        # The exits of what is open already need their gas too.
        too_dear: FeeLimitExceeded | None = None
        try:
            max_gas_wei = await self._ask(
                "looking whether the account can pay the gas",
                lambda: self._account.check_gas(len(self._open_swaps()) + 1),
            )
        except FeeLimitExceeded as error:
            too_dear, max_gas_wei = error, error.needed or 0
        price = self._priced(info, pair, direction, amount_sat, max_fee_sat, max_gas_wei, pays_itself=pays_itself)
        if price.provider_fee_sat > max_fee_sat:
            too_dear = FeeLimitExceeded(
                f"the provider asks {price.provider_fee_sat} satoshi, above the bound of {max_fee_sat}",
                limit=max_fee_sat,
                needed=price.provider_fee_sat,
                hint="raise max_fee, or ask another provider",
            )
        if too_dear is not None:
            too_dear.quote = price
            raise too_dear
        if price.policy.depth is Depth.INCLUDED:
            submarine = direction is SwapDirection.SUBMARINE
            self._unsafe.check_value(amount_sat + price.provider_fee_sat if submarine else amount_sat)
            await self._unsafe.check_lag()
        return price

    def check_bound(self, deal: Deal) -> None:
        """Refuse a deal that, with all that is open by now, would pass the bound on what the sequencer alone has confirmed.

        Asked right before it is stored, with no other stored in between: what is only priced or asked for is in no sum yet.

        Raises:
            SwapRefused: ``rule`` is ``max_unsafe``.
        """
        if deal.terms.depth_policy.depth is Depth.INCLUDED:
            self._unsafe.check_value(self._to_sat(deal.terms.lock.amount))

    def _priced(
        self,
        info: Info,
        pair: Pair,
        direction: SwapDirection,
        amount_sat: int,
        max_fee_sat: int,
        max_gas_wei: int,
        *,
        pays_itself: bool,
    ) -> Price:
        token = self._to_token(amount_sat)
        fee_sat = -(-amount_sat * pair.fees.ppm // 1_000_000) + self._to_sat(pair.fees.base)
        if not 0 <= fee_sat <= MAX_AMOUNT:
            raise SwapRefused("the provider's fee is no amount", rule="fee", hint="ask another provider")
        fee_sat = self._to_sat(token_units(fee_sat, self.place.token, up=True))
        timing = self.place.timing
        submarine = direction is SwapDirection.SUBMARINE
        if submarine:
            if not pair.depth_policies:
                raise SwapRefused("the provider does not say at which depth it acts", rule="depth")
            policy = next((p for bound, p in pair.depth_policies if token <= bound), pair.depth_policies[-1][1])
            timelock_s = submarine_timelock(timing, own_invoice_life_s(timing, policy), DEFAULT_FINAL_CLTV)
        else:
            policy = self._depth_policy(amount_sat)
            timelock_s = reverse_timelock(timing, policy, 0)
        return Price(
            info=info,
            pair=pair,
            amount_sat=amount_sat,
            provider_fee_sat=fee_sat,
            routing_limit_sat=0 if submarine or not pays_itself else max(0, max_fee_sat - fee_sat),
            max_gas_wei=max_gas_wei,
            policy=policy,
            expires_at=self._now_s() + timing.lock_window_s,
            seconds_expected=expected_s(timing, policy),
            seconds_worst=worst_s(timing, timelock_s),
        )

    async def own_invoice(self, amount_sat: int, policy: DepthPolicy) -> str:
        """An invoice of our own node that lives just long enough for a submarine swap."""
        assert self._node is not None
        make = partial(
            self._node.create_invoice,
            amount_msat=amount_sat * MSAT,
            memo="swap from BOB",
            expiry_s=own_invoice_life_s(self.place.timing, policy),
        )
        return (await self._ask("creating an invoice", make)).text

    def read_invoice(self, text: str, amount_sat: int | None, price: Price) -> Invoice:
        """Decode somebody's invoice and refuse what cannot be paid by a swap at this price.

        Raises:
            InvoiceError: wrong network, no amount; Expired: it has expired; AmountError: another amount than asked.
            SwapRefused: it is the provider's, or its times do not go with a lock.
        """
        invoice = decode_invoice(text)
        if invoice.network != self.place.lightning_network:
            raise InvoiceError(
                f"the invoice is for {invoice.network}, not {self.place.lightning_network}", field="network"
            )
        if invoice.amount_msat is None:
            raise InvoiceError("the invoice has no amount", field="amount", hint="ask the payee for one with an amount")
        if invoice.expires_at <= self._now_s():
            raise Expired("the invoice has expired", expired_at=invoice.expires_at, hint="ask the payee for a new one")
        needed = -(-invoice.amount_msat // MSAT)
        if amount_sat is not None and needed != amount_sat:
            raise AmountError(
                f"the invoice asks for {invoice.amount_msat} msat, so amount must be {needed} satoshi, not {amount_sat}",
                field="amount",
            )
        if invoice.has_feature(Feature.AMP):
            raise InvoiceError("an AMP invoice has no preimage to swap for", field="features")
        if invoice.payment_hash in FORBIDDEN_HASHES:
            raise InvoiceError("the contract does not take the preimage of this invoice", field="payment_hash")
        node, timing = price.info.lightning_node, self.place.timing
        check_invoice(invoice, provider_node=node, timing=timing, policy=price.policy, now_s=self._now_s())
        return invoice

    async def submarine(self, invoice_text: str, price: Price, *, max_fee_sat: int, own_invoice: bool) -> Deal:
        """Ask for an invoice to be paid; every field of the answer is checked.

        Raises:
            SwapRefused: by the provider, or by a check of ours; InsufficientFunds: token or gas.
        """
        from layer2.swaps._wire import SubmarineRequest

        invoice = self.read_invoice(invoice_text, None, price)
        await self._check_hash(invoice.payment_hash, invoice.timestamp)
        needed = self._to_token(price.amount_sat + price.provider_fee_sat)
        held = await self._ask("reading a balance", self._account.token_balance)
        if held < needed:
            raise InsufficientFunds(
                f"the account {self._account.address} holds {held} of the token {self.place.token.contract}, "
                f"but {needed} are needed",
                coin=self.place.token.asset.name,
                needed=needed,
                available=held,
                account=str(self._account.address),
            )
        request = SubmarineRequest(
            invoice=invoice.text,
            refund_address=self._account.address,
            pair_hash=price.pair.hash,
            request_id=secrets.token_bytes(32),
        )
        response = await self._answer(lambda: self._provider.create_submarine(request))
        signed = response.signed_terms
        assert invoice.amount_msat is not None
        expected = self._expected(
            price.info.provider_address,
            self._account.address,
            token_amount=self._to_token(price.amount_sat),
            invoice_msat=invoice.amount_msat,
            max_fee_sat=min(max_fee_sat, price.provider_fee_sat),
            payment_hash=invoice.payment_hash,
            invoice=invoice.text,
            policy=price.policy,
        )
        check_submarine_terms(signed, expected)
        return Deal(
            id=secrets.token_hex(16),
            role=Role.CLIENT,
            signed=signed,
            invoice_expires_at=invoice.expires_at,
            invoice_final_cltv=invoice.min_final_cltv_delta,
            own_invoice=own_invoice,
            max_gas_wei=price.max_gas_wei,
        )

    async def reverse(self, claimer: EvmAddress, price: Price, *, max_fee_sat: int, pays_itself: bool) -> Deal:
        """Ask for a lock against the payment of a hold invoice; every field of the answer is checked.

        Raises:
            SwapRefused: by the provider, or by a check of ours; InsufficientFunds: gas, or nothing to pay with.
        """
        from layer2.swaps._wire import ReverseRequest

        own_node = await self._check_spendable(price) if pays_itself else None
        time_ms = await self._next_preimage_time()
        preimage = await self._preimages.preimage_for(self.place.chain_id, self.place.contract.raw, time_ms)
        payment_hash = self._preimages.hash_of(preimage)
        # It was made before only if both the store and the clock went back; then it was claimed after this time.
        await self._check_unclaimed(payment_hash, time_ms // 1000)
        token_amount = self._to_token(price.amount_sat)
        request = ReverseRequest(
            preimage_hash=payment_hash,
            claim_address=claimer,
            onchain_amount=token_amount,
            depth_policy=price.policy,
            pair_hash=price.pair.hash,
            request_id=secrets.token_bytes(32),
        )
        response = await self._answer(lambda: self._provider.create_reverse(request))
        signed = response.signed_terms
        expected = self._expected(
            price.info.provider_address,
            claimer,
            token_amount=token_amount,
            invoice_msat=price.amount_sat * MSAT,
            max_fee_sat=min(max_fee_sat, price.provider_fee_sat),
            payment_hash=payment_hash,
            invoice=None,
            policy=price.policy,
            own_node=own_node,
        )
        invoice = check_reverse_terms(signed, expected)
        return Deal(
            id=secrets.token_hex(16),
            role=Role.CLIENT,
            signed=signed,
            invoice_expires_at=invoice.expires_at,
            invoice_final_cltv=invoice.min_final_cltv_delta,
            pays_itself=pays_itself,
            preimage_time_ms=time_ms,
            routing_fee_limit_msat=max(0, (price.amount_sat + max_fee_sat) * MSAT - signed.terms.invoice_amount_msat),
            max_gas_wei=price.max_gas_wei,
        )

    async def _answer(self, ask: Callable[[], Awaitable[SwapResponse]]) -> SwapResponse:
        """What the provider answers to a request, which is repeated as it is where the answer may have been lost.

        The request's id makes that the same swap. It is kept for so long only: a process that ends before it has the terms has no
        use for them, since nothing moves before they are stored.
        """
        what, pauses_s = "asking a provider for a swap", iter(_ASK_AGAIN_S)
        lost: NodeConnectionError | UnexpectedReply | None = None
        while True:
            try:
                return await self._ask(what, ask)
            except NodeConnectionError as error:
                lost = error
            except UnexpectedReply as error:
                if error.code not in _LOST_ON_THE_WAY:
                    raise
                lost = error
            except SwapRefused as error:
                if lost is not None and error.rule == "hash":
                    # The provider died between its invoice and its swap: nothing was agreed, and another hash will do.
                    raise lost from error
                raise
            pause_s = next(pauses_s, None)
            if pause_s is None:
                raise lost
            await self._clock.sleep(pause_s)

    async def _check_spendable(self, price: Price) -> bytes:
        """Whether our node can pay, and who it is."""
        assert self._node is not None
        needed = (price.amount_sat + price.provider_fee_sat) * MSAT
        node = await self._ask("asking the Lightning node what it can send", self._node.info)
        spendable = node.spendable_msat
        if spendable < needed:
            raise InsufficientFunds(
                f"the node's channels can send {spendable} msat, but {needed} are needed",
                coin="BTC",
                needed=-(-needed // MSAT),
                available=spendable // MSAT,
            )
        return node.node_id

    async def _check_hash(self, payment_hash: bytes, made_at_s: int) -> None:
        if await self._hash_known(payment_hash):
            raise SwapRefused(
                "the payment hash of this invoice was used by an earlier transfer of this store",
                rule="hash",
                hint="ask the payee for a new invoice; to follow up the earlier transfer use its id or idempotency key",
            )
        if self._node is not None:
            look = partial(self._node.lookup_payment, payment_hash)
            state = (await self._ask("looking up a payment", look)).state
            if state not in (PaymentState.NONE, PaymentState.FAILED):
                raise SwapRefused(
                    "our own node has paid this invoice, or is paying it",
                    rule="hash",
                    hint="ask the payee for a new invoice",
                )
        # A hash is made with its invoice, so it can have been claimed only since then.
        await self._check_unclaimed(payment_hash, made_at_s)

    async def _check_unclaimed(self, payment_hash: bytes, made_at_s: int) -> None:
        """Anybody could claim a lock on a hash whose preimage the chain shows, with nothing paid for it."""
        if await self._hash_claimed(payment_hash, made_at_s - self.place.timing.evm_clock_skew_s):
            raise SwapRefused(
                "the payment hash was claimed on the contract before, so its preimage is public",
                rule="hash",
                hint="ask for a new invoice; if this is a reverse transfer, check this machine's clock",
            )

    def _expected(
        self,
        provider: EvmAddress,
        own_account: EvmAddress,
        *,
        token_amount: int,
        invoice_msat: int,
        max_fee_sat: int,
        payment_hash: bytes,
        invoice: str | None,
        policy: DepthPolicy,
        own_node: bytes | None = None,
    ) -> Expected:
        place = self.place
        assert place.token.contract is not None
        return Expected(
            chain_id=place.chain_id,
            contract=place.contract,
            token=place.token.contract,
            token_amount=token_amount,
            invoice_msat=invoice_msat,
            provider=provider,
            own_account=own_account,
            max_fee=token_units(max_fee_sat, place.token, up=False),
            max_fee_msat=max_fee_sat * MSAT,
            payment_hash=payment_hash,
            invoice=invoice,
            timing=place.timing,
            min_depth=policy,
            lightning_network=place.lightning_network,
            now_s=self._now_s(),
            own_node=own_node,
        )
