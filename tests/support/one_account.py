"""One account on an embedded EVM that locks for itself, behind an endpoint that a test can make lie."""

from contextlib import asynccontextmanager

import pytest

from layer2._crypto import sha256
from layer2.devnet import EmbeddedEvm
from layer2.errors import NodeError
from layer2.evm import (
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    EvmClient,
    MemoryTxJournal,
    SenderSettings,
    TxSender,
    encode_mint,
)
from layer2.signers import LocalSigner
from layer2.swaps import EvmSwapChain, LockStatus
from layer2.terms import DepthPolicy, Lock
from layer2.testing import VirtualClock
from layer2.transactions import Depth, EvmCall

CHAIN_ID = 60808
PREIMAGE = bytes(range(1, 33))
POLICY = DepthPolicy(depth=Depth.INCLUDED)


class Endpoint:
    """A transport that a test can make lie, one method at a time, and that remembers what was sent."""

    def __init__(self, evm):
        self.evm = evm
        self.lies = {}
        self.sent = []

    async def call(self, method, params):
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        lie = self.lies.get(method)
        return await self.evm.call(method, params) if lie is None else await lie(params)

    async def close(self):
        pass


class World:
    """One account that locks for itself, so that a test needs nobody else."""

    def __init__(self, evm, clock):
        self.evm = evm
        self.clock = clock
        self.signer = LocalSigner.from_hex("07" * 32)
        self.endpoint = Endpoint(evm)
        self.client = EvmClient(self.endpoint)
        self.journal = MemoryTxJournal()
        self.sender = None

    @property
    def now_s(self):
        return self.clock.now_ms() // 1000

    async def start(self):
        """Another process with the same journal."""
        if self.sender is not None:
            await self.sender.close()
        self.sender = TxSender(
            self.client,
            self.signer,
            self.journal,
            chain_id=CHAIN_ID,
            clock=self.clock,
            settings=SenderSettings(heads_max_age_s=0.0, send_attempts=1),
        )
        await self.sender.start()
        self.chain = EvmSwapChain(
            client=self.client, sender=self.sender, journal=self.journal, clock=self.clock, block_time_s=1.0
        )

    async def call(self, data, to=HTLC_ADDRESS):
        return await self.sender.submit(EvmCall(to=to, data=data, gas_limit=300_000))

    def lock(self, timelock=3_000):
        return Lock(
            chain_id=CHAIN_ID,
            contract=HTLC_ADDRESS,
            preimage_hash=sha256(PREIMAGE),
            amount=1_000,
            token=TEST_TOKEN_ADDRESS,
            claimer=self.signer.address,
            refunder=self.signer.address,
            timelock=self.now_s + timelock,
        )

    async def locked(self, lock=None):
        """A lock that stands."""
        lock = lock or self.lock()
        await self.call(encode_mint(self.signer.address, lock.amount), TEST_TOKEN_ADDRESS)
        with pytest.raises(NodeError):
            await self.chain.send_lock("lock", lock, not_after=self.now_s + 60)  # approves first
        await self.chain.send_lock("lock", lock, not_after=self.now_s + 60)
        assert (await self.view(lock)).latest.status is LockStatus.LOCKED
        return lock

    async def view(self, lock):
        await self.clock.advance(1)
        return await self.chain.view(lock, POLICY, lock_key="lock")

    async def finalize(self):
        await self.evm.mine(4)
        await self.clock.advance(1)
        await self.sender._look()


@asynccontextmanager
async def one_account():
    clock = VirtualClock()
    async with EmbeddedEvm(
        clock=clock, automine=True, balances={LocalSigner.from_hex("07" * 32).address: 10**20}
    ) as evm:
        world = World(evm, clock)
        await world.start()
        yield world
        await world.sender.close()
