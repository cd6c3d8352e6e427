"""Acting: carries out what the outbox wants, each effect as often as needed and never as two different acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol, assert_never

from layer2._clock import Clock
from layer2._observe import log_event, operation_context
from layer2.errors import (
    Expired,
    FeeLimitExceeded,
    InsufficientFunds,
    InvoiceError,
    Layer2Error,
    NodeNotReady,
    NotFound,
    PaymentFailed,
    Reverted,
    SignerError,
    StorageError,
)
from layer2.lightning import LightningNode, PaymentState
from layer2.swaps._deadlines import may_pay, submarine_cltv_limit
from layer2.swaps._effects import CancelInvoice, Claim, PayInvoice, Refund, RefundEarly, SendLock, SettleInvoice
from layer2.swaps._look import lock_key, look_at_invoice
from layer2.swaps._observations import ChainView, EffectRefused, LockStatus, OwnTransaction, seen_preimage
from layer2.swaps._ports import StoredEffect, StoredSwap, SwapChain, SwapStore
from layer2.swaps._preimage import PreimageSource
from layer2.swaps._reverse_provider import why_not_lock
from layer2.swaps._states import Role

__all__ = ["Actor", "ExitRefusedError", "StillOurs", "nobody_else"]

logger: Final = logging.getLogger("layer2.swaps")

_CERTAIN: Final = (Expired, InsufficientFunds, FeeLimitExceeded, Reverted, SignerError)
"""What a ``send`` raises only if nothing was signed."""


class ExitRefusedError(NodeNotReady):
    """A claim or refund cannot be sent now, for a reason of our own (gas, a bound, the signer). It is tried again, however late."""


def _pursue(refused: EffectRefused | None) -> None:
    if refused is not None:
        raise ExitRefusedError(f"{refused.key} cannot be sent: {refused.reason}")


class StillOurs(Protocol):
    """Raises ``StoreInUse`` if another process has taken the store over; ``certain``: also if that cannot be found out now."""

    async def __call__(self, *, certain: bool = False) -> None:
        """Ask."""
        ...


async def nobody_else(*, certain: bool = False) -> None:
    """The store is one that nobody else can take over."""


class Actor:
    """Carries out effects. Payments run in tasks of their own, since a held payment lasts as long as its swap."""

    def __init__(
        self,
        *,
        store: SwapStore,
        chain: SwapChain,
        node: LightningNode | None,
        preimages: PreimageSource | None,
        clock: Clock,
        why_not_begin: Callable[[StoredSwap], Awaitable[str | None]] | None = None,
        still_ours: StillOurs = nobody_else,
    ) -> None:
        self._store = store
        self._chain = chain
        self._node = node
        self._preimages = preimages
        self._clock = clock
        self._why_not_begin = why_not_begin
        self._still_ours = still_ours
        self._payments: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}
        self._begun: dict[str, bool] = {}

    def pay_request_open(self, swap: StoredSwap) -> bool:
        """Whether a request to pay may still be on its way: one of ours runs, or one of a dead process was never answered."""
        return swap.deal.id in self._payments or self._pay_begun(swap)

    def _pay_begun(self, swap: StoredSwap) -> bool:
        # What this process did since the row was read is newer than the row.
        stored = any(isinstance(e.effect, PayInvoice) and e.begun for e in swap.effects)
        return self._begun.get(swap.deal.id, stored)

    async def close(self) -> None:
        """Stop waiting for payments. They go on at the node; the next start looks them up."""
        tasks = list(self._payments.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def act(
        self, swap: StoredSwap, wanted: StoredEffect, wake: Callable[[], None]
    ) -> EffectRefused | ChainView | None:
        """Do one effect; ``wake`` is called when a payment ends.

        Returns a refusal only where it is certain that nothing was begun, or what was seen that must be decided on first.

        Raises:
            NodeError: nothing is known; it is tried again.
            StoreInUse: another process has the store, and does it.
        """
        if swap.restored and isinstance(wanted.effect, PayInvoice | SendLock):
            # The life that this copy does not know of may have done it: only the nodes can tell, by what is looked at.
            return None
        lock, key = swap.deal.terms.lock, f"swap:{swap.deal.id}:{wanted.effect.name}"
        match wanted.effect:
            case PayInvoice():
                return await self._pay(swap, wake)
            case SettleInvoice(preimage=preimage):
                await self._still_ours()
                await self._settle(preimage)
            case CancelInvoice():
                await self._still_ours()
                await self._cancel(swap)
            case SendLock(not_after=not_after):
                if (answer := await self._why_not_lock(swap)) is not None:
                    return answer
                sending = self._chain.send_lock(key, lock, not_after=not_after, max_gas_wei=swap.deal.max_gas_wei)
                return await self._sent(SendLock.name, sending)
            case Claim() as effect:
                return await self._claim(swap, key, effect)
            case Refund() | RefundEarly() as effect:
                return await self._refund(swap, key, effect)
            case _:
                assert_never(wanted.effect)
        return None

    async def _why_not_lock(self, swap: StoredSwap) -> EffectRefused | ChainView | None:
        """What a provider decides first: what the lock shows, and, as long as it is not signed, a held payment that does not do."""
        if swap.deal.role is Role.CLIENT:
            return None
        assert self._node is not None
        terms = swap.deal.terms
        view = await self._chain.view(terms.lock, terms.depth_policy, lock_key=lock_key(swap))
        if seen_preimage(view) is not None:
            # As before a refund: once seen, it must not be forgotten.
            return view
        if view.own_lock is not OwnTransaction.NONE or view.latest.status is not LockStatus.NEVER:
            return None
        held = await look_at_invoice(self._node, terms.lock.preimage_hash, self._clock, lock_by=terms.lock_by)
        reason = why_not_lock(swap.deal, held)
        if reason is None and self._why_not_begin is not None:
            reason = await self._why_not_begin(swap)
        return None if reason is None else EffectRefused(key=SendLock.name, reason=reason)

    async def _sent(self, name: str, sending: Awaitable[None]) -> EffectRefused | None:
        # Only what the sending itself raises is certain: a look or a signer that fails says nothing of what was sent before.
        try:
            await sending
        except _CERTAIN as error:
            return EffectRefused(key=name, reason=str(error))
        return None

    async def _look(self, swap: StoredSwap) -> ChainView:
        return await self._chain.view(swap.deal.terms.lock, swap.deal.terms.depth_policy, lock_key=None)

    async def _refund(self, swap: StoredSwap, key: str, effect: Refund | RefundEarly) -> ChainView | None:
        view, lock = await self._look(swap), swap.deal.terms.lock
        if seen_preimage(view) is not None:
            # Once seen, the preimage is known: a reorganisation that takes the claim away must not let this look be forgotten.
            return view
        if view.latest.status is not LockStatus.LOCKED:
            return None
        if isinstance(effect, Refund) and view.head_timestamp < lock.timelock:
            # Wanted since a refund was seen that another endpoint, or a reorganisation, does not show: ours would only fail yet.
            return None
        if isinstance(effect, RefundEarly):
            sending = self._chain.send_refund_early(key, lock, effect.signature)
        else:
            # A provider's must be final before the payment that is held for it goes back; a client's only waits.
            late = lock.timelock + swap.deal.terms.timing.evm_inclusion_s
            sending = self._chain.send_refund(key, lock, deadline=late if swap.deal.role is Role.PROVIDER else None)
        _pursue(await self._sent(effect.name, sending))
        return None

    async def _claim(self, swap: StoredSwap, key: str, effect: Claim) -> EffectRefused | None:
        deal = swap.deal
        view, preimage = await self._look(swap), effect.preimage
        readings = (view.latest, view.at_depth) if preimage is None else (view.latest,)
        if any(reading.status is not LockStatus.LOCKED for reading in readings):
            return None
        if preimage is None:
            assert self._preimages is not None
            assert deal.preimage_time_ms is not None
            preimage = await self._preimages.preimage(deal.terms.lock, deal.preimage_time_ms)
        sending = self._chain.send_claim(key, deal.terms.lock, preimage, not_after=effect.not_after)
        refused = await self._sent(Claim.name, sending)
        if effect.preimage is not None or (refused is not None and await self._chain.was_shown(key)):
            # An attempt before this one was shown, or somebody else knows the preimage.
            _pursue(refused)
            return None
        return refused

    async def _settle(self, preimage: bytes) -> None:
        assert self._node is not None
        try:
            await self._node.settle_invoice(preimage)
        except (Expired, NotFound) as error:
            # The next look at the invoice says what it is; the decision is not taken from an error.
            log_event(logger, logging.WARNING, "swap.settle_failed", f"an invoice could not be settled: {error}")

    async def _cancel(self, swap: StoredSwap) -> None:
        assert self._node is not None
        try:
            await self._node.cancel_invoice(swap.deal.terms.lock.preimage_hash)
        except (Expired, NotFound) as error:
            text = f"swap {swap.deal.id}: its invoice could not be cancelled: {error}"
            log_event(logger, logging.INFO, "swap.cancel_failed", text)

    async def _pay(self, swap: StoredSwap, wake: Callable[[], None]) -> EffectRefused | None:
        swap_id = swap.deal.id
        if swap_id in self._payments:
            return None
        if (reason := self._refused.pop(swap_id, None)) is not None:
            return EffectRefused(key=PayInvoice.name, reason=reason)
        if self._node is None:
            # An earlier process may have had one, and begun.
            begun = self._pay_begun(swap)
            return None if begun else EffectRefused(key=PayInvoice.name, reason="no Lightning node is configured")
        record = await self._node.lookup_payment(swap.deal.terms.lock.preimage_hash)
        if record.state is not PaymentState.NONE:
            # A record exists, so this payment was begun before: its outcome is observed, never begun again.
            return None
        never_begun = not self._pay_begun(swap)
        why_not = await self._why_not_pay(swap)
        if why_not is not None:
            return why_not if never_begun and isinstance(why_not, EffectRefused) else None
        if never_begun:
            await self._store.mark_begun(swap_id, PayInvoice.name, begun=True)
            self._begun[swap_id] = True
        task = asyncio.create_task(self._run_payment(swap, wake, first=never_begun), name=f"layer2 payment {swap_id}")
        self._payments[swap_id] = task
        return None

    async def _why_not_pay(self, swap: StoredSwap) -> EffectRefused | Literal["later"] | None:
        """Asked just before a payment is begun: refused for good, not now, or None if it may be begun."""
        deal, terms = swap.deal, swap.deal.terms
        now = self._clock.now_ms() // 1000
        if deal.role is Role.CLIENT:
            late = now + terms.timing.payment_time_limit_s > deal.invoice_expires_at
            return EffectRefused(key=PayInvoice.name, reason="the hold invoice is about to expire") if late else None
        view = await self._chain.view(terms.lock, terms.depth_policy, lock_key=lock_key(swap))
        in_time = may_pay(
            terms.timing,
            invoice_expires_at=deal.invoice_expires_at,
            final_cltv=deal.invoice_final_cltv,
            timelock=terms.lock.timelock,
            now=max(now, view.head_timestamp),
        )
        if not in_time:
            return EffectRefused(key=PayInvoice.name, reason="too little time is left to pay")
        # A reorganisation, or an endpoint that is behind another, hides a lock that comes back: as long as there is time to pay,
        # a lock that is not there is waited for.
        if view.at_depth.status is not LockStatus.LOCKED or view.latest.status is not LockStatus.LOCKED:
            return "later"
        if self._why_not_begin is None or self._pay_begun(swap):
            return None
        reason = await self._why_not_begin(swap)
        return None if reason is None else EffectRefused(key=PayInvoice.name, reason=reason)

    async def _run_payment(self, swap: StoredSwap, wake: Callable[[], None], *, first: bool) -> None:
        assert self._node is not None
        deal, terms = swap.deal, swap.deal.terms
        cltv_limit = submarine_cltv_limit(terms.timing, deal.invoice_final_cltv)
        fee_limit_msat = terms.routing_fee_limit_msat
        if deal.role is Role.CLIENT:
            fee_limit_msat = deal.routing_fee_limit_msat
        ended = False
        try:
            with operation_context(tx_id=f"lightning:{terms.lock.preimage_hash.hex()}"):
                await self._still_ours(certain=True)
                await self._node.pay(
                    terms.invoice,
                    fee_limit_msat=fee_limit_msat,
                    cltv_limit=cltv_limit,
                    time_limit_s=terms.timing.payment_time_limit_s,
                )
            await self._pay_answered(deal.id, first=first)
            ended = True
        except (PaymentFailed, Expired, InvoiceError) as error:
            # The node answered to the end and has no payment on record. Only if no earlier request was lost is that certain.
            await self._pay_answered(deal.id, first=first)
            if first:
                self._refused[deal.id] = str(error)
                ended = True
        except Layer2Error as error:
            text = f"swap {deal.id}: the outcome of its payment is unknown for now: {error}"
            log_event(logger, logging.WARNING, "swap.payment_unknown", text)
        finally:
            self._payments.pop(deal.id, None)
            # What has not come to an end is asked for again at the next look; to look at once would be to ask without a pause.
            if ended:
                wake()

    async def _pay_answered(self, swap_id: str, *, first: bool) -> None:
        if not first:
            return
        try:
            await self._store.mark_begun(swap_id, PayInvoice.name, begun=False)
        except (NotFound, StorageError) as error:
            # Forgetting that it was answered costs time, never money: the swap then waits for the invoice's expiry.
            text = f"swap {swap_id}: cannot note that its payment was answered: {error}"
            log_event(logger, logging.WARNING, "swap.note_failed", text)
        self._begun[swap_id] = False
