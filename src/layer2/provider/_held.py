"""Payments that are held: their parts take places of a channel and must be worth an output on the chain, and ours are out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from layer2.errors import NotFound
from layer2.lightning import PaymentState

if TYPE_CHECKING:
    from layer2.lightning import HeldHtlc, LightningNode
    from layer2.provider._inventory import Inventory
    from layer2.swaps import StoredSwap

__all__ = ["HeldParts"]

_LEAST_PART_MSAT: Final = 1_000_000
"""Below the dust limit, 354 satoshi at least (BOLT 2), a part has no output in a commitment, and goes to the miners if the
channel is closed by force; just above it, taking the output costs most of what it holds: some 176 virtual bytes."""


class HeldParts:
    """Asks the node of which parts (HTLCs) the held payments consist, and bounds their number and their size.

    A payer chooses into which parts a payment falls, so only the payment itself tells. While it is held, that does not change.
    """

    def __init__(self, node: LightningNode, inventory: Inventory, most: int) -> None:
        self._node = node
        self._inventory = inventory
        self._most = most

    async def count(self) -> None:
        """Bring the inventory up to date with payments that an earlier process took. Raises ``NodeError``."""
        for swap in self._inventory.uncounted():
            self._inventory.consists_of(swap.deal.id, len(await self._parts(swap)))

    async def why_not_hold(self, swap: StoredSwap) -> str | None:
        """Why the payment of a reverse swap must go back at once; None: it may be held. Raises ``NodeError``."""
        await self.count()
        htlcs = await self._parts(swap)
        parts = len(htlcs)
        if any(htlc.amount_msat < _LEAST_PART_MSAT for htlc in htlcs):
            return f"the payment has a part below {_LEAST_PART_MSAT // 1000} satoshi, which a closed channel would not pay out"
        others = self._inventory.held_parts(frozenset((swap.deal.id,)))
        if others + parts > self._most:
            return f"the payment has {parts} part(s), and {others} of at most {self._most} are held already"
        self._inventory.consists_of(swap.deal.id, parts)
        return None

    async def taken_msat(self, enough_msat: int) -> dict[str, int]:
        """What our payments that others hold have taken out of the channels, by swap; no more is asked than is ``enough_msat``.

        What the channels hold must have been read before: a part that has come back since counts as not taken then.

        Raises:
            NodeError: the node does not say.
        """
        taken: dict[str, int] = {}
        for swap in self._inventory.held_outgoing():
            record = await self._node.lookup_payment(swap.deal.terms.lock.preimage_hash)
            if record.state is PaymentState.IN_FLIGHT:
                taken[swap.deal.id] = record.in_flight_msat
            if sum(taken.values()) >= enough_msat:
                break
        return taken

    async def _parts(self, swap: StoredSwap) -> tuple[HeldHtlc, ...]:
        try:
            record = await self._node.lookup_invoice(swap.deal.terms.lock.preimage_hash)
        except NotFound:
            return ()
        return record.htlcs
