"""The rules that hold for every layer, as tests: make a subclass whose name starts with ``Test`` and give it subjects.

The tests are coroutine functions: run them under pytest-asyncio in auto mode, or under anyio with its marker.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from layer2.assets import AssetId
from layer2.errors import (
    AmountError,
    AssetError,
    AsyncRuntimeError,
    AsyncTimeout,
    IdempotencyConflict,
    NotFound,
    ProofError,
    TaskCancelled,
    ValidationError,
)
from layer2.protocol import Capabilities, Layer2ProtocolAsync
from layer2.transactions import Depth, Outcome, TxId, TxStatus

if TYPE_CHECKING:
    from layer2.addresses import Address
    from layer2.proofs import Proof
    from layer2.transactions import Transaction

__all__ = ["ConformanceSubject", "Layer2ProtocolConformance"]


@dataclass(frozen=True, kw_only=True)
class ConformanceSubject:
    """A protocol that is not initialised, and what it can be asked to do."""

    protocol: Layer2ProtocolAsync
    asset: AssetId
    amount: int
    """Small enough to be sent a few times."""
    new_recipient: Callable[[], Awaitable[Address | str]]
    """Somebody to be paid; for a layer of one-time recipients (invoices for ``amount``) a new one each time."""
    new_transaction: Callable[[], Awaitable[Transaction]]
    """A transaction that succeeds."""
    balance: Callable[[], Awaitable[int]]
    """What the payer has, in any unit: it shows whether something was sent."""
    good_proof: Proof | None = None
    bad_proof: Proof | None = None
    """Well formed, but it does not hold."""


class Layer2ProtocolConformance(ABC):
    """Subclass it as ``class TestMine(Layer2ProtocolConformance)`` and implement ``subject``."""

    limit_s: ClassVar[float] = 60
    """Longest time for any one operation of the layer."""

    @abstractmethod
    def subject(self) -> AbstractAsyncContextManager[ConformanceSubject]:
        """A fresh subject; the block's end closes what belongs to it."""

    async def test_it_declares_what_it_is(self) -> None:
        """Name and capabilities are there before anything was started."""
        async with self.subject() as subject:
            assert subject.protocol.protocol_type
            assert subject.protocol.protocol_type == str(subject.protocol.protocol_type).lower()
            assert isinstance(subject.protocol.capabilities, Capabilities)
            assert Depth.FINALIZED in subject.protocol.capabilities.depths

    async def test_use_before_initialise_is_refused(self) -> None:
        """Every call but ``initialize_async`` and ``close_async`` raises AsyncRuntimeError."""
        async with self.subject() as subject:
            await _refuses_all(subject)

    async def test_initialise_and_close_are_idempotent_and_closing_ends_use(self) -> None:
        """Twice is as good as once, and a closed protocol refuses use."""
        async with self.subject() as subject:
            await subject.protocol.initialize_async(timeout=self.limit_s)
            await subject.protocol.initialize_async(timeout=self.limit_s)
            await subject.protocol.close_async()
            await subject.protocol.close_async()
            await _refuses_all(subject)

    async def test_closing_what_was_never_initialised_succeeds(self) -> None:
        """A manager whose start failed closes everything."""
        async with self.subject() as subject:
            await subject.protocol.close_async()

    @pytest.mark.parametrize("amount", [0, -1, 2**64, 1.0, True, "1", None])
    async def test_wrong_amounts_are_refused(self, amount: Any) -> None:
        """Nothing is sent for an amount that is none."""
        async with self._ready() as subject:
            before, recipient = await subject.balance(), await subject.new_recipient()
            with pytest.raises(AmountError):
                await subject.protocol.transfer_asset_async(subject.asset, amount, recipient)
            assert await subject.balance() == before

    async def test_unknown_assets_are_refused(self) -> None:
        """An asset without a form on the layer."""
        async with self._ready() as subject:
            before, recipient = await subject.balance(), await subject.new_recipient()
            with pytest.raises(AssetError):
                await subject.protocol.transfer_asset_async(
                    AssetId(name="NOSUCHCOIN", decimals=8), subject.amount, recipient
                )
            assert await subject.balance() == before

    @pytest.mark.parametrize("recipient", ["", "nobody", "0x", "lnbc1", "\0", "a@", 5, None])
    async def test_wrong_recipients_are_refused(self, recipient: Any) -> None:
        """Text that is no address, and what is no text."""
        async with self._ready() as subject:
            before = await subject.balance()
            with pytest.raises(ValidationError):
                await subject.protocol.transfer_asset_async(subject.asset, subject.amount, recipient)
            assert await subject.balance() == before

    async def test_a_transfer_has_an_id_under_which_it_can_be_followed_to_its_end(self) -> None:
        """Transfer, wait, status: one id, in its text form too."""
        async with self._ready() as subject:
            before = await subject.balance()
            tx_id = await self._transfer(subject)
            assert isinstance(tx_id, TxId)
            status = await subject.protocol.wait_for_transaction_async(tx_id, timeout=self.limit_s)
            assert status.tx_id == tx_id
            assert status.succeeded
            assert status.at_least(Depth.INCLUDED)
            again = await subject.protocol.get_transaction_status_async(str(tx_id), timeout=self.limit_s)
            assert again.tx_id == tx_id
            assert again.succeeded
            assert await asyncio.to_thread(lambda: TxStatus.from_json(again.to_json())) == again
            with pytest.raises(TypeError):
                bool(again)
            assert await subject.balance() < before

    async def test_a_submitted_transaction_gives_a_status_with_its_id(self) -> None:
        """``tx_id`` is always set, and the outcome is not a failure."""
        async with self._ready() as subject:
            transaction = await subject.new_transaction()
            status = await subject.protocol.submit_transaction_async(transaction, timeout=self.limit_s)
            assert isinstance(status, TxStatus)
            assert status.at_least(Depth.PENDING)
            assert not status.failed
            final = await subject.protocol.wait_for_transaction_async(status.tx_id, timeout=self.limit_s)
            assert final.succeeded

    async def test_the_same_key_attaches_and_another_use_of_it_conflicts(self) -> None:
        """Asking twice sends once."""
        async with self._ready() as subject:
            recipient = await subject.new_recipient()
            first = await self._transfer(subject, recipient, key="conformance-1")
            await subject.protocol.wait_for_transaction_async(first, timeout=self.limit_s)
            paid = await subject.balance()
            assert await self._transfer(subject, recipient, key="conformance-1") == first
            assert await subject.balance() == paid
            with pytest.raises(IdempotencyConflict):
                await subject.protocol.transfer_asset_async(
                    subject.asset, subject.amount + 1, recipient, idempotency_key="conformance-1", timeout=self.limit_s
                )
            assert await subject.balance() == paid

    async def test_the_same_key_at_the_same_time_sends_once(self) -> None:
        """All callers get the same id."""
        async with self._ready() as subject:
            recipient = await subject.new_recipient()
            ids = await asyncio.gather(*(self._transfer(subject, recipient, key="conformance-2") for _ in range(5)))
            assert len(set(ids)) == 1

    async def test_wrong_ids_are_refused_and_unknown_ones_are_no_failures(self) -> None:
        """Not an id, the id of another layer, an id that nobody knows."""
        async with self._ready() as subject:
            for text in ("", "zz", "0x12", f"elsewhere:{'0' * 64}"):
                with pytest.raises(ValidationError):
                    await subject.protocol.get_transaction_status_async(text)
            unknown = TxId(layer=subject.protocol.protocol_type, hash=b"\x5a" * 32)
            try:
                status = await subject.protocol.get_transaction_status_async(unknown, timeout=self.limit_s)
            except NotFound:
                return
            assert status.tx_id == unknown
            assert status.outcome in (Outcome.NONE, Outcome.UNKNOWN, Outcome.DROPPED)
            assert not status.failed

    async def test_a_cancel_event_that_is_set_prevents_the_transfer(self) -> None:
        """TaskCancelled, ``goes_on`` is False, nothing was sent."""
        async with self._ready() as subject:
            before, recipient = await subject.balance(), await subject.new_recipient()
            cancel = asyncio.Event()
            cancel.set()
            with pytest.raises(TaskCancelled) as caught:
                await subject.protocol.transfer_asset_async(subject.asset, subject.amount, recipient, cancel=cancel)
            assert caught.value.goes_on is False
            assert await subject.balance() == before

    async def test_waiting_can_be_cancelled_and_limited(self) -> None:
        """``cancel``, ``timeout`` and the task's own cancellation each end a wait in their own way."""
        async with self._ready() as subject:
            unknown = TxId(layer=subject.protocol.protocol_type, hash=b"\x5b" * 32)
            wait = subject.protocol.wait_for_transaction_async
            with pytest.raises((AsyncTimeout, NotFound)):
                await wait(unknown, Depth.FINALIZED, timeout=0.02)
            cancel = asyncio.Event()
            asyncio.get_running_loop().call_later(0.02, cancel.set)
            with pytest.raises((TaskCancelled, NotFound)):
                await wait(unknown, Depth.FINALIZED, cancel=cancel)
            task = asyncio.ensure_future(wait(unknown, Depth.FINALIZED))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, NotFound)):
                await task

    @pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
    async def test_wrong_time_limits_are_refused(self, timeout: Any) -> None:
        """A limit is a number of seconds >= 0, None or DEFAULT."""
        async with self._ready() as subject:
            tx_id = TxId(layer=subject.protocol.protocol_type, hash=b"\x5c" * 32)
            with pytest.raises(ValidationError):
                await subject.protocol.get_transaction_status_async(tx_id, timeout=timeout)

    async def test_another_event_loop_is_refused(self) -> None:
        """From a loop in another thread: AsyncRuntimeError instead of a hang or a broken connection."""
        async with self._ready() as subject:
            tx_id = TxId(layer=subject.protocol.protocol_type, hash=b"\x5d" * 32)
            caught: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    asyncio.run(_await(subject.protocol.get_transaction_status_async(tx_id)))
                except BaseException as error:  # noqa: BLE001 - it is what the test looks at
                    caught.append(error)

            await asyncio.to_thread(elsewhere)
            assert isinstance(caught[0], AsyncRuntimeError)

    async def test_many_reads_at_once_each_get_their_own_answer(self) -> None:
        """None is lost, none gets another's answer or a group of errors."""
        async with self._ready() as subject:
            ids = [TxId(layer=subject.protocol.protocol_type, hash=i.to_bytes(32)) for i in range(1, 101)]
            answers = await asyncio.gather(
                *(subject.protocol.get_transaction_status_async(i, timeout=self.limit_s) for i in ids),
                return_exceptions=True,
            )
            for tx_id, answer in zip(ids, answers, strict=True):
                assert isinstance(answer, NotFound) or (isinstance(answer, TxStatus) and answer.tx_id == tx_id)

    async def test_proofs_hold_or_do_not(self) -> None:
        """True for a good proof, False or ProofError for a bad one."""
        async with self._ready() as subject:
            if subject.good_proof is not None:
                assert await subject.protocol.verify_proof_async(subject.good_proof, timeout=self.limit_s) is True
            if subject.bad_proof is not None:
                try:
                    holds = await subject.protocol.verify_proof_async(subject.bad_proof, timeout=self.limit_s)
                except ProofError:
                    return
                assert holds is False

    def _ready(self) -> _Ready:
        return _Ready(self.subject(), self.limit_s)

    async def _transfer(
        self, subject: ConformanceSubject, recipient: Address | str | None = None, key: str | None = None
    ) -> TxId:
        to = await subject.new_recipient() if recipient is None else recipient
        return await subject.protocol.transfer_asset_async(
            subject.asset, subject.amount, to, idempotency_key=key, timeout=self.limit_s
        )


class _Ready:
    """A subject that is initialised on entry and closed at the end."""

    def __init__(self, subject: AbstractAsyncContextManager[ConformanceSubject], limit_s: float) -> None:
        self._manager = subject
        self._limit_s = limit_s
        self._subject: ConformanceSubject | None = None

    async def __aenter__(self) -> ConformanceSubject:
        self._subject = await self._manager.__aenter__()
        await self._subject.protocol.initialize_async(timeout=self._limit_s)
        return self._subject

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._subject is not None:
                await self._subject.protocol.close_async()
        finally:
            await self._manager.__aexit__(kind, error, traceback)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _refuses_all(subject: ConformanceSubject) -> None:
    protocol = subject.protocol
    tx_id = TxId(layer=protocol.protocol_type, hash=b"\x5e" * 32)
    recipient, transaction = await subject.new_recipient(), await subject.new_transaction()
    before = await subject.balance()
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: protocol.submit_transaction_async(transaction),
        lambda: protocol.get_transaction_status_async(tx_id),
        lambda: protocol.transfer_asset_async(subject.asset, subject.amount, recipient),
        lambda: protocol.wait_for_transaction_async(tx_id),
    ]
    for call in calls:
        with pytest.raises(AsyncRuntimeError):
            await call()
    assert await subject.balance() == before
