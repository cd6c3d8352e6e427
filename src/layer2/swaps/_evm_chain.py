"""The EVM chain as a swap sees it, over an ``EvmClient`` and the ``TxSender`` of our account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

from layer2.errors import Expired, Layer2Error, Reverted, UnexpectedReply, UnknownOutcome
from layer2.evm import (
    CLAIM_GAS,
    LOCK_GAS,
    REFUND_COOPERATIVE_GAS,
    REFUND_GAS,
    LockPhase,
    TxState,
    decode_state,
    decode_status,
    decode_transaction,
    encode_allowance,
    encode_approve,
    encode_claim,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
    encode_status,
    encode_transfer,
    storage_slot,
)
from layer2.swaps._attempts import next_attempt_ms
from layer2.swaps._observations import ChainView, LockReading, LockStatus, OwnTransaction
from layer2.swaps._ports import ExitAgainError, WaitsForBlockError
from layer2.transactions import Depth, EvmCall, Outcome, TxStatus

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.addresses import EvmAddress
    from layer2.evm import BlockRef, EvmClient, Header, TxJournal, TxRecord, TxSender
    from layer2.terms import DepthPolicy, Lock

__all__ = ["EvmSwapChain"]

_STATUS: Final = {
    LockPhase.NEVER: LockStatus.NEVER,
    LockPhase.LOCKED: LockStatus.LOCKED,
    LockPhase.CLAIMED: LockStatus.CLAIMED,
    LockPhase.REFUNDED: LockStatus.REFUNDED,
}
_APPROVE_GAS: Final = 120_000
_UNLIMITED: Final = 2**256 - 1
_ENOUGH: Final = 2**128
_LONGEST_GAP: Final = 100
"""Blocks that may have come between two heads before every swap is looked at instead of searching events."""
_SEARCHED_AGAIN: Final = 2


class EvmSwapChain:
    """Implements ``SwapChain``. One per account; ``journal`` is the one that the sender writes.

    ``offers`` is the same over the lane of user traffic, to look at what nobody has bound anything for.
    """

    def __init__(
        self,
        *,
        client: EvmClient,
        sender: TxSender,
        journal: TxJournal,
        clock: Clock,
        block_time_s: float,
        _offers_of: set[EvmAddress] | None = None,
    ) -> None:
        for_offers = _offers_of is not None
        # One set for both: new blocks are searched for the events of offers too.
        self._contracts: set[EvmAddress] = set() if _offers_of is None else _offers_of
        self._client = client if for_offers else client.exits
        self.offers: EvmSwapChain = (
            self
            if for_offers
            else EvmSwapChain(
                client=client,
                sender=sender,
                journal=journal,
                clock=clock,
                block_time_s=block_time_s,
                _offers_of=self._contracts,
            )
        )
        self._sender = sender
        self._journal = journal
        self._clock = clock
        self._block_time_s = block_time_s
        self._approved: set[tuple[bytes, bytes]] = set()
        self._approving: dict[tuple[bytes, bytes], str] = {}
        self._approve_lock = asyncio.Lock()
        self._phases: dict[bytes, LockStatus] = {}
        self._head: Header | None = None
        self._headers: dict[str, tuple[float, bytes, Header]] = {}
        self._header_locks: dict[str, asyncio.Lock] = {}

    async def view(self, lock: Lock, policy: DepthPolicy, *, lock_key: str | None) -> ChainView:
        """The lock at three depths now, and what became of our own lock transaction sent under ``lock_key``."""
        self._contracts.add(lock.contract)
        # Asked first: a transaction that dies in between is still reported as open, never the other way round.
        own_lock = OwnTransaction.NONE if lock_key is None else await self._own_transaction(lock_key)
        head = await self._header("latest")
        finalized = await self._header("finalized")
        deep = await self._deep_block(policy, head, finalized)
        # By hash: three answers of one branch, even while the chain reorganises.
        latest = await self._newest(lock, head)
        if latest.status is LockStatus.NEVER:
            at_depth = final = latest
            if finalized.timestamp < lock.timelock and own_lock is not OwnTransaction.DEAD:
                return self._as_view(latest, at_depth, final, head, finalized, own_lock)
            # An empty slot may also be one of no contract at all; before a lock is given up, the contract itself is asked.
            latest = await self._reading(lock, head)
        at_depth = latest if deep.hash == head.hash else await self._reading(lock, deep)
        final = at_depth if deep.hash == finalized.hash else await self._reading(lock, finalized)
        if final.status in (LockStatus.CLAIMED, LockStatus.REFUNDED):
            self._phases.pop(lock.lock_id, None)
        return self._as_view(latest, at_depth, final, head, finalized, own_lock)

    def _as_view(
        self,
        latest: LockReading,
        at_depth: LockReading,
        final: LockReading,
        head: Header,
        finalized: Header,
        own_lock: OwnTransaction,
    ) -> ChainView:
        return ChainView(
            latest=latest,
            at_depth=at_depth,
            finalized=final,
            head_timestamp=head.timestamp,
            finalized_timestamp=finalized.timestamp,
            now_s=self._clock.now_ms() // 1000,
            own_lock=own_lock,
        )

    async def _header(self, tag: Literal["latest", "safe", "finalized"]) -> Header:
        return await self._shared(tag, tag, b"")

    async def _below(self, head: Header, blocks: int) -> Header:
        """The block that is so many below ``head``."""
        return await self._shared(f"{blocks} below", max(0, head.number - blocks), head.hash)

    async def _shared(self, name: str, block: BlockRef, head: bytes) -> Header:
        # All swaps wake with one new block and ask for the same blocks: one answer serves them for a tenth of a block, and never
        # for another head than the one it was asked for.
        known = self._shared_answer(name, head)
        if known is None:
            async with self._header_locks.setdefault(name, asyncio.Lock()):
                known = self._shared_answer(name, head)
                if known is None:
                    known = await self._ask_header(block)
                    self._headers[name] = (self._clock.monotonic_s(), head, known)
        return known

    def _shared_answer(self, name: str, head: bytes) -> Header | None:
        asked_s, of, header = self._headers.get(name, (0.0, b"", None))
        fresh = of == head and self._clock.monotonic_s() - asked_s < self._block_time_s / 10
        return header if fresh else None

    async def _ask_header(self, block: BlockRef) -> Header:
        header = await self._client.header(block)
        if header is None:
            raise UnexpectedReply(f"the endpoint has no block {block!r}")
        return header

    async def _deep_block(self, policy: DepthPolicy, head: Header, finalized: Header) -> Header:
        match policy.depth:
            case Depth.FINALIZED:
                return finalized
            case Depth.SAFE:
                return await self._header("safe")
            case _:
                if policy.confirmations == 1:
                    return head
                return await self._below(head, policy.confirmations - 1)

    async def _newest(self, lock: Lock, head: Header) -> LockReading:
        """A lock's state at the head; asked twice if it is news."""
        reading = await self._slot(lock, head)
        if reading.status is not self._phases.get(lock.lock_id, LockStatus.NEVER):
            # A node that takes in the next block meanwhile may answer for this one with the state after that (anvil does).
            # By then it knows the next block, and answers for this one by its own state.
            reading = await self._slot(lock, head)
            self._phases[lock.lock_id] = reading.status
        return reading

    async def _slot(self, lock: Lock, block: Header) -> LockReading:
        """A lock's state from its storage slot, which costs an endpoint much less than a call."""
        value = await self._client.storage_at(lock.contract, storage_slot(lock.lock_id), block=block.hash)
        state = decode_state(value, lock.preimage_hash)
        return LockReading(status=_STATUS[state.phase], preimage=state.preimage)

    async def _reading(self, lock: Lock, block: Header) -> LockReading:
        answer = await self._client.call(lock.contract, encode_status(lock.lock_id), block=block.hash)
        state = decode_status(answer, lock.preimage_hash)
        return LockReading(status=_STATUS[state.phase], preimage=state.preimage)

    async def _own_transaction(self, key: str) -> OwnTransaction:
        record = await self._journal.get(key)
        if record is None:
            return OwnTransaction.NONE
        # An abandoned form was signed and may have been shown to a node: only its timelock, or another transaction with its
        # nonce, makes certain that it does nothing.
        newest = max(decode_transaction(variant.raw).transaction.nonce for variant in record.variants)
        dead = _can_do_nothing(record) and newest <= record.nonce
        return OwnTransaction.DEAD if dead else OwnTransaction.OPEN

    async def send_lock(self, key: str, lock: Lock, *, not_after: int, max_gas_wei: int = 0) -> None:
        """Approve the contract once, then lock. See ``SwapChain``."""
        # Nothing is bound yet: unlike a way out, a lock may fail for its price.
        dearest = max(1, max_gas_wei // LOCK_GAS) if max_gas_wei else None
        call = EvmCall(to=lock.contract, data=encode_lock(lock), gas_limit=LOCK_GAS, max_fee_per_gas_wei=dearest)
        record = await self._journal.get(key)
        late = self._clock.now_ms() // 1000 > not_after
        if record is not None and record.state is TxState.ABANDONED and late:
            return  # it is not sent any more, perhaps for days until the timelock: only the chain tells what became of it
        if record is None:
            if late:
                raise Expired("the time to lock has passed", expired_at=not_after)
            await self._approve(lock)
            # Whatever would make it revert (balance, pause, timelock) is known before anything is signed.
            await self._client.call(lock.contract, call.data, sender=self._sender.account)
        await self._submit(call, key, not_after=not_after, deadline=not_after)

    async def send_claim(self, key: str, lock: Lock, preimage: bytes, *, not_after: int | None) -> None:
        """Claim. The gas is a constant: an estimate would show the preimage. See ``SwapChain``."""
        record = await self._journal.get(key)
        secret = record is None or (record.state is TxState.ABANDONED and not record.sent)
        if not_after is not None and secret:
            head = await self._header("latest")
            if max(head.timestamp, self._clock.now_ms() // 1000) > not_after:
                raise Expired("too little time is left to claim safely", expired_at=not_after)
            # The claim itself cannot be tried without showing the preimage; whether the token pays the claimer can.
            await self._client.call(lock.token, encode_transfer(lock.claimer, lock.amount), sender=lock.contract)
        call = EvmCall(to=lock.contract, data=encode_claim(lock, preimage), gas_limit=CLAIM_GAS)
        # Once sent it may be known: from then on it is pursued however late it is.
        await self._submit_exit(call, key, not_after=not_after if secret else None, deadline=lock.timelock)

    async def send_refund(self, key: str, lock: Lock, *, deadline: int | None) -> None:
        """Refund after the timelock. See ``SwapChain``."""
        call = EvmCall(to=lock.contract, data=encode_refund(lock), gas_limit=REFUND_GAS)
        await self._submit_exit(call, key, deadline=deadline)

    async def send_refund_early(self, key: str, lock: Lock, signature: bytes) -> None:
        """Refund with the claimer's signature."""
        data = encode_refund_cooperative(lock, signature)
        call = EvmCall(to=lock.contract, data=data, gas_limit=REFUND_COOPERATIVE_GAS)
        await self._submit_exit(call, key)

    async def was_shown(self, key: str) -> bool:
        """See ``SwapChain``. A transaction that must not be sent any more, and never was, was shown to nobody."""
        record = await self._journal.get(key)
        if record is None:
            return False
        if record.not_after is None or record.sent:
            return True
        over = record.state is TxState.OPEN and record.not_after < self._clock.now_ms() // 1000
        return record.state is not TxState.ABANDONED and not over

    async def safe_lag_s(self) -> int:
        """By how many seconds the safe head is behind the head."""
        head, safe = await self._header("latest"), await self._header("safe")
        return head.timestamp - safe.timestamp

    async def next_block(self) -> frozenset[bytes] | None:
        """Wait until the head is another block than the last time. See ``SwapChain``."""
        while True:
            head, before = await self._header("latest"), self._head
            if before is None or head.hash != before.hash:
                self._head = head
                return None if before is None else await self._changed(before, head)
            await self._clock.sleep(self._block_time_s / 2)

    async def _changed(self, before: Header, head: Header) -> frozenset[bytes] | None:
        """Ids of the locks with events since ``before``; None after a reorganisation, a gap, or if the endpoint does not tell."""
        first = before.number + 1
        if not first <= head.number < first + _LONGEST_GAP:
            return None
        try:
            follower = head if head.number == first else await self._ask_header(first)
            if follower.parent_hash != before.hash:
                return None
            # Once more the blocks of before: an endpoint may show a block before it can search it.
            first = max(0, first - _SEARCHED_AGAIN)
            pages = [await self._client.logs_between(first, head.number, address=each) for each in self._contracts]
        except Layer2Error:
            # What does not tell who is concerned still says that there is a new head.
            return None
        if None in pages:
            return None
        return frozenset(log.topics[1] for page in pages if page for log in page if len(log.topics) > 1)

    async def _approve(self, lock: Lock) -> None:
        # Without a limit: the contract has no owner, cannot change, and pulls only from whoever calls lock. A limit would race
        # between swaps that lock at the same time.
        pair = (lock.token.raw, lock.contract.raw)
        if pair in self._approved:
            return
        async with self._approve_lock:
            allowed = await self._allowance(lock)
            if allowed >= _ENOUGH:
                self._approved.add(pair)
                return
            key = self._approving.get(pair)
            begun = key is not None
            if key is None:
                nonce = await self._client.nonce(self._sender.account)
                key = self._approving[pair] = f"approve:{lock.token}:{lock.contract}:{nonce}"
            call = EvmCall(to=lock.token, data=encode_approve(lock.contract, _UNLIMITED), gas_limit=_APPROVE_GAS)
            record = await self._sender.submit(call, key=key, exit=True)
            if begun and await self._is_futile(lock, pair, await self._sender.status(record.hash)):
                if allowed >= lock.amount:
                    return
                raise Reverted(
                    f"the token {lock.token} shows an allowance of {allowed} instead of {lock.amount} for the contract "
                    f"{lock.contract}, after an approval without a limit"
                )
        # Not awaited here: a swap that waits for its allowance must not keep others from being driven.
        raise WaitsForBlockError("the allowance of the contract is being included")

    async def _is_futile(self, lock: Lock, pair: tuple[bytes, bytes], approval: TxStatus) -> bool:
        """Whether an approval took effect and gave less than it should. Then it is not paid for again."""
        if approval.failed:
            del self._approving[pair]  # the next transfer tries once more
        if approval.outcome is Outcome.FAILED:
            raise Reverted(f"the approval of the contract {lock.contract} by the token {lock.token} failed")
        # Asked at its block, since an endpoint may be behind it at the head.
        return approval.succeeded and await self._allowance(lock, approval.block_hash) < _ENOUGH

    async def _allowance(self, lock: Lock, block: bytes | None = None) -> int:
        data = encode_allowance(self._sender.account, lock.contract)
        return int.from_bytes((await self._client.call(lock.token, data, block=block or "latest"))[:32])

    async def _submit_exit(
        self, call: EvmCall, key: str, *, not_after: int | None = None, deadline: int | None = None
    ) -> None:
        # A claim or refund that failed for good (the token was paused, its nonce was used) says nothing about the next one,
        # unlike a lock, which is begun once and never again.
        failed: list[TxRecord] = []
        attempt = key
        while (record := await self._journal.get(attempt)) is not None and _can_do_nothing(record):
            failed.append(record)
            attempt = f"{key}:{len(failed) + 1}"
        if not failed:
            await self._submit(call, attempt, not_after=not_after, deadline=deadline)
            return
        failures = len(failed)
        due_ms = next_attempt_ms(
            failures,
            last_made_ms=failed[-1].created_ms,
            now_ms=self._clock.now_ms(),
            deadline=deadline,
            block_time_s=self._block_time_s,
        )
        if record is None and due_ms is not None:
            waits = f"the next is made at {due_ms // 1000} (Unix seconds)"
            raise ExitAgainError(f"attempts that failed for good: {failures}; {waits}", failures=failures, sent=False)
        # It is known only from the endpoint that the others failed: it does not also say what this one may tip.
        tip = self._sender.limits.exit_again_max_tip_wei
        await self._submit(call, attempt, not_after=not_after, deadline=deadline, max_tip_wei=tip)
        text = f"attempts that failed for good: {failures}; the next is on its way"
        raise ExitAgainError(text, failures=failures, sent=True)

    async def _submit(
        self, call: EvmCall, key: str, *, not_after: int | None, deadline: int | None, max_tip_wei: int | None = None
    ) -> None:
        try:
            await self._sender.submit(
                call, key=key, exit=True, not_after=not_after, deadline=deadline, max_tip_wei=max_tip_wei
            )
        except UnknownOutcome as error:
            record = await self._journal.get(key)
            if record is not None and record.state is TxState.ABANDONED:
                raise UnexpectedReply(f"a signed transaction is not accepted: {error}") from error
            return  # it is in the journal and goes on being sent
        except Layer2Error as error:
            if await self._journal.get(key) is not None:
                # It was signed: whatever the endpoint says, only the chain tells what becomes of it.
                raise UnexpectedReply(f"a signed transaction is not accepted: {error}") from error
            raise


def _can_do_nothing(record: TxRecord) -> bool:
    """Whether a transaction failed at a finalized block, or another one has its nonce there."""
    return record.state is TxState.REPLACED or (record.state is TxState.FINAL and record.succeeded is False)
