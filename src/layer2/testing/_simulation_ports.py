"""The ports through which a simulated process sees the chain, its Lightning node and the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from layer2.errors import (
    Expired,
    FeeLimitExceeded,
    InsufficientFunds,
    Layer2Error,
    UnexpectedReply,
    UnknownOutcome,
)
from layer2.lightning import InvoiceRecord, NodeInfo, PaymentRecord
from layer2.swaps import ChainView, Deal, ExitAgainError, LockReading, LockStatus, OwnTransaction
from layer2.swaps._attempts import next_attempt_ms
from layer2.terms import DepthPolicy, Lock
from layer2.testing._simulation_blocks import NEVER, Block, LockCall, Transaction, consent

if TYPE_CHECKING:
    from layer2.testing._simulation_process import Life, SimulatedProcess

__all__ = ["ChainPort", "CounterpartyPort", "NodePort", "seen_head"]


def seen_head(process: SimulatedProcess) -> tuple[float, Block]:
    """The head of the endpoint that answers now, with the time at which the chain was so."""
    lag_s = 0.0
    gate, chain = process.gate, process.chain
    if gate.troubles.lag:
        timing = chain.timing
        far = gate.uniform(0, 1) < 0.3
        lag_s = gate.uniform(0, timing.grace_s / 2 if far else min(1.5 * timing.evm_block_s, timing.grace_s / 3))
    now = process.loop.now - lag_s
    seen = chain.heads[0]
    for seen in reversed(chain.heads):
        if seen[0] <= now:
            break
    return now, seen[1]


class ChainPort:
    """Implements ``SwapChain`` for one life of a process, with the meaning that ``EvmSwapChain`` gives it."""

    def __init__(self, process: SimulatedProcess, life: Life, *, replace_lock: bool) -> None:
        self._process = process
        self._gate = process.gate
        self._life = life
        self._chain = process.chain
        self._replace_lock = replace_lock

    def _head(self) -> tuple[float, Block]:
        return seen_head(self._process)

    def _now_s(self) -> int:
        return self._process.clock.now_ms() // 1000

    def _own(self, key: str | None) -> OwnTransaction:
        tx = None if key is None else self._chain.signed.get(key)
        if tx is None:
            return OwnTransaction.NONE
        now, head = self._head()
        final = self._chain.finalized(head, now)
        replaced = tx.rival is not None and final.found(tx.rival) is not None
        return OwnTransaction.DEAD if replaced or final.found(tx) is False else OwnTransaction.OPEN

    async def view(self, lock: Lock, policy: DepthPolicy, *, lock_key: str | None) -> ChainView:
        """See ``SwapChain``."""
        own_lock = OwnTransaction.NONE
        if lock_key is not None:
            own_lock = await self._gate.call(self._life, "own transaction", lambda: self._own(lock_key))
        view = await self._gate.call(self._life, "view", lambda: self._view(lock, policy, own_lock))
        if LockStatus.CLAIMED in (view.latest.status, view.at_depth.status, view.finalized.status):
            self._process.watchman.learned(self._process, lock.preimage_hash)
        return view

    def _view(self, lock: Lock, policy: DepthPolicy, own_lock: OwnTransaction) -> ChainView:
        now, head = self._head()
        final = self._chain.finalized(head, now)
        lock_id = lock.lock_id

        def reading(block: Block) -> LockReading:
            return block.locks.get(lock_id, NEVER)

        return ChainView(
            latest=reading(head),
            at_depth=reading(self._chain.deep(head, now, policy)),
            finalized=reading(final),
            head_timestamp=head.timestamp,
            finalized_timestamp=final.timestamp,
            now_s=self._now_s(),
            own_lock=own_lock,
        )

    def _refuse(self) -> None:
        if self._gate.chance(self._gate.troubles.refusal):
            if self._gate.uniform(0, 1) < 0.5:
                raise FeeLimitExceeded("gas is too dear now")
            raise InsufficientFunds("the account cannot pay the gas now", coin="ETH")

    def _next_attempt(self, tx: Transaction, deadline: int | None) -> int:
        """A claim or refund that failed for good says nothing about the next one, which has to wait. How many failed."""
        key, failures, last_made_ms = tx.key, 0, 0
        while (known := self._chain.signed.get(tx.key)) is not None and self._own(tx.key) is OwnTransaction.DEAD:
            failures, last_made_ms = failures + 1, known.made_ms
            tx.key = f"{key}:{failures + 1}"
        if failures and known is None:
            due_ms = next_attempt_ms(
                failures,
                last_made_ms=last_made_ms,
                now_ms=self._process.clock.now_ms(),
                deadline=deadline,
                block_time_s=float(self._chain.timing.evm_block_s),
            )
            if due_ms is not None:
                raise ExitAgainError("it waits for its next attempt", failures=failures, sent=False)
        return failures

    async def _submit(
        self, tx: Transaction, *, deadline: int | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Sign, journal, send; with a key that is known: send the same bytes again."""
        chain, gate, life = self._chain, self._gate, self._life
        await gate.cross(life, act=True)
        failures = 0 if tx.call is LockCall.LOCK else self._next_attempt(tx, deadline)
        known = chain.signed.get(tx.key)
        if known is None:
            self._refuse()
            check()
            tx.made_ms = self._process.clock.now_ms()
            self._process.watchman.signs(self._process, tx)
            known = chain.sign(tx)
            self._process.tell(f"signs {tx.key}")
            await gate.cross(life, act=True, what=f"sign {tx.call}")
        late = known.not_after is not None and self._now_s() > known.not_after
        if late and not known.sent:
            if tx.call is LockCall.LOCK:
                return
            raise UnexpectedReply("a signed transaction is not accepted: its time has passed")
        await gate.call(life, f"send {tx.call}", lambda: self._deliver(known), act=True)
        if failures:
            raise ExitAgainError("the next attempt is on its way", failures=failures, sent=True)

    def _deliver(self, tx: Transaction) -> None:
        self._chain.send(tx)
        if tx.rival is not None:
            self._chain.send(tx.rival)

    def _transaction(self, key: str, call: LockCall, lock: Lock) -> Transaction:
        return Transaction(key=key, account=self._process.account.raw, call=call, lock=lock)

    async def send_lock(self, key: str, lock: Lock, *, not_after: int, max_gas_wei: int) -> None:  # noqa: ARG002 (gas is free here)
        """See ``SwapChain``."""
        tx = self._transaction(key, LockCall.LOCK, lock)
        tx.not_after = not_after
        if self._replace_lock:
            other = Transaction(key=f"{key}:other", account=tx.account, call=LockCall.OTHER, lock=None)
            tx.rival, other.rival = other, tx

        def check() -> None:
            if self._now_s() > not_after:
                raise Expired("the time to lock has passed", expired_at=not_after)

        await self._submit(tx, check=check)

    async def send_claim(self, key: str, lock: Lock, preimage: bytes, *, not_after: int | None) -> None:
        """See ``SwapChain``."""
        known = self._chain.signed.get(key)
        # Once sent it may be known: from then on it is pursued however late it is.
        latest = not_after if known is None or not known.sent else None
        tx = self._transaction(key, LockCall.CLAIM, lock)
        tx.preimage = preimage
        tx.not_after = latest
        if latest is not None:
            head = await self._gate.call(self._life, "head", lambda: self._head()[1])
            if max(head.timestamp, self._now_s()) > latest:
                raise Expired("too little time is left to claim safely", expired_at=latest)

        def check() -> None:
            if latest is not None and self._now_s() > latest:
                raise Expired("too little time is left to claim safely", expired_at=latest)

        await self._submit(tx, deadline=lock.timelock, check=check)

    async def send_refund(self, key: str, lock: Lock, *, deadline: int | None) -> None:
        """See ``SwapChain``."""
        await self._submit(self._transaction(key, LockCall.REFUND, lock), deadline=deadline)

    async def send_refund_early(self, key: str, lock: Lock, signature: bytes) -> None:
        """See ``SwapChain``."""
        tx = self._transaction(key, LockCall.REFUND_EARLY, lock)
        tx.signature = signature
        await self._submit(tx)

    async def was_shown(self, key: str) -> bool:
        """See ``SwapChain``."""
        tx = self._chain.signed.get(key)
        return tx is not None and (tx.sent or tx.not_after is None or self._now_s() <= tx.not_after)

    async def safe_lag_s(self) -> int:
        """See ``SwapChain``."""
        now, head = self._head()
        return head.timestamp - self._chain.safe(head, now).timestamp

    async def next_block(self) -> frozenset[bytes] | None:
        """See ``SwapChain``. Every third time the endpoint does not tell what changed."""
        await self._gate.cross(self._life, act=False)
        before = self._chain.head.locks
        await self._chain.wait()
        head = self._chain.head
        if head.number % 3 == 0:
            return None
        return frozenset(each for each in {*before, *head.locks} if before.get(each) != head.locks.get(each))


class NodePort:
    """Implements ``LightningNode`` for one life of a process."""

    def __init__(self, process: SimulatedProcess, life: Life) -> None:
        self._process = process
        self._gate = process.gate
        self._life = life
        self._network = process.lightning

    async def info(self) -> NodeInfo:
        """See ``LightningNode``."""
        return await self._gate.call(self._life, "info", lambda: self._network.node_info(self._process.name))

    async def pay(
        self,
        invoice: str,
        *,
        amount_msat: int | None = None,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """See ``LightningNode``."""
        assert amount_msat is None
        process, gate, network = self._process, self._gate, self._network
        process.watchman.pays(process, invoice, fee_limit_msat)

        def deliver() -> object:
            return network.pay(
                process.name, invoice, fee_limit_msat=fee_limit_msat, cltv_limit=cltv_limit, time_limit_s=time_limit_s
            )

        if gate.uniform(0, 100) < gate.troubles.late_request:
            delay_s = gate.uniform(0, 1) ** 2 * process.watchman.longest_s
            process.tell(f"its request to pay is on its way for {delay_s:.1f} s")
            network.requests_on_their_way += 1
            process.loop.call_later(delay_s, self._deliver_late, deliver)
            await gate.cross(self._life, act=True, what="pay")
            raise UnknownOutcome("the connection broke while the payment was asked for")
        payment = await gate.call(
            self._life,
            "pay",
            lambda: network.pay(
                process.name, invoice, fee_limit_msat=fee_limit_msat, cltv_limit=cltv_limit, time_limit_s=time_limit_s
            ),
            act=True,
        )
        waiting = network.outcome(payment)
        if gate.chance(gate.troubles.lost_reply):
            try:
                async with asyncio.timeout(gate.uniform(0, 20)):
                    await waiting
            except TimeoutError:
                raise UnknownOutcome("the connection broke while the payment was under way") from None
        else:
            await waiting
        await gate.cross(self._life, act=True)
        return self._learn(self._record(payment.payment_hash))

    def _deliver_late(self, deliver: Callable[[], object]) -> None:
        self._network.requests_on_their_way -= 1
        with suppress(Layer2Error):  # nobody hears any more what the node answers
            deliver()

    async def keysend(
        self,
        node_id: bytes,
        amount_msat: int,
        *,
        preimage: bytes,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """No swap does this."""
        raise NotImplementedError

    def _record(self, payment_hash: bytes) -> PaymentRecord:
        return self._network.payment_record(self._process.name, payment_hash)

    def _learn(self, record: PaymentRecord) -> PaymentRecord:
        if record.preimage is not None:
            self._process.watchman.learned(self._process, record.payment_hash)
        return record

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """See ``LightningNode``."""
        record = await self._gate.call(self._life, "lookup payment", lambda: self._record(payment_hash))
        return self._learn(record)

    async def create_invoice(
        self,
        *,
        amount_msat: int,
        memo: str = "",
        description_hash: bytes | None = None,
        expiry_s: int = 3600,
        preimage: bytes | None = None,
        cltv_delta: int | None = None,
    ) -> InvoiceRecord:
        """The simulation makes invoices itself."""
        raise NotImplementedError

    async def create_hold_invoice(
        self, *, payment_hash: bytes, amount_msat: int, memo: str = "", expiry_s: int, cltv_delta: int
    ) -> InvoiceRecord:
        """The simulation makes invoices itself."""
        raise NotImplementedError

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        """See ``LightningNode``."""
        name = self._process.name
        return await self._gate.call(
            self._life, "lookup invoice", lambda: self._network.invoice_record(name, payment_hash)
        )

    async def settle_invoice(self, preimage: bytes) -> None:
        """See ``LightningNode``."""
        process = self._process

        def settle() -> None:
            process.watchman.settles(process, preimage)
            self._network.settle(process.name, preimage)

        await self._gate.call(self._life, "settle", settle, act=True)

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """See ``LightningNode``."""
        process = self._process

        def cancel() -> None:
            process.watchman.cancels(process, payment_hash)
            self._network.cancel(process.name, payment_hash)

        await self._gate.call(self._life, "cancel", cancel, act=True)

    def watch_invoice(self, payment_hash: bytes) -> AsyncIterator[InvoiceRecord]:
        """See ``LightningNode``."""
        return self._network.watch(self._process.name, payment_hash)

    async def close(self) -> None:
        """Nothing is open."""


class CounterpartyPort:
    """Asks the other side for its signature of an early refund, and looks at it as the real client does."""

    def __init__(
        self, process: SimulatedProcess, life: Life, answer: Callable[[Deal], Awaitable[bytes | None]]
    ) -> None:
        self._process = process
        self._life = life
        self._answer = answer

    async def refund_signature(self, deal: Deal) -> bytes | None:
        """See ``Counterparty``."""
        gate, life = self._process.gate, self._life
        await gate.call(life, "ask for a refund", lambda: None)
        signature = await self._answer(deal)
        await gate.call(life, "answer about a refund", lambda: None)
        return signature if signature == consent(deal.terms.lock) else None
