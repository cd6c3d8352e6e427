"""The proof of a transfer between two layers: the signed terms, and that the lock named in them was claimed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from layer2._values import Bytes, Uint, Value, _adapter
from layer2.addresses import EvmAddress
from layer2.errors import ProofError
from layer2.proofs._evm import EvmReceiptProof, EvmStorageProof
from layer2.proofs._format import ProofValue, checksum_of, require, require_bytes
from layer2.proofs._headers import BlockHeader
from layer2.proofs._lightning import LightningPaymentProof
from layer2.terms import SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

__all__ = ["Fee", "TransferExpectations", "TransferProof"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee(Value):
    """One named part of what a transfer cost."""

    name: str
    """``provider`` is the provider's fee, which the terms fix; other names say what was paid for."""
    coin: str
    """What it was paid in."""
    amount: Uint
    """In the coin's base unit."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransferProof(ProofValue):
    """Both legs of a settled transfer: the invoice (in the terms) with its preimage, and the claimed lock.

    At least one of ``storage`` and ``receipt`` is there. ``checksum`` is made when it is left out; it guards what no
    signature and no hash covers (``fees``, ``depth``) against damage, not against a forger.
    """

    signed_terms: SignedTerms
    preimage: Bytes
    storage: EvmStorageProof | None = None
    """The lock's slot holds the preimage: the final state."""
    receipt: EvmReceiptProof | None = None
    """The contract emitted the lock's Claim event. Stands in where an endpoint serves no ``eth_getProof``."""
    fees: tuple[Fee, ...] = ()
    """What the transfer cost, each part by name and coin."""
    depth: Depth
    """How deep the settlement of the user's side was when the proof was made."""
    version: Literal[1] = 1
    kind: Literal["transfer"] = "transfer"
    checksum: Bytes = b""
    """SHA-256 of the JSON of all other fields."""

    def __post_init__(self) -> None:
        self._require_own_envelope()
        require_bytes(self.preimage, "preimage", 32)
        require_bytes(self.checksum, "checksum")
        for name, types in (
            ("signed_terms", SignedTerms),
            ("storage", EvmStorageProof | None),
            ("receipt", EvmReceiptProof | None),
            ("fees", tuple),
            ("depth", Depth),
        ):
            require(isinstance(getattr(self, name), types), f"{name} is of the wrong type", field=name)
        require(
            self.storage is not None or self.receipt is not None,
            "a transfer proof holds a storage proof or a receipt proof of the claimed lock",
            field="storage",
        )
        made = checksum_of(self._plain())
        if not self.checksum:
            object.__setattr__(self, "checksum", made)
        if self.checksum != made:
            raise ProofError("the checksum is not that of the other fields", field="checksum", check="checksum")

    def _plain(self) -> dict[str, Any]:
        from pydantic_core import PydanticSerializationError

        try:
            text = _adapter(type(self)).dump_json(self, exclude={"checksum"}, warnings="error")
        except PydanticSerializationError:
            # The cause would print the value, which may be the preimage.
            raise ProofError("a field of the transfer proof is of the wrong type", check="format") from None
        plain: dict[str, Any] = json.loads(text)
        return plain

    @classmethod
    def _check_given(cls, given: dict[str, Any]) -> None:
        require(
            given.get("checksum") == checksum_of(given).hex(),
            "the checksum is not that of the other fields: the proof was damaged or edited",
            field="checksum",
            check="checksum",
        )

    def __repr__(self) -> str:
        return (
            f"TransferProof({self.terms.direction.value}, terms.swap_id={self.terms.swap_id}, depth={self.depth.name})"
        )

    @property
    def terms(self) -> SwapTerms:
        """What was agreed."""
        return self.signed_terms.terms

    @property
    def blocks(self) -> tuple[BlockHeader, ...]:
        """The blocks that have to be trusted, without repetition.

        Raises:
            ProofError: a header is malformed.
        """
        parts = (self.storage, self.receipt)
        return tuple({part.block_hash: part.block for part in parts if part is not None}.values())

    @property
    def lightning(self) -> LightningPaymentProof:
        """The Lightning leg as a proof of its own."""
        return LightningPaymentProof(invoice=self.terms.invoice, preimage=self.preimage)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferExpectations(Value):
    """What the terms of a proof must say. None: anything."""

    swap_id: str | None = None
    direction: SwapDirection | None = None
    chain_id: int | None = None
    token: EvmAddress | None = None
    lock_amount: Uint | None = None
    """In the token's base unit."""
    invoice_amount_msat: Uint | None = None
    invoice: str | None = field(default=None, repr=False)
    payment_hash: Bytes | None = None
    payee: Bytes | None = None
    """Public key (33 bytes) of the Lightning node that was paid."""
    network: str | None = None
    """Lightning network of the invoice: ``mainnet``, ``testnet``, ``signet``, ``regtest`` or ``simnet``."""
    provider: EvmAddress | None = None
    claimer: EvmAddress | None = None
    refunder: EvmAddress | None = None
