"""The Lightning layer: what a user does with a node, behind the interface that all layers share."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layer2._clock import Clock
from layer2._crypto import sha256
from layer2._inputs import check_whole
from layer2._observe import operation_context
from layer2._operations import Operations
from layer2.addresses import Address, InvoiceText, LightningAddress, LnurlPay, NodeId, parse_address
from layer2.assets import AssetId, check_amount
from layer2.errors import (
    AddressError,
    AmountError,
    Expired,
    InsufficientFunds,
    InvoiceError,
    Layer2Error,
    NotFound,
    ProofError,
    StorageError,
    UnknownOutcome,
    ValidationError,
)
from layer2.lightning._bolt11 import decode_invoice
from layer2.lightning._invoice import Invoice
from layer2.lightning._journal import Decision, MemoryJournal, OperationJournal
from layer2.lightning._lnurl_pay import LnurlClient
from layer2.lightning._network_base import FIRST_POLL_S, LONGEST_POLL_S, NodeLayer
from layer2.lightning._node import LightningNode, PaymentRecord, PaymentState
from layer2.lightning._payment_rules import (
    LAYER,
    PaymentLimits,
    check_asset,
    check_payable,
    failure_of,
    limits_of,
    payment_msat,
    same_network,
    status_of,
    tx_id_of,
)
from layer2.protocol import DEFAULT, Timeout
from layer2.transactions import (
    Depth,
    LightningPayment,
    Outcome,
    Transaction,
    TxId,
    TxStatus,
    check_depth,
    check_idempotency_key,
    read_tx_id,
)

if TYPE_CHECKING:
    from layer2.proofs import Proof

__all__ = ["LightningNetwork"]


class LightningNetwork(NodeLayer):
    """Pays and gets paid over Lightning through one node.

    A transaction is the payment of an invoice; its id is the payment hash. Times are Unix seconds, amounts msat where the name
    says so, else satoshi.

    Args:
        node: the node; closed with this object if ``owns_node``.
        network: the Bitcoin network that the node must be on; None: whichever it is on.
        limits: for payments that name none of their own.
        journal: keeps idempotency keys; the default one lasts as long as the process.
        operations: slots and time limits; the default is one of its own, opened by ``initialize_async``.
        lnurl: fetches invoices for Lightning addresses and LNURL-pay links.
    """

    def __init__(
        self,
        node: LightningNode,
        *,
        network: str | None = None,
        limits: PaymentLimits | None = None,
        journal: OperationJournal | None = None,
        operations: Operations | None = None,
        lnurl: LnurlClient | None = None,
        clock: Clock | None = None,
        owns_node: bool = True,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        super().__init__(node, network=network, operations=operations, clock=clock, owns_node=owns_node)
        self._limits = limits or PaymentLimits()
        self._journal: OperationJournal = journal or MemoryJournal()
        self._lnurl = lnurl or LnurlClient()
        self._random_bytes = random_bytes

    async def submit_transaction_async(
        self, transaction: Transaction, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """Pay an invoice and wait for the outcome. A payment that failed for certain is a status, not an error.

        Raises:
            InvoiceError, Expired: the invoice cannot be paid by this node now; nothing was sent.
            IdempotencyConflict: the key was used with other arguments.
            AsyncTimeout, TaskCancelled, UnknownOutcome: with the id under which the payment can be followed up.
        """
        what = "paying an invoice"
        self._ready(what)
        if not isinstance(transaction, LightningPayment):
            raise ValidationError(f"Lightning takes a LightningPayment, not {type(transaction).__name__}")
        invoice = decode_invoice(transaction.invoice)
        tx_id = tx_id_of(invoice.payment_hash)

        async def operation() -> PaymentRecord:
            earlier = None
            if transaction.idempotency_key is not None:
                decision = json.dumps({"invoice": invoice.text})
                digest = _digest(
                    "pay",
                    invoice.text,
                    transaction.amount_msat,
                    transaction.fee_limit_msat,
                    transaction.cltv_limit,
                    transaction.time_limit_s,
                )
                earlier = await self._journal.begin(transaction.idempotency_key, digest)
                if earlier is None:
                    await self._check_payable(invoice, transaction.amount_msat)
                await self._journal.finish(transaction.idempotency_key, digest, decision)
            return await self._pay(invoice, transaction, earlier)

        record = await self._operations.run(
            operation,
            timeout=timeout,
            cancel=cancel,
            what=what,
            tx_id=tx_id,
            repeatable=True,
            keyed=transaction.idempotency_key is not None,
        )
        return status_of(record)

    async def _pay(self, invoice: Invoice, payment: LightningPayment, earlier: Decision | None) -> PaymentRecord:
        """Pay, or go on with the payment that is there. ``earlier``: begun before under the same key, so never begun anew."""
        if earlier is not None and (known := await self._end_of(invoice.payment_hash, earlier)) is not None:
            return known
        amount = await self._check_payable(invoice, payment.amount_msat)
        if isinstance(amount, PaymentRecord):
            if amount.state is not PaymentState.IN_FLIGHT:
                return amount
            amount = amount.amount_msat
        return await self._node.pay(
            invoice.text,
            amount_msat=None if invoice.amount_msat is not None else amount,
            **limits_of(payment, amount, self._limits),
        )

    async def _end_of(self, payment_hash: bytes, earlier: Decision) -> PaymentRecord | None:
        """How the payment of an earlier decision ended; None: it goes on, or was not begun yet, and may be.

        Raises:
            UnknownOutcome: of one that may not be begun any more, the node has no record.
        """
        pause_s = FIRST_POLL_S
        while True:
            known = await self._node.lookup_payment(payment_hash)
            if known.state in (PaymentState.SUCCEEDED, PaymentState.FAILED):
                return known
            if not earlier.restored:
                return None
            if known.state is PaymentState.NONE:
                raise _lost(payment_hash)
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)

    async def _check_payable(self, invoice: Invoice, amount_msat: int | None) -> int | PaymentRecord:
        """What to pay, in msat; or the payment that is there of an invoice that cannot be paid any more.

        Raises:
            InvoiceError, Expired, AmountError: it cannot be paid, and the node never began to.
        """
        info = self._ready("paying")
        try:
            return check_payable(invoice, amount_msat, info, self._clock.now_ms() // 1000, self._limits)
        except (InvoiceError, Expired, AmountError):
            known = await self._node.lookup_payment(invoice.payment_hash)
            if known.state is PaymentState.NONE:
                raise
            return known

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
        """Pay ``amount`` satoshi to an invoice, a Lightning address, an LNURL-pay link or a node id (keysend).

        An invoice of n msat is paid with ``amount == ceil(n / 1000)``.

        Raises:
            AssetError, AmountError, AddressError, InvoiceError, Expired: refused; nothing was sent.
            NoRoute, InsufficientFunds, PaymentFailed: it failed for certain.
            StorageError: what the store has under the key is not of this recipient; nothing was sent.
            AsyncTimeout, TaskCancelled, UnknownOutcome: with the id, once there is one.
        """
        what = "paying over Lightning"
        self._ready(what)
        check_asset(asset_id)
        check_whole(check_amount(amount) * 1000, "the amount in msat", least=1, error=AmountError)
        check_idempotency_key(idempotency_key)
        address = parse_address(recipient) if isinstance(recipient, str) else recipient
        if not isinstance(address, InvoiceText | LightningAddress | LnurlPay | NodeId):
            raise AddressError(
                f"Lightning pays invoices, Lightning addresses, LNURLs and node ids, not a {type(address).__name__}",
                field="recipient",
                hint="give an invoice by its text; to pay an account on BOB, use a cross-layer transfer",
            )
        begun: list[TxId] = []

        async def operation() -> PaymentRecord:
            return await self._transfer(address, amount, idempotency_key, begun)

        record = await self._operations.run(
            operation,
            timeout=timeout,
            cancel=cancel,
            what=what,
            tx_id=lambda: begun[0] if begun else None,
            # An invoice is paid once, however often it is asked for. Without a key, a Lightning address would give another.
            repeatable=idempotency_key is not None or isinstance(address, InvoiceText),
            keyed=idempotency_key is not None,
        )
        status = status_of(record)
        if status.outcome is not Outcome.SUCCEEDED:
            raise await self._with_figures(failure_of(status), amount)
        return status.tx_id

    async def _with_figures(self, failure: Layer2Error, amount: int) -> Layer2Error:
        """A shortage says what is needed and what is there, as long as the node tells."""
        if isinstance(failure, InsufficientFunds):
            failure.needed = amount
            with suppress(Layer2Error):
                info = await self._operations.ask("asking the Lightning node what it can send", self._node.info)
                failure.available, failure.account = info.spendable_msat // 1000, info.node_id.hex()
        return failure

    async def _transfer(
        self,
        address: InvoiceText | LightningAddress | LnurlPay | NodeId,
        amount: int,
        key: str | None,
        begun: list[TxId],
    ) -> PaymentRecord:
        earlier: Decision | None = None
        digest = _digest("transfer", "BTC", amount, address.kind, str(address))
        if key is not None:
            earlier = await self._journal.begin(key, digest)
        if earlier is not None:
            decision = earlier.text
        else:
            decision = await self._decide(address, amount)
            if key is not None:
                decision = await self._journal.finish(key, digest, decision)
        if isinstance(address, NodeId):
            preimage = _decided_preimage(decision, key)
            begun.append(tx_id_of(sha256(preimage)))
            with operation_context(tx_id=begun[-1]):
                return await self._keysend(address, amount * 1000, preimage, earlier)
        invoice = _decided_invoice(decision, address, key)
        amount_msat = payment_msat(invoice, amount)
        begun.append(tx_id_of(invoice.payment_hash))
        payment = LightningPayment(
            invoice=invoice.text, amount_msat=amount_msat if invoice.amount_msat is None else None
        )
        with operation_context(tx_id=begun[-1]):
            return await self._pay(invoice, payment, earlier)

    async def _decide(self, address: InvoiceText | LightningAddress | LnurlPay | NodeId, amount: int) -> str:
        """What will be sent, as the journal keeps it: after this, asking again can only send the same.

        Raises:
            InvoiceError, Expired, AmountError, NodeError: nothing can be sent, and the key stays free.
        """
        match address:
            case NodeId():
                return json.dumps({"preimage": self._random_bytes(32).hex()})
            case InvoiceText():
                invoice = decode_invoice(address.text)
            case LightningAddress() | LnurlPay():
                invoice = await self._lnurl.fetch_invoice(address, amount * 1000)
        await self._check_payable(invoice, payment_msat(invoice, amount))
        return json.dumps({"invoice": invoice.text})

    async def _keysend(
        self, node_id: NodeId, amount_msat: int, preimage: bytes, earlier: Decision | None
    ) -> PaymentRecord:
        payment_hash = sha256(preimage)
        if earlier is not None and (known := await self._end_of(payment_hash, earlier)) is not None:
            return known
        return await self._node.keysend(
            node_id.raw,
            amount_msat,
            preimage=preimage,
            fee_limit_msat=self._limits.fee_limit_msat(amount_msat),
            cltv_limit=self._limits.cltv_limit,
            time_limit_s=self._limits.time_limit_s,
        )

    async def get_transaction_status_async(
        self, tx_id: TxId | str, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """What the node's record of a payment says now, after any restart. Without a record the outcome is UNKNOWN."""
        what = "reading a payment's status"
        self._ready(what)
        parsed = read_tx_id(tx_id, LAYER)
        record = await self._operations.run(
            lambda: self._node.lookup_payment(parsed.hash),
            timeout=timeout,
            cancel=cancel,
            what=what,
            tx_id=parsed,
            moves_money=False,
        )
        return status_of(record)

    async def wait_for_transaction_async(
        self,
        tx_id: TxId | str,
        depth: Depth = Depth.INCLUDED,
        *,
        timeout: Timeout = None,
        cancel: asyncio.Event | None = None,
    ) -> TxStatus:
        """Wait until a payment is in flight (``Depth.PENDING``) or has its outcome (anything deeper).

        Raises:
            NotFound: the node has no record of it.
        """
        self._ready("waiting for a payment")
        check_depth(depth)
        tx_id = read_tx_id(tx_id, LAYER)

        async def wait() -> TxStatus:
            pause_s = FIRST_POLL_S
            while True:
                status = await self.get_transaction_status_async(tx_id)
                if status.outcome is Outcome.UNKNOWN:
                    raise NotFound(f"the node has no record of payment {status.tx_id}")
                if status.at_least(depth):
                    return status
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_POLL_S)

        return await self._operations.run(
            wait,
            timeout=timeout,
            cancel=cancel,
            what="waiting for a payment",
            slot=False,
            awaits=True,
            moves_money=False,
        )

    async def verify_proof_async(
        self,
        proof: Proof,
        *,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> bool:
        """Whether a Lightning payment proof holds, for an invoice of this node's network. Nothing is asked of the node.

        Raises:
            ProofError: it is a proof of another kind, which this layer cannot check.
        """
        from layer2.proofs import LightningPaymentProof

        info = self._ready("verifying a proof")
        if not isinstance(proof, LightningPaymentProof):
            raise ProofError("Lightning verifies Lightning payment proofs only", check="kind")

        async def check() -> bool:
            try:
                return same_network(proof.verify(), info.network)
            except ProofError:
                return False

        return await self._operations.run(
            check, timeout=timeout, cancel=cancel, what="verifying a proof", slot=False, moves_money=False
        )


def _digest(*arguments: str | int | None) -> bytes:
    return sha256(json.dumps(arguments).encode())


def _decided_preimage(decision: str, key: str | None) -> bytes:
    with _as_damage(key):
        preimage = bytes.fromhex(json.loads(decision)["preimage"])
        if len(preimage) != 32:
            raise ValueError("a preimage has 32 bytes")
        return preimage


def _decided_invoice(decision: str, address: InvoiceText | LightningAddress | LnurlPay, key: str | None) -> Invoice:
    with _as_damage(key):
        invoice = decode_invoice(str(json.loads(decision)["invoice"]))
    if isinstance(address, InvoiceText) and invoice.text != decode_invoice(address.text).text:
        raise _damage(
            f"under the idempotency key {key!r} the store has another invoice than the one that is to be paid"
        )
    return invoice


@contextmanager
def _as_damage(key: str | None) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as exc:
        raise _damage(f"what the store has under the idempotency key {key!r} cannot be read") from exc


def _damage(message: str) -> StorageError:
    hint = (
        "somebody else may have written the store; see at the node what was paid, and then take another idempotency key"
    )
    return StorageError(message, hint=hint)


def _lost(payment_hash: bytes) -> UnknownOutcome:
    return UnknownOutcome(
        "the idempotency key was used before the store was restored from a copy, and the node has no record of the payment",
        hint="nothing is sent under it any more: make certain that the recipient was not paid, also by another node that you had, "
        "and then pay with another idempotency key",
        tx_id=tx_id_of(payment_hash),
        retry_safe=False,
    )
