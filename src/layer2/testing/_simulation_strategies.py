"""What hostile parties do: one short script for each attack. They have no engine; they hold the keys of their side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from layer2.errors import Layer2Error
from layer2.lightning import InvoiceState, PaymentState
from layer2.swaps import LockStatus, Role, latest_claim_start
from layer2.terms import Lock, SwapDirection
from layer2.testing._simulation_blocks import NEVER, LockCall, Transaction, consent
from layer2.testing._simulation_loop import EPOCH_S

if TYPE_CHECKING:
    import random

    from layer2.swaps import Deal
    from layer2.testing._simulation_chain import SimulatedChain
    from layer2.testing._simulation_lightning import SimulatedLightning
    from layer2.testing._simulation_loop import SimulationLoop

__all__ = ["Attacker", "refund_as_stranger"]


def refund_as_stranger(chain: SimulatedChain, lock: Lock, account: bytes) -> None:
    """Anybody may send a refund that is due: it pays whoever locked."""
    key = f"stranger:{lock.timelock}:refund"
    chain.send(chain.sign(Transaction(key=key, account=account, call=LockCall.REFUND, lock=lock)))


class Attacker:
    """One hostile party of one swap."""

    def __init__(
        self,
        *,
        role: Role,
        strategy: str,
        deals: list[Deal],
        preimage: bytes | None,
        loop: SimulationLoop,
        rng: random.Random,
        chain: SimulatedChain,
        lightning: SimulatedLightning,
        ask_refund: Callable[[Deal], Awaitable[bytes | None]],
        story: Callable[[str], None],
    ) -> None:
        self._role = role
        self._strategy = strategy
        self._deals = deals
        self._preimage = preimage
        """Reverse client: its own."""
        self._loop = loop
        self._rng = rng
        self._chain = chain
        self._lightning = lightning
        self._ask_refund = ask_refund
        self._story = story
        self._count = 0

    @property
    def _lock(self) -> Lock:
        return self._deals[0].terms.lock

    async def run(self) -> None:
        """Do what the strategy says."""
        deal = self._deals[0]
        self._story(f"{self._role.value}: {self._strategy}")
        if (self._role is Role.CLIENT) == (deal.direction is SwapDirection.SUBMARINE):
            await self._as_locker(deal)
        else:
            await self._as_claimer(deal)

    # -- means ---------------------------------------------------------------------------------------------------------

    async def _until(self, unix_s: float) -> None:
        await asyncio.sleep(max(0.0, unix_s - EPOCH_S - self._loop.now))

    def _send(
        self, call: LockCall, lock: Lock, *, preimage: bytes | None = None, signature: bytes | None = None
    ) -> None:
        self._count += 1
        account = self._deals[0].terms.lock
        locker = (self._role is Role.CLIENT) == (self._deals[0].direction is SwapDirection.SUBMARINE)
        tx = Transaction(
            key=f"{self._role.value}:{self._count}:{call}",
            account=(account.refunder if locker else account.claimer).raw,
            call=call,
            lock=lock,
            preimage=preimage,
            signature=signature,
        )
        self._chain.send(self._chain.sign(tx))

    def _status(self, lock: Lock | None = None) -> LockStatus:
        lock_id = (lock or self._lock).lock_id
        return self._chain.head.locks.get(lock_id, NEVER).status

    async def _status_is(self, status: LockStatus, lock: Lock | None = None) -> None:
        while self._status(lock) is not status:
            await self._chain.wait()

    def _other(self) -> Lock:
        lock = self._lock
        return self._rng.choice(
            (
                replace(lock, amount=lock.amount - 1),
                replace(lock, timelock=lock.timelock + 1),
                replace(lock, timelock=lock.timelock - self._rng.randint(1, 60)),
                replace(lock, claimer=lock.refunder),
                replace(lock, chain_id=lock.chain_id + 1),
            )
        )

    # -- who locks -----------------------------------------------------------------------------------------------------

    async def _as_locker(self, deal: Deal) -> None:
        rng, terms, strategy = self._rng, deal.terms, self._strategy
        if deal.direction is SwapDirection.REVERSE and strategy != "never_settle":
            invoice = self._lightning.invoices[terms.lock.preimage_hash]
            while invoice.state is InvoiceState.OPEN:
                await self._chain.wait()
        match strategy:
            case "never_lock":
                return
            case "lock_other_terms":
                self._send(LockCall.LOCK, self._other())
                if rng.random() < 0.3:
                    self._send(LockCall.LOCK, self._lock)
            case "lock_late":
                late = latest_claim_start(terms.timing, terms.depth_policy, terms.lock.timelock)
                moments = (terms.lock_by, terms.lock_by + 5, deal.invoice_expires_at, late, terms.lock.timelock)
                await self._until(rng.choice(moments) - rng.uniform(-1, 1.5 * terms.timing.evm_inclusion_s))
                self._send(LockCall.LOCK, self._lock)
            case "lock_again":
                self._send(LockCall.LOCK, self._lock)
                self._send(LockCall.LOCK, replace(self._lock, timelock=self._lock.timelock + rng.randint(-20, 20)))
            case "replay_hash":
                for one in self._deals:
                    self._send(LockCall.LOCK, one.terms.lock)
                    await asyncio.sleep(rng.choice((0.0, rng.uniform(0, 10))))
            case _:
                self._send(LockCall.LOCK, self._lock)
        if deal.direction is SwapDirection.SUBMARINE:
            await asyncio.gather(*(self._get_back(one) for one in self._deals))
        else:
            await self._after_reverse_lock(deal)

    async def _get_back(self, deal: Deal) -> None:
        """Take a submarine lock back as soon as anything allows it."""
        lock = deal.terms.lock
        while EPOCH_S + self._loop.now < lock.timelock:
            left_s = lock.timelock - EPOCH_S - self._loop.now
            await asyncio.sleep(self._rng.uniform(0.2, 2.0 + 0.02 * left_s))
            try:
                signature = await self._ask_refund(deal)
            except Layer2Error:
                continue
            if signature is not None:
                await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0, 60))))
                self._send(LockCall.REFUND_EARLY, lock, signature=signature)
                break
        await self._until(lock.timelock - self._rng.uniform(0, self._chain.timing.evm_inclusion_s / 2))
        await self._refund_for_ever(lock)

    async def _refund_for_ever(self, lock: Lock) -> None:
        for _ in range(20):
            self._send(LockCall.REFUND, lock)
            await asyncio.sleep(self._chain.timing.evm_block_s)

    async def _after_reverse_lock(self, deal: Deal) -> None:
        rng, lock, strategy = self._rng, self._lock, self._strategy
        provider = Role.PROVIDER.value
        if strategy == "cancel_after_lock":
            await self._status_is(LockStatus.LOCKED)
            await asyncio.sleep(rng.uniform(0, 5))
            self._quietly(lambda: self._lightning.cancel(provider, lock.preimage_hash))
        loop_until = lock.timelock - rng.uniform(0, 3)
        while EPOCH_S + self._loop.now < loop_until:
            self._try_settle(deal)
            await asyncio.sleep(0.5 + self._chain.timing.evm_inclusion_s / 20)
        await self._refund_for_ever(lock)
        self._try_settle(deal)

    def _try_settle(self, deal: Deal) -> None:
        """Take the payment with a preimage that anybody can see, be it in the pool."""
        if self._strategy == "never_settle":
            return
        shown = (tx.preimage for tx in self._chain.signed.values() if tx.sent and tx.lock == deal.terms.lock)
        preimage = next((one for one in shown if one is not None), None)
        if preimage is not None:
            self._quietly(lambda: self._lightning.settle(Role.PROVIDER.value, preimage))

    def _quietly(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Layer2Error as error:
            self._story(f"{self._role.value}: {error}")

    # -- who claims ----------------------------------------------------------------------------------------------------

    async def _as_claimer(self, deal: Deal) -> None:
        if deal.direction is SwapDirection.SUBMARINE:
            await self._claim_submarine(deal)
        else:
            await self._claim_reverse(deal)

    async def _claim_submarine(self, deal: Deal) -> None:
        rng, lock, strategy = self._rng, self._lock, self._strategy
        if strategy in ("never_pay", "sign_rubbish"):
            return
        await self._status_is(LockStatus.LOCKED)
        if strategy == "pay_late":
            await self._until(rng.uniform(deal.terms.lock_by, deal.invoice_expires_at))
        payment = None
        for _ in range(20):
            try:
                payment = self._lightning.pay(
                    Role.PROVIDER.value,
                    deal.terms.invoice,
                    fee_limit_msat=10**6,
                    cltv_limit=deal.terms.timing.route_cltv_blocks + deal.invoice_final_cltv,
                    time_limit_s=5,
                )
            except Layer2Error:
                return
            await self._lightning.outcome(payment)
            if payment.state is PaymentState.SUCCEEDED:
                break
        if payment is None or payment.preimage is None or strategy == "never_claim":
            return
        if strategy == "claim_at_timelock":
            await self._until(lock.timelock + rng.uniform(-self._chain.timing.evm_inclusion_s, 3))
        self._send(LockCall.CLAIM, lock, preimage=payment.preimage)

    def signs_refund(self, deal: Deal) -> bytes | None:
        """What a hostile provider answers to who asks for an early refund."""
        if self._strategy == "sign_and_claim":
            return consent(deal.terms.lock)
        return bytes(65) if self._strategy == "sign_rubbish" else None

    async def _claim_reverse(self, deal: Deal) -> None:
        rng, lock, strategy = self._rng, self._lock, self._strategy
        if strategy == "never_pay":
            return
        if strategy == "pay_late":
            late = self._lightning.invoices[lock.preimage_hash].expires_at
            await asyncio.sleep(max(0.0, late - self._loop.now - rng.random() ** 2 * 8))
        self._quietly(
            lambda: self._lightning.pay(
                Role.CLIENT.value,
                deal.terms.invoice,
                fee_limit_msat=10**6,
                cltv_limit=deal.terms.timing.route_cltv_blocks + deal.invoice_final_cltv,
                time_limit_s=10,
            )
        )
        await self._status_is(LockStatus.LOCKED)
        if strategy == "never_claim" or self._preimage is None:
            return
        if strategy == "claim_at_timelock":
            await self._until(lock.timelock + rng.uniform(-self._chain.timing.evm_inclusion_s, 3))
        if strategy == "claim_when_paid_back":
            payment = self._lightning.payments.get((Role.CLIENT.value, lock.preimage_hash))
            if payment is not None:
                await self._lightning.outcome(payment)
        self._send(LockCall.CLAIM, lock, preimage=self._preimage)
