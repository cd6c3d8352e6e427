"""Sync twins of the layers. Written by tools/generate_sync.py; change the async classes instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2._sync_twin import Twin
from layer2.protocol import DEFAULT
from layer2.transactions import Depth

if TYPE_CHECKING:
    import threading

    from layer2._portal import SyncIterator
    from layer2.addresses import Address, EvmAddress
    from layer2.assets import AssetId
    from layer2.bob import BobClient
    from layer2.lightning import LightningNetwork
    from layer2.lightning._node import InvoiceRecord
    from layer2.proofs import Proof
    from layer2.protocol import Capabilities, Layer2ProtocolAsync, Timeout
    from layer2.transactions import Transaction, TxId, TxStatus

__all__ = ["BobClientSync", "Layer2ProtocolSync", "LightningNetworkSync"]


class Layer2ProtocolSync(Twin):
    """``Layer2ProtocolAsync`` for code that is not async."""

    _async: Layer2ProtocolAsync

    @property
    def protocol_type(self) -> str:
        """See ``Layer2ProtocolAsync.protocol_type``."""
        return self._async.protocol_type

    @property
    def capabilities(self) -> Capabilities:
        """See ``Layer2ProtocolAsync.capabilities``."""
        return self._async.capabilities

    def initialize_sync(self, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None) -> None:
        """See ``Layer2ProtocolAsync.initialize_async``."""
        self._portal.call(
            lambda _cancel: self._async.initialize_async(timeout=timeout, cancel=_cancel),
            what="initialize_sync",
            cancel=cancel,
        )

    def submit_transaction_sync(
        self, transaction: Transaction, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> TxStatus:
        """See ``Layer2ProtocolAsync.submit_transaction_async``."""
        return self._portal.call(
            lambda _cancel: self._async.submit_transaction_async(transaction, timeout=timeout, cancel=_cancel),
            what="submit_transaction_sync",
            cancel=cancel,
        )

    def get_transaction_status_sync(
        self, tx_id: TxId | str, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> TxStatus:
        """See ``Layer2ProtocolAsync.get_transaction_status_async``."""
        return self._portal.call(
            lambda _cancel: self._async.get_transaction_status_async(tx_id, timeout=timeout, cancel=_cancel),
            what="get_transaction_status_sync",
            cancel=cancel,
        )

    def transfer_asset_sync(
        self,
        asset_id: AssetId,
        amount: int,
        recipient: Address | str,
        *,
        idempotency_key: str | None = None,
        timeout: Timeout = DEFAULT,
        cancel: threading.Event | None = None,
    ) -> TxId:
        """See ``Layer2ProtocolAsync.transfer_asset_async``."""
        return self._portal.call(
            lambda _cancel: self._async.transfer_asset_async(
                asset_id, amount, recipient, idempotency_key=idempotency_key, timeout=timeout, cancel=_cancel
            ),
            what="transfer_asset_sync",
            cancel=cancel,
        )

    def verify_proof_sync(
        self, proof: Proof, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> bool:
        """See ``Layer2ProtocolAsync.verify_proof_async``."""
        return self._portal.call(
            lambda _cancel: self._async.verify_proof_async(proof, timeout=timeout, cancel=_cancel),
            what="verify_proof_sync",
            cancel=cancel,
        )

    def wait_for_transaction_sync(
        self,
        tx_id: TxId | str,
        depth: Depth = Depth.INCLUDED,
        *,
        timeout: Timeout = None,
        cancel: threading.Event | None = None,
    ) -> TxStatus:
        """See ``Layer2ProtocolAsync.wait_for_transaction_async``."""
        return self._portal.call(
            lambda _cancel: self._async.wait_for_transaction_async(tx_id, depth, timeout=timeout, cancel=_cancel),
            what="wait_for_transaction_sync",
            cancel=cancel,
        )

    def close_sync(self, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None) -> None:
        """See ``Layer2ProtocolAsync.close_async``."""
        self._portal.call(
            lambda _cancel: self._async.close_async(timeout=timeout, cancel=_cancel), what="close_sync", cancel=cancel
        )


class BobClientSync(Layer2ProtocolSync):
    """``BobClient`` for code that is not async."""

    _async: BobClient  # pyright: ignore[reportIncompatibleVariableOverride]  # set by the constructor only

    @property
    def chain_id(self) -> int:
        """See ``BobClient.chain_id``."""
        return self._async.chain_id

    @property
    def account(self) -> EvmAddress:
        """See ``BobClient.account``."""
        return self._async.account

    def balance_sync(
        self,
        asset_id: AssetId,
        account: EvmAddress | str | None = None,
        *,
        timeout: Timeout = DEFAULT,
        cancel: threading.Event | None = None,
    ) -> int:
        """See ``BobClient.balance_async``."""
        return self._portal.call(
            lambda _cancel: self._async.balance_async(asset_id, account, timeout=timeout, cancel=_cancel),
            what="balance_sync",
            cancel=cancel,
        )


class LightningNetworkSync(Layer2ProtocolSync):
    """``LightningNetwork`` for code that is not async."""

    _async: LightningNetwork  # pyright: ignore[reportIncompatibleVariableOverride]  # set by the constructor only

    def create_invoice_sync(
        self,
        *,
        amount_msat: int,
        memo: str = "",
        description_hash: bytes | None = None,
        expiry_s: int = 3600,
        preimage: bytes | None = None,
        cltv_delta: int | None = None,
        timeout: Timeout = DEFAULT,
        cancel: threading.Event | None = None,
    ) -> InvoiceRecord:
        """See ``LightningNetwork.create_invoice_async``."""
        return self._portal.call(
            lambda _cancel: self._async.create_invoice_async(
                amount_msat=amount_msat,
                memo=memo,
                description_hash=description_hash,
                expiry_s=expiry_s,
                preimage=preimage,
                cltv_delta=cltv_delta,
                timeout=timeout,
                cancel=_cancel,
            ),
            what="create_invoice_sync",
            cancel=cancel,
        )

    def create_hold_invoice_sync(
        self,
        *,
        payment_hash: bytes,
        amount_msat: int,
        memo: str = "",
        expiry_s: int = 3600,
        cltv_delta: int = 80,
        timeout: Timeout = DEFAULT,
        cancel: threading.Event | None = None,
    ) -> InvoiceRecord:
        """See ``LightningNetwork.create_hold_invoice_async``."""
        return self._portal.call(
            lambda _cancel: self._async.create_hold_invoice_async(
                payment_hash=payment_hash,
                amount_msat=amount_msat,
                memo=memo,
                expiry_s=expiry_s,
                cltv_delta=cltv_delta,
                timeout=timeout,
                cancel=_cancel,
            ),
            what="create_hold_invoice_sync",
            cancel=cancel,
        )

    def lookup_invoice_sync(
        self, payment_hash: bytes, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> InvoiceRecord:
        """See ``LightningNetwork.lookup_invoice_async``."""
        return self._portal.call(
            lambda _cancel: self._async.lookup_invoice_async(payment_hash, timeout=timeout, cancel=_cancel),
            what="lookup_invoice_sync",
            cancel=cancel,
        )

    def settle_invoice_sync(
        self, preimage: bytes, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> None:
        """See ``LightningNetwork.settle_invoice_async``."""
        self._portal.call(
            lambda _cancel: self._async.settle_invoice_async(preimage, timeout=timeout, cancel=_cancel),
            what="settle_invoice_sync",
            cancel=cancel,
        )

    def cancel_invoice_sync(
        self, payment_hash: bytes, *, timeout: Timeout = DEFAULT, cancel: threading.Event | None = None
    ) -> None:
        """See ``LightningNetwork.cancel_invoice_async``."""
        self._portal.call(
            lambda _cancel: self._async.cancel_invoice_async(payment_hash, timeout=timeout, cancel=_cancel),
            what="cancel_invoice_sync",
            cancel=cancel,
        )

    def watch_invoice_sync(self, payment_hash: bytes) -> SyncIterator[InvoiceRecord]:
        """See ``LightningNetwork.watch_invoice_async``."""
        return self._portal.iterate(lambda: self._async.watch_invoice_async(payment_hash), what="watch_invoice_sync")
