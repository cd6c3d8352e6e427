"""A transfer between two layers as its user sees it: quote, state, handle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from layer2._values import Uint, Value
from layer2.addresses import EvmAddress
from layer2.assets import AssetId
from layer2.protocol import Timeout
from layer2.terms import DepthPolicy, SwapDirection

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2._stored_transfers import StoredTransfers
    from layer2.config import Layer2Config
    from layer2.proofs import TransferProof
    from layer2.swaps import StoredSwap

__all__ = [
    "Payer",
    "QuotedFee",
    "Requirement",
    "Transfer",
    "TransferEvent",
    "TransferQuote",
    "TransferState",
    "act_by_of",
    "read_transfers",
    "state_of",
]

Payer: TypeAlias = Literal["self", "anyone"]
"""Who pays a Lightning invoice: our own node, or whoever is shown it."""


class TransferState(StrEnum):
    """Where a transfer stands. The enum may grow in a minor release."""

    AGREED = "agreed"
    """Terms are signed; nothing was sent. It can still be cancelled."""
    AWAITING_PAYMENT = "awaiting_payment"
    """The invoice is shown; anyone may pay it."""
    PAYING = "paying"
    """Our node's payment is under way, or held by the provider."""
    LOCKING = "locking"
    """Our lock is being included."""
    LOCKED = "locked"
    """Our lock stands; the provider is to pay."""
    CLAIMING = "claiming"
    """The preimage is out; the claim is being included, or not yet deep enough."""
    SETTLED = "settled"
    REFUNDING = "refunding"
    REFUNDED = "refunded"
    """Our money is back, less gas."""
    EXPIRED = "expired"
    """It ended before anything of ours was bound."""
    NEEDS_ATTENTION = "needs_attention"
    """Something that cannot happen while the assumptions hold. See the runbook."""

    @property
    def is_final(self) -> bool:
        """Whether the user's side is decided."""
        return self in (TransferState.SETTLED, TransferState.REFUNDED, TransferState.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedFee(Value):
    """One part of the price."""

    name: str
    """``provider``, ``routing`` or ``gas``."""
    coin: str
    amount: Uint
    """In the coin's base unit."""
    is_limit: bool = False
    """Whether it is the most that it may be, not what it will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement(Value):
    """What must be ready on a layer before the transfer begins."""

    layer: str
    coin: str
    amount: Uint


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferQuote(Value):
    """The price of a transfer and what it takes. It reserves nothing."""

    asset: AssetId
    amount: Uint
    """What arrives, in the asset's base unit."""
    rounding_msat: Uint = 0
    """By how much the amount is above the invoice, which counts in millisatoshi."""
    source: str
    destination: str
    direction: SwapDirection
    fees: tuple[QuotedFee, ...]
    requires: tuple[Requirement, ...]
    token: EvmAddress
    """The contract that the asset is on the EVM side."""
    htlc_contract: EvmAddress
    provider: EvmAddress
    depth_policy: DepthPolicy
    seconds_expected: int
    seconds_worst: int
    """Until a refund is final, if everything fails."""
    expires_at: int
    """Unix seconds until which the price holds."""

    @property
    def fee(self) -> int:
        """What provider and routing may cost together, in the asset's base unit, rounded up."""
        return sum(part.amount for part in self.fees if part.coin == self.asset.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEvent(Value):
    """One step of a transfer."""

    transfer_id: str
    version: int
    """Numbers the steps of one transfer, from 1."""
    state: TransferState
    detail: str
    """The engine's name of the state."""
    reason: str | None = None
    at_ms: int


class TransferHost(Protocol):
    """What a handle asks of the manager that made it."""

    async def transfer_result(
        self, transfer_id: str, timeout: Timeout, cancel: asyncio.Event | None, /
    ) -> TransferProof:
        """See ``Transfer.result_async``."""
        ...

    async def transfer_cancel(self, transfer_id: str, timeout: Timeout, /) -> bool:
        """See ``Transfer.cancel_async``."""
        ...

    def transfer_events(self, transfer_id: str) -> AsyncIterator[TransferEvent]:
        """See ``Transfer.events``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A handle on a transfer, as it stood when it was read. The transfer goes on without it.

    Its fields do not change: ``events`` and ``result_async`` follow the transfer, and ``Layer2Manager.get_transfer_async`` reads it
    anew.
    """

    id: str
    state: TransferState
    reason: str | None
    quote: TransferQuote
    invoice: str | None = field(repr=False)
    """The invoice of the Lightning leg, to be shown to whoever pays if ``payer`` is anyone."""
    created_at_ms: int
    updated_at_ms: int
    act_by: int | None
    """Unix seconds by which a process must drive it again; None if nothing of ours is bound."""
    _host: TransferHost = field(repr=False)

    def to_json(self) -> str:
        """What it shows, as JSON text; amounts are decimal strings. A handle is not made from it: ask a manager by the ``id``."""
        shown = {each.name: getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")}
        return json.dumps({**shown, "quote": json.loads(self.quote.to_json())})

    def events(self) -> AsyncIterator[TransferEvent]:
        """Its history, then what happens, ending as soon as its state is final. Any number of readers; each gets every step.

        What comes after that, as that it need not be watched any more, is in the history that later calls begin with.

        Raises:
            AsyncRuntimeError: the manager was closed meanwhile.
        """
        return self._host.transfer_events(self.id)

    async def result_async(self, *, timeout: Timeout = None, cancel: asyncio.Event | None = None) -> TransferProof:
        """Wait until it is settled and return the proof. Ending the wait does not end the transfer.

        Raises:
            SwapRefunded: it failed and the money is back; SwapExpired: nothing was ever bound.
            UnknownOutcome: it needs attention, ``reason`` says why; it is still watched, and waiting again may end better.
            AsyncTimeout, TaskCancelled: the wait ended first.
        """
        return await self._host.transfer_result(self.id, timeout, cancel)

    async def cancel_async(self, *, timeout: Timeout = None) -> bool:
        """Abandon it if nothing is bound yet. True if it is abandoned, False if it goes on.

        Raises:
            AsyncTimeout: which of both is not known yet, as while the chain does not answer; it is abandoned once it can be.
        """
        return await self._host.transfer_cancel(self.id, timeout)


def state_of(swap: StoredSwap) -> TransferState:
    """The state of a stored swap in the user's words, of either role."""
    from layer2._transfer_view import state_name

    return state_name(swap.state)


def act_by_of(swap: StoredSwap) -> int | None:
    """Unix seconds by which a process must drive a stored swap again; None if nothing of ours is bound."""
    from layer2.swaps import act_by

    return act_by(swap.deal, swap.state)


def read_transfers(config: Layer2Config, *, clock: Clock | None = None) -> StoredTransfers:
    """The transfers of the configured store, to be read beside the process that drives them (an async context manager).

    Entering raises ``StorageError`` if there is a store that cannot be read; one that is not there yet is empty.
    """
    from layer2._clock import SystemClock
    from layer2._config_load import check_settings
    from layer2._stored_transfers import StoredTransfers
    from layer2.connect import registry_of

    check_settings(config)
    return StoredTransfers(config.store_url, clock or SystemClock(), registry_of(config))
