"""The rules that hold for every Lightning node back end, as tests: subclass, and give them two connected nodes.

The tests are coroutine functions: run them under pytest-asyncio in auto mode, or under anyio with its marker.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from layer2.errors import Expired, IdempotencyConflict, InvoiceError, NotFound, ValidationError
from layer2.lightning import (
    InvoiceRecord,
    InvoiceState,
    LightningNode,
    NodeInfo,
    PaymentRecord,
    PaymentState,
    decode_invoice,
)

__all__ = ["LightningHarness", "LightningNodeConformance"]


@dataclass(frozen=True, kw_only=True)
class LightningHarness:
    """Two nodes of one network, and its levers. The payer has a route to the payee that costs a fee and carries 100,000 sat."""

    payer: LightningNode
    payee: LightningNode
    mine: Callable[[int], Awaitable[None]]
    """Mine blocks; afterwards both nodes have seen them."""
    pass_time: Callable[[float], Awaitable[None]]
    """Let seconds pass on the nodes' clocks."""


class LightningNodeConformance(ABC):
    """Subclass it as ``class TestMine(LightningNodeConformance)`` and implement ``harness``."""

    limit_s: ClassVar[float] = 60
    """Longest time for anything that is waited for."""
    limits: ClassVar[dict[str, int]] = {"fee_limit_msat": 1_000_000, "cltv_limit": 1_008, "time_limit_s": 30}

    @abstractmethod
    def harness(self) -> AbstractAsyncContextManager[LightningHarness]:
        """The nodes; the block's end closes their connections."""

    async def test_info_tells_who_and_where_it_is(self) -> None:
        """Identity, network, height and liquidity are there."""
        async with self.harness() as nodes:
            info = await nodes.payer.info()
            assert isinstance(info, NodeInfo)
            assert len(info.node_id) == 33
            assert info.node_id != (await nodes.payee.info()).node_id
            assert info.synced_to_chain
            assert info.spendable_msat >= 100_000_000
            invoice = await nodes.payer.create_invoice(amount_msat=1_000)
            assert decode_invoice(invoice.text).payee == info.node_id
            assert decode_invoice(invoice.text).network == info.network
            await nodes.mine(2)
            assert (await nodes.payer.info()).block_height >= info.block_height + 2

    async def test_an_invoice_says_what_was_asked_and_settles_when_paid(self) -> None:
        """The record, the text and the payment agree; the preimage is the hash's."""
        async with self.harness() as nodes:
            made = await nodes.payee.create_invoice(amount_msat=123_456, memo="tea ☕", expiry_s=600, cltv_delta=40)
            decoded = decode_invoice(made.text)
            assert (decoded.amount_msat, decoded.description, decoded.expiry_s) == (123_456, "tea ☕", 600)
            assert (decoded.min_final_cltv_delta, decoded.payment_hash) == (40, made.payment_hash)
            assert (made.state, made.amount_msat, made.received_msat) == (InvoiceState.OPEN, 123_456, 0)
            assert made.expires_at == decoded.expires_at
            assert not made.is_hold
            paid = await self.pay(nodes, made)
            assert (paid.state, paid.amount_msat) == (PaymentState.SUCCEEDED, 123_456)
            assert 0 < paid.fee_msat <= self.limits["fee_limit_msat"]
            assert hashlib.sha256(paid.preimage or b"").digest() == made.payment_hash
            settled = await nodes.payee.lookup_invoice(made.payment_hash)
            assert (settled.state, settled.received_msat) == (InvoiceState.SETTLED, 123_456)
            assert sum(htlc.amount_msat for htlc in settled.htlcs) == 123_456
            assert await nodes.payer.lookup_payment(made.payment_hash) == paid

    async def test_description_hashes_and_open_amounts(self) -> None:
        """Both forms of description, and an amount that the payer chooses."""
        async with self.harness() as nodes:
            made = await nodes.payee.create_invoice(amount_msat=0, description_hash=b"\x07" * 32)
            decoded = decode_invoice(made.text)
            assert (decoded.amount_msat, decoded.description_hash) == (None, b"\x07" * 32)
            with pytest.raises(InvoiceError):
                await self.pay(nodes, made)
            assert (await nodes.payer.lookup_payment(made.payment_hash)).state is PaymentState.NONE
            assert (await self.pay(nodes, made, amount_msat=5_000)).state is PaymentState.SUCCEEDED
            assert (await nodes.payee.lookup_invoice(made.payment_hash)).received_msat == 5_000

    async def test_paying_twice_pays_once(self) -> None:
        """Asked again, it attaches to the payment that there is."""
        async with self.harness() as nodes:
            made = await nodes.payee.create_invoice(amount_msat=2_000)
            before = (await nodes.payer.info()).spendable_msat
            first, second = await asyncio.gather(self.pay(nodes, made), self.pay(nodes, made))
            assert first == second == await self.pay(nodes, made)
            await self.eventually(lambda: self._spent(nodes.payer, before, 2_000 + first.fee_msat))

    async def test_fee_limit_zero_allows_no_fee_and_a_failure_may_be_tried_again(self) -> None:
        """A limit of 0 is no absence of a limit; after FAILED nothing is in flight and a new attempt may start."""
        async with self.harness() as nodes:
            made = await nodes.payee.create_invoice(amount_msat=3_000)
            failed = await self.pay(nodes, made, fee_limit_msat=0)
            assert (failed.state, failed.failure_reason, failed.preimage) == (PaymentState.FAILED, "no_route", None)
            assert await nodes.payer.lookup_payment(made.payment_hash) == failed
            assert (await self.pay(nodes, made)).state is PaymentState.SUCCEEDED

    async def test_time_lock_limit_holds(self) -> None:
        """No route whose total time lock is above the limit; a limit that the payee alone exceeds may be refused outright."""
        async with self.harness() as nodes:
            made = await nodes.payee.create_invoice(amount_msat=3_000, cltv_delta=100)
            assert (await self.pay(nodes, made, cltv_limit=110)).failure_reason == "no_route"
            other = await nodes.payee.create_invoice(amount_msat=3_000, cltv_delta=100)
            with suppress(InvoiceError):
                assert (await self.pay(nodes, other, cltv_limit=90)).failure_reason == "no_route"
            for invoice in (made, other):
                known = await nodes.payer.lookup_payment(invoice.payment_hash)
                assert known.state in (PaymentState.NONE, PaymentState.FAILED)

    async def test_what_the_node_refuses_outright_leaves_no_payment(self) -> None:
        """Its own invoice, and an expired one."""
        async with self.harness() as nodes:
            own = await nodes.payer.create_invoice(amount_msat=1_000)
            with pytest.raises(InvoiceError):
                await self.pay(nodes, own)
            expired = await nodes.payee.create_invoice(amount_msat=1_000, expiry_s=1)
            await nodes.pass_time(2.5)
            with pytest.raises(Expired):
                await self.pay(nodes, expired)
            for made in (own, expired):
                assert (await nodes.payer.lookup_payment(made.payment_hash)).state is PaymentState.NONE
            await self.reaches(nodes.payee, expired.payment_hash, InvoiceState.CANCELED)

    async def test_same_terms_give_the_same_invoice_and_others_a_conflict(self) -> None:
        """Both kinds of invoice are idempotent by their hash."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            made = await nodes.payee.create_invoice(amount_msat=1_000, memo="x", preimage=preimage)
            assert made.payment_hash == hashlib.sha256(preimage).digest()
            assert await nodes.payee.create_invoice(amount_msat=1_000, memo="x", preimage=preimage) == made
            for change in ({"amount_msat": 1_001}, {"memo": "y"}, {"expiry_s": 5}):
                terms: dict[str, Any] = {"amount_msat": 1_000, "memo": "x", "preimage": preimage, **change}
                with pytest.raises(IdempotencyConflict):
                    await nodes.payee.create_invoice(**terms)
            with pytest.raises(IdempotencyConflict):
                await self.hold(nodes, preimage, memo="x", expiry_s=3600, cltv_delta=80, amount_msat=1_000)
            other = secrets.token_bytes(32)
            assert await self.hold(nodes, other) == await self.hold(nodes, other)
            with pytest.raises(IdempotencyConflict):
                await self.hold(nodes, other, amount_msat=9)

    async def test_a_held_payment_waits_until_it_is_settled(self) -> None:
        """OPEN, ACCEPTED with HTLC and expiry height, SETTLED; the payer sees it in flight meanwhile."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            made = await self.hold(nodes, preimage)
            assert (made.is_hold, made.preimage) == (True, None)
            with pytest.raises(Expired):
                await nodes.payee.settle_invoice(preimage)
            paying = asyncio.ensure_future(self.pay(nodes, made))
            held = await self.reaches(nodes.payee, made.payment_hash, InvoiceState.ACCEPTED)
            height = (await nodes.payee.info()).block_height
            assert held.received_msat == held.amount_msat == sum(htlc.amount_msat for htlc in held.htlcs)
            assert held.lowest_expiry_height is not None
            assert abs(held.lowest_expiry_height - (height + 60 + 3)) <= 3
            flying = await nodes.payer.lookup_payment(made.payment_hash)
            assert (flying.state, flying.preimage) == (PaymentState.IN_FLIGHT, None)
            assert flying.highest_expiry_height is not None
            assert flying.highest_expiry_height > held.lowest_expiry_height
            assert not paying.done()
            await nodes.payee.settle_invoice(preimage)
            await nodes.payee.settle_invoice(preimage)
            assert (await paying).preimage == preimage
            with pytest.raises(Expired):
                await nodes.payee.cancel_invoice(made.payment_hash)

    async def test_a_cancelled_hold_gives_the_payment_back(self) -> None:
        """The payment fails, the invoice can never be settled, and cancelling again succeeds."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            made = await self.hold(nodes, preimage)
            paying = asyncio.ensure_future(self.pay(nodes, made))
            await self.reaches(nodes.payee, made.payment_hash, InvoiceState.ACCEPTED)
            await nodes.payee.cancel_invoice(made.payment_hash)
            await nodes.payee.cancel_invoice(made.payment_hash)
            failed = await paying
            assert (failed.state, failed.failure_reason) == (PaymentState.FAILED, "incorrect_payment_details")
            with pytest.raises(Expired):
                await nodes.payee.settle_invoice(preimage)

    async def test_a_hold_outlives_its_invoice_but_not_its_time_lock(self) -> None:
        """Expiry by the clock does not touch a held payment; 18 blocks before the HTLC expires it is given back."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            made = await self.hold(nodes, preimage, expiry_s=3, cltv_delta=30)
            paying = asyncio.ensure_future(self.pay(nodes, made))
            held = await self.reaches(nodes.payee, made.payment_hash, InvoiceState.ACCEPTED)
            await nodes.pass_time(4)
            assert (await nodes.payee.lookup_invoice(made.payment_hash)).state is InvoiceState.ACCEPTED
            again = asyncio.ensure_future(self.pay(nodes, made))
            expiry = held.lowest_expiry_height or 0
            await nodes.mine(expiry - 18 - (await nodes.payee.info()).block_height)
            await self.reaches(nodes.payee, made.payment_hash, InvoiceState.CANCELED)
            assert (await paying).state is PaymentState.FAILED
            assert (await again).state is PaymentState.FAILED

    async def test_a_caller_who_stops_waiting_does_not_stop_the_payment(self) -> None:
        """The node carries on; its record tells later."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            made = await self.hold(nodes, preimage)
            paying = asyncio.ensure_future(self.pay(nodes, made))
            await self.reaches(nodes.payee, made.payment_hash, InvoiceState.ACCEPTED)
            paying.cancel()
            await asyncio.gather(paying, return_exceptions=True)
            await nodes.payee.settle_invoice(preimage)
            assert (await self.pay(nodes, made)).preimage == preimage

    async def test_watching_shows_every_state_even_from_before_the_invoice_exists(self) -> None:
        """OPEN, ACCEPTED, SETTLED, then the end."""
        async with self.harness() as nodes:
            preimage = secrets.token_bytes(32)
            seen: list[InvoiceState] = []

            async def watch() -> None:
                async for record in nodes.payee.watch_invoice(hashlib.sha256(preimage).digest()):
                    seen.append(record.state)  # noqa: PERF401 (what was seen so far is looked at meanwhile)

            watching = asyncio.ensure_future(watch())
            made = await self.hold(nodes, preimage)
            paying = asyncio.ensure_future(self.pay(nodes, made))

            async def seen_held() -> bool:
                return InvoiceState.ACCEPTED in seen

            await self.eventually(seen_held)
            await nodes.payee.settle_invoice(preimage)
            await asyncio.wait_for(watching, self.limit_s)
            await paying
            assert list(dict.fromkeys(seen)) == [InvoiceState.OPEN, InvoiceState.ACCEPTED, InvoiceState.SETTLED]
            async for record in nodes.payee.watch_invoice(made.payment_hash):
                assert record.state is InvoiceState.SETTLED

    async def test_keysend_pays_a_node_once(self) -> None:
        """The hash is that of the payer's preimage, and makes it idempotent."""
        async with self.harness() as nodes:
            preimage, node_id = secrets.token_bytes(32), (await nodes.payee.info()).node_id
            before = (await nodes.payer.info()).spendable_msat
            first = await nodes.payer.keysend(node_id, 4_000, preimage=preimage, **self.limits)
            assert (first.state, first.preimage) == (PaymentState.SUCCEEDED, preimage)
            assert await nodes.payer.keysend(node_id, 4_000, preimage=preimage, **self.limits) == first
            await self.eventually(lambda: self._spent(nodes.payer, before, 4_000 + first.fee_msat))

    async def test_unknown_hashes_and_bad_arguments_are_named(self) -> None:
        """``NotFound`` for what is not there, ``ValidationError`` for what cannot be."""
        async with self.harness() as nodes:
            nothing = secrets.token_bytes(32)
            for call in (nodes.payee.lookup_invoice, nodes.payee.cancel_invoice, nodes.payee.settle_invoice):
                with pytest.raises(NotFound):
                    await call(nothing)
            assert (await nodes.payer.lookup_payment(nothing)).state is PaymentState.NONE
            with pytest.raises(ValidationError):
                await self.hold(nodes, nothing, cltv_delta=5)
            with pytest.raises(ValidationError):
                await nodes.payee.lookup_invoice(b"short")
            with pytest.raises(ValidationError):
                await nodes.payee.create_invoice(amount_msat=-1)

    async def pay(self, nodes: LightningHarness, made: InvoiceRecord, **changes: int) -> PaymentRecord:
        """Pay an invoice from the payer, within the usual limits."""
        return await nodes.payer.pay(made.text, **{**self.limits, **changes})

    async def hold(self, nodes: LightningHarness, preimage: bytes, **changes: Any) -> InvoiceRecord:
        """Make a hold invoice at the payee."""
        terms: dict[str, Any] = {"amount_msat": 50_000, "expiry_s": 600, "cltv_delta": 60, **changes}
        return await nodes.payee.create_hold_invoice(payment_hash=hashlib.sha256(preimage).digest(), **terms)

    async def reaches(self, node: LightningNode, payment_hash: bytes, state: InvoiceState) -> InvoiceRecord:
        """The invoice once it is in that state."""
        async with asyncio.timeout(self.limit_s):
            records = node.watch_invoice(payment_hash)
            try:
                async for record in records:
                    if record.state is state:
                        return await node.lookup_invoice(payment_hash)
            finally:
                if isinstance(records, AsyncGenerator):
                    await records.aclose()
        raise AssertionError(f"the invoice ended without being {state}")

    async def eventually(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(self.limit_s):
            while not await condition():  # noqa: ASYNC110 (a node has no event for it)
                await asyncio.sleep(0.02)

    @staticmethod
    async def _spent(node: LightningNode, before_msat: int, amount_msat: int) -> bool:
        return (await node.info()).spendable_msat == before_msat - amount_msat
