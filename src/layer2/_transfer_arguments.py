"""What a transfer is asked with, and what makes two requests the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2.errors import ValidationError
from layer2.protocol import Layer2ProtocolType
from layer2.terms import SwapDirection

if TYPE_CHECKING:
    from layer2.addresses import Address
    from layer2.assets import AssetId
    from layer2.transfers import Payer

__all__ = ["TransferArguments", "direction_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferArguments:
    """What a transfer is asked with, checked as far as that goes without asking anybody."""

    asset: AssetId
    amount: int
    direction: SwapDirection
    recipient: Address | None
    max_fee: int
    """The bound that holds: the given one, else the configured one."""
    given_max_fee: int | None
    payer: Payer
    idempotency_key: str | None

    @property
    def digest(self) -> str:
        """What makes two requests under one key the same: what was given, since a default is another after the settings changed."""
        return self._digest(self.given_max_fee)

    def is_request(self, digest: str | None) -> bool:
        """Whether a stored digest is of this request; the first stores had the bound that held in it, given or not."""
        return digest in (self.digest, self._digest(self.max_fee))

    def _digest(self, max_fee: int | None) -> str:
        parts = [
            self.asset.to_json(),
            self.amount,
            self.direction.value,
            None if self.recipient is None else str(self.recipient),
            max_fee,
            self.payer,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def direction_of(source: Layer2ProtocolType | str, destination: Layer2ProtocolType | str) -> SwapDirection:
    """Which way a swap between two layers goes.

    Raises:
        ValidationError: there is none between them.
    """
    known = {kind.value for kind in Layer2ProtocolType}
    for field, layer in (("source_protocol", source), ("destination_protocol", destination)):
        if str(layer) not in known:
            raise ValidationError(
                f"{field} is {str(layer)[:40]!r}, which is none of {', '.join(sorted(known))}", field=field
            )
    if str(source) == str(destination):
        raise ValidationError(
            "source and destination are the same layer",
            field="destination_protocol",
            hint="use transfer_asset_async of that layer",
        )
    return SwapDirection.SUBMARINE if str(source) == Layer2ProtocolType.BOB else SwapDirection.REVERSE
