"""Sends transactions of one account on one chain: priced, numbered, signed, journalled, sent, and followed to finality."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from layer2._observe import operation_context
from layer2._signing import signer_address
from layer2.errors import (
    AsyncRuntimeError,
    Expired,
    IdempotencyConflict,
    NodeNotReady,
    StorageError,
    ValidationError,
)
from layer2.evm._delivery import Delivery, SenderSettings
from layer2.evm._fees import DataFee, FeeLimits, FeeOracle, NoDataFee, first_tip_bound, offer, tipping_at_most
from layer2.evm._fillers import Fillers
from layer2.evm._funds import Funds
from layer2.evm._journal import TxJournal, TxRecord, TxState
from layer2.evm._live import LivePool, LiveTx, live_from, new_record
from layer2.evm._loops import SenderLoops
from layer2.evm._queue import Job, JobQueue, KeyLocks, SubmitProgress, request_digest
from layer2.evm._refused import RefusedTransactions
from layer2.evm._status import Heads, StatusReader
from layer2.evm._sure_journal import SureTxJournal
from layer2.evm._tracker import Tracker
from layer2.evm._transactions import UnsignedTransaction, decode_transaction, sign_transaction
from layer2.transactions import Depth, EvmCall, Outcome, TxStatus

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2._health import LoopHealth
    from layer2.evm._client import EvmClient
    from layer2.protocol import Signer

__all__ = ["TxSender"]

_PLAIN_TRANSFER_GAS = 21_000
_DECIDED = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REPLACED)


class TxSender:
    """The only user of its account's nonces, in this process and elsewhere.

    ``start`` reads the journal and the chain and begins to follow what is open; ``close`` ends that in bounded time and leaves the
    rest to the journal.
    """

    def __init__(
        self,
        client: EvmClient,
        signer: Signer,
        journal: TxJournal,
        *,
        chain_id: int,
        clock: Clock,
        limits: FeeLimits | None = None,
        data_fee: DataFee | None = None,
        settings: SenderSettings | None = None,
    ) -> None:
        self.account = signer_address(signer)
        self.settings = settings or SenderSettings()
        self.limits = limits or FeeLimits()
        self.reserved_wei: Callable[[], int] = int
        """Gives what user traffic must leave in the account now, for the gas of exits to come."""
        self._client = client
        self._signer = signer
        self._chain_id = chain_id
        self._clock = clock
        self.data_fee = data_fee or NoDataFee()
        self._pool = LivePool()
        self._journal = journal = SureTxJournal(journal, self._pool, clock)
        self._fees = FeeOracle(client.exits, self.limits, clock)
        self._heads = Heads(client.exits, clock, max_age_s=self.settings.heads_max_age_s)
        self._delivery = Delivery(client, signer, journal, self._pool, self._fees, self.limits, self.settings, clock)
        layer = self.settings.layer
        self._reader = StatusReader(client, journal, self._heads, self._pool.by_hash, layer=layer)
        exits_reader = StatusReader(client.exits, journal, self._heads, self._pool.by_hash, layer=layer)
        self._refused = RefusedTransactions(
            journal, self._pool, exits_reader, clock, self.account, chain_id=chain_id, layer=layer
        )
        self._tracker = Tracker(
            client, self.account, journal, self._pool, self._delivery, self._heads, self._refused, self.settings, clock
        )
        self._queue = JobQueue()
        self.loops = SenderLoops(self.account, clock, self.settings.poll_interval_s)
        self._wake_tracker = asyncio.Event()
        self._nonce_lock = asyncio.Lock()
        self._look_lock = asyncio.Lock()
        self._keys = KeyLocks()
        self._fillers = Fillers(
            self.account,
            self._pool,
            self._queue,
            make=partial(self._job, is_exit=True),
            launch=self._launch,
            deliver=self._deliver,
            spawn=self._spawn,
        )
        self._funds = Funds(client.exits, self.account, self._pool, self._look)
        self._launching = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Take up what the journal holds, and follow it. Idempotent.

        Raises:
            NodeError: the endpoint does not answer; StorageError: the journal does not.
        """
        if self._closed:
            raise AsyncRuntimeError("the sender is closed", hint="make a new one")
        if self._tasks:
            return
        await self.resume()
        self._spawn(self.loops.keep("queue", partial(self._dispatch, exits=False)))
        self._spawn(self.loops.keep("exits", partial(self._dispatch, exits=True)))
        self._spawn(self.loops.keep("tracker", self._track))

    async def resume(self) -> None:
        """Load the open records; the next look at the chain sends again, with the same bytes, what is not included."""
        chain_nonce = await self._client.exits.nonce(self.account)
        last = await self._journal.last_nonce(self._chain_id, self.account)
        self._pool.advance(chain_nonce)
        now_s = self._clock.monotonic_s()
        for record in await self._journal.open_records(self._chain_id, self.account):
            if self._pool.by_key(record.key) is not None:
                continue
            live = live_from(record, now_s=now_s)
            if record.not_after is not None and not record.sent and record.not_after < self._clock.now_ms() // 1000:
                await self._journal.update(replace(record, state=TxState.ABANDONED), expected_version=record.version)
                continue
            live.maybe_taken = True
            self._pool.add(live)
        if last is not None:
            self._pool.next_nonce = max(self._pool.next_nonce, last + 1)
        await self._refused.load()

    async def submit(
        self,
        call: EvmCall,
        *,
        key: str | None = None,
        exit: bool = False,
        not_after: int | None = None,
        deadline: int | None = None,
        max_tip_wei: int | None = None,
        progress: SubmitProgress | None = None,
        estimate: Callable[[], Awaitable[int]] | None = None,
    ) -> TxRecord:
        """Send a call. Returns once a node has it; ``record.hash`` is the transaction's id.

        Args:
            call: what to do. ``max_fee_per_gas_wei`` bounds the price besides the configured bounds.
            key: the idempotency key; the same key with the same call attaches to the first submission.
            exit: goes before user traffic, over the lane for exits. Needs ``gas_limit``: it is never estimated, because the
                endpoint would see its data. If refused, it is signed again at any nonce: it must do no harm twice.
            not_after: unix seconds after which it is not sent for the first time.
            deadline: unix seconds by which it should be included; its price grows towards it.
            max_tip_wei: bounds the priority fee. The market's counts up to a quarter of it, so that it can still be raised.
            progress: kept up to date, for a caller who may stop waiting.
            estimate: gives the gas limit where the call has none; not asked if the key attaches to an earlier submission.

        Raises:
            IdempotencyConflict: the key was used with another call.
            InsufficientFunds, FeeLimitExceeded, Reverted, Expired: nothing was sent.
            NodeNotReady: an exit's turn did not come within ``turn_timeout_s``; nothing was sent.
            UnknownOutcome: it is in the journal and goes on being sent; or the node refused it, which makes nothing certain.
        """
        self._check()
        job = self._job(call, key or secrets.token_hex(16), is_exit=exit)
        job.not_after, job.deadline, job.max_tip_wei = not_after, deadline, max_tip_wei
        if progress is not None:
            job.progress = progress
        if key is None:
            return await self._submit(job, estimate)
        async with self._keys.held(key):
            await self._journal.settle()
            record = await self._journal.get(key)
            job.progress.looked = True
            if record is not None and record.request_digest != job.digest:
                raise IdempotencyConflict.of(key)
            if record is not None and record.state is TxState.ABANDONED and record.shown and not exit:
                await self._look()  # the chain may have it
                record = await self._journal.get(key)
            if record is not None and record.state is TxState.ABANDONED:
                job.again, job.nonce = record, self._refused.nonce_again(record, is_exit=exit)
            if record is None or job.again is not None:
                return await self._submit(job, estimate)
            job.progress.begun = job.progress.attached = True
            job.progress.record = record
            return await self._attached(record)

    async def submit_signed(
        self, raw: bytes, *, key: str | None = None, progress: SubmitProgress | None = None
    ) -> TxRecord:
        """Send a transaction of this account that was signed elsewhere, and follow it like one of its own.

        Raises:
            ValidationError: not a transaction of this account and chain, or its nonce is used.
        """
        self._check()
        signed = decode_transaction(raw)
        if signed.transaction.chain_id != self._chain_id or signed.sender != self.account:
            raise ValidationError(
                f"the transaction is of {signed.sender} on chain {signed.transaction.chain_id}", field="raw"
            )
        job = self._job(EvmCall(to=None), key or f"signed:{signed.hash.hex()}", is_exit=False)
        job.digest = hashlib.sha256(raw).digest()
        job.progress = progress or job.progress
        async with self._keys.held(job.key):
            await self._journal.settle()
            record = await self._journal.get(job.key)
            job.progress.looked = True
            if record is not None and record.request_digest != job.digest:
                raise IdempotencyConflict.of(job.key)
            if record is not None:
                job.progress.begun = job.progress.attached = True
                job.progress.record = record
                return await self._attached(record)
            async with self._nonce_lock:
                await self._journal.settle()
                nonce = signed.transaction.nonce
                if nonce < self._pool.chain_nonce or nonce in self._pool.waiting:
                    raise ValidationError(
                        f"nonce {nonce} of the signed transaction is used", field="raw", hint="sign it with a free one"
                    )
                job.progress.begun = True
                # Whoever signed it chose its price: it is sent as it is, unless an exit comes to stand behind it.
                record = replace(
                    new_record(signed, job.key, job.digest, self._clock.now_ms()),
                    price_bound_wei=signed.transaction.max_fee_per_gas,
                )
                live = await self._journalled(record, 0, job)
            self._spawn(self._deliver(job, live))
            self._wake_tracker.set()
            return await job.done

    async def status(self, tx_hash: bytes) -> TxStatus:
        """What is known of a transaction of any account: see ``StatusReader``."""
        return await self._reader.status(tx_hash)

    async def wait(self, tx_hash: bytes, depth: Depth = Depth.INCLUDED) -> TxStatus:
        """Wait until the outcome is known at ``depth``; for ``Depth.PENDING`` until a node has it."""
        while True:
            live = self._pool.by_hash(tx_hash)
            change = None if live is None else live.change()
            try:
                if live is None or live.inclusion is not None or (depth <= Depth.PENDING and live.accepted):
                    status = await self._reader.status(tx_hash)
                    decided = status.outcome in _DECIDED or depth <= Depth.PENDING
                    if decided and status.at_least(depth):
                        return status
                self._wake_tracker.set()
                if change is None:
                    await self._clock.sleep(self.settings.poll_interval_s)
                else:
                    await change
            finally:
                if change is not None:
                    change.cancel()

    async def close(self) -> None:
        """End all tasks. What waited in the queue fails; what is in the journal is taken up by the next ``start``."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queue.fail_all()
        for live in self._pool:
            live.wake()

    def _check(self) -> None:
        if self._closed or not self._tasks:
            what = "is closed" if self._closed else "was not started"
            raise AsyncRuntimeError(f"the sender of {self.account} {what}")

    async def estimate(self, call: EvmCall) -> int:
        """A gas limit for ``call``: what it needs now, with the margin.

        Raises:
            Reverted: it would revert.
        """
        gas = await self._client.estimate_gas(call.to, call.data, sender=self.account, value_wei=call.value_wei)
        return gas if gas == _PLAIN_TRANSFER_GAS else gas + gas * self.settings.gas_margin_percent // 100

    async def _submit(self, job: Job, estimate: Callable[[], Awaitable[int]] | None) -> TxRecord:
        if job.call.gas_limit is not None:
            job.gas_limit = job.call.gas_limit
        elif job.exit:
            raise ValidationError("an exit needs a gas limit: it is never estimated", field="gas_limit")
        else:
            job.gas_limit = await (self.estimate(job.call) if estimate is None else estimate())
        self._check()
        self._queue.put(job)
        self._wake_tracker.set()
        # Not for ever: whoever wants an exit has a world to look at meanwhile.
        if job.exit and not await job.turn(self.settings.turn_timeout_s):
            raise NodeNotReady(
                f"{len(self._pool.waiting)} of the account's transactions wait for a block: there is no room for another",
                hint="ask again; see why the transactions before it are not included",
                retry_safe=True,
            )
        return await job.done

    async def _attached(self, record: TxRecord) -> TxRecord:
        """The outcome of an earlier submission with the same key."""
        live = self._pool.by_key(record.key)
        if live is None:
            return record
        if live.busy and not live.accepted:
            await live.change()
        if not live.accepted:
            await self._look()
        if not live.accepted:
            raise self._delivery.unknown(live)
        return live.record

    async def _dispatch(self, health: LoopHealth, *, exits: bool) -> None:
        """Take jobs from one line, as long as the window is open. The lines do not wait for each other's nodes."""
        while True:
            await self._queue.arrival(exits=exits)
            health.worked()
            while self._may_launch(exits=exits) and (job := self._queue.take(exits=exits)) is not None:
                self._launching += 1
                try:
                    with operation_context(transfer_id=job.transfer_id):
                        live = await self._launch(job)
                except asyncio.CancelledError:
                    job.fail(
                        AsyncRuntimeError("it was closed while the transaction was made", money_may_have_moved=True)
                    )
                    raise
                except Exception as error:  # noqa: BLE001 - every job gets its own error, whatever it is
                    job.fail(error)
                else:
                    if live is not None:
                        self._spawn(self._deliver(job, live))
                finally:
                    self._launching -= 1
                self._fillers.fill_contested()
            if exits:
                self._queue.nudge_users()

    def _may_launch(self, *, exits: bool) -> bool:
        """Whether the window is open: to user traffic only while no exit waits."""
        ahead = len(self._pool.waiting) + self._launching
        if exits:
            return ahead < self.settings.max_unconfirmed_per_key
        return ahead < self.settings.user_window and not self._queue.exits_wait

    async def _launch(self, job: Job) -> LiveTx | None:
        """Price, number, sign and journal. None if its caller has gone."""
        price_bound = self.limits.price(is_exit=job.exit)
        if job.call.max_fee_per_gas_wei is not None:
            price_bound = min(price_bound, job.call.max_fee_per_gas_wei)
        draft = UnsignedTransaction(
            chain_id=self._chain_id,
            nonce=self._pool.free_nonce() if job.nonce is None else job.nonce,
            gas_limit=job.gas_limit,
            max_fee_per_gas=price_bound,
            max_priority_fee_per_gas=price_bound,
            to=job.call.to,
            value=job.call.value_wei,
            data=job.call.data,
        )
        data_fee_wei = await self.data_fee.upper_bound_wei(draft)
        price = offer(
            tipping_at_most(await self._fees.price(), first_tip_bound(job.max_tip_wei)),
            gas_limit=job.gas_limit,
            data_fee_wei=data_fee_wei,
            price_bound=price_bound,
            cost_bound=self.limits.cost(is_exit=job.exit),
        )
        cost_wei = draft.value + job.gas_limit * price.max_fee_per_gas + data_fee_wei
        # Exits may use what is kept for them.
        await self._funds.check(cost_wei if job.exit else cost_wei + self.reserved_wei())
        async with self._nonce_lock:
            await self._journal.settle()
            if job.not_after is not None and job.not_after < self._clock.now_ms() // 1000:
                raise Expired("the time in which the transaction may be sent has passed", expired_at=job.not_after)
            if job.again is not None:
                job.nonce = self._refused.nonce_again(job.again, is_exit=job.exit)
            nonce = self._pool.free_nonce() if job.nonce is None else job.nonce
            if job.done.done() or not self._pool.is_free(nonce):
                return None  # nobody waits for it any more, or what was to be filled is filled
            job.progress.begun = True
            tx = replace(
                draft,
                nonce=nonce,
                max_fee_per_gas=price.max_fee_per_gas,
                max_priority_fee_per_gas=price.max_priority_fee_per_gas,
            )
            return await self._signed(tx, data_fee_wei, job)

    async def _signed(self, tx: UnsignedTransaction, data_fee_wei: int, job: Job) -> LiveTx:
        """Sign and journal. Where an abandoned transaction had the same bytes, at a wei more: every hash means one thing."""
        while True:
            signed = await sign_transaction(tx, self._signer)
            record = replace(
                new_record(signed, job.key, job.digest, self._clock.now_ms()),
                exit=job.exit,
                not_after=job.not_after,
                deadline=job.deadline,
                price_bound_wei=job.call.max_fee_per_gas_wei,
                tip_bound_wei=job.max_tip_wei,
            )
            try:
                return await self._journalled(record, data_fee_wei, job)
            except StorageError:
                if self._journal.in_doubt or await self._journal.by_hash(signed.hash) is None:
                    raise
            tx = replace(tx, max_fee_per_gas=tx.max_fee_per_gas + 1)

    async def _journalled(self, record: TxRecord, data_fee_wei: int, job: Job) -> LiveTx:
        """Write the record, and only then let anything know of it."""
        again = job.again
        if again is None:
            await self._journal.put_new(record)
        else:
            record = replace(record, variants=(*again.variants, *record.variants), sent=again.shown)
            record = await self._journal.update(record, expected_version=again.version)
        job.progress.record = record
        live = live_from(record, now_s=self._clock.monotonic_s(), extra_wei=data_fee_wei)
        live.busy = True
        self._pool.add(live)
        return live

    async def _deliver(self, job: Job, live: LiveTx) -> None:
        try:
            with operation_context(transfer_id=job.transfer_id, tx_id=self._delivery.tx_id(live)):
                async with asyncio.timeout(self.settings.send_timeout_s):
                    await self._delivery.first(live)
            job.finish(live.record)
        except TimeoutError:
            job.fail(self._delivery.unknown(live))
        except asyncio.CancelledError:
            job.fail(self._delivery.unknown(live))
            raise
        except Exception as error:  # noqa: BLE001 - every job gets its own error, whatever it is
            job.fail(error)
        finally:
            live.busy = False
            self._queue.nudge()

    async def _look(self) -> None:
        async with self._look_lock:
            await self._journal.settle()
            await self._tracker.look()
            self._funds.forget()
        self._queue.nudge()

    async def _track(self, health: LoopHealth) -> None:
        settings = self.settings
        while True:
            self._wake_tracker.clear()
            if len(self._pool) or len(self._queue) or self._pool.contested or self._journal.in_doubt:
                await self._look()
                self._fillers.fill()
            health.worked()
            await self._clock.sleep(settings.poll_interval_s)
            waited = settings.poll_interval_s
            while not self._wake_tracker.is_set() and not self._pool.waiting and waited < settings.idle_poll_interval_s:
                await self._clock.sleep(settings.poll_interval_s)
                waited += settings.poll_interval_s

    def _job(self, call: EvmCall, key: str, *, is_exit: bool) -> Job:
        return Job(
            call=call,
            key=key,
            digest=request_digest(call),
            gas_limit=0,
            exit=is_exit,
            not_after=None,
            deadline=None,
            max_tip_wei=None,
            again=None,
            progress=SubmitProgress(),
            done=asyncio.get_running_loop().create_future(),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
