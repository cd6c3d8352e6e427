"""A Lightning node that answers badly: any ``LightningNode``, with faults on the way to it and back.

What the node itself does is never falsified, only what its user sees of it. All chance comes from the ``rng`` given.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from layer2._clock import Clock
from layer2._crypto import sha256
from layer2.errors import Layer2Error, NodeConnectionError, UnknownOutcome
from layer2.lightning._bolt11 import decode_invoice
from layer2.lightning._node import InvoiceRecord, LightningNode, NodeInfo, PaymentRecord, PaymentState
from layer2.transactions import TxId

__all__ = ["FaultyLightningNode", "LightningFault"]

T = TypeVar("T")


class LightningFault(StrEnum):
    """What can go wrong between a node and its user."""

    REFUSED = "refused"
    """No connection: certain that nothing was sent."""
    LOST_REQUEST = "lost_request"
    """The connection breaks; the request never arrives."""
    LATE_REQUEST = "late_request"
    """The connection breaks; the request arrives later all the same."""
    LOST_REPLY = "lost_reply"
    """The request takes effect; the connection breaks before the reply."""
    DUPLICATE = "duplicate"
    """The request arrives twice."""
    DELAY = "delay"
    """Request and reply take their time."""
    STALE = "stale"
    """A look-up shows an earlier state."""


_READS = frozenset({"info", "lookup_payment", "lookup_invoice"})


class FaultyLightningNode:
    """``node`` behind a bad connection.

    Args:
        node: any ``LightningNode``.
        clock: for delays.
        rng: decides which call gets which fault, and how long delays are.
        rates: probability of each fault, per call.
        max_delay_s: longest delay, and latest arrival of a late request.
    """

    def __init__(
        self,
        node: LightningNode,
        *,
        clock: Clock,
        rng: random.Random,
        rates: Mapping[LightningFault, float] | None = None,
        max_delay_s: float = 5.0,
    ) -> None:
        self._node = node
        self._clock = clock
        self._rng = rng
        self._rates = dict(rates or {})
        self._max_delay_s = max_delay_s
        self._planned: defaultdict[str, deque[LightningFault]] = defaultdict(deque)
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._earlier: dict[tuple[str, bytes], list[Any]] = {}
        self.happened: list[tuple[str, LightningFault]] = []
        """Method and fault of every fault so far."""

    def inject(self, method: str, *faults: LightningFault) -> None:
        """Give the next calls of ``method`` these faults, one each, before chance decides again."""
        self._planned[method].extend(faults)

    def _next_fault(self, method: str) -> LightningFault | None:
        planned = self._planned[method]
        fault = planned.popleft() if planned else None
        if fault is None:
            at = self._rng.random()
            for candidate, rate in self._rates.items():
                if at < rate:
                    fault = candidate
                    break
                at -= rate
        if fault is LightningFault.STALE and method not in _READS:
            fault = None
        if fault is not None:
            self.happened.append((method, fault))
        return fault

    async def _call(
        self, method: str, factory: Callable[[], Awaitable[T]], lost: Callable[[], Layer2Error] | None = None
    ) -> T:
        """Make a call with the fault that is due. ``lost`` makes the error for a call whose effect is not known."""
        return await self._faulty(self._next_fault(method), factory, lost or _broken)

    async def _faulty(
        self, fault: LightningFault | None, factory: Callable[[], Awaitable[T]], broken: Callable[[], Layer2Error]
    ) -> T:
        match fault:
            case LightningFault.REFUSED:
                raise NodeConnectionError("no connection to the node", request_sent=False)
            case LightningFault.LOST_REQUEST:
                raise broken()
            case LightningFault.LATE_REQUEST:
                self._own(lambda: self._later(factory))
                raise broken()
            case LightningFault.LOST_REPLY:
                self._own(factory)
                await self._pause()
                raise broken()
            case LightningFault.DUPLICATE:
                self._own(factory)
                return await factory()
            case LightningFault.DELAY:
                await self._pause()
                result = await factory()
                await self._pause()
                return result
            case LightningFault.STALE | None:
                return await factory()

    def _own(self, work: Callable[[], Awaitable[Any]]) -> None:
        async def run() -> None:
            try:
                await work()
            except Layer2Error:
                return

        task = asyncio.get_running_loop().create_task(run())
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _later(self, factory: Callable[[], Awaitable[Any]]) -> None:
        await self._pause()
        await factory()

    async def _pause(self) -> None:
        await self._clock.sleep(self._rng.uniform(0, self._max_delay_s))

    async def _look(self, method: str, key: bytes, factory: Callable[[], Awaitable[T]]) -> T:
        """A look-up, which may show what an earlier one showed."""
        fault = self._next_fault(method)
        seen = self._earlier.setdefault((method, key), [])
        result = await self._faulty(fault, factory, _broken)
        if fault is LightningFault.STALE and seen:
            earlier: T = self._rng.choice(seen)
            return earlier
        if result not in seen:
            seen.append(result)
        return result

    async def info(self) -> NodeInfo:
        """Identity, network, height and liquidity."""
        return await self._look("info", b"", self._node.info)

    async def pay(
        self,
        invoice: str,
        *,
        amount_msat: int | None = None,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay. Where the reply is lost: ``UnknownOutcome``, as the interface has it."""
        payment_hash = decode_invoice(invoice).payment_hash
        return await self._call(
            "pay",
            lambda: self._node.pay(
                invoice,
                amount_msat=amount_msat,
                fee_limit_msat=fee_limit_msat,
                cltv_limit=cltv_limit,
                time_limit_s=time_limit_s,
            ),
            lambda: _unknown(payment_hash),
        )

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
        """Pay a node. Where the reply is lost: ``UnknownOutcome``."""
        return await self._call(
            "keysend",
            lambda: self._node.keysend(
                node_id,
                amount_msat,
                preimage=preimage,
                fee_limit_msat=fee_limit_msat,
                cltv_limit=cltv_limit,
                time_limit_s=time_limit_s,
            ),
            lambda: _unknown(sha256(preimage)),
        )

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """What the node knows, or knew."""
        self._earlier.setdefault(
            ("lookup_payment", payment_hash), [PaymentRecord(payment_hash=payment_hash, state=PaymentState.NONE)]
        )
        return await self._look("lookup_payment", payment_hash, lambda: self._node.lookup_payment(payment_hash))

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
        """Make an invoice."""
        return await self._call(
            "create_invoice",
            lambda: self._node.create_invoice(
                amount_msat=amount_msat,
                memo=memo,
                description_hash=description_hash,
                expiry_s=expiry_s,
                preimage=preimage,
                cltv_delta=cltv_delta,
            ),
        )

    async def create_hold_invoice(
        self, *, payment_hash: bytes, amount_msat: int, memo: str = "", expiry_s: int, cltv_delta: int
    ) -> InvoiceRecord:
        """Make a hold invoice."""
        return await self._call(
            "create_hold_invoice",
            lambda: self._node.create_hold_invoice(
                payment_hash=payment_hash, amount_msat=amount_msat, memo=memo, expiry_s=expiry_s, cltv_delta=cltv_delta
            ),
        )

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        """The invoice as it stands, or stood."""
        return await self._look("lookup_invoice", payment_hash, lambda: self._node.lookup_invoice(payment_hash))

    async def settle_invoice(self, preimage: bytes) -> None:
        """Take a held payment."""
        await self._call("settle_invoice", lambda: self._node.settle_invoice(preimage))

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """Give a held payment back, or close an open invoice."""
        await self._call("cancel_invoice", lambda: self._node.cancel_invoice(payment_hash))

    async def watch_invoice(self, payment_hash: bytes) -> AsyncGenerator[InvoiceRecord, None]:
        """The record now and after each change, with faults on each record."""
        records = self._node.watch_invoice(payment_hash)
        try:
            async for record in records:
                match self._next_fault("watch_invoice"):
                    case None | LightningFault.STALE:
                        yield record
                    case LightningFault.DUPLICATE:
                        yield record
                        yield record
                    case LightningFault.DELAY:
                        await self._pause()
                        yield record
                    case _:
                        raise NodeConnectionError("the stream of an invoice broke", request_sent=True)
        finally:
            if isinstance(records, AsyncGenerator):
                await records.aclose()

    async def close(self) -> None:
        """Drop what is still on its way, and close the node's connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._node.close()


def _broken() -> NodeConnectionError:
    return NodeConnectionError("the connection to the node broke", request_sent=True)


def _unknown(payment_hash: bytes) -> UnknownOutcome:
    return UnknownOutcome(
        "the connection to the node was lost while a payment was under way",
        tx_id=TxId(layer="lightning", hash=payment_hash),
        retry_safe=True,
    )
