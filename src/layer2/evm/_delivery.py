"""Handing signed transactions to the node: the first time, again with the same bytes, and again at a higher price."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layer2._observe import log_event
from layer2.errors import (
    Expired,
    InsufficientFunds,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    RateLimited,
    SignerError,
    StoreInUse,
    UnknownOutcome,
)
from layer2.evm._broadcast import SendAnswer, classify_refusal
from layer2.evm._fees import FeeLimits, FeeOracle, GasPrice, bumped, first_tip_bound, tipping_at_most
from layer2.evm._fillers import is_filler
from layer2.evm._journal import TxJournal, TxState
from layer2.evm._live import LivePool, LiveTx, variant_of
from layer2.evm._refused import refused
from layer2.evm._rpc_error import RpcError
from layer2.evm._transactions import SignedTransaction, sign_transaction
from layer2.transactions import TxId

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.evm._client import EvmClient
    from layer2.protocol import Signer

__all__ = ["Delivery", "SenderSettings", "send_foreign"]

_REFUSALS = (SendAnswer.NONCE_USED, SendAnswer.NONCE_HELD, SendAnswer.FUNDS_TOO_LOW, SendAnswer.INVALID)
"""Answers that an endpoint also gives which has it: after an answer that was lost, or because others behind it are asked too."""

_log = logging.getLogger("layer2.evm")


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """How a sender goes about it. Times are seconds."""

    layer: str = "evm"
    """Name of the layer in transaction ids."""
    max_unconfirmed_per_key: int = 16
    """Transactions ahead of the last included one: what the usual pools keep for one account."""
    exit_reserve: int = 4
    """How many of these user traffic leaves free for exits (never all of them)."""
    poll_interval_s: float = 1.0
    """How often the head is looked at while something waits."""
    idle_poll_interval_s: float = 15.0
    """The same while everything open is included."""
    heads_max_age_s: float = 20.0
    """How old the safe and finalized heads may be."""
    resend_after_s: float = 10.0
    bump_after_s: float = 20.0
    """How long a transaction that is next in line waits before its price is raised."""
    gas_margin_percent: int = 25
    """Added to estimated gas."""
    send_attempts: int = 4
    """Tries to hand it over before its caller is told that the outcome is unknown; the sender goes on by itself."""
    retry_pause_s: float = 0.5
    send_timeout_s: float = 60.0
    """How long its caller waits for a node to take it, once it is its turn."""
    turn_timeout_s: float = 60.0
    """How long whoever wants an exit waits for its turn."""

    @property
    def user_window(self) -> int:
        """Unconfirmed transactions at which user traffic waits."""
        return max(1, self.max_unconfirmed_per_key - self.exit_reserve)


class Delivery:
    """Sends what is in the journal, and writes what comes of it."""

    def __init__(
        self,
        client: EvmClient,
        signer: Signer,
        journal: TxJournal,
        pool: LivePool,
        fees: FeeOracle,
        limits: FeeLimits,
        settings: SenderSettings,
        clock: Clock,
    ) -> None:
        self._client = client
        self._signer = signer
        self._journal = journal
        self._pool = pool
        self._fees = fees
        self._limits = limits
        self._settings = settings
        self._clock = clock

    def tx_id(self, live: LiveTx) -> TxId:
        """The id under which its caller knows it."""
        return TxId(layer=self._settings.layer, hash=live.record.hash)

    async def first(self, live: LiveTx) -> None:
        """Send a transaction that was just journalled, until a node has it. Returns once one has.

        Raises:
            Expired: its time had passed before it was sent at all; the record is abandoned and its nonce free.
            UnknownOutcome: the node refuses it, and the record is abandoned; or not to be found out now, and the sender goes on
                sending the same bytes.
        """
        live.busy = True
        try:
            for attempt in range(self._settings.send_attempts):
                if attempt:
                    await self._clock.sleep(self._settings.retry_pause_s * 2 ** (attempt - 1))
                answer = await self.send(live)
                if live.accepted:
                    return
                await self._abandon_if_refused(live, answer)
                if answer in (SendAnswer.NONCE_USED, SendAnswer.NONCE_HELD, SendAnswer.UNCLEAR):
                    break
                if answer is SendAnswer.PRICE_TOO_LOW:
                    self._fees.forget()
                    # A price that cannot be asked for now is asked for at the next attempt.
                    with suppress(NodeError, SignerError):
                        await self.bump(live, times=1)
        finally:
            live.busy = False
            live.wake()
        raise self.unknown(live)

    def unknown(self, live: LiveTx) -> UnknownOutcome:
        """What its caller is told while no node has confirmed to have it."""
        return UnknownOutcome(
            f"no node has confirmed to have the transaction {live.record.hash.hex()}: {live.refusal or 'no answer'}",
            hint="it goes on being sent; ask for its status, or ask again with the same idempotency key",
            tx_id=self.tx_id(live),
            retry_safe=False,
        )

    async def _begin(self, live: LiveTx) -> None:
        """Look once more whether it may be sent at all, and write that it may have been."""
        record = live.record
        if record.not_after is None or (record.sent and not live.unsent):
            return
        if record.not_after < self._clock.now_ms() // 1000:
            # Nobody has it, whatever was written before the attempts.
            live.record = replace(record, sent=False)
            await self.abandon(live)
            raise Expired("the time in which the transaction may be sent has passed", expired_at=record.not_after)
        if record.sent:
            return
        live.record = await self._journal.update(replace(record, sent=True), expected_version=record.version)
        live.unsent = True

    async def again(self, live: LiveTx) -> None:
        """Send the same bytes again, as often as the tracker asks."""
        if live.busy:
            return
        live.busy = True
        try:
            await self.send(live)
        finally:
            live.busy = False
            live.wake()

    async def send(self, live: LiveTx) -> SendAnswer:
        """Hand the newest variant to the node once.

        Raises:
            Expired: it may not be sent for the first time any more.
            UnknownOutcome: another process has the journal, and sends what is in it.
        """
        try:
            await self._journal.still_ours()
        except StoreInUse as error:
            live.refusal = "another process has taken the store over, and sends it"
            raise self.unknown(live) from error
        await self._begin(live)
        record = live.record
        lane = self._client.exits if record.exit or live.maybe_taken else self._client
        live.sent_s = self._clock.monotonic_s()
        unsent, live.unsent = live.unsent, False
        try:
            given = await lane.send_raw(record.latest.raw)
        except RpcError as error:
            live.refusal = error.message[:200]
            answer = classify_refusal(error)
            live.maybe_taken |= answer in (SendAnswer.TAKEN, SendAnswer.UNCLEAR, SendAnswer.BUSY)
        except RateLimited as error:
            live.refusal = error.message
            return SendAnswer.BUSY
        except NodeConnectionError as error:
            live.maybe_taken |= error.request_sent is not False
            live.unsent = unsent and error.request_sent is False
            live.refusal = error.message
            return SendAnswer.BUSY
        except NodeError as error:
            live.maybe_taken = True
            live.refusal = error.message
            return SendAnswer.UNCLEAR
        else:
            live.maybe_taken = True
            answer = SendAnswer.TAKEN
            if given != record.latest.hash:
                live.refusal = "the node gave the transaction another hash"
                return SendAnswer.UNCLEAR
        if answer in _REFUSALS and await self._known(live):
            answer = SendAnswer.TAKEN
        if answer is SendAnswer.TAKEN and not live.accepted:
            live.accepted, live.refusal = True, None
            live.wake()
        return answer

    async def bump(self, live: LiveTx, *, times: int, for_exit: bool = False) -> bool:
        """Sign and journal a variant at a higher price, within the bounds. False if the bounds do not allow one.

        ``for_exit``: an exit stands behind it, so the bounds are those of exits, whatever bound its caller has set.
        """
        record = live.record
        is_exit = record.exit or for_exit
        old = GasPrice(
            max_fee_per_gas=record.latest.max_fee_per_gas,
            max_priority_fee_per_gas=record.latest.max_priority_fee_per_gas,
            floor=0,
        )
        cost_bound = self._limits.cost(is_exit=is_exit) - (live.cost_wei - live.tx.max_cost_wei)
        bound = min(self._limits.price(is_exit=is_exit), cost_bound // max(live.tx.gas_limit, 1))
        if record.price_bound_wei is not None and not for_exit:
            bound = min(bound, record.price_bound_wei)
        tip_bound = record.tip_bound_wei
        current = tipping_at_most(await self._fees.price(), first_tip_bound(tip_bound))
        price = bumped(old, current, bound=bound, tip_bound=tip_bound, times=times)
        if price is None:
            return False
        tx = replace(
            live.tx,
            max_fee_per_gas=price.max_fee_per_gas,
            max_priority_fee_per_gas=price.max_priority_fee_per_gas if live.tx.dynamic_fee else price.max_fee_per_gas,
        )
        signed = await sign_transaction(tx, self._signer)
        variants = (*record.variants, variant_of(signed.raw, signed.hash, tx))
        updated = await self._journal.update(replace(record, variants=variants), expected_version=record.version)
        self._pool.reprice(live, updated, tx)
        live.priced_s = self._clock.monotonic_s()
        live.blocks_passed = 0
        tx_id, per_gas = self.tx_id(live), price.max_fee_per_gas
        text = f"transaction {tx_id} now offers {per_gas} wei per gas"
        log_event(_log, logging.INFO, "evm.fee_bumped", text, tx_id=tx_id, max_fee_per_gas=per_gas)
        return True

    async def raise_price(self, live: LiveTx, *, times: int, for_exit: bool) -> None:
        """Replace it at a higher price and send that; where the bounds forbid it, or the signer fails, send the same bytes."""
        if live.busy:
            return
        live.busy = True
        try:
            try:
                await self.bump(live, times=times, for_exit=for_exit)
            except SignerError:
                await self.send(live)
                raise
            await self.send(live)
        finally:
            live.busy = False
            live.wake()

    async def _known(self, live: LiveTx) -> bool:
        for variant in reversed(live.record.variants):
            try:
                if await self._client.exits.transaction(variant.hash) is not None:
                    return True
            except Layer2Error:
                return False
        return False

    async def _abandon_if_refused(self, live: LiveTx, answer: SendAnswer) -> None:
        if answer not in (SendAnswer.FUNDS_TOO_LOW, SendAnswer.INVALID) or live.maybe_taken:
            return
        if is_filler(live.record):
            return  # nothing else may use its nonce, so it is sent until a node takes it
        await self.abandon(live)
        # Whoever was shown it may have it included: the endpoint's word does not make certain that nothing moves.
        raise refused(live.record, live.refusal or "no reason given", layer=self._settings.layer)

    async def abandon(self, live: LiveTx) -> None:
        """It is not to be sent any more: write that."""
        record = live.record
        record = await self._journal.update(replace(record, state=TxState.ABANDONED), expected_version=record.version)
        self._pool.abandon(live, record)


async def send_foreign(client: EvmClient, signed: SignedTransaction, clock: Clock, *, tx_id: TxId) -> None:
    """Hand over a transaction of an account that is not ours. Sending it again is safe: it is the same bytes.

    Raises:
        InsufficientFunds, NodeError: the node refused it.
        UnknownOutcome: the node's answer does not say whether it has it.
    """
    pause = 0.5
    for attempt in range(4):
        if attempt:
            await clock.sleep(pause * 2 ** (attempt - 1))
        try:
            await client.send_raw(signed.raw)
        except (NodeConnectionError, RateLimited):
            continue
        except RpcError as error:
            answer, reason = classify_refusal(error), error.message[:200]
            if answer is SendAnswer.TAKEN or await client.transaction(signed.hash) is not None:
                return
            if answer is SendAnswer.BUSY:
                continue
            if answer is SendAnswer.UNCLEAR:
                break
            if answer is SendAnswer.FUNDS_TOO_LOW:
                needed = signed.transaction.max_cost_wei
                raise InsufficientFunds(reason, coin="ETH", needed=needed, account=str(signed.sender)) from error
            raise NodeError(f"the node refuses the transaction: {reason}", code=error.code, retry_safe=True) from error
        else:
            return
    raise UnknownOutcome("no node has confirmed to have the transaction", tx_id=tx_id, retry_safe=True)
