"""A provider takes a client's payment and does not make the lock that it has signed: the preimage does not leave, and the payment comes back.

It makes locks that differ in one field each, or the right one too late, or the right one that a reorganisation takes away before it is deep.
Whatever the client says meanwhile to the chain and to the provider is searched for the preimage.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from tales import LIMIT_S, REVERSE, Story, Tale
from two_parties import TwoParties, two_parties
from virtual_time import LoopClock, run_in_virtual_time

from layer2.addresses import EvmAddress
from layer2.evm import (
    CREATE2_PROXY,
    HTLC_ADDRESS,
    LockPhase,
    UnsignedTransaction,
    create2_address,
    decode_transaction,
    encode_approve,
    encode_create2,
    encode_lock,
    encode_mint,
    load_artifact,
    sign_transaction,
)
from layer2.lightning import PaymentState
from layer2.signers import LocalSigner
from layer2.swaps import Role, latest_claim_start

if TYPE_CHECKING:
    from blockbuster import BlockBuster

    from layer2.terms import Lock

pytestmark = pytest.mark.slow

MUCH = 10**30
SALT = b"\x01" * 32
GWEI = 10**9
LIES: tuple[Callable[[Lock, EvmAddress, EvmAddress], Lock], ...] = (
    lambda lock, _, __: replace(lock, amount=lock.amount - 1),
    lambda lock, somebody, _: replace(lock, claimer=somebody),
    lambda lock, _, token: replace(lock, token=token),
    lambda lock, _, __: replace(lock, preimage_hash=sha256(b"another").digest()),
    lambda lock, _, __: replace(lock, timelock=lock.timelock - 30),
)
"""What is made of the lock that was agreed on, an account of the provider, and a token that is worth nothing."""


class Liar:
    """Stands between the provider's process and the chain, with an account of its own."""

    def __init__(self, parties: TwoParties, clock: LoopClock) -> None:
        self.parties = parties
        self.clock = clock
        self.signer = LocalSigner.generate()
        self.nonce = 0
        self.kept: list[str] = []
        """Transactions to the contract that the provider's process has sent; none gets further."""
        self.said: set[str] = set()
        """By the client, to the chain."""
        parties.intercept = self.intercept

    def intercept(self, role: Role, method: str, params: Sequence[Any]) -> Any:
        if role is Role.CLIENT:
            self.said.add(repr(params))
        elif method == "eth_sendRawTransaction":
            sent = decode_transaction(bytes.fromhex(params[0][2:]))
            if sent.transaction.to == HTLC_ADDRESS:
                self.kept.append(params[0])
                return "0x" + sent.hash.hex()
        return None

    async def send(self, to: EvmAddress, data: bytes) -> None:
        transaction = UnsignedTransaction(
            chain_id=int(await self.parties.network.evm.call("eth_chainId", []), 16),
            nonce=self.nonce,
            to=to,
            data=data,
            gas_limit=3_000_000,
            max_fee_per_gas=100 * GWEI,
            max_priority_fee_per_gas=GWEI,
        )
        self.nonce += 1
        await self.send_raw("0x" + (await sign_transaction(transaction, self.signer)).raw.hex())

    async def send_raw(self, raw: str) -> None:
        await self.parties.network.evm.call("eth_sendRawTransaction", [raw])

    async def prepare(self) -> EvmAddress:
        """Tokens of both kinds, which the contract may take; the address of those that are worth nothing."""
        await self.parties.network.evm.fund(self.signer.address, 10**20)
        code = load_artifact("test_token").bytecode
        worthless = create2_address(code, SALT)
        await self.send(CREATE2_PROXY, encode_create2(code, SALT))
        agreed = self.parties.network.token.contract
        assert agreed is not None
        for token in (agreed, worthless):
            await self.send(token, encode_mint(self.signer.address, MUCH))
            await self.send(token, encode_approve(HTLC_ADDRESS, MUCH))
        return worthless

    async def asked_to_lock(self) -> Lock:
        """Wait for the transaction of the provider's process."""
        while not self.kept:
            await self.clock.sleep(0.1)
        assert self.parties.terms is not None
        return self.parties.terms.lock

    async def is_locked(self, lock: Lock) -> None:
        while await self.parties.lock_phase(lock.lock_id) is not LockPhase.LOCKED:
            await self.clock.sleep(0.1)

    def gave_away(self, payment_hash: bytes) -> bool:
        """Whether the client said anywhere what hashes to this."""
        said = [*self.said, *(request.decode("latin-1") for request in self.parties.door.requests)]
        words = {
            run[i : i + 64] for text in said for run in re.findall(r"[0-9a-f]{64,}", text) for i in range(len(run) - 63)
        }
        assert payment_hash.hex() in words, "what was said is not searched"
        return any(sha256(bytes.fromhex(word)).digest() == payment_hash for word in words)


def play(lie: Callable[[Liar], Awaitable[None]]) -> None:
    async def main(clock: LoopClock) -> None:
        async with two_parties(clock, behind_door=True) as parties:
            liar = Liar(parties, clock)
            before = await parties.holdings()
            tale = Tale(parties, clock, REVERSE, Story.PAID)
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                transfer = group.create_task(tale.transfer())
                await lie(liar)
                told = await transfer
                await parties.client.wait_idle_async()
                while await parties.held_msat():
                    await clock.sleep(0.5)
            assert told == "SwapRefunded"
            assert parties.terms is not None
            payment_hash = parties.terms.lock.preimage_hash
            assert (await parties.network.client_node.lookup_payment(payment_hash)).state is PaymentState.FAILED
            assert not liar.gave_away(payment_hash)
            after = await parties.holdings()
            assert after.msat == before.msat
            assert [after.token["client"], after.wei["client"]] == [before.token["client"], before.wei["client"]]
            assert parties.client.health().unfinished_transfers == 0
            assert not [code for role, code in parties.alarms if role is Role.CLIENT]

    run_in_virtual_time(main)


@pytest.fixture(autouse=True)
def in_one_thread(no_blocking_calls: BlockBuster) -> None:
    """What works in threads elsewhere works within the call here."""
    no_blocking_calls.deactivate()


def test_every_other_lock_than_the_one_that_was_agreed_on() -> None:
    async def lie(liar: Liar) -> None:
        worthless = await liar.prepare()
        agreed = await liar.asked_to_lock()
        others = [other(agreed, liar.signer.address, worthless) for other in LIES]
        for lock in others:
            await liar.send(HTLC_ADDRESS, encode_lock(lock))
        for lock in others:
            await liar.is_locked(lock)

    play(lie)


def test_the_right_lock_when_it_is_too_late_to_claim() -> None:
    async def lie(liar: Liar) -> None:
        lock = await liar.asked_to_lock()
        terms = liar.parties.terms
        assert terms is not None
        latest = latest_claim_start(terms.timing, terms.depth_policy, lock.timelock)
        while liar.clock.now_ms() <= latest * 1000:
            await liar.clock.sleep(0.5)
        await liar.send_raw(liar.kept[0])
        await liar.is_locked(lock)

    play(lie)


def test_the_right_lock_that_is_undone_before_it_is_deep() -> None:
    async def lie(liar: Liar) -> None:
        lock = await liar.asked_to_lock()
        await liar.send_raw(liar.kept[0])
        await liar.is_locked(lock)
        await liar.clock.sleep(0.7)  # the client looks at it, and no block comes
        await liar.parties.network.evm.reorganise(1, transactions="drop")
        assert await liar.parties.lock_phase(lock.lock_id) is LockPhase.NEVER

    play(lie)
