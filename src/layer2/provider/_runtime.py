"""A running provider: its engine, inventory and service over a node, a chain and a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from layer2 import Clock
from layer2.config import DepthRule, ProviderConfig
from layer2.lightning import LightningNode
from layer2.protocol import Signer
from layer2.provider._hashes import Hashes
from layer2.provider._held import HeldParts
from layer2.provider._inventory import Inventory
from layer2.provider._last_look import LastLook
from layer2.provider._room import Room
from layer2.provider._service import ProviderPlace, ProviderService
from layer2.storage import Store, SwapJournal, swaps
from layer2.swaps import (
    ClaimSearch,
    EvmAccount,
    EvmSwapChain,
    NoCounterparty,
    Role,
    StoredSwap,
    SwapEngine,
    every_unfinished,
)
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from layer2.evm import EvmClient, FeeOracle, TxJournal, TxSender
    from layer2.swaps import Deal

__all__ = ["ProviderRuntime"]

_PEACE: Final = 4
"""An offer is left in peace for this part of the time that there is to lock."""

_CLAIM_REQUESTS: Final = 4
"""Ranges of blocks that one offer may ask for, to see that a hash was not claimed before: strangers choose how many offers."""


class ProviderRuntime:
    """Owns the engine of one provider. What it is given stays its caller's to close."""

    def __init__(
        self,
        *,
        store: Store,
        client: EvmClient,
        sender: TxSender,
        fees: FeeOracle,
        transactions: TxJournal,
        node: LightningNode,
        signer: Signer,
        place: ProviderPlace,
        settings: ProviderConfig,
        depth: tuple[DepthRule, ...],
        max_safe_lag_s: int = 7_200,
        clock: Clock,
        version: str,
        max_gas_cost_wei: int,
        poll_s: float,
        on_change: Callable[[StoredSwap], None] = lambda _: None,
        on_alarm: Callable[[Deal, str, str], None] = lambda *_: None,
    ) -> None:
        assert place.token.contract is not None
        self._store = store
        self.journal = SwapJournal(store, Role.PROVIDER)
        self.inventory = Inventory(place.token, clock)
        self._held = HeldParts(node, self.inventory, settings.max_held_per_channel)
        self._on_change = on_change
        chain = EvmSwapChain(
            client=client, sender=sender, journal=transactions, clock=clock, block_time_s=place.timing.evm_block_s
        )
        self.account = EvmAccount(
            client=client,
            chain_id=place.chain_id,
            fees=fees,
            data_fee=sender.data_fee,
            address=signer.address,
            token=place.token.contract,
            max_gas_cost_wei=max_gas_cost_wei,
        )
        last_look = LastLook(held=self._held, inventory=self.inventory, chain=self.account, settings=settings)
        self.engine = SwapEngine(
            store=self.journal,
            chain=chain,
            node=node,
            counterparty=NoCounterparty(),
            preimages=None,
            clock=clock,
            poll_s=poll_s,
            why_not_begin=last_look.why_not_begin,
            on_change=self._changed,
            on_alarm=on_alarm,
            still_ours=store.still_ours,
        )
        self.service = ProviderService(
            engine=self.engine,
            inventory=self.inventory,
            room=self._room(settings, place, max_safe_lag_s, clock),
            node=node,
            signer=signer,
            place=place,
            settings=settings,
            depth=depth,
            clock=clock,
            version=version,
            hashes=self._hashes(node, place, clock, _claims(client, place)),
            hash_owner=self._hash_owner,
            swaps_on=self._swaps_on,
            made_for=self.journal.by_key,
            look=partial(chain.offers.view, lock_key=None),
        )

    def _room(self, settings: ProviderConfig, place: ProviderPlace, max_safe_lag_s: int, clock: Clock) -> Room:
        return Room(
            engine=self.engine,
            inventory=self.inventory,
            held=self._held,
            chain=self.account,
            settings=settings,
            max_safe_lag_s=max_safe_lag_s,
            clock=clock,
            idle_s=_idle_s(place),
        )

    def _hashes(self, node: LightningNode, place: ProviderPlace, clock: Clock, claims: ClaimSearch) -> Hashes:
        return Hashes(
            engine=self.engine,
            node=node,
            clock=clock,
            idle_s=_idle_s(place),
            skew_s=place.timing.evm_clock_skew_s,
            known=self.journal.hash_known,
            owner=self._hash_owner,
            claimed=claims.claimed,
            reverse_with=self._reverse_with,
        )

    def _changed(self, swap: StoredSwap) -> None:
        self.inventory.changed(swap)
        self._on_change(swap)

    async def _hash_owner(self, payment_hash: bytes) -> str | None:
        return await self._store.run(swaps.hash_owner, payment_hash)

    async def _reverse_with(self, payment_hash: bytes) -> list[StoredSwap]:
        with_it = partial(swaps.by_payment_hash, direction=SwapDirection.REVERSE)
        return list(await self._store.run(with_it, payment_hash))

    async def _swaps_on(self, lock_id: bytes) -> list[StoredSwap]:
        return list(await self._store.run(swaps.by_lock_id, lock_id))

    async def start(self) -> int:
        """Count what is open, then drive it. Returns how many swaps that is."""
        async for swap in every_unfinished(self.journal):
            self.inventory.changed(swap)
        return await self.engine.start()

    async def close(self) -> None:
        """Stop driving; open swaps stay in the store. Idempotent."""
        await self.engine.close()


def _idle_s(place: ProviderPlace) -> int:
    return place.timing.lock_window_s // _PEACE


def _claims(client: EvmClient, place: ProviderPlace) -> ClaimSearch:
    return ClaimSearch(
        client=client,
        chain_id=place.chain_id,
        contract=place.contract,
        block_time_s=place.timing.evm_block_s,
        max_requests=_CLAIM_REQUESTS,
    )
