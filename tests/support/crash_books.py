"""The books of a crash campaign: what everybody held before and after, against what the settled swaps should have moved."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from books import Balances, balances, changes, expected_msat, nonzero, nothing_in_flight, spent
from campaign_files import CAMPAIGN

from layer2 import EvmAddress, TransferProof
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.lightning import LndNode

WEI = 100 * 10**18
"""What ``RealNetwork.new_account`` gives."""


@dataclass
class CrashBooks:
    """Opened before the first swap, compared after the last."""

    network: RealNetwork
    lnds: dict[str, LndNode]
    before: Balances
    holders: dict[str, EvmAddress]
    proofs: list[TransferProof] = field(default_factory=list)

    @classmethod
    async def open(cls, network: RealNetwork, lnds: dict[str, LndNode]) -> CrashBooks:
        """The shared provider is known from the start; accounts are added as they come."""
        if CAMPAIGN:
            await _settled_down(network)
        holders = {"HTLC contract": network.contract, "provider": network.provider.runtime.account.address}
        return cls(network, lnds, await _balances(network, holders), holders)

    async def new_account(self, tokens: int) -> DevnetAccount:
        """An account whose money is counted from now on."""
        account = await self.network.new_account(tokens=tokens)
        name = f"account {len(self.holders)}"
        self.holders[name] = account.address
        self.before.tokens[name], self.before.wei[name] = tokens, WEI
        return account

    async def compare(self) -> None:
        """Nothing was lost or made, nothing is held by the contract, and only what settled moved anything."""
        await _settled_down(self.network)
        after = await _balances(self.network, self.holders)
        msat, tokens, wei = (
            changes(getattr(self.before, kind), getattr(after, kind)) for kind in ("msat", "tokens", "wei")
        )
        assert sum(msat.values()) == 0
        assert nonzero(msat) == nonzero(await expected_msat(self.proofs, self.lnds))
        assert sum(tokens.values()) == 0
        assert tokens["HTLC contract"] == 0
        moved = Counter({name: abs(change) for name, change in tokens.items()})
        assert moved.total() == 2 * sum(proof.terms.lock.amount for proof in self.proofs)
        costs = await spent(self.network.nodes, self.network.contract, self.holders, self.before.block + 1, after.block)
        assert nonzero(wei) == {name: -fee for name, fee in nonzero(costs.fees_wei).items()}


async def _balances(network: RealNetwork, holders: dict[str, EvmAddress]) -> Balances:
    assert network.token.contract is not None
    return await balances(network.nodes, network.token.contract, holders)


async def _settled_down(network: RealNetwork) -> None:
    """Nothing is on its way any more."""
    while network.provider.runtime.engine.active or not await nothing_in_flight(network.nodes):
        await asyncio.sleep(0.2)
