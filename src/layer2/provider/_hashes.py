"""Which payment hashes the provider takes: each for one swap that is decided, and never both ways at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from layer2 import Clock
from layer2.errors import NodeError, NotFound, SwapRefused
from layer2.lightning import InvoiceState, LightningNode, PaymentState
from layer2.provider._turns import Busy, Turns
from layer2.swaps import FORBIDDEN_HASHES, Cancelling, Closed, Invoiced, StoredSwap, SwapEngine
from layer2.terms import SwapDirection

__all__ = ["Hashes"]

logger: Final = logging.getLogger("layer2.provider")

_GIVE_WAY_LIMIT_S: Final = 5.0
"""For so long a request waits until an unpaid invoice in its way is closed."""

_SEARCHES: Final = 2
"""At a time: each asks for events of up to 60 days."""


def _used() -> SwapRefused:
    return SwapRefused("the payment hash was used before", rule="hash")


class Hashes:
    """Refuses hashes that cannot be swapped for, and makes way for an invoice whose hash somebody else only asked for.

    Whoever sees an invoice can ask for a swap the other way on its hash. As long as nobody pays for that, it is an offer like any
    other: after ``idle_s`` it gives way, its hold invoice is closed, and only then is the invoice's own swap offered. So this
    provider never has an open invoice of its own on a hash that it may pay for. ``skew_s`` is how far the chain's clock may be off.
    """

    def __init__(
        self,
        *,
        engine: SwapEngine,
        node: LightningNode,
        clock: Clock,
        idle_s: int,
        skew_s: int,
        known: Callable[[bytes], Awaitable[bool]],
        owner: Callable[[bytes], Awaitable[str | None]],
        claimed: Callable[[bytes, int], Awaitable[bool]],
        reverse_with: Callable[[bytes], Awaitable[Sequence[StoredSwap]]],
    ) -> None:
        self._engine = engine
        self._node = node
        self._clock = clock
        self._idle_s = idle_s
        self._skew_s = skew_s
        self._known = known
        self._owner = owner
        self._claimed = claimed
        self._reverse_with = reverse_with
        self._searches = Turns(_SEARCHES)

    async def check_store(self, payment_hash: bytes, direction: SwapDirection) -> None:
        """Refuse what this store alone tells. Asks neither the node nor the chain. Raises ``SwapRefused``.

        A quote reserves no hash: else whoever sees an invoice could keep others from having it paid.
        """
        if payment_hash in FORBIDDEN_HASHES:
            raise SwapRefused("the contract does not take the preimage of this hash", rule="hash")
        if direction is SwapDirection.REVERSE:
            await self.check_unknown(payment_hash)
        elif await self._owner(payment_hash) is not None:
            raise _used()

    async def check_reverse(self, payment_hash: bytes, *, origin: str | None = None) -> None:
        """Refuse to hold a payment on a hash that is not new. ``origin`` is who asks.

        Raises:
            SwapRefused: it is not; NodeNotReady: too many ask at a time.
        """
        await self.check_store(payment_hash, SwapDirection.REVERSE)
        await self._check_unpaid(payment_hash)
        if await self._invoice_state(payment_hash) is not None:
            raise _used()
        await self._check_unclaimed(payment_hash, 0, origin)

    async def check_unknown(self, payment_hash: bytes) -> None:
        """Refuse a hash that any swap of this store ever had. Raises ``SwapRefused``."""
        if await self._known(payment_hash):
            raise _used()

    async def check_submarine(self, payment_hash: bytes, made_at_s: int, *, origin: str | None = None) -> None:
        """Refuse to pay for a hash that is spoken for. ``origin`` is who asks.

        Raises:
            SwapRefused: it is; NodeNotReady: too many ask at a time.
        """
        await self.check_store(payment_hash, SwapDirection.SUBMARINE)
        await self._check_unpaid(payment_hash)
        await self._check_unclaimed(payment_hash, made_at_s, origin)
        await self._make_way(payment_hash)
        await self.check_one_way(payment_hash)

    async def check_one_way(self, payment_hash: bytes) -> None:
        """Refuse to pay for a hash on which a payment to us is held or can still come. Raises ``SwapRefused``."""
        others = await self._reverse_with(payment_hash)
        if not all(_came_to_nothing(swap) for swap in others):
            raise _used()
        state = await self._invoice_state(payment_hash)
        # What is cancelled takes no payment any more. One that no swap here knows of may be of a life that was lost.
        if state is not None and not (others and state is InvoiceState.CANCELED):
            raise _used()

    async def _make_way(self, payment_hash: bytes) -> None:
        for swap in await self._reverse_with(payment_hash):
            if _came_to_nothing(swap):
                continue
            if not isinstance(swap.state, Invoiced | Cancelling) or swap.restored:
                raise _used()
            wait_s = self._idle_s - (self._clock.now_ms() - swap.created_at_ms) // 1000
            if isinstance(swap.state, Invoiced) and wait_s > 0:
                raise SwapRefused(
                    f"a swap the other way was offered for the payment hash; ask again in {wait_s} s",
                    rule="hash_offered",
                )
            self._engine.withdraw(swap.deal.id)
            try:
                async with asyncio.timeout(_GIVE_WAY_LIMIT_S):
                    await self._engine.wait_for(
                        swap.deal.id, lambda state: not isinstance(state, Invoiced | Cancelling)
                    )
            except TimeoutError:
                return

    async def _check_unpaid(self, payment_hash: bytes) -> None:
        if (await self._node.lookup_payment(payment_hash)).state is not PaymentState.NONE:
            raise _used()

    async def _invoice_state(self, payment_hash: bytes) -> InvoiceState | None:
        try:
            return (await self._node.lookup_invoice(payment_hash)).state
        except NotFound:
            return None

    async def _check_unclaimed(self, payment_hash: bytes, made_at_s: int, origin: str | None) -> None:
        try:
            claimed = await self._search(payment_hash, made_at_s, origin)
        except Busy:
            raise
        except NodeError as error:
            # A public preimage costs us nothing: what we pay or hold brings it in any case. So an endpoint that keeps no events
            # does not stop the business, but whoever runs it should know.
            text = f"it is not known whether a hash was claimed on the contract before: {error}"
            logger.warning("provider: %s", text, extra={"event_code": "provider.claims_unknown"})
            return
        if claimed:
            raise SwapRefused("the payment hash was claimed on the contract before", rule="hash")

    async def _search(self, payment_hash: bytes, made_at_s: int, origin: str | None) -> bool:
        async with self._searches.turn(origin):
            return await self._claimed(payment_hash, made_at_s - self._skew_s)


def _came_to_nothing(swap: StoredSwap) -> bool:
    """Whether a reverse swap has ended with its invoice cancelled and nothing of ours locked, or locked for good."""
    return isinstance(swap.state, Closed) and swap.state.outcome == "expired"
