"""The client's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from campaign_files import CAMPAIGN
from crash_child import ClientJob
from crash_rig import (
    AT_ONCE,
    AT_ONCE_WAITING,
    LIMIT_S,
    STORES,
    Attempt,
    Child,
    at_each_kind,
    at_every_point,
    client_lives,
    free_port,
    kinds,
    provider_child,
)
from crash_stage import AMOUNT, BACK, OUT, Stage

from layer2 import TransferProof

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("store_kind", STORES),
]


async def transfer(
    stage: Stage,
    way: tuple[str, str],
    kill_at: str | None,
    *,
    invoice: Callable[[], Awaitable[str]] | None = None,
    provider: str = "",
    payer: str = "self",
) -> Attempt:
    """One transfer with one kill. ``provider`` is the client's point at which its provider is gone for good."""
    account = await stage.new_account()
    url, mortal = stage.network.provider.url, None
    if provider:
        port = free_port()
        url, mortal = f"http://127.0.0.1:{port}", await provider_of_its_own(stage, port)

    def seen(point: str) -> None:
        if mortal is not None and point == provider:
            mortal.kill()

    recipient = None if invoice is None else await invoice()
    path = await stage.client_settings(account, url)
    job = ClientJob(path, *way, AMOUNT, recipient, f"crash {kill_at}", payer=payer, to_rest=CAMPAIGN)
    try:
        async with asyncio.timeout(LIMIT_S):
            runs = await client_lives(job, [kill_at], seen)
    finally:
        if mortal is not None:
            await mortal.stop()
    first, last = runs[0], runs[-1]
    where = f"killed at {first.points[-1:]}"
    assert last.ended is not None, f"{where}: the last run reported no end"
    outcome, proof, why = last.ended
    known = TransferProof.from_json(proof) if proof is not None else None
    await stage.check_client(account, way, known, recipient, f"{where}: {outcome}")
    return Attempt(first.points, first.killed, outcome, why)


async def provider_of_its_own(stage: Stage, port: int) -> Child:
    child = provider_child(await stage.provider_settings(await stage.new_account(), port), None)
    await child.ready
    return child


@pytest.mark.parametrize("way", [OUT, BACK], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(stage: Stage, way: tuple[str, str]) -> None:
    calm, others = await at_every_point(
        f"client, {way[0]} -> {way[1]}", lambda at: transfer(stage, way, at), at_once=AT_ONCE
    )
    assert calm == "settled"
    assert others <= {"settled", "SwapExpired"}
    await stage.finish()


async def test_killed_anywhere_on_the_way_to_an_early_refund(stage: Stage) -> None:
    async def attempt(at: str | None) -> Attempt:
        return await transfer(stage, OUT, at, invoice=stage.dead_invoice)

    calm, others = await at_every_point("client, early refund", attempt, at_once=AT_ONCE)
    assert calm == "SwapRefunded"
    assert others <= {"SwapRefunded", "SwapExpired"}
    await stage.finish()


async def test_killed_while_the_provider_is_gone_for_good(stage: Stage) -> None:
    """A lock is taken back after its timelock; a payment that is held comes back when its node gives it up."""

    async def locked(at: str | None) -> Attempt:
        return await transfer(stage, OUT, at, invoice=stage.short_invoice, provider="send_raw: before")

    async def paid(at: str | None) -> Attempt:
        return await transfer(stage, BACK, at, provider="pay: before")

    # That a payment is held is not waited for, and a provider that is gone consents to nothing.
    never = {"pay: after", "refund_signature: after"}
    ends = await asyncio.gather(
        at_each_kind("client, late refund", locked, sorted({*kinds("send_raw", "refund_signature")} - never)),
        at_each_kind("client, payment returned", paid, sorted({*kinds("create_reverse", "pay")} - never)),
    )
    for kind in ends:
        assert "SwapRefunded" in kind
        assert kind <= {"SwapRefunded", "SwapExpired", "nothing begun"}
    await stage.finish()


@pytest.mark.skipif(not CAMPAIGN, reason="make campaign-crash runs it: a minute")
async def test_killed_while_nobody_pays(stage: Stage) -> None:
    async def offered(at: str | None) -> Attempt:
        return await transfer(stage, BACK, at, payer="anyone")

    calm, others = await at_every_point("client, unpaid offer", offered, at_once=AT_ONCE_WAITING)
    assert {calm, *others} == {"SwapExpired"}
    await stage.finish()
