"""Where the transfers of one crash test happen, and what must be true of each when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from campaign_files import CAMPAIGN
from crash_campaign import keep, take_told
from crash_rig import settings

from layer2 import TransferProof
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import EvmClient, encode_balance_of
from layer2.lightning import InvoiceState, LndNode, decode_invoice

if TYPE_CHECKING:
    from crash_books import CrashBooks

AMOUNT = 20_000
TOKENS = 10_000_000
OUT, BACK = ("bob", "lightning"), ("lightning", "bob")
SHORT = {"expiry_s": 90, "cltv_delta": 24}
"""The shorter an invoice lives and is held, the sooner the lock for it can be taken back."""


@dataclass
class Stage:
    """One network, and new accounts and stores for each swap."""

    network: RealNetwork
    folder: Path
    new_store: Callable[[], str]
    chain: EvmClient
    lnds: dict[str, LndNode]
    books: CrashBooks
    test: str
    store_kind: str

    @property
    def merchant(self) -> LndNode:
        return self.lnds["router"]

    async def new_account(self) -> DevnetAccount:
        return await self.books.new_account(TOKENS)

    async def client_settings(self, account: DevnetAccount, provider_url: str) -> str:
        store = await asyncio.to_thread(self.new_store)
        return settings(self.network, account, "client", self.folder, store=store, provider_url=provider_url)

    async def provider_settings(self, account: DevnetAccount, port: int) -> str:
        store = await asyncio.to_thread(self.new_store)
        return settings(self.network, account, "provider", self.folder, store=store, port=port)

    async def dead_invoice(self, *, expiry_s: int = 300) -> str:
        """One that its node refuses to be paid."""
        invoice = await self.merchant.create_invoice(amount_msat=AMOUNT * 1000, expiry_s=expiry_s)
        await self.merchant.cancel_invoice(invoice.payment_hash)
        return invoice.text

    async def short_invoice(self) -> str:
        return (await self.merchant.create_invoice(amount_msat=AMOUNT * 1000, **SHORT)).text

    async def tokens(self, account: DevnetAccount) -> int:
        contract = self.network.token.contract
        assert contract is not None
        return int.from_bytes(await self.chain.call(contract, encode_balance_of(account.address)))

    async def check_client(
        self, user: DevnetAccount, way: tuple[str, str], proof: TransferProof | None, recipient: str | None, where: str
    ) -> None:
        """What its account holds is what the proof says; without a proof, what it held before, and nobody was paid for it."""
        moved = await self.tokens(user) - TOKENS
        if proof is not None:
            self.books.proofs.append(proof)
            assert moved == (-proof.terms.lock.amount if way == OUT else proof.terms.lock.amount), where
            return
        assert moved == 0, where
        if recipient is not None:
            asked = await self.merchant.lookup_invoice(decode_invoice(recipient).payment_hash)
            assert asked.state is not InvoiceState.SETTLED, f"{where}, but the invoice is paid"

    async def check_provider(self, lender: DevnetAccount, way: tuple[str, str], proof: TransferProof | None) -> None:
        """It holds what the client paid or lacks what the client got; and who was to be paid on Lightning is."""
        if proof is None:
            assert await self.tokens(lender) == TOKENS
            return
        amount = proof.terms.lock.amount
        assert await self.tokens(lender) == TOKENS + (amount if way == OUT else -amount)
        payee = self.lnds["client" if way == OUT else "provider"]
        payment_hash = decode_invoice(proof.terms.invoice).payment_hash
        while (await payee.lookup_invoice(payment_hash)).state is not InvoiceState.SETTLED:
            await asyncio.sleep(0.2)

    async def finish(self) -> None:
        """The last step of a test: in a campaign the books must balance, and the figures are kept."""
        if not CAMPAIGN:
            return
        async with asyncio.timeout(300):
            await self.books.compare()
        keep(self.test, self.store_kind, take_told())
