"""The client's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from crash_child import ClientJob
from crash_rig import (
    LIMIT_S,
    STORES,
    Attempt,
    Child,
    at_each_kind,
    at_every_point,
    client_to_the_end,
    free_port,
    kinds,
    provider_child,
    settings,
)

from layer2 import TransferProof
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import EvmClient, HttpTransport, encode_balance_of
from layer2.lightning import InvoiceState, LndNode, decode_invoice

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("store_kind", STORES),
]

AMOUNT = 20_000
TOKENS = 10_000_000
AT_ONCE = 4
OUT, BACK = ("bob", "lightning"), ("lightning", "bob")
SHORT = {"expiry_s": 90, "cltv_delta": 24}
"""The shorter an invoice lives and is held, the sooner the lock for it can be taken back."""


@dataclass
class Stage:
    """Where the transfers of one test happen."""

    network: RealNetwork
    folder: Path
    new_store: Callable[[], str]
    merchant: LndNode

    async def dead_invoice(self) -> str:
        """One that its node refuses to be paid."""
        invoice = await self.merchant.create_invoice(amount_msat=AMOUNT * 1000, expiry_s=300)
        await self.merchant.cancel_invoice(invoice.payment_hash)
        return invoice.text

    async def short_invoice(self) -> str:
        return (await self.merchant.create_invoice(amount_msat=AMOUNT * 1000, **SHORT)).text

    async def tokens(self, account: DevnetAccount) -> int:
        contract = self.network.token.contract
        assert contract is not None
        client = EvmClient(HttpTransport(self.network.nodes.evm_url))
        try:
            return int.from_bytes(await client.call(contract, encode_balance_of(account.address)))
        finally:
            await client.close()

    async def transfer(
        self,
        way: tuple[str, str],
        kill_at: int | str | None,
        *,
        invoice: Callable[[], Awaitable[str]] | None = None,
        provider: str = "",
    ) -> Attempt:
        """One transfer with one kill. ``provider`` is the client's point at which its provider is gone for good."""
        account = await self.network.new_account(tokens=TOKENS)
        url, mortal = self.network.provider.url, None
        if provider:
            port = free_port()
            url, mortal = f"http://127.0.0.1:{port}", await self.provider(port)

        def seen(point: str) -> None:
            if mortal is not None and point == provider:
                mortal.kill()

        recipient = None if invoice is None else await invoice()
        path = settings(self.network, account, "client", self.folder, store=self.new_store(), provider_url=url)
        job = ClientJob(path, *way, AMOUNT, recipient, f"crash {kill_at}", kill_at)
        try:
            async with asyncio.timeout(LIMIT_S):
                first, last = await client_to_the_end(job, seen)
        finally:
            if mortal is not None:
                await mortal.stop()
        where = f"killed at {first.points[-1:]}"
        assert last.ended is not None, f"{where}: the second run reported no end"
        outcome, proof = last.ended
        moved = await self.tokens(account) - TOKENS
        if outcome == "settled":
            assert proof is not None
            lock = TransferProof.from_json(proof).terms.lock
            assert moved == (-lock.amount if way == OUT else lock.amount), where
        else:
            assert moved == 0, f"{where}: {outcome}"
            if recipient is not None:
                asked = await self.merchant.lookup_invoice(decode_invoice(recipient).payment_hash)
                assert asked.state is not InvoiceState.SETTLED, f"{where}: {outcome}, but the invoice is paid"
        return Attempt(first.points, first.killed, outcome)

    async def provider(self, port: int) -> Child:
        lender = await self.network.new_account(tokens=TOKENS)
        child = provider_child(settings(self.network, lender, "provider", self.folder, port=port), None)
        await child.ready
        return child


@pytest_asyncio.fixture(loop_scope="module")
async def stage(network: RealNetwork, tmp_path: Path, new_store: Any) -> Stage:
    return Stage(network, tmp_path, new_store, await network.connect("router"))


@pytest.mark.parametrize("way", [OUT, BACK], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(stage: Stage, way: tuple[str, str]) -> None:
    calm, others = await at_every_point(
        f"client, {way[0]} -> {way[1]}", lambda at: stage.transfer(way, at), at_once=AT_ONCE
    )
    assert calm == "settled"
    assert others <= {"settled", "SwapExpired"}


async def test_killed_anywhere_on_the_way_to_an_early_refund(stage: Stage) -> None:
    async def attempt(at: int | str | None) -> Attempt:
        return await stage.transfer(OUT, at, invoice=stage.dead_invoice)

    calm, others = await at_every_point("client, early refund", attempt, at_once=AT_ONCE)
    assert calm == "SwapRefunded"
    assert others <= {"SwapRefunded", "SwapExpired"}


async def test_killed_while_the_provider_is_gone_for_good(stage: Stage) -> None:
    """A lock is taken back after its timelock; a payment that is held comes back when its node gives it up."""

    async def locked(at: int | str | None) -> Attempt:
        return await stage.transfer(OUT, at, invoice=stage.short_invoice, provider="send_raw: before")

    async def paid(at: int | str | None) -> Attempt:
        return await stage.transfer(BACK, at, provider="pay: before")

    # That a payment is held is not waited for, and a provider that is gone consents to nothing.
    never = {"pay: after", "refund_signature: after"}
    ends = await asyncio.gather(
        at_each_kind("client, late refund", locked, sorted({*kinds("send_raw", "refund_signature")} - never)),
        at_each_kind("client, payment returned", paid, sorted({*kinds("create_reverse", "pay")} - never)),
    )
    for kind in ends:
        assert "SwapRefunded" in kind
        assert kind <= {"SwapRefunded", "SwapExpired", "nothing begun"}
