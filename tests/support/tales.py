"""What a client and a provider do with one another, from the first request until nothing moves any more, and the books of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple

from layer2 import BTC, Layer2Error
from layer2.evm import LockPhase
from layer2.lightning import InvoiceState, PaymentState
from layer2.swaps import Role
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from two_parties import Holdings, TwoParties
    from virtual_time import LoopClock

SAT = 100_000
ROUTING_MSAT = 1_100
"""What the router takes for about so much: a satoshi and a millionth."""
LIMIT_S = 600
"""Virtual seconds: more than any deadline of the development networks."""
SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
WAYS = {SUBMARINE: ("bob", "lightning"), REVERSE: ("lightning", "bob")}


class Story(Enum):
    """What else happens, so that a state is reached at all."""

    PAID = auto()
    """Nothing: it would settle."""
    UNPAYABLE = auto()
    """The provider has spent what it wanted to pay with: the lock is refunded early."""
    BY_ANYONE = auto()
    """Somebody else pays the client's hold invoice."""
    CALLED_OFF = auto()
    """The client calls it off when somebody else's payment is held already: the provider's lock is refunded."""
    UNDONE = auto()
    """A reorganisation takes the provider's claim away, and it sees nothing of that until the timelock has passed."""


class Tale:
    """One swap, as its story goes."""

    def __init__(self, parties: TwoParties, clock: LoopClock, direction: SwapDirection, story: Story) -> None:
        self.parties = parties
        self.clock = clock
        self.direction = direction
        self.story = story
        by_others = story in (Story.BY_ANYONE, Story.CALLED_OFF)
        self.payer = "provider" if direction is SUBMARINE else "merchant" if by_others else "client"
        self.before: Holdings | None = None
        """What everybody had, if that is not what it was at the beginning."""
        self.paying: asyncio.Task[object] | None = None

    async def undo(self, phase: LockPhase, transactions: Literal["wait", "drop"] = "drop") -> int:
        """Replace as many blocks as it takes for the lock not to be in this phase; how many."""
        assert self.parties.terms is not None
        depth = 0
        while await self.parties.lock_phase(self.parties.terms.lock.lock_id) is phase:
            depth += 1
            await self.parties.network.evm.reorganise(depth, transactions=transactions)
        return depth

    async def empty_the_provider(self) -> None:
        """At once, so that nothing else has moved since the books were opened."""
        network = self.parties.network
        left = (await network.provider_node.info()).spendable_msat - SAT * 500
        invoice = await network.merchant_node.create_invoice(amount_msat=left)
        limits = {"fee_limit_msat": SAT * 500, "cltv_limit": 1000, "time_limit_s": LIMIT_S}
        paid = await network.provider_node.pay(invoice.text, **limits)
        assert paid.state is PaymentState.SUCCEEDED
        self.before = await self.parties.holdings()

    async def transfer(self) -> str:
        """The client's side: ``settled``, or the name of the error."""
        client, network = self.parties.client, self.parties.network
        by_others = self.payer == "merchant"
        try:
            transfer = await client.start_cross_layer_transfer_async(
                BTC, SAT, *WAYS[self.direction], payer="anyone" if by_others else "self"
            )
            assert transfer.invoice is not None
            if self.story is Story.UNPAYABLE:
                await self.empty_the_provider()
            if by_others:
                paying = network.merchant_node.pay(
                    transfer.invoice, fee_limit_msat=10_000, cltv_limit=1000, time_limit_s=LIMIT_S
                )
                self.paying = asyncio.create_task(paying)
            if self.story is Story.CALLED_OFF:
                while (Role.PROVIDER, "Locking") not in self.parties.history:
                    await self.clock.sleep(0.01)
                await transfer.cancel_async()
            proof = await transfer.result_async()
        except Layer2Error as error:
            return type(error).__name__
        assert proof.preimage
        return "settled"

    async def rest(self) -> None:
        """Wait until no payment is held and nothing is on its way to the contract."""
        while await self.parties.held_msat() or await self.parties.sends_to_the_contract():
            await self.clock.sleep(0.5)
        if self.paying is not None:
            await asyncio.wait([self.paying])


class Legs(NamedTuple):
    """What became of the two legs."""

    claimed: bool
    paid: bool


async def check_books(parties: TwoParties, before: Holdings, payer: str) -> Legs:
    """Every base unit, millisatoshi and wei is where the contract, the invoice and the receipts say."""
    assert parties.terms is not None
    terms, after = parties.terms, await parties.holdings()
    phase = await parties.lock_phase(terms.lock.lock_id)
    locker, claimer, payee, node = ("client", "provider", "client", parties.network.client_node)
    if terms.direction is REVERSE:
        locker, claimer, payee, node = ("provider", "client", "provider", parties.network.provider_node)
    token, msat, wei = Counter(before.token), Counter(before.msat), Counter(before.wei)
    if phase in (LockPhase.LOCKED, LockPhase.CLAIMED):
        token[locker] -= terms.lock.amount
        token["contract" if phase is LockPhase.LOCKED else claimer] += terms.lock.amount
    assert after.token == token
    paid = (await node.lookup_invoice(terms.lock.preimage_hash)).state is InvoiceState.SETTLED
    if paid:
        msat[payer] -= terms.invoice_amount_msat + ROUTING_MSAT
        msat["router"] += ROUTING_MSAT
        msat[payee] += terms.invoice_amount_msat
    assert after.msat == msat
    wei.subtract(after.fees_wei - before.fees_wei)
    assert after.wei == wei
    return Legs(claimed=phase is LockPhase.CLAIMED, paid=paid)


async def check_provider(parties: TwoParties) -> None:
    """It keeps nothing for a swap that is over, raised no alarm, and gave no payment back before its refund was final."""
    inventory = parties.daemon.runtime.inventory
    assert inventory.active == inventory.held_parts() == inventory.awaited() == 0
    assert inventory.token_bound() == inventory.lightning_bound_msat() == inventory.unsafe_token() == 0
    assert not parties.alarms
    if parties.cancelled:
        assert parties.terms is not None
        phase = await parties.lock_phase(parties.terms.lock.lock_id)
        assert phase in (LockPhase.NEVER, LockPhase.REFUNDED)
        assert set(parties.cancelled) == {phase}


def check_client(parties: TwoParties) -> None:
    """It keeps nothing for a swap that is over, and raised no alarm."""
    assert parties.client.health().unfinished_transfers == 0
    assert not parties.alarms
