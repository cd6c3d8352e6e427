"""Sync twins of the manager and of its transfers. Written by tools/generate_sync.py; change the async classes instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from layer2._sync_twin import Twin, twin
from layer2.protocol import DEFAULT

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Literal

    from layer2._health import Health
    from layer2._observe import Event
    from layer2._portal import SyncIterator
    from layer2._sync_protocols import BobClientSync, Layer2ProtocolSync, LightningNetworkSync
    from layer2.addresses import Address
    from layer2.assets import AssetId
    from layer2.manager import Layer2Manager
    from layer2.proofs import Report, TransferProof
    from layer2.protocol import Layer2ProtocolType, Timeout
    from layer2.transfers import Payer, Transfer, TransferEvent, TransferQuote, TransferState

__all__ = ["ManagerMethods", "TransferSync"]


class TransferSync(Twin):
    """``Transfer`` for code that is not async."""

    _async: Transfer

    @property
    def id(self) -> str:
        """See ``Transfer.id``."""
        return self._async.id

    @property
    def state(self) -> TransferState:
        """See ``Transfer.state``."""
        return self._async.state

    @property
    def reason(self) -> str | None:
        """See ``Transfer.reason``."""
        return self._async.reason

    @property
    def quote(self) -> TransferQuote:
        """See ``Transfer.quote``."""
        return self._async.quote

    @property
    def invoice(self) -> str | None:
        """See ``Transfer.invoice``."""
        return self._async.invoice

    @property
    def created_at_ms(self) -> int:
        """See ``Transfer.created_at_ms``."""
        return self._async.created_at_ms

    @property
    def updated_at_ms(self) -> int:
        """See ``Transfer.updated_at_ms``."""
        return self._async.updated_at_ms

    @property
    def act_by(self) -> int | None:
        """See ``Transfer.act_by``."""
        return self._async.act_by

    def to_json(self) -> str:
        """See ``Transfer.to_json``."""
        return self._portal.call_plain(self._async.to_json, what="to_json")

    def events(self) -> SyncIterator[TransferEvent]:
        """See ``Transfer.events``."""
        return self._portal.iterate(self._async.events, what="events")

    def result_sync(self, *, timeout: Timeout = None, cancel: threading.Event | None = None) -> TransferProof:
        """See ``Transfer.result_async``."""
        return self._portal.call(
            lambda _cancel: self._async.result_async(timeout=timeout, cancel=_cancel), what="result_sync", cancel=cancel
        )

    def cancel_sync(self, *, timeout: Timeout = None) -> bool:
        """See ``Transfer.cancel_async``."""
        return self._portal.call(lambda _cancel: self._async.cancel_async(timeout=timeout), what="cancel_sync")


class ManagerMethods(Twin):
    """``Layer2Manager`` for code that is not async."""

    _async: Layer2Manager

    def initialize_all_sync(self, *, timeout: Timeout = None, cancel: threading.Event | None = None) -> None:
        """See ``Layer2Manager.initialize_all_async``."""
        self._portal.call(
            lambda _cancel: self._async.initialize_all_async(timeout=timeout, cancel=_cancel),
            what="initialize_all_sync",
            cancel=cancel,
        )

    @overload
    def get_protocol_sync(self, protocol_type: Literal[Layer2ProtocolType.BOB, "bob"]) -> BobClientSync: ...

    @overload
    def get_protocol_sync(
        self, protocol_type: Literal[Layer2ProtocolType.LIGHTNING, "lightning"]
    ) -> LightningNetworkSync: ...

    @overload
    def get_protocol_sync(self, protocol_type: Layer2ProtocolType | str) -> Layer2ProtocolSync: ...

    def get_protocol_sync(self, protocol_type: Layer2ProtocolType | str) -> Layer2ProtocolSync:
        """See ``Layer2Manager.get_protocol_async``."""
        result: Layer2ProtocolSync = twin(
            self._portal,
            self._portal.call(lambda _cancel: self._async.get_protocol_async(protocol_type), what="get_protocol_sync"),
        )
        return result

    def cross_layer_transfer_sync(
        self,
        asset_id: AssetId,
        amount: int,
        source_protocol: Layer2ProtocolType | str,
        destination_protocol: Layer2ProtocolType | str,
        *,
        recipient: Address | str | None = None,
        max_fee: int | None = None,
        timeout: Timeout = None,
        cancel: threading.Event | None = None,
        idempotency_key: str | None = None,
    ) -> TransferProof:
        """See ``Layer2Manager.cross_layer_transfer_async``."""
        return self._portal.call(
            lambda _cancel: self._async.cross_layer_transfer_async(
                asset_id,
                amount,
                source_protocol,
                destination_protocol,
                recipient=recipient,
                max_fee=max_fee,
                timeout=timeout,
                cancel=_cancel,
                idempotency_key=idempotency_key,
            ),
            what="cross_layer_transfer_sync",
            cancel=cancel,
        )

    def verify_cross_layer_proof_sync(
        self, proof: TransferProof, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> bool:
        """See ``Layer2Manager.verify_cross_layer_proof_async``."""
        return self._portal.call(
            lambda _cancel: self._async.verify_cross_layer_proof_async(proof, timeout=timeout, cancel=_cancel),
            what="verify_cross_layer_proof_sync",
            cancel=cancel,
        )

    def check_cross_layer_proof_sync(
        self, proof: TransferProof, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> Report:
        """See ``Layer2Manager.check_cross_layer_proof_async``."""
        return self._portal.call(
            lambda _cancel: self._async.check_cross_layer_proof_async(proof, timeout=timeout, cancel=_cancel),
            what="check_cross_layer_proof_sync",
            cancel=cancel,
        )

    def quote_cross_layer_transfer_sync(
        self,
        asset_id: AssetId,
        amount: int,
        source_protocol: Layer2ProtocolType | str,
        destination_protocol: Layer2ProtocolType | str,
        *,
        recipient: Address | str | None = None,
        max_fee: int | None = None,
        timeout: Timeout = DEFAULT,
        cancel: threading.Event | None = None,
        idempotency_key: str | None = None,
        payer: Payer = "self",
    ) -> TransferQuote:
        """See ``Layer2Manager.quote_cross_layer_transfer_async``."""
        return self._portal.call(
            lambda _cancel: self._async.quote_cross_layer_transfer_async(
                asset_id,
                amount,
                source_protocol,
                destination_protocol,
                recipient=recipient,
                max_fee=max_fee,
                timeout=timeout,
                cancel=_cancel,
                idempotency_key=idempotency_key,
                payer=payer,
            ),
            what="quote_cross_layer_transfer_sync",
            cancel=cancel,
        )

    def start_cross_layer_transfer_sync(
        self,
        asset_id: AssetId,
        amount: int,
        source_protocol: Layer2ProtocolType | str,
        destination_protocol: Layer2ProtocolType | str,
        *,
        recipient: Address | str | None = None,
        max_fee: int | None = None,
        idempotency_key: str | None = None,
        payer: Payer = "self",
    ) -> TransferSync:
        """See ``Layer2Manager.start_cross_layer_transfer_async``."""
        result: TransferSync = twin(
            self._portal,
            self._portal.call(
                lambda _cancel: self._async.start_cross_layer_transfer_async(
                    asset_id,
                    amount,
                    source_protocol,
                    destination_protocol,
                    recipient=recipient,
                    max_fee=max_fee,
                    idempotency_key=idempotency_key,
                    payer=payer,
                ),
                what="start_cross_layer_transfer_sync",
            ),
        )
        return result

    def get_transfer_sync(self, transfer_id: str) -> TransferSync:
        """See ``Layer2Manager.get_transfer_async``."""
        result: TransferSync = twin(
            self._portal,
            self._portal.call(lambda _cancel: self._async.get_transfer_async(transfer_id), what="get_transfer_sync"),
        )
        return result

    def get_transfer_proof_sync(self, transfer_id: str) -> TransferProof:
        """See ``Layer2Manager.get_transfer_proof_async``."""
        return self._portal.call(
            lambda _cancel: self._async.get_transfer_proof_async(transfer_id), what="get_transfer_proof_sync"
        )

    def list_transfers_sync(
        self, *, state: TransferState | str | None = None, limit: int = 100, after: str | None = None
    ) -> list[TransferSync]:
        """See ``Layer2Manager.list_transfers_async``."""
        result: list[TransferSync] = twin(
            self._portal,
            self._portal.call(
                lambda _cancel: self._async.list_transfers_async(state=state, limit=limit, after=after),
                what="list_transfers_sync",
            ),
        )
        return result

    def wait_idle_sync(self, *, timeout: Timeout = None, cancel: threading.Event | None = None) -> None:
        """See ``Layer2Manager.wait_idle_async``."""
        self._portal.call(
            lambda _cancel: self._async.wait_idle_async(timeout=timeout, cancel=_cancel),
            what="wait_idle_sync",
            cancel=cancel,
        )

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """See ``Layer2Manager.on_event``."""
        return self._portal.call_plain(lambda: self._async.on_event(callback), what="on_event")

    def health(self) -> Health:
        """See ``Layer2Manager.health``."""
        return self._portal.call_plain(self._async.health, what="health")

    def transfers_sync(self) -> SyncIterator[TransferSync]:
        """See ``Layer2Manager.transfers_async``."""
        return self._portal.iterate(
            self._async.transfers_async, what="transfers_sync", convert=lambda item: twin(self._portal, item)
        )
