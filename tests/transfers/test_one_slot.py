"""``max_concurrency = 1``: a slot is held by one network operation only, so that nothing waits for what waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from layer2 import BTC, Depth, EvmAddress, EvmCall, Layer2Config, Layer2Manager, LightningPayment, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.provider import LocalProvider
from layer2.storage import SwapJournal
from layer2.swaps import Deal, Role

SAT = 20_000
OUT, BACK = (P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)


@pytest.fixture
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded(max_concurrency=1)) as opened:
        await opened.initialize_all_async()
        yield opened


@pytest.mark.parametrize("first", ["start_cross_layer_transfer_async", "cross_layer_transfer_async"])
async def test_a_transfer_that_is_being_stored_and_those_who_wait_for_it_hold_no_slot(
    manager: Layer2Manager, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    storing, go_on = asyncio.Event(), asyncio.Event()
    insert = SwapJournal.insert

    async def slow(journal: SwapJournal, deal: Deal, *args: Any, **kwargs: Any) -> Any:
        if deal.role is Role.CLIENT:
            storing.set()
            await go_on.wait()
        return await insert(journal, deal, *args, **kwargs)

    monkeypatch.setattr(SwapJournal, "insert", slow)
    bob = await manager.get_protocol_async(P.BOB)
    async with asyncio.timeout(60):
        began = asyncio.ensure_future(getattr(manager, first)(BTC, SAT, *OUT, idempotency_key="order 1"))
        await storing.wait()
        again = asyncio.ensure_future(
            manager.start_cross_layer_transfer_async(BTC, SAT, *OUT, idempotency_key="order 1")
        )
        # All of these get their turn while the one is stored and the other waits for it.
        quotes = await asyncio.gather(
            *(manager.quote_cross_layer_transfer_async(BTC, SAT, *way) for way in (OUT, BACK))
        )
        assert [quote.amount for quote in quotes] == [SAT, SAT]
        assert await bob.balance_async(BTC) > 0
        payee = EvmAddress(raw=secrets.token_bytes(20))
        status = await bob.submit_transaction_async(EvmCall(to=payee, value_wei=1))
        assert (await bob.wait_for_transaction_async(status.tx_id)).succeeded
        assert not began.done()
        assert not again.done()
        go_on.set()
        await began
        transfer = await again
        await transfer.result_async()
        await manager.wait_idle_async()
    assert [each.id for each in await manager.list_transfers_async()] == [transfer.id]


async def test_a_payment_that_its_payee_holds_keeps_no_slot(manager: Layer2Manager) -> None:
    """How long it is held is the payee's to choose; what it takes to decide may need the slot."""
    assert manager.embedded_network is not None
    payee = manager.embedded_network.merchant_node
    bob, lightning = await manager.get_protocol_async(P.BOB), await manager.get_protocol_async(P.LIGHTNING)
    preimage = secrets.token_bytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    record = await payee.create_hold_invoice(
        payment_hash=payment_hash, amount_msat=1_000_000, memo="", expiry_s=3_600, cltv_delta=40
    )
    async with asyncio.timeout(60):
        paying = asyncio.ensure_future(
            lightning.submit_transaction_async(LightningPayment(invoice=record.text), timeout=None)
        )
        tx_id = f"lightning:{payment_hash.hex()}"
        while not (await lightning.get_transaction_status_async(tx_id)).at_least(Depth.PENDING):
            await asyncio.sleep(0.01)
        assert await bob.balance_async(BTC) > 0
        await lightning.create_invoice_async(amount_msat=1_000)
        await manager.quote_cross_layer_transfer_async(BTC, SAT, *OUT)
        await bob.transfer_asset_async(BTC, 100, EvmAddress(raw=secrets.token_bytes(20)))
        assert not paying.done()
        await payee.settle_invoice(preimage)
        assert (await paying).succeeded


async def test_everything_at_once_ends_and_a_provider_is_asked_one_thing_at_a_time(
    manager: Layer2Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: set[object] = set()
    most = 0

    def counted(name: str) -> None:
        original = getattr(LocalProvider, name)

        async def count(*args: Any) -> Any:
            nonlocal most
            call = object()
            at_once.add(call)
            most = max(most, len(at_once))
            try:
                await asyncio.sleep(0)
                return await original(*args)
            finally:
                at_once.discard(call)

        monkeypatch.setattr(LocalProvider, name, count)

    for name in ("info", "create_submarine", "create_reverse"):
        counted(name)
    bob = await manager.get_protocol_async(P.BOB)
    payees = [EvmAddress(raw=secrets.token_bytes(20)) for _ in range(20)]
    async with asyncio.timeout(120):
        moved, started, quotes, sent = await asyncio.gather(
            asyncio.gather(*(manager.cross_layer_transfer_async(BTC, SAT, *way) for way in (OUT, BACK, OUT, BACK))),
            asyncio.gather(*(manager.start_cross_layer_transfer_async(BTC, SAT, *way) for way in (OUT, BACK))),
            asyncio.gather(*(manager.quote_cross_layer_transfer_async(BTC, SAT, *OUT) for _ in range(5))),
            asyncio.gather(*(bob.submit_transaction_async(EvmCall(to=payee, value_wei=7)) for payee in payees)),
        )
        proofs = [*moved, *await asyncio.gather(*(transfer.result_async() for transfer in started))]
        checks = await asyncio.gather(*map(manager.verify_cross_layer_proof_async, proofs))
        statuses = await asyncio.gather(*(bob.wait_for_transaction_async(status.tx_id) for status in sent))
    assert checks == [True] * 6
    assert [quote.amount for quote in quotes] == [SAT] * 5
    assert all(status.succeeded for status in statuses)
    assert {transfer.state for transfer in await manager.list_transfers_async()} == {TransferState.SETTLED}
    assert most == 1
