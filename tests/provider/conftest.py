"""A provider over an in-memory Lightning network and a chain that says what the test wants."""

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
import pytest

from layer2 import BTC, EvmAddress
from layer2.assets import AssetForm
from layer2.config import DepthRule, ProviderConfig
from layer2.errors import AssetError, InsufficientFunds
from layer2.lightning import ChannelPolicy, InvoiceState, MemoryLightning
from layer2.provider import (
    Hashes,
    HeldParts,
    HttpServer,
    Inventory,
    LastLook,
    ProviderMetrics,
    ProviderPlace,
    ProviderService,
    Room,
    create_app,
)
from layer2.signers import LocalSigner
from layer2.storage import Store, SwapJournal, swaps
from layer2.swaps import (
    DEVNET_TIMING,
    ChainView,
    HttpProvider,
    LockReading,
    LockStatus,
    NoCounterparty,
    Place,
    PreimageSource,
    ReverseRequest,
    Role,
    SubmarineRequest,
    SwapEngine,
    SwapGas,
    SwapRequests,
)
from layer2.terms import DepthPolicy, SwapDirection
from layer2.testing import VirtualClock
from layer2.transactions import Depth

TOKEN = EvmAddress(raw=b"\x11" * 20)
CONTRACT = EvmAddress(raw=b"\x22" * 20)
CLIENT = EvmAddress(raw=b"\x33" * 20)
BALANCE = 10**9
IDLE_S = 15
SWAP_GAS_WEI = 10**12
ANY_DEPTH = (DepthRule(depth="included"),)


class Offers:
    """The way on which offers are looked at."""

    def __init__(self, chain):
        self._chain = chain
        self.looked_at = set()

    async def view(self, lock, policy, *, lock_key):
        self.looked_at.add(lock.lock_id)
        return await self._chain.view(lock, policy, lock_key=lock_key)


class ScriptedChain:
    """``SwapChain``: every lock has the status that the test gave it, at all depths."""

    def __init__(self, clock):
        self._clock = clock
        self.locks = {}
        self.looked_at = set()
        self.offers = Offers(self)
        self.shallow = set()
        """Locks that are in the newest block only."""
        self.head_offset_s = 0
        self.sent = []

    async def view(self, lock, policy, *, lock_key):
        self.looked_at.add(lock.lock_id)
        status, preimage = self.locks.get(lock.lock_id, (LockStatus.NEVER, None))
        reading = LockReading(status=status, preimage=preimage)
        deep = LockReading(status=LockStatus.NEVER) if lock.lock_id in self.shallow else reading
        now = self._clock.now_ms() // 1000
        return ChainView(
            latest=reading,
            at_depth=deep,
            finalized=deep,
            head_timestamp=now + self.head_offset_s,
            finalized_timestamp=now + self.head_offset_s,
            now_s=now,
        )

    async def send_lock(self, key, lock, *, not_after, max_gas_wei):
        self.sent.append(("lock", lock.lock_id))

    async def send_claim(self, key, lock, preimage, *, not_after):
        self.sent.append(("claim", lock.lock_id))

    async def send_refund(self, key, lock, *, deadline):
        self.sent.append(("refund", lock.lock_id))

    async def send_refund_early(self, key, lock, signature):
        self.sent.append(("refund_early", lock.lock_id))

    async def next_block(self):
        await asyncio.Event().wait()


class ScriptedAccount:
    """``ProviderChain``."""

    def __init__(self):
        self.balance = BALANCE
        self.gas_short = False
        self.gas_for = 10**6
        self.gas_read = 0
        self.lag_s = 0
        self.error = None

    async def token_balance(self):
        return self.balance

    async def gas(self):
        self.gas_read += 1
        if self.error is not None:
            raise self.error
        held = 1234567 if self.gas_short else self.gas_for * SWAP_GAS_WEI
        return SwapGas(account=CLIENT, one_swap_wei=SWAP_GAS_WEI, balance_wei=held)

    async def check_gas(self, swaps):
        return (await self.gas()).check(swaps)

    async def safe_lag_s(self, now_s):
        return self.lag_s


class ClientAccount:
    """``layer2.swaps.Account`` of somebody who has enough of everything."""

    address = LocalSigner.from_hex("0d" * 32).address

    def __init__(self):
        self.gas_for = 10**6
        """For so many swaps it has the gas."""
        self.gas_of = []
        """For how many swaps it was asked."""
        self.decimals = 8

    async def token_balance(self):
        return 10**12

    async def check_decimals(self, decimals):
        if decimals != self.decimals:
            raise AssetError(f"the token has {self.decimals} decimals, not {decimals}", field="asset_id")

    async def check_gas(self, swaps):
        self.gas_of.append(swaps)
        if swaps > self.gas_for:
            raise InsufficientFunds("too little gas", coin="ETH", needed=swaps, available=self.gas_for)
        return 10**12


class World:
    """A provider, its node, and somebody whom it can pay."""

    def __init__(self, store, clock, settings, depth, timing, decimals=8):
        self.store = store
        self.clock = clock
        self.settings = settings
        self.lightning = MemoryLightning(clock=clock, random_bytes=random.Random(5).randbytes)
        self.node = self.lightning.add_node("provider")
        self.merchant = self.lightning.add_node("merchant")
        self.lightning.open_channel(
            self.node.node_id,
            self.merchant.node_id,
            local_msat=10**11,
            remote_msat=10**11,
            policy=ChannelPolicy(cltv_delta=24),
        )
        self.signer = LocalSigner.from_hex("07" * 32)
        self.chain = ScriptedChain(clock)
        self.claimed_at = {}
        self.claims_error = None
        self.searched = []
        """Hashes whose claims were searched for on the chain."""
        self.searching = self.most_searching = 0
        self.idle_s = IDLE_S
        self.payments = []
        self.account = ScriptedAccount()
        self.metrics = ProviderMetrics()
        token = AssetForm(asset=BTC, chain_id=60808, contract=TOKEN, decimals=decimals)
        self.place = ProviderPlace(chain_id=60808, contract=CONTRACT, token=token, timing=timing)
        self.inventory = Inventory(token, clock)
        self.journal = SwapJournal(store, Role.PROVIDER)
        held = HeldParts(self.node, self.inventory, settings.max_held_per_channel)
        last_look = LastLook(held=held, inventory=self.inventory, chain=self.account, settings=settings)
        self.engine = SwapEngine(
            store=self.journal,
            chain=self.chain,
            node=self.node,
            counterparty=NoCounterparty(),
            preimages=None,
            clock=clock,
            poll_s=1.0,
            on_change=self.inventory.changed,
            why_not_begin=last_look.why_not_begin,
        )

        async def hash_owner(payment_hash):
            return await store.run(swaps.hash_owner, payment_hash)

        async def reverse_with(payment_hash):
            return await store.run(partial(swaps.by_payment_hash, direction=SwapDirection.REVERSE), payment_hash)

        async def swaps_on(lock_id):
            return await store.run(swaps.by_lock_id, lock_id)

        self.service = ProviderService(
            engine=self.engine,
            inventory=self.inventory,
            room=Room(
                engine=self.engine,
                inventory=self.inventory,
                held=held,
                chain=self.account,
                settings=settings,
                max_safe_lag_s=7_200,
                clock=clock,
                idle_s=IDLE_S,
            ),
            node=self.node,
            signer=self.signer,
            place=self.place,
            settings=settings,
            depth=depth,
            clock=clock,
            version="1.2.3",
            hashes=Hashes(
                engine=self.engine,
                node=self.node,
                clock=clock,
                idle_s=IDLE_S,
                skew_s=DEVNET_TIMING.evm_clock_skew_s,
                known=self.journal.hash_known,
                owner=hash_owner,
                claimed=self.hash_claimed,
                reverse_with=reverse_with,
            ),
            hash_owner=hash_owner,
            swaps_on=swaps_on,
            made_for=self.journal.by_key,
            look=partial(self.chain.offers.view, lock_key=None),
        )

    async def hash_claimed(self, payment_hash, since_s):
        self.searched.append(payment_hash)
        self.searching += 1
        self.most_searching = max(self.most_searching, self.searching)
        await asyncio.sleep(0.01)  # others that may search at the same time begin
        self.searching -= 1
        if self.claims_error is not None:
            raise self.claims_error
        return payment_hash in self.claimed_at and self.claimed_at[payment_hash] >= since_s

    async def invoice(self, amount_msat=50_000_000, **options):
        options = {"memo": "", "expiry_s": 600} | options
        return (await self.merchant.create_invoice(amount_msat=amount_msat, **options)).text

    async def submarine_request(self, **changes):
        info = await self.service.info()
        fields = {"refund_address": CLIENT, "pair_hash": info.submarine.hash} | changes
        if "invoice" not in fields:
            fields["invoice"] = await self.invoice()
        return SubmarineRequest(**fields)

    async def reverse_request(self, **changes):
        info = await self.service.info()
        fields = {
            "preimage_hash": random.randbytes(32),
            "claim_address": CLIENT,
            "onchain_amount": 50_000,
            "depth_policy": DepthPolicy(depth=Depth.INCLUDED),
            "pair_hash": info.reverse.hash,
        }
        return ReverseRequest(**fields | changes)

    async def submarine(self, origin=None, **changes):
        return await self.service.create_submarine(await self.submarine_request(**changes), origin=origin)

    async def reverse(self, origin=None, **changes):
        return await self.service.create_reverse(await self.reverse_request(**changes), origin=origin)

    async def merchant_pays(self, response, payer=None):
        """Pay a hold invoice of the provider's; returns once the payment is held."""
        text = response.signed_terms.terms.invoice
        paying = (payer or self.merchant).pay(text, fee_limit_msat=10**6, cltv_limit=2_000, time_limit_s=60)
        self.payments.append(asyncio.create_task(paying))
        payment_hash = response.signed_terms.terms.lock.preimage_hash
        async with asyncio.timeout(20):
            while (await self.node.lookup_invoice(payment_hash)).state is InvoiceState.OPEN:
                await asyncio.sleep(0)
        self.engine.wake(response.id)

    async def close(self):
        await self.engine.close()
        for payment in self.payments:
            payment.cancel()
        await asyncio.gather(*self.payments, return_exceptions=True)

    async def reach(self, swap_id, *kinds):
        """Look again and again until the swap is in one of these states."""
        async with asyncio.timeout(20):
            async for swap in self.engine.follow(swap_id):
                if isinstance(swap.state, kinds):
                    return swap
        raise AssertionError(f"{swap_id} ended elsewhere")

    def set_lock(self, response, status, preimage=None):
        self.chain.locks[response.signed_terms.terms.lock.lock_id] = (status, preimage)
        self.engine.wake(response.id)


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def client_account():
    return CLIENT


@pytest.fixture
async def make_world(clock):
    async with AsyncExitStack() as stack:

        async def make(depth=ANY_DEPTH, timing=DEVNET_TIMING, decimals=8, **settings):
            store = await Store.open("sqlite://", clock=clock)
            stack.push_async_callback(store.close)
            defaults = {"min_amount": 1_000, "max_amount": 1_000_000, "listen_port": 0, "requests_per_minute": 10_000}
            world = World(store, clock, ProviderConfig(**defaults | settings), depth, timing, decimals)
            await world.engine.start()
            stack.push_async_callback(world.close)
            return world

        yield make


@pytest.fixture
async def world(make_world):
    return await make_world()


@pytest.fixture
def make_requests(world):
    """Makes clients of a provider: ``SwapRequests`` of the merchant's node, with ``account``."""

    def make(provider, **changes):
        async def now_ms():
            return world.clock.now_ms()

        async def unknown(payment_hash, since_s=0):
            return False

        async def no_lag():
            return 0

        account = ClientAccount()
        place = Place(
            chain_id=world.place.chain_id,
            contract=world.place.contract,
            token=world.place.token,
            timing=world.place.timing,
            lightning_network="regtest",
        )
        parts = {
            "provider": provider,
            "account": account,
            "node": world.merchant,
            "place": place,
            "preimages": PreimageSource(LocalSigner.from_hex("0d" * 32)),
            "next_preimage_time": now_ms,
            "hash_known": unknown,
            "hash_claimed": unknown,
            "depth_policy": lambda _: DepthPolicy(depth=Depth.INCLUDED),
            "open_swaps": tuple,
            "max_unsafe": 10**12,
            "safe_lag_s": no_lag,
            "max_safe_lag_s": 7_200,
            "clock": world.clock,
        }
        requests = SwapRequests(**parts | changes)
        requests.account = account
        return requests

    return make


@pytest.fixture
async def serve(clock):
    """Serves an application on a free port of loopback; gives the server."""
    async with AsyncExitStack() as stack:

        async def start(app, **options):
            server = HttpServer(app, port=0, **{"host": "127.0.0.1", "shutdown_grace_s": 2} | options)
            stack.push_async_callback(server.close)
            await server.start()
            return server

        yield start


@pytest.fixture
async def served(world, serve):
    """The world's provider behind HTTP."""
    app = create_app(world.service, clock=world.clock, requests_per_minute=10_000, metrics=world.metrics)
    return await serve(app)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def connect():
    clients = []

    def make(server):
        clients.append(HttpProvider(server.url))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()
