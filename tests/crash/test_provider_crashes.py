"""The provider's process is killed just before and just after everything that becomes durable or leaves it, then started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from crash_rig import (
    LIMIT_S,
    STORES,
    Attempt,
    Child,
    EndedTooSoonError,
    at_each_kind,
    at_every_point,
    free_port,
    kinds,
    provider_child,
    settings,
)

from layer2 import BTC, Layer2Config, Layer2Manager, NodeError, SwapExpired, SwapRefunded, Transfer, TransferProof
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import EvmClient, HttpTransport, encode_balance_of
from layer2.lightning import InvoiceState, LndNode, PaymentState, decode_invoice

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("store_kind", STORES),
]

AMOUNT = 20_000
TOKENS = 10_000_000
AT_ONCE, AT_ONCE_WAITING = 4, 10
"""Swaps at a time: those that work, and those that mostly wait for a deadline."""
OUT, BACK = ("bob", "lightning"), ("lightning", "bob")
PAYING = {"fee_limit_msat": 10_000, "cltv_limit": 1_000, "time_limit_s": 60}


class Provider:
    """A provider process that is started again as soon as it was killed."""

    def __init__(self, config_path: str, kill_at: int | str | None) -> None:
        self.config_path = config_path
        self.kill_at = kill_at
        self.child: Child = provider_child(config_path, kill_at)
        self.first = self.child
        self.keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        while not await self._is_ready():
            self.first = self.child = provider_child(self.config_path, self.kill_at)
        self.keeper = asyncio.create_task(self._keep())

    async def _is_ready(self) -> bool:
        try:
            await self.child.ready
        except EndedTooSoonError:
            return False
        return True

    async def _keep(self) -> None:
        while True:
            await self.child.finished()
            self.child = provider_child(self.config_path, None)
            await self._is_ready()

    async def stop(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        await self.child.stop()


@dataclass
class Stage:
    """Where the transfers of one test happen."""

    network: RealNetwork
    folder: Path
    new_store: Callable[[], str]
    chain: EvmClient
    lnds: dict[str, LndNode]

    async def tokens(self, account: DevnetAccount) -> int:
        contract = self.network.token.contract
        assert contract is not None
        return int.from_bytes(await self.chain.call(contract, encode_balance_of(account.address)))

    async def swap(self, kill_at: int | str | None, use: Callable[[Deal], Awaitable[str]]) -> Attempt:
        """One swap with a provider that is killed once; ``use`` is what its client does, and gives how it ended."""
        lender = await self.network.new_account(tokens=TOKENS)
        user = await self.network.new_account(tokens=TOKENS)
        port = free_port()
        path = settings(self.network, lender, "provider", self.folder, store=self.new_store(), port=port)
        provider = Provider(path, kill_at)
        try:
            async with asyncio.timeout(LIMIT_S):
                await provider.start()
                path = settings(self.network, user, "client", self.folder, provider_url=f"http://127.0.0.1:{port}")
                deal = Deal(self, await asyncio.to_thread(Layer2Config.load, path), lender, user, f"crash {kill_at}")
                outcome = await use(deal)
        finally:
            run, killed = provider.first.run, not provider.first.running
            await provider.stop()
        return Attempt(run.points, killed, outcome)


@dataclass
class Deal:
    """One client with one provider."""

    stage: Stage
    config: Layer2Config
    lender: DevnetAccount
    user: DevnetAccount
    key: str

    async def transfer(self, way: tuple[str, str], recipient: str | None = None) -> str:
        async with Layer2Manager(self.config) as manager:
            await manager.initialize_all_async()
            asked = manager.cross_layer_transfer_async
            try:
                proof = await until_agreed(
                    lambda: asked(BTC, AMOUNT, *way, recipient=recipient, idempotency_key=self.key)
                )
            except (SwapRefunded, SwapExpired) as error:
                await self.nothing_moved()
                return type(error).__name__
            await self.settled(proof, way)
            return "settled"

    async def nothing_moved(self) -> None:
        assert await self.stage.tokens(self.user) == TOKENS
        assert await self.stage.tokens(self.lender) == TOKENS

    async def settled(self, proof: TransferProof, way: tuple[str, str]) -> None:
        amount = proof.terms.lock.amount
        sign = -1 if way == OUT else 1
        assert await self.stage.tokens(self.user) == TOKENS + sign * amount
        assert await self.stage.tokens(self.lender) == TOKENS - sign * amount
        payee = self.stage.lnds["client" if way == OUT else "provider"]
        payment_hash = decode_invoice(proof.terms.invoice).payment_hash
        while (await payee.lookup_invoice(payment_hash)).state is not InvoiceState.SETTLED:
            await asyncio.sleep(0.2)

    async def start_and_leave(self) -> Transfer:
        """Agree on an invoice that anyone can pay, and be gone."""
        async with Layer2Manager(self.config) as manager:
            await manager.initialize_all_async()
            asked = manager.start_cross_layer_transfer_async
            return await until_agreed(lambda: asked(BTC, AMOUNT, *BACK, payer="anyone", idempotency_key=self.key))

    async def come_back(self, transfer: Transfer) -> str:
        """See how it ended without us."""
        async with Layer2Manager(self.config) as manager:
            await manager.initialize_all_async()
            with pytest.raises((SwapExpired, SwapRefunded)) as caught:
                await (await manager.get_transfer_async(transfer.id)).result_async()
        await self.nothing_moved()
        return caught.type.__name__


async def until_agreed(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the provider is there to agree; what was agreed goes on by itself."""
    while True:
        try:
            return await ask()
        except NodeError:
            await asyncio.sleep(0.2)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(network: RealNetwork, tmp_path: Path, new_store: Any) -> Any:
    lnds = {name: await network.connect(name) for name in ("client", "router", "provider")}
    chain = EvmClient(HttpTransport(network.nodes.evm_url))
    yield Stage(network, tmp_path, new_store, chain, lnds)
    await chain.close()


@pytest.mark.parametrize("way", [OUT, BACK], ids=["submarine", "reverse"])
async def test_killed_anywhere_on_the_happy_path(stage: Stage, way: tuple[str, str]) -> None:
    async def attempt(at: int | str | None) -> Attempt:
        return await stage.swap(at, lambda deal: deal.transfer(way))

    calm, others = await at_every_point(f"provider, {way[0]} -> {way[1]}", attempt, at_once=AT_ONCE)
    assert calm == "settled"
    assert others <= {"settled", "SwapExpired", "SwapRefunded"}


async def test_killed_anywhere_on_the_way_to_an_early_refund(stage: Stage) -> None:
    async def attempt(at: int | str | None) -> Attempt:
        merchant = stage.lnds["router"]
        invoice = await merchant.create_invoice(amount_msat=AMOUNT * 1000, expiry_s=100)
        await merchant.cancel_invoice(invoice.payment_hash)
        return await stage.swap(at, lambda deal: deal.transfer(OUT, invoice.text))

    calm, others = await at_every_point("provider, early refund", attempt, at_once=AT_ONCE_WAITING)
    assert calm == "SwapRefunded"
    assert others <= {"SwapRefunded", "SwapExpired"}


async def test_killed_while_the_client_is_gone_for_good(stage: Stage) -> None:
    """A payment is given back once the refund of the lock is final, and not before; an offer that nobody pays ends by itself."""

    async def paid_and_left(deal: Deal) -> str:
        payer = stage.lnds["router"]
        transfer = await deal.start_and_leave()
        assert transfer.invoice is not None
        ended = await payer.pay(transfer.invoice, **PAYING)
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
            lambda at: stage.swap(at, paid_and_left),
            kinds("create_hold_invoice", "send_raw", "cancel_invoice"),
        ),
        at_each_kind(
            "provider, unpaid offer",
            lambda at: stage.swap(at, offered),
            kinds("create_hold_invoice"),  # its node may close the invoice first
        ),
    )
    assert late <= {"SwapRefunded", "SwapExpired"}
    assert unpaid == {"SwapExpired"}
