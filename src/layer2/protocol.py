"""The interface that every layer implements."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from layer2._values import Value
from layer2.transactions import Depth

if TYPE_CHECKING:
    from layer2.addresses import Address, EvmAddress
    from layer2.assets import AssetId
    from layer2.proofs import Proof
    from layer2.transactions import Transaction, TxId, TxStatus

__all__ = ["DEFAULT", "Capabilities", "Default", "Layer2ProtocolAsync", "Layer2ProtocolType", "Signer", "Timeout"]


class Layer2ProtocolType(StrEnum):
    """The layers that work. Layers from outside register under a name of their own."""

    BOB = "bob"
    LIGHTNING = "lightning"


class Default(Enum):
    """Type of ``DEFAULT``."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""For ``timeout``: the configured default limit of a network operation; what waits has none. ``None`` means no limit."""
Timeout: TypeAlias = float | Literal[Default.DEFAULT] | None
"""Seconds for the whole call, queueing included; ``DEFAULT``; or ``None`` for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities(Value):
    """What a protocol can do: declared, so that nothing is a surprise at run time."""

    hold_invoices: bool
    proofs: tuple[str, ...]
    """Kinds of proof that ``verify_proof_async`` takes."""
    depths: tuple[Depth, ...]
    """Depths that a status on this layer can reach."""
    smart_contracts: bool


class Signer(Protocol):
    """Holds the key of one EVM account. The key never leaves it.

    Whatever else than a ``SignerError`` its methods raise, and whatever else than bytes they give, becomes one. A call that takes
    longer than 120 seconds is cancelled: time enough for a person to press a button on a device. Meanwhile the account sends
    nothing, so that a method must not block the event loop, and should not wait for anything else.
    """

    @property
    def address(self) -> EvmAddress:
        """The account it signs for."""
        ...

    async def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes. Returns r, s (low) and v = 27 or 28: 65 bytes.

        Raises:
            SignerError: it refused, is locked, or timed out.
        """
        ...

    async def derive_secret(self, label: bytes) -> bytes:
        """32 bytes that only this signer can make again from ``label`` (HMAC-SHA256 under a key derived from its own).

        Swap preimages come from it, so that whoever still has the key can recover them.
        """
        ...


class Layer2ProtocolAsync(ABC):
    """One layer. Each method also takes ``timeout`` (see ``Timeout``) and ``cancel`` (an event that stops the wait)."""

    @property
    @abstractmethod
    def protocol_type(self) -> str:
        """``bob``, ``lightning`` or the name under which an outside layer registered."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @abstractmethod
    async def initialize_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """Connect, check that it is the right network, and take up unfinished work. Idempotent."""

    @abstractmethod
    async def submit_transaction_async(
        self, transaction: Transaction, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """Send a transaction. Returns when a node took it (BOB) or at the final outcome (Lightning)."""

    @abstractmethod
    async def get_transaction_status_async(
        self, tx_id: TxId | str, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """What is known of a transaction now."""

    @abstractmethod
    async def transfer_asset_async(
        self,
        asset_id: AssetId,
        amount: int,
        recipient: Address | str,
        *,
        idempotency_key: str | None = None,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> TxId:
        """Send an amount (in the asset's base unit) on this layer. Raises where failure is certain."""

    @abstractmethod
    async def verify_proof_async(
        self, proof: Proof, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> bool:
        """True if every check holds, False if one was made and failed; raises if one could not be made."""

    @abstractmethod
    async def wait_for_transaction_async(
        self,
        tx_id: TxId | str,
        depth: Depth = Depth.INCLUDED,
        *,
        timeout: Timeout = None,
        cancel: asyncio.Event | None = None,
    ) -> TxStatus:
        """Wait until the outcome is known at ``depth``. No limit by default."""

    @abstractmethod
    async def close_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """Free connections and tasks. Idempotent, bounded in time, without a limit by default.

        Raises:
            AsyncTimeout, TaskCancelled: ``timeout`` passed or ``cancel`` was set first. It goes on: call it again to wait for it.
        """
