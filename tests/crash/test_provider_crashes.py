"""The provider's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from campaign_files import CAMPAIGN
from crash_child import ClientJob
from crash_rig import (
    AT_ONCE,
    AT_ONCE_WAITING,
    LIMIT_S,
    STORES,
    Attempt,
    Provider,
    at_each_kind,
    at_every_point,
    client_lives,
    free_port,
    kinds,
)
from crash_stage import AMOUNT, BACK, OUT, Stage

from layer2 import BTC, Expired, Layer2Config, Layer2Manager, NodeError, SwapExpired, SwapRefunded, Transfer
from layer2.devnet import DevnetAccount
from layer2.lightning import InvoiceState, PaymentState, decode_invoice

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("store_kind", STORES),
]

PAYING = {"fee_limit_msat": 10_000, "cltv_limit": 1_000, "time_limit_s": 60}


async def swap(stage: Stage, kill_at: str | None, use: Callable[[Deal], Awaitable[str]]) -> Attempt:
    """One swap with a provider that is killed once; ``use`` is what its client does, and gives how it ended."""
    lender, user = await stage.new_account(), await stage.new_account()
    port = free_port()
    provider = Provider(await stage.provider_settings(lender, port), [kill_at])
    try:
        async with asyncio.timeout(LIMIT_S):
            await provider.start()
            path = await stage.client_settings(user, f"http://127.0.0.1:{port}")
            deal = Deal(stage, provider, path, lender, user, f"crash {kill_at}")
            outcome = await use(deal)
            if CAMPAIGN:
                await provider.at_rest()
        first = provider.runs[0]
        points, killed = list(first.points), first.killed
    finally:
        await provider.stop()
    return Attempt(points, killed, outcome)


@dataclass
class Deal:
    """One client with one provider."""

    stage: Stage
    provider: Provider
    config_path: str
    lender: DevnetAccount
    user: DevnetAccount
    key: str

    async def manager(self) -> Layer2Manager:
        return Layer2Manager(await asyncio.to_thread(Layer2Config.load, self.config_path))

    async def transfer(self, way: tuple[str, str], recipient: str | None = None) -> str:
        async with await self.manager() as manager:
            await manager.initialize_all_async()
            asked = manager.cross_layer_transfer_async
            outcome, proof = "settled", None
            try:
                proof = await until_agreed(
                    lambda: asked(BTC, AMOUNT, *way, recipient=recipient, idempotency_key=self.key)
                )
            except (SwapRefunded, SwapExpired) as error:
                outcome = type(error).__name__
            if CAMPAIGN:
                await manager.wait_idle_async()
        await self.stage.check_client(self.user, way, proof, recipient, outcome)
        await self.stage.check_provider(self.lender, way, proof)
        return outcome

    async def nothing_moved(self) -> None:
        await self.stage.check_client(self.user, BACK, None, None, "")
        await self.stage.check_provider(self.lender, BACK, None)

    async def start_and_leave(self) -> Transfer:
        """Agree on an invoice that anyone can pay, and be gone."""
        async with await self.manager() as manager:
            await manager.initialize_all_async()
            asked = manager.start_cross_layer_transfer_async
            return await until_agreed(lambda: asked(BTC, AMOUNT, *BACK, payer="anyone", idempotency_key=self.key))

    async def come_back(self, transfer: Transfer) -> str:
        """See how it ended without us."""
        async with await self.manager() as manager:
            await manager.initialize_all_async()
            with pytest.raises((SwapExpired, SwapRefunded)) as caught:
                await (await manager.get_transfer_async(transfer.id)).result_async()
        await self.nothing_moved()
        return caught.type.__name__

    async def agree_and_die(self) -> str:
        """Have an offer to pay an invoice, and die before anything is locked for it."""
        job = ClientJob(self.config_path, *OUT, AMOUNT, None, self.key, patient=True)
        (first, *_) = await client_lives(job, ["create_submarine: after"], comes_back=False)
        assert first.killed
        await self.provider.at_rest()
        await self.nothing_moved()
        return "SwapExpired"


async def until_agreed(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the provider is there to agree; what was agreed goes on by itself."""
    while True:
        try:
            return await ask()
        except NodeError:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("way", [OUT, BACK], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(stage: Stage, way: tuple[str, str]) -> None:
    async def attempt(at: str | None) -> Attempt:
        return await swap(stage, at, lambda deal: deal.transfer(way))

    calm, others = await at_every_point(f"provider, {way[0]} -> {way[1]}", attempt, at_once=AT_ONCE)
    assert calm == "settled"
    assert others <= {"settled", "SwapExpired", "SwapRefunded"}
    await stage.finish()


async def test_killed_anywhere_on_the_way_to_an_early_refund(stage: Stage) -> None:
    async def dead(deal: Deal) -> str:
        return await deal.transfer(OUT, await stage.dead_invoice(expiry_s=300 if CAMPAIGN else 100))

    async def attempt(at: str | None) -> Attempt:
        return await swap(stage, at, dead)

    calm, others = await at_every_point("provider, early refund", attempt, at_once=AT_ONCE_WAITING)
    assert calm == "SwapRefunded"
    assert others <= {"SwapRefunded", "SwapExpired"}
    await stage.finish()


async def test_killed_while_the_client_is_gone_for_good(stage: Stage) -> None:
    """A payment is given back once the refund of the lock is final, and not before; an offer that nobody pays ends by itself."""

    async def paid_and_left(deal: Deal) -> str:
        transfer = await deal.start_and_leave()
        assert transfer.invoice is not None
        try:
            ended = await stage.merchant.pay(transfer.invoice, **PAYING)
        except Expired:  # on a busy machine it may take too long to get there
            return await deal.come_back(transfer)
        assert ended.state is PaymentState.FAILED
        invoice = await stage.lnds["provider"].lookup_invoice(decode_invoice(transfer.invoice).payment_hash)
        assert invoice.state is InvoiceState.CANCELED
        return await deal.come_back(transfer)

    async def offered(deal: Deal) -> str:
        transfer = await deal.start_and_leave()
        assert transfer.invoice is not None
        payment_hash = decode_invoice(transfer.invoice).payment_hash
        while (await stage.lnds["provider"].lookup_invoice(payment_hash)).state is not InvoiceState.CANCELED:
            await asyncio.sleep(0.5)
        return await deal.come_back(transfer)

    late, unpaid = await asyncio.gather(
        at_each_kind(
            "provider, late refund",
            lambda at: swap(stage, at, paid_and_left),
            kinds("create_hold_invoice", "send_raw", "cancel_invoice"),
        ),
        at_each_kind(
            "provider, unpaid offer",
            lambda at: swap(stage, at, offered),
            kinds("create_hold_invoice"),  # its node may close the invoice first
        ),
    )
    assert late <= {"SwapRefunded", "SwapExpired"}
    assert unpaid == {"SwapExpired"}
    await stage.finish()


@pytest.mark.skipif(not CAMPAIGN, reason="make campaign-crash runs it: a minute")
async def test_killed_while_nobody_locks(stage: Stage) -> None:
    async def attempt(at: str | None) -> Attempt:
        return await swap(stage, at, Deal.agree_and_die)

    calm, others = await at_every_point("provider, offer that nobody locks for", attempt, at_once=AT_ONCE_WAITING)
    assert {calm, *others} == {"SwapExpired"}
    await stage.finish()
