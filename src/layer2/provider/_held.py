"""How many parts of payments are held: each takes one of the few places that a channel has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2.errors import NotFound

if TYPE_CHECKING:
    from layer2.lightning import LightningNode
    from layer2.provider._inventory import Inventory
    from layer2.swaps import StoredSwap

__all__ = ["HeldParts"]


class HeldParts:
    """Asks the node of how many parts (HTLCs) the held payments consist, and bounds their number.

    A payer chooses into how many parts a payment falls, so only the payment itself tells. While it is held, that does not change.
    """

    def __init__(self, node: LightningNode, inventory: Inventory, most: int) -> None:
        self._node = node
        self._inventory = inventory
        self._most = most

    async def count(self) -> None:
        """Bring the inventory up to date with payments that an earlier process took. Raises ``NodeError``."""
        for swap in self._inventory.uncounted():
            self._inventory.consists_of(swap.deal.id, await self._parts(swap))

    async def why_not_hold(self, swap: StoredSwap) -> str | None:
        """Why the payment of a reverse swap must go back at once; None: it may be held. Raises ``NodeError``."""
        await self.count()
        parts = await self._parts(swap)
        others = self._inventory.held_parts(frozenset((swap.deal.id,)))
        if others + parts > self._most:
            return f"the payment has {parts} part(s), and {others} of at most {self._most} are held already"
        self._inventory.consists_of(swap.deal.id, parts)
        return None

    async def _parts(self, swap: StoredSwap) -> int:
        try:
            record = await self._node.lookup_invoice(swap.deal.terms.lock.preimage_hash)
        except NotFound:
            return 0
        return len(record.htlcs)
