"""The chain as a simulated process sees it through the real sender, client and journal of signed transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from layer2.addresses import EvmAddress
from layer2.errors import Layer2Error
from layer2.evm import EvmClient, SenderSettings, TxRecord, TxSender, decode_transaction
from layer2.storage import SqlTxJournal
from layer2.swaps import ChainView, EvmSwapChain, LockStatus
from layer2.terms import DepthPolicy, Lock
from layer2.testing._simulation_chain import BASE_FEE_WEI
from layer2.testing._simulation_endpoint import SimulatedEndpoint, call_of
from layer2.testing._simulation_keys import SimulatedSigner
from layer2.transactions import EvmCall

if TYPE_CHECKING:
    import random

    from layer2.testing._simulation_process import Life, SimulatedProcess

__all__ = ["SenderPort", "UserPayments"]

T = TypeVar("T")
_SOMEBODY: Final = EvmAddress(raw=b"\x77" * 20)
_AGAIN_S: Final = 1.0


class SenderPort:
    """Implements ``SwapChain`` for one life of a process: ``EvmSwapChain``, over a simulated endpoint."""

    def __init__(self, process: SimulatedProcess, life: Life) -> None:
        self._process = process
        timing = process.chain.timing
        client = EvmClient(SimulatedEndpoint(process, life))
        journal: Any = FaultyTxJournal(process, life)
        self.sender = TxSender(
            client,
            SimulatedSigner(process.account),
            journal,
            chain_id=next(iter(process.watchman.deals.values())).terms.lock.chain_id,
            clock=process.clock,
            # In the same proportion to the time of inclusion as on BOB.
            settings=SenderSettings(
                poll_interval_s=timing.evm_block_s / 2,
                idle_poll_interval_s=float(timing.evm_block_s),
                heads_max_age_s=float(timing.evm_block_s),
                resend_after_s=timing.evm_inclusion_s / 60,
                bump_after_s=timing.evm_inclusion_s / 30,
                turn_timeout_s=timing.evm_inclusion_s / 4,
                retry_pause_s=timing.evm_inclusion_s / 100,
                send_timeout_s=timing.evm_inclusion_s / 4,
            ),
        )
        self._chain = EvmSwapChain(
            client=client,
            sender=self.sender,
            journal=journal,
            clock=process.clock,
            block_time_s=float(timing.evm_block_s),
        )

    @property
    def offers(self) -> SenderPort:
        """One way for all."""
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def view(self, lock: Lock, policy: DepthPolicy, *, lock_key: str | None) -> ChainView:
        """See ``SwapChain``."""
        view = await self._chain.view(lock, policy, lock_key=lock_key)
        if LockStatus.CLAIMED in (view.latest.status, view.at_depth.status, view.finalized.status):
            self._process.watchman.learned(self._process, lock.preimage_hash)
        return view


class UserPayments:
    """What the users of a process pay from its account besides, each under its key until it is done, whatever happens meanwhile."""

    def __init__(self, process: SimulatedProcess, count: int, rng: random.Random, longest_s: float) -> None:
        self._process = process
        chain = process.chain
        burst_s = rng.uniform(0, longest_s)
        if chain.stays_dear_from is not None:
            # Just before, so that they are signed at a price at which they then wait.
            burst_s = max(0.0, chain.stays_dear_from - rng.uniform(0, 0.2) * chain.timing.evm_inclusion_s)
        moments = sorted(burst_s if rng.random() < 0.6 else rng.uniform(0, longest_s) for _ in range(count))
        self._wanted = {f"user:{process.name}:{number}": at for number, at in enumerate(moments)}
        # Some bound their price, and wait while gas is dearer: in front of an exit, it may be.
        self._bounds = {key: _bound(rng) if rng.random() < 0.5 else None for key in self._wanted}
        self.accepted: set[str] = set()
        """Keys of those of which it was said that a node has them."""

    def begin(self, sender: TxSender) -> None:
        """In a new life of the process: all that is not yet known to be done."""
        for key in [key for key in self._wanted if key not in self.accepted]:
            self._process.loop.create_task(self._pay(sender, key))

    async def _pay(self, sender: TxSender, key: str) -> None:
        await asyncio.sleep(max(0.0, self._wanted[key] - self._process.loop.now))
        while key not in self.accepted:
            try:
                call = EvmCall(to=_SOMEBODY, gas_limit=21_000, max_fee_per_gas_wei=self._bounds[key])
                await sender.submit(call, key=key)
                self.accepted.add(key)
            except Layer2Error:
                await asyncio.sleep(_AGAIN_S)


def _bound(rng: random.Random) -> int:
    return int(BASE_FEE_WEI * rng.uniform(1.1, 3))


class FaultyTxJournal:
    """``TxJournal`` on the process's store: a write may fail before it is made, or after, and the process may die at both ends."""

    def __init__(self, process: SimulatedProcess, life: Life) -> None:
        self._process = process
        self._gate = process.gate
        self._life = life
        self._journal = SqlTxJournal(process.journal.store)

    async def _read(self, question: Awaitable[T]) -> T:
        answer = await question
        await self._gate.cross(self._life, act=False)
        return answer

    async def still_ours(self) -> None:
        """See ``TxJournal``."""
        await self._journal.still_ours()

    async def get(self, key: str) -> TxRecord | None:
        """See ``TxJournal``."""
        return await self._read(self._journal.get(key))

    async def by_hash(self, tx_hash: bytes) -> TxRecord | None:
        """See ``TxJournal``."""
        return await self._read(self._journal.by_hash(tx_hash))

    async def put_new(self, record: TxRecord) -> None:
        """See ``TxJournal``."""
        await self._gate.before_write(self._life)
        await self._journal.put_new(record)
        self._signed(record, 0)
        await self._gate.after_write(self._life, f"sign {_what(record)}")

    async def update(self, record: TxRecord, *, expected_version: int) -> TxRecord:
        """See ``TxJournal``."""
        await self._gate.before_write(self._life)
        known = await self._journal.get(record.key)
        updated = await self._journal.update(record, expected_version=expected_version)
        self._signed(updated, 0 if known is None else len(known.variants))
        await self._gate.after_write(self._life)
        return updated

    def _signed(self, record: TxRecord, known: int) -> None:
        """Tell of the forms that are new."""
        process = self._process
        locks = [deal.terms.lock for deal in process.watchman.deals.values()]
        for number, variant in enumerate(record.variants[known:], known):
            key = record.key if number == 0 else f"{record.key}#{number}"
            tx = call_of(decode_transaction(variant.raw), locks, key)
            tx.not_after = record.not_after
            process.chain.signed[key] = process.chain.forms[variant.hash] = tx
            if number == 0:
                process.watchman.signs(process, tx)
            if not record.key.startswith("fill:"):
                process.tell(f"signs {key} with nonce {tx.nonce}")

    async def open_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """See ``TxJournal``."""
        return await self._read(self._journal.open_records(chain_id, sender))

    async def abandoned_records(self, chain_id: int, sender: EvmAddress) -> Sequence[TxRecord]:
        """See ``TxJournal``."""
        return await self._read(self._journal.abandoned_records(chain_id, sender))

    async def in_force(self, chain_id: int, sender: EvmAddress, nonce: int) -> TxRecord | None:
        """See ``TxJournal``."""
        return await self._read(self._journal.in_force(chain_id, sender, nonce))

    async def last_nonce(self, chain_id: int, sender: EvmAddress) -> int | None:
        """See ``TxJournal``."""
        return await self._read(self._journal.last_nonce(chain_id, sender))


def _what(record: TxRecord) -> str:
    """The last part of ``swap:<id>:claim``."""
    return record.key.split(":")[2] if record.key.startswith("swap:") else record.key.split(":")[0]
