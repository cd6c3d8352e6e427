"""A run of transfers in both directions on real nodes, some of them made to fail, and its books.

The sums are taken from the nodes themselves, never from what the package says of them: channel balances to the millisatoshi, token
balances to the base unit, ether to the wei against the receipts of every transaction of every account.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from books import (
    Balances,
    balances,
    changes,
    expected_msat,
    journalled,
    nonzero,
    nothing_in_flight,
    routing_fees_earned_msat,
    spent,
    table,
)
from gates import Gate, Mode

from layer2 import (
    BTC,
    EvmAddress,
    Layer2Config,
    Layer2Manager,
    NodeError,
    SwapExpired,
    SwapRefunded,
    Transfer,
    TransferProof,
)
from layer2 import Layer2ProtocolType as P
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.evm import encode_claim, encode_lock, encode_refund
from layer2.lightning import InvoiceState, LndNode, PaymentState, decode_invoice, encode_invoice
from layer2.swaps import min_invoice_life_s
from layer2.terms import SwapDirection

OUT, BACK = (P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)
EACH_WAY, MORE_EACH_WAY, AT_A_TIME = 50, 5, 16
"""After the first hundred, ten more each way: these five are let alone; the other five are made to fail."""
SAT = 20_000
ASK_AGAIN_S = 0.5
PAYING = {"fee_limit_msat": 10_000, "cltv_limit": 1_000, "time_limit_s": 60}
EXPECTED_ENDS = {
    "out, the payee cancelled the invoice": {"refunded"},
    "out, no route to the payee": {"refunded"},
    "out, the client locks too late": {"expired"},
    "out, the provider comes back after the invoice's expiry": {"refunded"},
    "out, the provider is gone for good": {"refunded"},
    "back, the provider cancelled the invoice": {"refunded", "expired"},
    "back, nobody pays the invoice": {"expired"},
    "back, the provider comes back too late to lock": {"refunded"},
    "back, the client dies after paying": {"refunded"},
    "back, a third party paid and the client is gone": {"expired"},
}


@dataclass
class Client:
    """A user of his own, whose way to the chain shuts when he asks for a swap: until it opens again, he does nothing."""

    manager: Layer2Manager
    config: Layer2Config
    chain: Gate


@dataclass
class Run:
    """What the parts of the run share."""

    network: RealNetwork
    returning: RealNetwork
    """Its provider stops while swaps are open, and comes back too late for them."""
    gone: RealNetwork
    """Its provider stops and never comes back."""
    eventually: Callable[..., Awaitable[Any]]
    stack: AsyncExitStack
    lnds: dict[str, LndNode]
    manager: Layer2Manager
    clients: dict[str, Client] = field(default_factory=dict)
    managers: list[Layer2Manager] = field(default_factory=list)
    patient: bool = False
    """Whether whoever finds no provider asks again."""
    limit_s: float = 400
    """Longest for one transfer."""
    holders: dict[str, EvmAddress] = field(default_factory=dict)
    """All accounts, by name."""
    folders: list[Path] = field(default_factory=list)
    """Where all stores are."""
    before: Balances | None = None
    began_s: float = 0.0
    ends: dict[str, str] = field(default_factory=dict)
    proofs: list[TransferProof] = field(default_factory=list)

    async def begin(self, manager: Layer2Manager, way: tuple[P, P], amount: int = SAT, **options: Any) -> Transfer:
        """Begin a transfer; one, however often it has to be asked for."""
        key = secrets.token_hex(16)
        while True:
            try:
                return await manager.start_cross_layer_transfer_async(BTC, amount, *way, idempotency_key=key, **options)
            except NodeError as error:
                if not (self.patient and error.retry_safe):
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    async def chain_passes(self, timestamp: int) -> None:
        async def passed() -> bool:
            block = await self.network.nodes.evm_rpc("eth_getBlockByNumber", "latest", False)
            return min(int(block["timestamp"], 16), int(time.time())) > timestamp

        await self.eventually(passed, within_s=300)

    async def held(self, payment_hash: bytes) -> None:
        """Wait until the provider's lnd holds the payment of an invoice."""

        async def accepted() -> bool:
            return (await self.lnds["provider"].lookup_invoice(payment_hash)).state is InvoiceState.ACCEPTED

        await self.eventually(accepted)

    async def gave_back(self, payer: str, payment_hash: bytes) -> None:
        """Wait until a payment is back with its payer."""

        async def failed() -> bool:
            return (await self.lnds[payer].lookup_payment(payment_hash)).state is PaymentState.FAILED

        await self.eventually(failed, within_s=300)

    async def ended(self, name: str, transfer: Transfer) -> None:
        """Wait for the end, and note it."""
        try:
            self.proofs.append(await transfer.result_async(timeout=self.limit_s))
        except SwapRefunded:
            self.ends[name] = "refunded"
        except SwapExpired:
            self.ends[name] = "expired"
        else:
            self.ends[name] = "settled"

    def invoice_life_s(self) -> int:
        """Little more than an invoice must have to be taken: the shorter, the sooner its lock can be taken back."""
        config = self.network.provider.config
        timing = config.chain_timing()
        return timing.lock_window_s + min_invoice_life_s(timing, config.depth_policy(SAT)) + 16


async def open_manager(run: Run, config: Layer2Config) -> Layer2Manager:
    manager = await run.stack.enter_async_context(Layer2Manager(config))
    await manager.initialize_all_async()
    run.managers.append(manager)
    return manager


async def leave(run: Run, client: Client) -> None:
    await client.manager.close_async()
    run.managers.remove(client.manager)


async def add_client(run: Run, name: str, network: RealNetwork, account: DevnetAccount) -> None:
    chain = await run.stack.enter_async_context(Gate(network.nodes.evm_url))
    provider = await run.stack.enter_async_context(Gate(network.provider.url))
    provider.seen = lambda data: chain.set(Mode.SHUT) if data.startswith(b"POST /v1/swap/") else None
    config = await network.client_config(account=account)
    assert config.bob is not None
    config = replace(
        config,
        bob=replace(config.bob, rpc_url=chain.url),
        swap=replace(config.swap, provider_url=provider.url),
    )
    run.clients[name] = Client(manager=await open_manager(run, config), config=config, chain=chain)


async def the_payee_cancelled(run: Run) -> None:
    invoice = await run.lnds["router"].create_invoice(amount_msat=SAT * 1000, memo="cancelled", expiry_s=600)
    await run.lnds["router"].cancel_invoice(invoice.payment_hash)
    transfer = await run.begin(run.manager, OUT, recipient=invoice.text)
    await run.ended("out, the payee cancelled the invoice", transfer)


async def nobody_reaches_the_payee(run: Run) -> None:
    unsigned = encode_invoice(
        network="regtest",
        timestamp=int(time.time()),
        payment_hash=secrets.token_bytes(32),
        payment_secret=secrets.token_bytes(32),
        amount_msat=SAT * 1000,
        description="nobody is there",
        expiry_s=600,
    )
    text = unsigned.sign(secrets.token_bytes(32)).text
    transfer = await run.begin(run.manager, OUT, recipient=text)
    await run.ended("out, no route to the payee", transfer)


async def the_client_locks_too_late(run: Run) -> None:
    client = run.clients["late"]
    transfer = await run.begin(client.manager, OUT)
    await run.chain_passes(transfer.quote.expires_at)
    client.chain.set(Mode.OPEN)
    await run.ended("out, the client locks too late", transfer)


async def the_provider_is_gone_for_good(run: Run) -> None:
    client = run.clients["abandoned"]
    invoice = await run.lnds["router"].create_invoice(
        amount_msat=SAT * 1000, expiry_s=run.invoice_life_s(), cltv_delta=24
    )
    transfer = await run.begin(client.manager, OUT, recipient=invoice.text)
    await run.gone.provider.stop()
    client.chain.set(Mode.OPEN)
    await run.ended("out, the provider is gone for good", transfer)


async def the_provider_comes_back_too_late(run: Run) -> None:
    locks, pays = run.clients["locks"], run.clients["pays"]
    out, back = await asyncio.gather(run.begin(locks.manager, OUT), run.begin(pays.manager, BACK))
    await run.returning.provider.stop()
    locks.chain.set(Mode.OPEN)
    pays.chain.set(Mode.OPEN)
    assert out.invoice is not None
    assert back.invoice is not None
    await run.held(decode_invoice(back.invoice).payment_hash)
    await run.chain_passes(max(decode_invoice(out.invoice).expires_at, back.quote.expires_at))
    await run.returning.provider.start()
    await asyncio.gather(
        run.ended("out, the provider comes back after the invoice's expiry", out),
        run.ended("back, the provider comes back too late to lock", back),
    )


async def the_provider_cancelled_the_invoice(run: Run) -> None:
    client = run.clients["refused"]
    transfer = await run.begin(client.manager, BACK)
    assert transfer.invoice is not None
    await run.lnds["provider"].cancel_invoice(decode_invoice(transfer.invoice).payment_hash)
    client.chain.set(Mode.OPEN)
    await run.ended("back, the provider cancelled the invoice", transfer)


async def nobody_pays(run: Run) -> None:
    transfer = await run.begin(run.manager, BACK, payer="anyone")
    await run.ended("back, nobody pays the invoice", transfer)


async def the_client_dies_after_paying(run: Run) -> None:
    client = run.clients["dies"]
    # From the moment he decides to pay he sees no chain, hence no lock, and never claims.
    client.manager.on_event(lambda event: client.chain.set(Mode.SHUT) if event.code == "transfer.paying" else None)
    transfer = await run.begin(client.manager, BACK)
    client.chain.set(Mode.OPEN)
    assert transfer.invoice is not None
    payment_hash = decode_invoice(transfer.invoice).payment_hash
    await run.held(payment_hash)
    await leave(run, client)
    await run.gave_back("client", payment_hash)
    client.chain.set(Mode.OPEN)
    manager = await open_manager(run, client.config)
    await run.ended("back, the client dies after paying", await manager.get_transfer_async(transfer.id))


async def a_third_party_paid_and_the_client_is_gone(run: Run) -> None:
    client = run.clients["vanishes"]
    transfer = await run.begin(client.manager, BACK, payer="anyone")
    await leave(run, client)
    assert transfer.invoice is not None
    paying = asyncio.create_task(run.lnds["router"].pay(transfer.invoice, **PAYING))
    payment_hash = decode_invoice(transfer.invoice).payment_hash
    await run.held(payment_hash)
    await run.gave_back("router", payment_hash)
    assert (await paying).state is PaymentState.FAILED
    client.chain.set(Mode.OPEN)
    manager = await open_manager(run, client.config)
    await run.ended("back, a third party paid and the client is gone", await manager.get_transfer_async(transfer.id))


FAILING = (
    the_payee_cancelled,
    nobody_reaches_the_payee,
    the_client_locks_too_late,
    the_provider_is_gone_for_good,
    the_provider_comes_back_too_late,
    the_provider_cancelled_the_invoice,
    nobody_pays,
    the_client_dies_after_paying,
    a_third_party_paid_and_the_client_is_gone,
)


async def many(run: Run, count_each_way: int) -> None:
    """So many transfers each way, at most ``AT_A_TIME`` at once, each with an amount of its own."""
    slots = asyncio.Semaphore(AT_A_TIME)
    before = len(run.ends)

    async def one(number: int, way: tuple[P, P]) -> None:
        async with slots:
            transfer = await run.begin(run.manager, way, SAT + number)
            await run.ended(f"{before + number}", transfer)

    ways = [OUT, BACK] * count_each_way
    await asyncio.gather(*(one(number, way) for number, way in enumerate(ways)))


async def fail_in_every_way(run: Run) -> None:
    """The transfers that are made to fail, all at a time."""
    await asyncio.gather(*(fail(run) for fail in FAILING))


async def finished(run: Run, within_s: float) -> None:
    """Wait until nothing is unfinished anywhere, finality included."""

    async def all_over() -> bool:
        engines = [run.network.provider.runtime.engine, run.returning.provider.runtime.engine]
        active = sum(engine.active for engine in engines) + sum(
            manager.health().unfinished_transfers for manager in run.managers
        )
        return active == 0 and await nothing_in_flight(run.network.nodes)

    await run.eventually(all_over, within_s=within_s)

    async def journals_final() -> bool:
        return (await asyncio.to_thread(journalled, run.folders, run.holders)).open == 0

    await run.eventually(journals_final, within_s=within_s)


async def bookkeeping(run: Run) -> Balances:
    """What everybody and the contract hold."""
    everybody = {**run.holders, "HTLC contract": run.network.contract}
    return await balances(run.network.nodes, run.network.token.contract, everybody)


@asynccontextmanager
async def prepared(nodes: Any, eventually: Any, **options: Any) -> AsyncIterator[Run]:
    """A run on these nodes, where nothing is in flight. Options are of ``RealNetwork``."""
    async with AsyncExitStack() as stack:
        network, returning, gone = [await stack.enter_async_context(RealNetwork(nodes, **options)) for _ in range(3)]
        run = Run(
            network=network,
            returning=returning,
            gone=gone,
            eventually=eventually,
            stack=stack,
            lnds={name: await network.connect(name) for name in ("client", "router", "provider")},
            manager=await stack.enter_async_context(Layer2Manager(await network.client_config())),
        )
        await run.manager.initialize_all_async()
        run.managers.append(run.manager)
        accounts = {"client": network.client}
        of = {"abandoned": gone, "locks": returning, "pays": returning}
        for name in ("late", "abandoned", "locks", "pays", "refused", "dies", "vanishes"):
            accounts[f"client {name!r}"] = account = await network.new_account()
            await add_client(run, name, of.get(name, network), account)
        holders = {name: account.address for name, account in accounts.items()}
        for name, each in (("provider", network), ("provider, returning", returning), ("provider, gone", gone)):
            holders[name] = each.provider.runtime.account.address
        run.holders = holders
        run.folders = [each.directory for each in (network, returning, gone)]
        await eventually(lambda: nothing_in_flight(nodes))
        run.before = await bookkeeping(run)
        run.began_s = time.time()
        yield run


@dataclass
class Refunds:
    """How many locks went back: after their timelock, and early by consent of the claimer."""

    late: int
    early: int


async def compare(run: Run, say: Callable[[str], None]) -> Refunds:
    """Everything that anybody holds more is what another holds less, and what went into fees. Gives what was given back."""
    nodes, before, after = run.network.nodes, run.before, await bookkeeping(run)
    assert before is not None
    written = await asyncio.to_thread(journalled, run.folders, run.holders)
    msat, tokens, wei = (changes(getattr(before, kind), getattr(after, kind)) for kind in ("msat", "tokens", "wei"))
    costs = await spent(nodes, run.network.contract, run.holders, before.block + 1, after.block)
    routing = await routing_fees_earned_msat(nodes, "router", int(run.began_s))
    names = ("client", "router", *(name for name in before.tokens if name != "client"))
    rows = [(n, msat.get(n), tokens[n], wei[n], costs.fees_wei[n]) for n in names]
    rows.append(("sum", *(sum(column.values()) for column in (msat, tokens, wei, costs.fees_wei))))
    say(table(("", "Lightning, msat", "token", "ether, wei", "gas in receipts, wei"), rows))
    expected = await expected_changes(run)
    parties = ("client", "router", "provider")
    rows = [(name, expected.msat[name], expected.tokens[name]) for name in parties]
    say(table(("by the terms of the settled, routing fees included", "Lightning, msat", "token"), rows))

    # Lightning: what left one node is with another, and what the router kept is what the payers paid for routing.
    assert sum(msat.values()) == 0
    assert {name: msat[name] for name in parties} == {name: expected.msat[name] for name in parties}
    assert msat["router"] == routing
    # The chain: tokens only changed hands, the contract kept none, and ether went into gas alone.
    assert sum(tokens.values()) == 0
    assert nonzero(tokens) == nonzero(expected.tokens)
    assert nonzero(wei) == {name: -fee for name, fee in nonzero(costs.fees_wei).items()}
    assert nonzero(written.fees_wei) == nonzero(costs.fees_wei)
    proof = run.proofs[0]
    lock = proof.terms.lock
    calls = Counter(costs.calls)
    claims, late, locks = (
        calls.pop(call[:4], 0) for call in (encode_claim(lock, proof.preimage), encode_refund(lock), encode_lock(lock))
    )
    early = sum(calls.values())
    assert len(calls) <= 1
    assert claims == len(run.proofs)
    assert locks == claims + late + early
    return Refunds(late=late, early=early)


@dataclass
class Expected:
    msat: Counter[str]
    tokens: Counter[str] = field(default_factory=Counter)


async def expected_changes(run: Run) -> Expected:
    """What the settled transfers should have moved, by their terms and the payers' records of routing fees."""
    result = Expected(await expected_msat(run.proofs, run.lnds))
    for terms in (proof.terms for proof in run.proofs):
        payer, payee = ("provider", "client") if terms.direction is SwapDirection.SUBMARINE else ("client", "provider")
        result.tokens.update({payer: terms.lock.amount, payee: -terms.lock.amount})
    return result
