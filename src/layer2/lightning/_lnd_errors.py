"""What lnd's refusals mean: one table from its words to the errors of this package.

Almost every refusal of lnd comes as gRPC code 2 (unknown) with a sentence, so the sentences are matched. The words are those of lnd
0.19 to 0.21.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from layer2.errors import (
    AuthenticationError,
    Expired,
    IdempotencyConflict,
    InvoiceError,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    NodeNotReady,
    NotFound,
    RateLimited,
    UnexpectedReply,
    ValidationError,
)

__all__ = ["GrpcCode", "is_outright_refusal", "translate", "was_turned_away"]


class GrpcCode(IntEnum):
    """The gRPC status codes that decide something here."""

    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class _Rule:
    words: str
    error: type[Layer2Error]
    hint: str | None = None
    half_done: bool | None = None
    """True if the request may have taken effect all the same."""


_WALLET_HINT: Final = "unlock the node's wallet (lncli unlock), then try again"
_RULES: Final = (
    _Rule("wallet locked", NodeNotReady, _WALLET_HINT),
    _Rule("wallet not created", NodeNotReady, "create the node's wallet (lncli create), then try again"),
    _Rule("waiting to start", NodeNotReady, "the node is starting; try again in a moment"),
    _Rule("not yet ready to accept calls", NodeNotReady, "the node is starting; try again in a moment"),
    _Rule("server is still in the process of starting", NodeNotReady, "the node is starting; try again in a moment"),
    _Rule("unable to determine macaroon permissions", NodeNotReady, "the node is starting; try again in a moment"),
    _Rule("shutting down", NodeNotReady, "the node is stopping", half_done=True),
    _Rule("shutdown", NodeNotReady, "the node is stopping", half_done=True),
    _Rule("expected 1 macaroon", AuthenticationError, "configure the node's macaroon"),
    _Rule("cannot get macaroon", AuthenticationError, "the macaroon belongs to another node or was revoked"),
    _Rule("verification failed", AuthenticationError, "the macaroon belongs to another node or was revoked"),
    _Rule("cannot determine data format of binary-encoded macaroon", AuthenticationError, "it is no macaroon at all"),
    _Rule("unmarshal v", AuthenticationError, "it is no macaroon at all, or cut short"),
    _Rule("macaroon", AuthenticationError, "check which macaroon is configured, and its permissions"),
    _Rule("permission denied", AuthenticationError, "bake a macaroon with the permissions that the docs list"),
    _Rule("payment isn't initiated", NotFound),
    _Rule("unable to locate invoice", NotFound),
    _Rule("there are no existing invoices", NotFound),
    _Rule("invoice with payment hash already exists", IdempotencyConflict),
    _Rule("invoice still open", Expired, "nothing is held yet"),
    _Rule("invoice already settled", Expired),
    _Rule("invoice already canceled", Expired),
    _Rule("invoice expired", Expired, "ask for a new invoice"),
    _Rule("amount must be specified", InvoiceError, "the invoice names no amount: say how much to pay"),
    _Rule("amount must not be specified", InvoiceError, "the invoice names the amount"),
    _Rule("self-payments not allowed", InvoiceError, "the invoice is the node's own"),
    _Rule("payment request must contain either", InvoiceError),
    _Rule("invalid bech32", InvoiceError),
    _Rule("checksum failed", InvoiceError),
    _Rule("invoice not for current active network", InvoiceError),
    _Rule("cltv limit", InvoiceError, "the payee alone asks for a longer time lock than the limit allows"),
    _Rule("cltv delta", ValidationError),
    _Rule("greater than max expiry", ValidationError),
    _Rule("memo too large", ValidationError),
    _Rule("is too large", ValidationError),
)

_INVOICE_LIKE = re.compile(r"\bln[a-z]{2,4}[0-9]*[munp]?1[a-z0-9]{40,}", re.IGNORECASE)
_UNSETTLED_CODES = frozenset(
    {
        GrpcCode.CANCELED,
        GrpcCode.DEADLINE_EXCEEDED,
        GrpcCode.ABORTED,
        GrpcCode.INTERNAL,
        GrpcCode.UNAVAILABLE,
    }
)


def translate(message: str, code: int | None, *, endpoint: str, status: int | None = None) -> Layer2Error:
    """The error for a refusal: ``message`` and gRPC ``code`` as lnd gave them, ``status`` as HTTP did."""
    said = _INVOICE_LIKE.sub("<invoice>", message)[:300]
    lower = said.lower()
    text = f"lnd refused: {said}"
    if status == 429 or code == GrpcCode.RESOURCE_EXHAUSTED:
        return RateLimited(text, endpoint=endpoint, code=code)
    for rule in _RULES:
        if rule.words in lower:
            if issubclass(rule.error, NodeError):
                return rule.error(
                    text, hint=rule.hint, endpoint=endpoint, code=code, money_may_have_moved=rule.half_done
                )
            return rule.error(text, hint=rule.hint)
    if code in (GrpcCode.PERMISSION_DENIED, GrpcCode.UNAUTHENTICATED) or status in (401, 403):
        return AuthenticationError(text, endpoint=endpoint, code=code)
    if code == GrpcCode.UNAVAILABLE:
        return NodeNotReady(text, endpoint=endpoint, code=code, money_may_have_moved=True)
    if code == GrpcCode.INVALID_ARGUMENT:
        return ValidationError(text)
    if code == GrpcCode.UNIMPLEMENTED or (code == GrpcCode.NOT_FOUND and lower == "not found"):
        return UnexpectedReply(
            text,
            hint="this lnd lacks the call: it needs version 0.19 or newer, built with the tag invoicesrpc",
            endpoint=endpoint,
            code=code,
        )
    return NodeError(text, endpoint=endpoint, code=code)


def was_turned_away(error: Layer2Error) -> bool:
    """Whether the request was stopped before the service that it was for: no connection, no permission, too often, not started."""
    if isinstance(error, NodeConnectionError):
        return error.request_sent is False
    return isinstance(error, AuthenticationError | RateLimited | NodeNotReady) and not error.money_may_have_moved


def is_outright_refusal(error: Layer2Error) -> bool:
    """Whether lnd itself said no and was done with the request, so that nothing of it can still take effect."""
    if isinstance(error, NodeConnectionError | NodeNotReady | UnexpectedReply):
        return False
    return not (isinstance(error, NodeError) and error.code in _UNSETTLED_CODES)
