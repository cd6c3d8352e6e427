"""LND over REST: ``LightningNode`` on a real node. Made for lnd 0.19 to 0.21.

What lnd answers to a payment request is never taken for the payment's fate: only its record is, read by the payment hash.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from layer2._operations import leave_slot, slot_again
from layer2.errors import (
    AmountError,
    ConfigurationError,
    IdempotencyConflict,
    InvoiceError,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    NotFound,
    UnexpectedReply,
    UnknownOutcome,
    ValidationError,
)
from layer2.lightning._bolt11 import decode_invoice
from layer2.lightning._checks import check_hash, check_invoice_terms, check_limits, hash_of, resolve_amount
from layer2.lightning._lnd_errors import is_outright_refusal, was_turned_away
from layer2.lightning._lnd_records import invoice_record, invoice_terms, node_info, payment_record
from layer2.lightning._lnd_rest import LndRest
from layer2.lightning._node import InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState
from layer2.transactions import TxId

__all__ = ["HtlcResolution", "LndNode"]

DEFAULT_CLTV_DELTA = 80
KEYSEND_TYPE = "5482373484"
KEYSEND_CLTV_DELTA = 80
TLV_ONION = 9
MAX_PARTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HtlcResolution:
    """How one HTLC of an invoice ended at last."""

    channel_id: int
    htlc_index: int
    settled: bool | None
    """None: not resolved yet, or the node does not keep it (``--store-final-htlc-resolutions``)."""
    offchain: bool | None


class LndNode:
    """An lnd, reached by REST.

    ``private_route_hints`` puts hints about unannounced channels into invoices: needed by a node that has no other.

    A payment under way for longer than ``hold_s`` is looked up every ``look_up_s`` instead of being followed on a connection
    of its own, and keeps no slot between: held payments may last for days, and their number is others' to choose.
    """

    def __init__(
        self, rest: LndRest, *, private_route_hints: bool = False, hold_s: float = 10.0, look_up_s: float = 5.0
    ) -> None:
        self._rest = rest
        self._private = private_route_hints
        self._hold_s = hold_s
        self._look_up_s = look_up_s

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        macaroon: bytes | str | None,
        certificate: str | None = None,
        fingerprint: bytes | str | None = None,
        allow_plain_http: bool = False,
        private_route_hints: bool = False,
        hold_s: float = 10.0,
        look_up_s: float = 5.0,
        connect_timeout_s: float = 10.0,
        idle_timeout_s: float = 30.0,
        call_timeout_s: float = 30.0,
        max_connections: int = 32,
    ) -> Self:
        """A node at ``url`` (``https://host:port``). Nothing is sent before the first call.

        ``macaroon`` is bytes or hexadecimal; ``certificate`` the text of ``tls.cert``; ``fingerprint`` the SHA-256 of the
        certificate, as bytes or hexadecimal with or without colons. Plain ``http`` to another machine is refused unless
        ``allow_plain_http``: it shows the macaroon to whoever is on the way.

        Raises:
            ConfigurationError: one of them is malformed.
        """
        rest = LndRest(
            url,
            macaroon=_as_bytes(macaroon, "lightning.macaroon"),
            certificate=certificate,
            fingerprint=_as_bytes(fingerprint, "lightning.tls_fingerprint"),
            allow_plain_http=allow_plain_http,
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=idle_timeout_s,
            call_timeout_s=call_timeout_s,
            max_connections=max_connections,
        )
        return cls(rest, private_route_hints=private_route_hints, hold_s=hold_s, look_up_s=look_up_s)

    @classmethod
    def from_files(cls, url: str, *, macaroon_path: Path | str, tls_cert_path: Path | str, **options: Any) -> Self:
        """``connect`` with the macaroon and the certificate from lnd's files. Reads them at once.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        try:
            macaroon = Path(macaroon_path).read_bytes()
            certificate = Path(tls_cert_path).read_text(encoding="ascii")
        except (OSError, UnicodeError) as exc:
            raise ConfigurationError(f"cannot read lnd's credentials: {exc}", key="lightning") from exc
        return cls.connect(url, macaroon=macaroon, certificate=certificate, **options)

    def __repr__(self) -> str:
        return f"<LndNode {self._rest.endpoint}>"

    async def info(self) -> NodeInfo:
        """Identity, network, height and liquidity."""
        info = await self._rest.call("GET", "/v1/getinfo")
        balance = await self._rest.call("GET", "/v1/balance/channels")
        return node_info(info, balance)

    async def pay(
        self,
        invoice: str,
        *,
        amount_msat: int | None = None,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay and wait for the final record."""
        check_limits(fee_limit_msat, cltv_limit, time_limit_s)
        decoded = decode_invoice(invoice)
        body = _limits(fee_limit_msat, cltv_limit, time_limit_s) | {"payment_request": invoice}
        try:
            amount = resolve_amount(decoded.amount_msat, amount_msat)
        except InvoiceError as refusal:
            return await self._outcome_after(decoded.payment_hash, refusal, registered=False)
        if not decoded.amount_msat:
            body["amt_msat"] = str(amount)
        return await self._send(decoded.payment_hash, body)

    async def keysend(
        self,
        node_id: bytes,
        amount_msat: int,
        *,
        preimage: bytes,
        fee_limit_msat: int,
        cltv_limit: int,
        time_limit_s: int,
    ) -> PaymentRecord:
        """Pay a node without an invoice; the preimage is the payer's."""
        check_limits(fee_limit_msat, cltv_limit, time_limit_s)
        payment_hash = hash_of(preimage)
        if amount_msat <= 0:
            raise AmountError("a keysend carries at least 1 msat", field="amount_msat")
        if len(node_id) != 33:
            raise ValidationError("a node id has 33 bytes", field="recipient")
        body = _limits(fee_limit_msat, cltv_limit, time_limit_s) | {
            "dest": _b64(node_id),
            "amt_msat": str(amount_msat),
            "payment_hash": _b64(payment_hash),
            "final_cltv_delta": KEYSEND_CLTV_DELTA,
            "dest_features": [TLV_ONION],
            "dest_custom_records": {KEYSEND_TYPE: _b64(preimage)},
        }
        return await self._send(payment_hash, body)

    async def _send(self, payment_hash: bytes, body: dict[str, Any]) -> PaymentRecord:
        registered = False
        try:
            async with (
                asyncio.timeout(None) as limit,
                aclosing(self._updates("POST", "/v2/router/send", payment_hash, body)) as updates,
            ):
                async for record in updates:
                    if record.state in (PaymentState.SUCCEEDED, PaymentState.FAILED):
                        return record
                    if not registered:
                        # lnd has begun: from here on the request can begin nothing more, and may be left.
                        registered = True
                        limit.reschedule(asyncio.get_running_loop().time() + self._hold_s)
            raise NodeConnectionError(
                "lnd ended the stream of a payment before its outcome", endpoint=self._rest.endpoint, request_sent=True
            )
        except TimeoutError:
            return await self._end_of_held(payment_hash)
        except Layer2Error as error:
            if was_turned_away(error) and not registered:
                raise
            return await self._outcome_after(payment_hash, error, registered=registered)

    async def _end_of_held(self, payment_hash: bytes) -> PaymentRecord:
        """The final record of a payment that lnd has begun, looked up until there is one."""
        try:
            record = await self._look_up_to_the_end(payment_hash)
        except Layer2Error as later:
            raise self._unknown(payment_hash) from later
        if record.state is PaymentState.NONE:
            raise self._unknown(payment_hash)
        return record

    async def _look_up_to_the_end(self, payment_hash: bytes) -> PaymentRecord:
        leave_slot()
        while True:
            await asyncio.sleep(self._look_up_s)
            async with slot_again():
                record = await self.lookup_payment(payment_hash)
            if record.state is not PaymentState.IN_FLIGHT:
                return record

    async def _outcome_after(self, payment_hash: bytes, error: Layer2Error, *, registered: bool) -> PaymentRecord:
        """What the node's record says after the request ended in an error.

        An outright refusal ends the request: the record as it stands is the truth, and without one nothing was begun. After a
        lost connection a request that lnd never confirmed may still arrive: then only success is certain.
        """
        ended = registered or is_outright_refusal(error)
        try:
            record = await self._follow(payment_hash)
        except Layer2Error as later:
            raise self._unknown(payment_hash) from later
        if record.state is PaymentState.SUCCEEDED or (record.state is PaymentState.FAILED and ended):
            return record
        if record.state is PaymentState.NONE and ended and not registered:
            raise error
        raise self._unknown(payment_hash) from error

    def _unknown(self, payment_hash: bytes) -> UnknownOutcome:
        return UnknownOutcome(
            "the connection to lnd was lost while a payment was under way",
            hint="ask for its status, or pay the same invoice again: it cannot be paid twice",
            tx_id=TxId(layer="lightning", hash=payment_hash),
            retry_safe=True,
        )

    async def _follow(self, payment_hash: bytes) -> PaymentRecord:
        """The final record of a payment that is there, waiting for it; state NONE if there is none."""
        last = PaymentRecord(payment_hash=payment_hash, state=PaymentState.NONE)
        try:
            async with asyncio.timeout(self._hold_s), aclosing(self._track(payment_hash)) as updates:
                async for record in updates:
                    last = record
                    if record.state in (PaymentState.SUCCEEDED, PaymentState.FAILED):
                        return record
        except NotFound:
            return last
        except TimeoutError:
            return await self._look_up_to_the_end(payment_hash)
        raise NodeConnectionError("lnd ended the stream of a payment before its outcome", endpoint=self._rest.endpoint)

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        """What the node knows now; state NONE if nothing."""
        try:
            async with aclosing(self._track(check_hash(payment_hash))) as updates:
                async for record in updates:
                    return record
        except NotFound:
            return PaymentRecord(payment_hash=payment_hash, state=PaymentState.NONE)
        raise UnexpectedReply("lnd says nothing about a payment", endpoint=self._rest.endpoint)

    def _track(self, payment_hash: bytes) -> AsyncGenerator[PaymentRecord, None]:
        return self._updates("GET", f"/v2/router/track/{_b64url(payment_hash)}", payment_hash, None)

    async def _updates(
        self, method: str, path: str, payment_hash: bytes, body: dict[str, Any] | None
    ) -> AsyncGenerator[PaymentRecord, None]:
        async with aclosing(self._rest.stream(method, path, body)) as messages:
            async for message in messages:
                record = payment_record(message)
                if record.payment_hash != payment_hash:
                    raise UnexpectedReply("lnd speaks of another payment than asked", endpoint=self._rest.endpoint)
                yield record

    async def create_invoice(
        self,
        *,
        amount_msat: int,
        memo: str = "",
        description_hash: bytes | None = None,
        expiry_s: int = 3600,
        preimage: bytes | None = None,
        cltv_delta: int | None = None,
    ) -> InvoiceRecord:
        """Make an invoice that settles by itself when paid. ``amount_msat`` 0: any amount.

        The preimage is chosen here where the caller gives none, so that a repeated request cannot make a second invoice.
        """
        cltv_delta = DEFAULT_CLTV_DELTA if cltv_delta is None else cltv_delta
        check_invoice_terms(amount_msat, memo, description_hash, expiry_s, cltv_delta)
        secret = secrets.token_bytes(32) if preimage is None else preimage
        body = self._terms_body(amount_msat, memo, expiry_s, cltv_delta) | {
            "r_preimage": _b64(secret),
            "description_hash": _b64(description_hash or b""),
        }
        terms = (amount_msat, memo, description_hash or b"", expiry_s, cltv_delta)
        return await self._issue("/v1/invoices", hash_of(secret), body, terms)

    async def create_hold_invoice(
        self, *, payment_hash: bytes, amount_msat: int, memo: str = "", expiry_s: int, cltv_delta: int
    ) -> InvoiceRecord:
        """Make an invoice whose payment is held until ``settle_invoice`` or ``cancel_invoice``."""
        check_hash(payment_hash)
        check_invoice_terms(amount_msat, memo, None, expiry_s, cltv_delta)
        body = self._terms_body(amount_msat, memo, expiry_s, cltv_delta) | {"hash": _b64(payment_hash)}
        terms = (amount_msat, memo, b"", expiry_s, cltv_delta)
        return await self._issue("/v2/invoices/hodl", payment_hash, body, terms)

    def _terms_body(self, amount_msat: int, memo: str, expiry_s: int, cltv_delta: int) -> dict[str, Any]:
        return {
            "value_msat": str(amount_msat),
            "memo": memo,
            "expiry": str(expiry_s),
            "cltv_expiry": str(cltv_delta),
            "private": self._private,
        }

    async def _issue(
        self, path: str, payment_hash: bytes, body: dict[str, Any], terms: tuple[object, ...]
    ) -> InvoiceRecord:
        try:
            await self._rest.call("POST", path, body)
        except IdempotencyConflict:
            reply = await self._lookup(payment_hash)
            if invoice_terms(reply) != terms:
                raise
            record = invoice_record(reply)
            if record.is_hold != ("hash" in body) and record.state is not InvoiceState.SETTLED:
                raise
            return record
        return await self.lookup_invoice(payment_hash)

    async def _lookup(self, payment_hash: bytes) -> dict[str, Any]:
        return await self._rest.call("GET", f"/v1/invoice/{check_hash(payment_hash).hex()}")

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        """The invoice as it stands. Raises ``NotFound``."""
        record = invoice_record(await self._lookup(payment_hash))
        if record.payment_hash != payment_hash:
            raise UnexpectedReply("lnd speaks of another invoice than asked", endpoint=self._rest.endpoint)
        return record

    async def settle_invoice(self, preimage: bytes) -> None:
        """Take a held payment. Raises ``NotFound``, and ``Expired`` if it was cancelled or nothing is held yet."""
        hash_of(preimage)
        await self._rest.call("POST", "/v2/invoices/settle", {"preimage": _b64(preimage)}, urgent=True)

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """Give a held payment back, or close an open invoice. Raises ``NotFound``, and ``Expired`` if it was settled."""
        body = {"payment_hash": _b64(check_hash(payment_hash))}
        await self._rest.call("POST", "/v2/invoices/cancel", body, urgent=True)

    async def watch_invoice(self, payment_hash: bytes) -> AsyncGenerator[InvoiceRecord, None]:
        """The record now and after each change. An invoice that does not exist yet is waited for.

        Raises ``NodeConnectionError`` when the stream breaks: look the invoice up and watch again.
        """
        path = f"/v2/invoices/subscribe/{_b64url(check_hash(payment_hash))}"
        async with aclosing(self._rest.stream("GET", path)) as messages:
            async for message in messages:
                record = invoice_record(message)
                yield record
                if record.state in (InvoiceState.SETTLED, InvoiceState.CANCELED):
                    return
        raise NodeConnectionError("lnd ended the stream of an open invoice", endpoint=self._rest.endpoint)

    async def htlc_resolutions(self, payment_hash: bytes) -> tuple[HtlcResolution, ...]:
        """How the HTLCs of a settled invoice ended, as far as the node knows: SETTLED alone means only that it was asked for."""
        invoice = await self._lookup(payment_hash)
        found = []
        for htlc in invoice.get("htlcs", []):
            channel_id, index = int(htlc["chan_id"]), int(htlc["htlc_index"])
            settled = offchain = None
            try:
                reply = await self._rest.call("GET", f"/v1/htlc-resolution/{channel_id}/{index}")
                settled, offchain = bool(reply["settled"]), bool(reply["offchain"])
            except (NotFound, NodeError):
                pass
            found.append(HtlcResolution(channel_id=channel_id, htlc_index=index, settled=settled, offchain=offchain))
        return tuple(found)

    async def close(self) -> None:
        """Close all connections. Payments go on at the node. Idempotent."""
        await self._rest.close()


def _limits(fee_limit_msat: int, cltv_limit: int, time_limit_s: int) -> dict[str, Any]:
    return {
        "fee_limit_msat": str(fee_limit_msat),
        "cltv_limit": cltv_limit,
        "timeout_seconds": time_limit_s,
        "max_parts": MAX_PARTS,
        "no_inflight_updates": False,
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _as_bytes(value: bytes | str | None, key: str) -> bytes | None:
    if not isinstance(value, str):
        return value
    try:
        return bytes.fromhex(value.strip().replace(":", ""))
    except ValueError:
        raise ConfigurationError(f"{key} is not hexadecimal", key=key) from None
