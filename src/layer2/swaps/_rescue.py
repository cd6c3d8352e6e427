"""Rescue: from the signer's key and the chain alone, find the locks that are ours, and refund or claim what can be had.

Nothing here needs the store of the swaps: a lock's terms stand in its event, its state in the contract, and the preimage follows
from the key and the time at which the swap was made, which is searched for around the time of the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from layer2._crypto import sha256
from layer2._signing import derive_secret
from layer2.errors import Layer2Error, NotFound, UnexpectedReply
from layer2.evm import LOCKUP_TOPIC, LockPhase, LockupEvent, decode_htlc_event, decode_status, encode_status
from layer2.lightning import InvoiceState
from layer2.signers import LocalSigner
from layer2.swaps._deadlines import latest_claim_start, may_claim
from layer2.swaps._observations import ChainView, LockStatus, seen_preimage
from layer2.swaps._ports import ExitAgainError
from layer2.swaps._preimage import preimage_label, search_preimage

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.addresses import EvmAddress
    from layer2.evm import EvmClient, Log, TxJournal
    from layer2.lightning import InvoiceRecord, LightningNode
    from layer2.protocol import Signer
    from layer2.swaps._evm_chain import EvmSwapChain
    from layer2.terms import ChainTiming, DepthPolicy, Lock

__all__ = ["FoundLock", "Rescue", "RescueAction", "RescuePlan", "search_window_ms"]

SCAN_BLOCKS: Final = 20_000
"""Blocks between two reports of progress."""
SEARCH_CHUNK: Final = 100_000


class RescueAction(StrEnum):
    """What is to be done with a lock."""

    NONE = "none"
    """It was claimed or refunded, and nothing is left to do."""
    REFUND = "refund"
    """Its timelock has passed: it can be refunded now."""
    REFUND_LATER = "refund_later"
    """It can be refunded from its timelock on, unless the other side claims it before."""
    CLAIM = "claim"
    """Our preimage is found, the store knows that exactly this lock was agreed on, and there is time: it can be claimed now."""
    CONFIRM = "confirm"
    """Our preimage is found and there is time, but no store knows what was agreed on: claimed only once a person says that it is
    this lock. Whoever made it takes the whole payment with the preimage, however little it holds."""
    NOT_AGREED = "not_agreed"
    """It has the hash of a transfer of ours and is another lock than was agreed on, or of another token: never claimed."""
    CLAIM_LATE = "claim_late"
    """Our preimage is found, but the other side could refund while our claim is on its way, and still take the payment. Claimed
    only if told so, and confirmed like ``CONFIRM`` where no store knows of it (``RescuePlan.agreed``)."""
    NOT_DEEP = "not_deep"
    """It is not deep enough in the chain to show the preimage for it."""
    NO_PREIMAGE = "no_preimage"
    """We are its claimer, but the key gives no preimage of its hash for the times that were searched."""
    NOT_SEARCHED = "not_searched"
    """We are its claimer, and whether the key gives its preimage was not searched for."""
    SETTLE = "settle"
    """We are its refunder, it was claimed, and our node holds the payment for it: it is settled with the preimage of the claim."""
    NOTHING_HELD = "nothing_held"
    """We are its refunder, it was claimed, and our node has no payment for it: see ``RescuePlan.invoice``."""
    CLAIM_AGAIN = "claim_again"
    """We are its refunder and have its preimage, so it is never refunded: it is claimed for its claimer."""
    DRIVEN = "driven"
    """The store knows it: ``layer2 run`` does what is to be done."""
    NOT_LOOKED_AT = "not_looked_at"
    """The endpoint, the node or the signer failed when it was looked at (``RescuePlan.error``): nothing is known of it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLock:
    """A lock of which we are refunder or claimer, and where it was made."""

    lock: Lock
    block_number: int
    block_timestamp: int
    phase: LockPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class RescuePlan:
    """A lock, and what can be done with it."""

    found: FoundLock
    action: RescueAction
    refunder: bool
    """Whether we are its refunder; else we are its claimer."""
    policy: DepthPolicy
    preimage: bytes | None = field(default=None, repr=False)
    time_ms: int | None = None
    """``t``, from which the preimage was derived."""
    agreed: bool = True
    """Whether this lock is known to be what was agreed on; if not, claiming it wants a person's word."""
    not_after: int | None = None
    """Unix seconds after which the claim is not begun any more."""
    invoice: InvoiceState | None = None
    """What our node says of its invoice of the lock's hash; None if it has none, or was not asked."""
    error: Layer2Error | None = None
    """Why it could not be looked at."""

    def left_to_the_store(self) -> RescuePlan:
        """The plan for a lock that a store knows."""
        return replace(self, action=RescueAction.DRIVEN)


def search_window_ms(timing: ChainTiming, block_timestamp: int, extra_s: int = 0) -> tuple[int, int]:
    """The times at which a swap can have been made whose lock is in a block of this timestamp, both ends included.

    Before: the invoice's life, the payment, the inclusion of the lock, and clocks that differ. After: only clocks that differ.
    """
    skew_s = timing.clock_skew_s + timing.evm_clock_skew_s + extra_s
    before_s = timing.invoice_expiry_s + timing.payment_time_limit_s + timing.evm_inclusion_s + timing.grace_s + skew_s
    return (block_timestamp - before_s) * 1000, (block_timestamp + skew_s) * 1000 + 999


def plan_refund(found: FoundLock, policy: DepthPolicy, head_timestamp: int) -> RescuePlan:
    """What to do with a standing lock of which we are the refunder."""
    due = head_timestamp >= found.lock.timelock
    action = RescueAction.REFUND if due else RescueAction.REFUND_LATER
    return RescuePlan(found=found, action=action, refunder=True, policy=policy)


def plan_known(found: FoundLock, policy: DepthPolicy, view: ChainView, preimage: bytes) -> RescuePlan:
    """What to do with a lock of which we are the refunder and whose preimage is known, besides settling its payment."""
    standing = view.latest.status is LockStatus.LOCKED
    action = RescueAction.CLAIM_AGAIN if standing else RescueAction.NONE
    return RescuePlan(found=found, action=action, refunder=True, policy=policy, preimage=preimage)


def plan_claim(
    found: FoundLock,
    policy: DepthPolicy,
    timing: ChainTiming,
    view: ChainView,
    secret: tuple[int, bytes] | None,
    *,
    sent: bool,
    agreed: bool,
) -> RescuePlan:
    """What to do with a standing lock of which we are the claimer. ``sent``: our claim is out already, and is pursued."""
    timelock = found.lock.timelock
    plan = RescuePlan(found=found, action=RescueAction.NO_PREIMAGE, refunder=False, policy=policy)
    if secret is None:
        return plan
    plan = replace(plan, time_ms=secret[0], preimage=secret[1], agreed=agreed or sent)
    if sent:
        return replace(plan, action=RescueAction.CLAIM)
    if not (view.latest.status is view.at_depth.status is LockStatus.LOCKED):
        return replace(plan, action=RescueAction.NOT_DEEP)
    in_time = may_claim(timing, policy, timelock=timelock, now=view.now_s, head_timestamp=view.head_timestamp)
    if not in_time:
        return replace(plan, action=RescueAction.CLAIM_LATE)
    action = RescueAction.CLAIM if agreed else RescueAction.CONFIRM
    return replace(plan, action=action, not_after=latest_claim_start(timing, policy, timelock))


class Rescue:
    """Looks for the signer's locks of one contract, and carries out what is found.

    Args:
        client: the chain.
        chain: sends claims and refunds, over the journal ``journal``.
        journal: of signed transactions, so that what was begun goes on after a crash.
        signer: whose locks are looked for.
        contract: the HTLC contract.
        token: BTC on the chain; locks of other tokens are refunded, and never claimed.
        chain_id: of the chain.
        timing: the network's constants: for how long swaps last, and when it is too late to claim.
        policy_for: how deep a lock of an amount must be before its preimage is shown.
        clock: the time.
        extra_search_s: widens the search for preimages either way, for a clock that was wrong.
        node: of a provider: it has the preimages of the payments that it made, and holds the payments for the provider's locks.
        agreed: the ids of the locks that the store knows to be agreed on for a payment hash; None: there is no store.
    """

    def __init__(
        self,
        *,
        client: EvmClient,
        chain: EvmSwapChain,
        journal: TxJournal,
        signer: Signer,
        contract: EvmAddress,
        token: EvmAddress,
        chain_id: int,
        timing: ChainTiming,
        policy_for: Callable[[int], DepthPolicy],
        clock: Clock,
        extra_search_s: int = 0,
        node: LightningNode | None = None,
        agreed: Callable[[bytes], Awaitable[frozenset[bytes]]] | None = None,
    ) -> None:
        self._client = client
        self._chain = chain
        self._journal = journal
        self._signer = signer
        self._contract = contract
        self._token = token
        self._chain_id = chain_id
        self._timing = timing
        self._policy_for = policy_for
        self._clock = clock
        self._extra_search_s = extra_search_s
        self._node = node
        self._agreed = agreed

    @property
    def account(self) -> EvmAddress:
        """Whose locks these are."""
        return self._signer.address

    async def find(
        self,
        *,
        from_block: int,
        to_block: int | None = None,
        progress: Callable[[int, int], None] = lambda _at, _end: None,
    ) -> list[FoundLock]:
        """All locks of ours that were made in these blocks (None: up to the head), oldest first, as they stand at the head.

        Raises:
            NodeError: the endpoint failed; UnexpectedReply: its events contradict themselves.
        """
        end = await self._client.block_number() if to_block is None else to_block
        found: dict[bytes, FoundLock] = {}
        for start in range(from_block, end + 1, SCAN_BLOCKS):
            last = min(start + SCAN_BLOCKS - 1, end)
            async for logs in self._client.logs(
                from_block=start, to_block=last, address=self._contract, topics=[LOCKUP_TOPIC]
            ):
                for log in logs:
                    if (lock := self._ours(log)) is not None:
                        found[lock.lock_id] = await self._as_found(lock, log)
            progress(last, end)
        return list(found.values())

    def _ours(self, log: Log) -> Lock | None:
        event = decode_htlc_event(
            chain_id=self._chain_id,
            contract=self._contract,
            address=log.address.raw,
            topics=log.topics,
            data=log.data,
        )
        us = self.account
        if not isinstance(event, LockupEvent) or us not in (event.lock.refunder, event.lock.claimer):
            return None
        return event.lock

    async def _as_found(self, lock: Lock, log: Log) -> FoundLock:
        header = await self._client.header(log.block_number)
        if header is None:
            raise UnexpectedReply(f"the endpoint gave an event of block {log.block_number}, which it does not have")
        answer = await self._client.call(lock.contract, encode_status(lock.lock_id))
        state = decode_status(answer, lock.preimage_hash)
        return FoundLock(lock=lock, block_number=header.number, block_timestamp=header.timestamp, phase=state.phase)

    async def plan(self, found: FoundLock, *, search: bool = True) -> RescuePlan:
        """What can be done with a lock now. Sends nothing and shows no preimage to anybody.

        Args:
            found: the lock.
            search: whether to search for a preimage that only the key can give, which takes up to half a minute. Anybody can make
                locks for us that cost him dust and us this time.

        Raises:
            NodeError: the endpoint failed; SignerError: the signer refused.
        """
        lock, policy = found.lock, self._policy_for(found.lock.amount)
        if lock.refunder == self.account:
            return await self._plan_as_refunder(found, policy)
        if found.phase is not LockPhase.LOCKED:
            return RescuePlan(found=found, action=RescueAction.NONE, refunder=False, policy=policy)
        view = await self._chain.view(lock, policy, lock_key=None)
        if view.latest.status is not LockStatus.LOCKED:
            return RescuePlan(found=found, action=RescueAction.NONE, refunder=False, policy=policy)
        if self._node is not None:
            payment = await self._node.lookup_payment(lock.preimage_hash)
            if payment.preimage is not None and sha256(payment.preimage) == lock.preimage_hash:
                # Paid for, and known to whoever was paid: nothing is shown by the claim, so it is never too late for it.
                return RescuePlan(
                    found=found,
                    action=RescueAction.CLAIM,
                    refunder=False,
                    policy=policy,
                    preimage=payment.preimage,
                )
        record = await self._journal.get(_key(lock, RescueAction.CLAIM))
        sent = record is not None and record.sent
        known = frozenset[bytes]() if self._agreed is None else await self._agreed(lock.preimage_hash)
        if not sent and (lock.token != self._token or (known and lock.lock_id not in known)):
            return RescuePlan(found=found, action=RescueAction.NOT_AGREED, refunder=False, policy=policy, agreed=False)
        if not search and not sent:
            return RescuePlan(found=found, action=RescueAction.NOT_SEARCHED, refunder=False, policy=policy)
        secret = await self._search(found)
        return plan_claim(found, policy, self._timing, view, secret, sent=sent, agreed=lock.lock_id in known)

    def unplanned(self, found: FoundLock, error: Layer2Error) -> RescuePlan:
        """What stands for the plan of a lock of which ``plan`` raised: the others need not wait for it."""
        return RescuePlan(
            found=found,
            action=RescueAction.NOT_LOOKED_AT,
            refunder=found.lock.refunder == self.account,
            policy=self._policy_for(found.lock.amount),
            error=error,
        )

    async def _plan_as_refunder(self, found: FoundLock, policy: DepthPolicy) -> RescuePlan:
        lock = found.lock
        invoice = await self._invoice(lock)
        state = None if invoice is None else invoice.state
        held = state is InvoiceState.ACCEPTED
        if found.phase is not LockPhase.LOCKED and not held:
            missing = found.phase is LockPhase.CLAIMED and self._node is not None and state is not InvoiceState.SETTLED
            action = RescueAction.NOTHING_HELD if missing else RescueAction.NONE
            return RescuePlan(found=found, action=action, refunder=True, policy=policy, invoice=state)
        view = await self._chain.view(lock, policy, lock_key=None)
        preimage = seen_preimage(view)
        if preimage is None and invoice is not None and state is InvoiceState.SETTLED:
            if invoice.preimage is None or sha256(invoice.preimage) != lock.preimage_hash:
                raise UnexpectedReply("the node says that an invoice is settled, and does not show its preimage")
            preimage = invoice.preimage
        if preimage is not None:
            plan = plan_known(found, policy, view, preimage)
            # At once, however deep the claim is: the preimage is out, and the payment goes back by itself if nobody takes it. From
            # then on the node's record keeps the lock from being refunded, whatever a reorganisation does.
            return replace(plan, action=RescueAction.SETTLE if held else plan.action, invoice=state)
        if view.latest.status is not LockStatus.LOCKED:
            return RescuePlan(found=found, action=RescueAction.NONE, refunder=True, policy=policy, invoice=state)
        return replace(plan_refund(found, policy, view.head_timestamp), invoice=state)

    async def _invoice(self, lock: Lock) -> InvoiceRecord | None:
        if self._node is None:
            return None
        try:
            return await self._node.lookup_invoice(lock.preimage_hash)
        except NotFound:
            return None

    async def _take_payment(self, lock: Lock, preimage: bytes) -> None:
        assert self._node is not None
        invoice = await self._invoice(lock)
        if invoice is not None and invoice.state is InvoiceState.ACCEPTED:
            await self._node.settle_invoice(preimage)

    async def _search(self, found: FoundLock) -> tuple[int, bytes] | None:
        lock = found.lock
        first, last = search_window_ms(self._timing, found.block_timestamp, self._extra_search_s)
        # Backwards from the lock: nearly all swaps were made in the minute before it.
        for times in (
            range(found.block_timestamp * 1000, first - 1, -1),
            range(found.block_timestamp * 1000 + 1, last + 1),
        ):
            for start in range(0, len(times), SEARCH_CHUNK):
                secret = await self._search_times(lock, times[start : start + SEARCH_CHUNK])
                if secret is not None:
                    return secret
        return None

    async def _search_times(self, lock: Lock, times: range) -> tuple[int, bytes] | None:
        if isinstance(self._signer, LocalSigner):
            derive = self._signer.derive_secret_now
            return await asyncio.to_thread(
                search_preimage, derive, lock.chain_id, lock.contract.raw, lock.preimage_hash, times
            )
        for time_ms in times:
            secret = await derive_secret(self._signer, preimage_label(lock.chain_id, lock.contract.raw, time_ms))
            if sha256(secret) == lock.preimage_hash:
                return time_ms, secret
        return None

    async def send(self, plan: RescuePlan, *, late: bool = False, confirmed: bool = False) -> bool:
        """Do what the plan says. False if it says nothing that can be done now.

        Args:
            plan: of ``plan``.
            late: also a claim that is late.
            confirmed: a person has said that this lock is what was agreed on.

        Raises:
            InsufficientFunds, FeeLimitExceeded, Expired: nothing was sent, or there is no held payment any more; NotFound: the node
                has no such invoice any more; ExitAgainError: earlier attempts failed, and the next one waits for its time;
                NodeError: it is not known what became of it.
        """
        lock = plan.found.lock
        match plan.action:
            case RescueAction.REFUND:
                await _send(self._chain.send_refund(_key(lock, RescueAction.REFUND), lock, deadline=None))
            case RescueAction.SETTLE:
                assert self._node is not None
                assert plan.preimage is not None
                await self._node.settle_invoice(plan.preimage)
            case RescueAction.CLAIM | RescueAction.CLAIM_AGAIN:
                await self._claim(plan)
            case RescueAction.CONFIRM if confirmed:
                await self._claim(plan)
            case RescueAction.CLAIM_LATE if late and (plan.agreed or confirmed):
                await self._claim(plan)
            case _:
                return False
        return True

    async def _claim(self, plan: RescuePlan) -> None:
        assert plan.preimage is not None
        lock = plan.found.lock
        key = _key(lock, RescueAction.CLAIM)
        await _send(self._chain.send_claim(key, lock, plan.preimage, not_after=plan.not_after))

    async def wait(self, plan: RescuePlan) -> LockStatus:
        """Wait until the lock is claimed or refunded at the depth of the plan's policy.

        A provider's lock that is claimed has its payment taken, also if a refund was on its way; from then on, a claim that a
        reorganisation takes away is sent again for its claimer.

        Raises:
            InsufficientFunds, FeeLimitExceeded: that claim cannot be sent; NodeError: the endpoint failed.
        """
        lock = plan.found.lock
        while True:
            view = await self._chain.view(lock, plan.policy, lock_key=None)
            preimage = seen_preimage(view)
            if plan.action is RescueAction.REFUND and self._node is not None and preimage is not None:
                plan = replace(plan, action=RescueAction.SETTLE, preimage=preimage)
                await self._take_payment(lock, preimage)
            if view.at_depth.status in (LockStatus.CLAIMED, LockStatus.REFUNDED):
                return view.at_depth.status
            if plan.action is RescueAction.SETTLE and view.latest.status is LockStatus.LOCKED:
                with suppress(ExitAgainError):
                    await self._claim(plan)
            await self._clock.sleep(self._timing.evm_block_s / 2)


async def _send(sending: Awaitable[None]) -> None:
    try:
        await sending
    except ExitAgainError as error:
        if not error.sent:
            raise


def _key(lock: Lock, action: RescueAction) -> str:
    return f"rescue:{lock.lock_id.hex()}:{action.value}"
