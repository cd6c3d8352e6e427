"""Every error that layer2 raises.

Layer2Error
├── ConfigurationError             a setting is missing, unknown, of the wrong type or unsafe
├── InitializationError            some protocols did not start (``failures``)
├── ValidationError                (ValueError) an argument cannot be right
│   ├── AddressError
│   ├── AmountError
│   ├── AssetError
│   ├── InvoiceError
│   └── ProofError
├── AsyncRuntimeError              (RuntimeError) used before start, after close, from another loop or after fork
├── AsyncTimeout                   (TimeoutError) a time limit passed; the outcome may be unknown
├── TaskCancelled                  the caller's ``cancel`` event fired
├── NodeError                      a node, endpoint or provider failed us
│   ├── NodeConnectionError        (ConnectionError) no connection, or it broke before the answer was whole
│   ├── AuthenticationError        the credentials or the certificate were refused
│   ├── RateLimited                asked too often
│   ├── NodeNotReady               locked, starting or not synchronised
│   └── UnexpectedReply            an answer that breaks the interface's rules
├── InsufficientFunds
├── NoRoute
├── FeeLimitExceeded
├── Expired                        an invoice, quote or lock time has passed
├── Reverted                       the EVM refused the call
├── PaymentFailed                  a Lightning payment failed for certain
├── UnknownOutcome                 it may or may not have happened; ask again with the id
├── NotFound                       no such transfer, transaction, invoice or swap
├── IdempotencyConflict            the key was used with other arguments
├── SwapError
│   ├── SwapRefused                a check before any money moved said no
│   ├── SwapExpired                it ended before any of the user's money was bound
│   └── SwapRefunded               it failed and the user's money is back
├── SignerError
└── StorageError
    ├── StoreInUse                 another process has the store
    └── UntrustedCopy              others may have written the copy

Two questions every error answers, for the code that has to decide what to do next:

``money_may_have_moved``
    False only if it is certain that nothing was sent, locked or revealed by the call.
``retry_safe``
    True if making the same call again (with the same ``idempotency_key``, if it takes one) cannot spend twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Self

__all__ = [
    "AddressError",
    "AmountError",
    "AssetError",
    "AsyncRuntimeError",
    "AsyncTimeout",
    "AuthenticationError",
    "ConfigurationError",
    "Expired",
    "FeeLimitExceeded",
    "IdempotencyConflict",
    "InitializationError",
    "InsufficientFunds",
    "InvoiceError",
    "Layer2Error",
    "NoRoute",
    "NodeConnectionError",
    "NodeError",
    "NodeNotReady",
    "NotFound",
    "PaymentFailed",
    "ProofError",
    "RateLimited",
    "Reverted",
    "SignerError",
    "StorageError",
    "StoreInUse",
    "SwapError",
    "SwapExpired",
    "SwapRefunded",
    "SwapRefused",
    "TaskCancelled",
    "UnexpectedReply",
    "UnknownOutcome",
    "UntrustedCopy",
    "ValidationError",
]


class Layer2Error(Exception):
    """Base of every error of this package.

    ``message`` says what is wrong; ``hint`` what to do about it. ``money_may_have_moved`` and ``retry_safe`` default to what is
    true of the class and can be set for one instance where more (or less) is known.
    """

    default_money_may_have_moved: ClassVar[bool] = False
    default_retry_safe: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        money_may_have_moved: bool | None = None,
        retry_safe: bool | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.money_may_have_moved = (
            self.default_money_may_have_moved if money_may_have_moved is None else money_may_have_moved
        )
        self.retry_safe = self.default_retry_safe if retry_safe is None else retry_safe
        for name, value in fields.items():
            if name not in self._field_names():
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)

    @classmethod
    def _field_names(cls) -> frozenset[str]:
        names: set[str] = set()
        for base in cls.__mro__:
            names.update(name for name in vars(base).get("__annotations__", {}) if not name.startswith("default_"))
        return frozenset(names)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)

    def fields(self) -> dict[str, Any]:
        """What is known besides the message: field name -> value, without those that are None."""
        return {name: value for name in sorted(self._field_names()) if (value := getattr(self, name, None)) is not None}


def another(error: Layer2Error) -> Layer2Error:
    """The same error to raise once more: raising one object again and again would add to its traceback each time."""
    made = copy(error)
    made.__cause__ = error.__cause__
    return made


def _rebuild(cls: type[Layer2Error], message: str, state: Mapping[str, Any]) -> Layer2Error:
    error = cls(message)
    error.__dict__.update(state)
    return error


class ConfigurationError(Layer2Error):
    """A setting is missing, unknown, of the wrong type, contradicts the network or is unsafe."""

    key: str | None = None
    """Dotted name of the setting, for example ``bob.rpc_url``."""
    path: str | None = None
    """The file it was read from."""
    variable: str | None = None
    """The environment variable it was read from."""
    default_retry_safe = True


class InitializationError(Layer2Error):
    """Some protocols did not start. Those that did are usable; calling again tries only the failed."""

    failures: Mapping[str, Layer2Error] = {}
    """Protocol name -> its error."""
    default_retry_safe = True


class ValidationError(Layer2Error, ValueError):
    """An argument cannot be right. Nothing was sent."""

    field: str | None = None
    """Which argument or which part of it."""
    position: int | None = None
    """Where in the text, counted from 0."""


class AddressError(ValidationError):
    """Not an address of the kind that is needed here."""


class AmountError(ValidationError):
    """Not an amount, out of range, or not representable without loss."""


class AssetError(ValidationError):
    """An unknown asset, or one without a form on that layer."""


class InvoiceError(ValidationError):
    """Not a valid BOLT11 invoice, or not one that can be used here."""


class ProofError(ValidationError):
    """A proof that is malformed, or that does not show what it claims."""

    check: str | None = None
    """Name of the check that failed."""


class AsyncRuntimeError(Layer2Error, RuntimeError):
    """The machinery was misused or broke: not initialised, closed, another event loop, after fork."""


class AsyncTimeout(Layer2Error, TimeoutError):
    """A time limit passed. What was begun may still happen: follow it up with the id, or ask again with the same key.

    An instance is ``retry_safe`` if the call had an idempotency key, only waited, or had sent nothing yet.
    """

    tx_id: Any = None
    transfer_id: str | None = None
    run_again_by: int | None = None
    """Unix seconds by which this store must be driven again, if a transfer goes on and something of ours is bound."""
    default_money_may_have_moved = True
    default_retry_safe = False


class TaskCancelled(Layer2Error):
    """The caller's ``cancel`` event fired."""

    goes_on: bool | None = None
    """True if it goes on without the caller, False if it was abandoned, None if that is not known."""
    tx_id: Any = None
    transfer_id: str | None = None
    run_again_by: int | None = None
    """Unix seconds by which this store must be driven again, if ``goes_on``."""
    default_money_may_have_moved = True


class NodeError(Layer2Error):
    """A node, endpoint or provider failed us."""

    endpoint: str | None = None
    """Which one, without credentials."""
    code: int | str | None = None
    """Its own error code."""
    default_retry_safe = True


class NodeConnectionError(NodeError, ConnectionError):
    """No connection, or it broke before the answer was whole."""

    request_sent: bool | None = None
    """False if it is certain that the request never reached the other side."""


class AuthenticationError(NodeError):
    """Credentials, macaroon or certificate were refused."""


class RateLimited(NodeError):
    """Asked too often."""

    retry_after_s: int | None = None


class NodeNotReady(NodeError):
    """The node is there but locked, starting, or not synchronised."""


class UnexpectedReply(NodeError):
    """An answer that breaks the rules of the interface: not JSON, cut short, of the wrong shape, or contradicting itself."""


class InsufficientFunds(Layer2Error):
    """An account or channel does not hold what the operation needs, gas included."""

    coin: str | None = None
    needed: int | None = None
    """In the coin's base unit."""
    available: int | None = None
    account: str | None = None
    default_retry_safe = True


class NoRoute(Layer2Error):
    """No Lightning route within the limits; nothing is in flight."""

    default_retry_safe = True


class FeeLimitExceeded(Layer2Error):
    """The price is above the caller's bound. Nothing was sent."""

    limit: int | None = None
    needed: int | None = None
    quote: Any = None
    default_retry_safe = True


class Expired(Layer2Error):
    """An invoice, quote or lock time has passed."""

    expired_at: int | None = None
    """Unix seconds."""


class Reverted(Layer2Error):
    """The EVM refused the call."""

    reason: str | None = None
    data: bytes | None = None
    tx_id: Any = None


class PaymentFailed(Layer2Error):
    """A Lightning payment failed for certain: no part of it is in flight or can be."""

    reason: str | None = None
    tx_id: Any = None


class UnknownOutcome(Layer2Error):
    """It may or may not have happened. Ask for the status of ``tx_id`` or ``transfer_id`` before anything else."""

    tx_id: Any = None
    transfer_id: str | None = None
    reason: str | None = None
    """Why a person must look at the transfer, if that is so."""
    default_money_may_have_moved = True


class NotFound(Layer2Error):
    """No such transfer, transaction, invoice or swap is known here."""

    default_retry_safe = True


class IdempotencyConflict(Layer2Error):
    """The idempotency key was used before with other arguments."""

    key: str | None = None

    @classmethod
    def of(cls, key: str) -> Self:
        """The error for a call whose arguments are not those of the key's first call."""
        return cls(
            "the idempotency key was used with other arguments",
            key=key,
            hint="the same arguments go on with what was begun; another key begins anew, and pays a second time",
        )


class SwapError(Layer2Error):
    """A swap did not settle."""

    transfer_id: str | None = None
    swap_id: str | None = None


class SwapRefused(SwapError):
    """A check said no before any of the user's money was bound."""

    rule: str | None = None
    """Name of the rule that refused."""
    default_retry_safe = True


class SwapExpired(SwapError):
    """It ended before any of the user's money was bound."""

    default_retry_safe = True


class SwapRefunded(SwapError):
    """It failed and the user's money came back, less gas."""

    default_money_may_have_moved = True
    default_retry_safe = True


class SignerError(Layer2Error):
    """The signer refused, is locked, failed, did not answer in time, or gave a signature that does not verify.

    Nothing was sent: there is nothing to send without a signature.
    """

    default_retry_safe = True


class StorageError(Layer2Error):
    """The store could not be read or written. Nothing that depends on the failed write was done."""

    url: str | None = None


class StoreInUse(StorageError):
    """Another process has the store open for writing."""

    holder: str | None = None
    """Process id and host of who has it."""

    @classmethod
    def by(cls, holder: str, url: str) -> Self:
        """The error for a store at ``url`` that ``holder`` has open."""
        return cls(
            f"the store {url} is in use by {holder}",
            hint="stop that process, use a read-only command, or give this one a store and an account of its own; "
            "idempotency keys hold within one store only",
            holder=holder,
            url=url,
        )


class UntrustedCopy(StorageError):
    """A copy of a store is not known to be what ``layer2 backup`` wrote for this account: others may have written it."""

    @classmethod
    def because(cls, message: str, url: str) -> Self:
        """The error for a copy that was to replace the store at ``url``."""
        return cls(
            message,
            hint="take another copy; or, if you are certain that nobody else could write this one, add --unauthenticated",
            url=url,
        )
