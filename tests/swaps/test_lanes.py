"""What waits for one layer holds up nothing that the other layer has to do."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from engine_worlds import world_of
from swap_worlds import LOCKED, PREIMAGE, make_deal

from layer2.lightning import InvoiceState
from layer2.swaps import CancelInvoice, Cancelling, CancelRequested, Claim, Claiming, Role, SettleInvoice, Settling
from layer2.terms import SwapDirection

MANY = 100
"""More than may act at a time."""


class Node:
    """Holds the payment of any invoice, and notes what it is asked to do with it."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def lookup_invoice(self, payment_hash):
        return SimpleNamespace(state=InvoiceState.ACCEPTED, lowest_expiry_height=10**6, received_msat=1)

    async def info(self):
        return SimpleNamespace(block_height=1, synced_to_chain=True)

    async def settle_invoice(self, preimage):
        self.asked.set()

    async def cancel_invoice(self, payment_hash):
        self.asked.set()


async def insert(journal, deal, state, effects):
    await journal.insert(deal, state, idempotency_key=None, request_digest=None, bind_hash=False)
    await journal.transition(
        deal.id, expected_version=1, state=state, seen=CancelRequested(), effects=effects, bind_hash=None
    )


@pytest.mark.parametrize(
    ("state", "effect"),
    [
        (Settling(preimage=PREIMAGE), SettleInvoice(preimage=PREIMAGE)),
        (Cancelling(outcome="expired", reason="r"), CancelInvoice()),
    ],
)
async def test_a_held_payment_is_decided_while_no_claim_gets_to_the_chain(state, effect):
    async with world_of(Role.PROVIDER) as world:
        hanging = asyncio.Event()

        async def hang(*_, **__):
            hanging.set()
            await asyncio.Event().wait()

        world.chain.send_claim = hang
        world.chain.latest = world.chain.at_depth = world.chain.finalized = LOCKED
        claiming = make_deal(Role.PROVIDER, SwapDirection.SUBMARINE)
        for number in range(MANY):
            deal = replace(claiming, id=f"{number:032x}")
            await insert(world.journal, deal, Claiming(preimage=PREIMAGE), (Claim(preimage=PREIMAGE, not_after=None),))
        held = replace(make_deal(Role.PROVIDER, SwapDirection.REVERSE), id="f" * 32)
        await insert(world.journal, held, state, (effect,))
        node = Node()
        await world.start(node=node)
        async with asyncio.timeout(20):
            await hanging.wait()
            await node.asked.wait()
