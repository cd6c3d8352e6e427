"""The Lightning layer's life and its invoices: everything but payments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from layer2._clock import Clock, SystemClock
from layer2._closing import Closing
from layer2._operations import Operations
from layer2.errors import AsyncRuntimeError, ConfigurationError, NodeConnectionError, NodeNotReady
from layer2.lightning._node import InvoiceRecord, InvoiceState, LightningNode, NodeInfo
from layer2.lightning._payment_rules import LAYER
from layer2.protocol import DEFAULT, Capabilities, Layer2ProtocolAsync, Timeout
from layer2.transactions import Depth

__all__ = ["FIRST_POLL_S", "LONGEST_POLL_S", "NodeLayer"]

T = TypeVar("T")
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 2.0
SYNC_WAIT_S = 20.0
_CAPABILITIES = Capabilities(
    hold_invoices=True,
    proofs=("lightning_payment",),
    depths=(Depth.NONE, Depth.PENDING, Depth.FINALIZED),
    smart_contracts=False,
)


class NodeLayer(Layer2ProtocolAsync):
    """What ``LightningNetwork`` is made of, besides payments."""

    def __init__(
        self,
        node: LightningNode,
        *,
        network: str | None = None,
        operations: Operations | None = None,
        clock: Clock | None = None,
        owns_node: bool = True,
    ) -> None:
        self._node = node
        self._expected_network = network
        self._operations = operations or Operations(owner="Lightning")
        self._owns_operations = operations is None
        self._owns_node = owns_node
        self._clock: Clock = clock or SystemClock()
        self._info: NodeInfo | None = None
        self._closing = Closing(self._operations, "closing Lightning", self._close)

    @property
    def protocol_type(self) -> str:
        """``lightning``."""
        return LAYER

    @property
    def capabilities(self) -> Capabilities:
        """Hold invoices, payment proofs; an outcome is final at once."""
        return _CAPABILITIES

    @property
    def node(self) -> LightningNode:
        """The node behind it."""
        return self._node

    async def initialize_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """Reach the node, check its network and that it follows the chain. Idempotent.

        Raises:
            ConfigurationError: it is on another network than configured. NodeNotReady: it is not synchronised.
        """
        if self._closing.begun:
            raise AsyncRuntimeError("initialize_async: Lightning is closed", hint="make a new one")
        if self._owns_operations:
            self._operations.open()
        info = await self._operations.run(
            self._synced_info, timeout=timeout, cancel=cancel, what="reaching the Lightning node", moves_money=False
        )
        if self._expected_network not in (None, info.network):
            raise ConfigurationError(
                f"the Lightning node is on {info.network}, not on {self._expected_network}", key="lightning.network"
            )
        if not info.synced_to_chain:
            raise NodeNotReady(
                "the Lightning node is not synchronised with the Bitcoin chain", hint="wait, then try again"
            )
        self._info = info

    async def _synced_info(self) -> NodeInfo:
        """The node's information, synchronised if it gets there soon: after each new block it is not for a moment."""
        waited_s = 0.0
        while True:
            info = await self._node.info()
            if info.synced_to_chain or waited_s >= SYNC_WAIT_S:
                return info
            await self._clock.sleep(FIRST_POLL_S)
            waited_s += FIRST_POLL_S

    async def close_async(
        self,
        *,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> None:
        """End what runs and free connections. Payments under way go on at the node. Idempotent, bounded: see the interface."""
        self._operations.check_place("close_async")
        await self._closing.wait(timeout=timeout, cancel=cancel)

    async def _close(self, caller: asyncio.Task[object] | None) -> None:
        if self._owns_operations:
            await self._operations.close_async(besides=caller)
        if self._owns_node:
            await self._node.close()

    def _ready(self, what: str) -> NodeInfo:
        if self._closing.begun:
            raise AsyncRuntimeError(f"{what}: Lightning is closed", hint="make a new one")
        if self._info is None:
            raise AsyncRuntimeError(f"{what}: Lightning is not initialised", hint="await initialize_async() first")
        return self._info

    async def _read(
        self, what: str, factory: Callable[[], Awaitable[T]], timeout: Timeout, cancel: asyncio.Event | None
    ) -> T:
        self._ready(what)
        return await self._operations.run(factory, timeout=timeout, cancel=cancel, what=what, moves_money=False)

    async def create_invoice_async(
        self,
        *,
        amount_msat: int,
        memo: str = "",
        description_hash: bytes | None = None,
        expiry_s: int = 3600,
        preimage: bytes | None = None,
        cltv_delta: int | None = None,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> InvoiceRecord:
        """Make an invoice; ``amount_msat`` 0 leaves the amount to the payer. The same preimage gives the same invoice again.

        Raises:
            AmountError, ValidationError: out of range. IdempotencyConflict: the preimage belongs to an invoice with other terms.
        """
        return await self._read(
            "creating an invoice",
            lambda: self._node.create_invoice(
                amount_msat=amount_msat,
                memo=memo,
                description_hash=description_hash,
                expiry_s=expiry_s,
                preimage=preimage,
                cltv_delta=cltv_delta,
            ),
            timeout,
            cancel,
        )

    async def create_hold_invoice_async(
        self,
        *,
        payment_hash: bytes,
        amount_msat: int,
        memo: str = "",
        expiry_s: int = 3600,
        cltv_delta: int = 80,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> InvoiceRecord:
        """Make an invoice whose payment is held until it is settled or cancelled. The same hash gives the same invoice again.

        A held payment that is not settled is given back ``18`` blocks before its first HTLC expires.
        """
        return await self._read(
            "creating a hold invoice",
            lambda: self._node.create_hold_invoice(
                payment_hash=payment_hash, amount_msat=amount_msat, memo=memo, expiry_s=expiry_s, cltv_delta=cltv_delta
            ),
            timeout,
            cancel,
        )

    async def lookup_invoice_async(
        self, payment_hash: bytes, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> InvoiceRecord:
        """An invoice as it stands.

        Raises:
            NotFound: the node has none with this hash.
        """
        return await self._read(
            "looking up an invoice", lambda: self._node.lookup_invoice(payment_hash), timeout, cancel
        )

    async def settle_invoice_async(
        self, preimage: bytes, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> None:
        """Take a held payment. Succeeds if it was taken before.

        Raises:
            NotFound: no such invoice. Expired: it was cancelled, or nothing is held yet.
        """
        await self._exit("settling an invoice", lambda: self._node.settle_invoice(preimage), timeout, cancel)

    async def cancel_invoice_async(
        self, payment_hash: bytes, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> None:
        """Give a held payment back, or close an open invoice. Succeeds if it was cancelled before.

        Raises:
            NotFound: no such invoice. Expired: it was settled.
        """
        await self._exit("cancelling an invoice", lambda: self._node.cancel_invoice(payment_hash), timeout, cancel)

    async def _exit(
        self, what: str, factory: Callable[[], Awaitable[None]], timeout: Timeout, cancel: asyncio.Event | None
    ) -> None:
        self._ready(what)
        await self._operations.run(factory, timeout=timeout, cancel=cancel, what=what, exit=True, repeatable=True)

    async def watch_invoice_async(self, payment_hash: bytes) -> AsyncGenerator[InvoiceRecord, None]:
        """The record now and after each change, ending after SETTLED or CANCELED. A lost connection is made again.

        Quick changes may be seen as one. Close the iterator (``contextlib.aclosing``) if you leave it early.
        """
        last: InvoiceRecord | None = None
        pause_s = FIRST_POLL_S
        while True:
            self._ready("watching an invoice")
            records = self._node.watch_invoice(payment_hash)
            try:
                async for record in records:
                    pause_s = FIRST_POLL_S
                    if record != last:
                        last = record
                        yield record
                    if record.state in (InvoiceState.SETTLED, InvoiceState.CANCELED):
                        return
            except (NodeConnectionError, NodeNotReady):
                pass
            finally:
                if isinstance(records, AsyncGenerator):
                    await records.aclose()
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)
