"""What can be seen from outside: log records with stable codes, events, spans, metrics. Secrets never pass through here.

Every record of a ``layer2.*`` logger that is written with ``log_event`` carries ``event_code``, ``transfer_id``, ``tx_id`` and
``event_data``. Names that stand for secrets are hidden whatever their value, bytes are shown only under names that stand for
something public, and invoices are cut wherever they stand.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from layer2._clock import Clock, SystemClock
from layer2._config_secret import Secret
from layer2._values import Value
from layer2.errors import ValidationError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = [
    "TRANSFER_ID",
    "TX_ID",
    "Event",
    "EventDispatcher",
    "get_logger",
    "log_event",
    "operation_context",
    "redact",
    "span",
]

TRANSFER_ID: Final[ContextVar[str | None]] = ContextVar("layer2_transfer_id", default=None)
"""The id of the transfer for which the running code works: also that of callbacks, and of a signer or node of your own."""
TX_ID: Final[ContextVar[str | None]] = ContextVar("layer2_tx_id", default=None)
"""The id of the transaction for which the running code works, as text: ``bob:...`` or ``lightning:...``."""

_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", re.ASCII)
_SECRET_NAME = re.compile(
    r"preimage(?!_hash)|macaroon|private_?key|passw|secret|seed|mnemonic|(^|_)pins?($|_)|credential|authorization",
    re.IGNORECASE,
)
_PUBLIC_BYTES_NAME = re.compile(r"hash|(^|_)id$|address|contract|node_id|block|root|lock_id", re.IGNORECASE)
_INVOICE = re.compile(r"\b(ln(?:bcrt|bc|tbs|tb|sb)[0-9]*[munp]?1)[02-9ac-hj-np-z]{20,}", re.IGNORECASE | re.ASCII)
_URL_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)

logging.getLogger("layer2").addHandler(logging.NullHandler())


def get_logger(package: str) -> logging.Logger:
    """The logger ``layer2.<package>``."""
    return logging.getLogger(f"layer2.{package}")


@contextmanager
def operation_context(*, transfer_id: str | None = None, tx_id: object = None) -> Iterator[None]:
    """Inside, every record and event carries these ids unless it names its own."""
    tokens = []
    if transfer_id is not None:
        tokens.append((TRANSFER_ID, TRANSFER_ID.set(transfer_id)))
    if tx_id is not None:
        tokens.append((TX_ID, TX_ID.set(str(tx_id))))
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def redact(name: str, value: Any) -> Any:
    """``value`` as it may be shown under ``name``: hidden, cut, or itself."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Secret) or _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex() if _PUBLIC_BYTES_NAME.search(name) else f"<{len(value)} bytes>"
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {str(key): redact(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(name, item) for item in value]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """``text`` with invoices cut to their first characters and without the users of URLs."""
    return _URL_USER.sub(r"\1***@", _INVOICE.sub(r"\1...", text))


def log_event(logger: logging.Logger, level: int, code: str, message: str, **extra: Any) -> None:
    """Write one record.

    Args:
        logger: of ``get_logger``.
        level: of ``logging``. ERROR: money could be lost if nobody looks.
        code: stable and documented, ``package.what_happened``; programs match on it, never on the message.
        message: for people; no ``%`` formatting is applied to it.
        extra: facts; ``transfer_id`` and ``tx_id`` override those of the context. ``exc_info`` goes to the logger.
    """
    if not logger.isEnabledFor(level):
        return
    if not _CODE.fullmatch(code):
        raise ValidationError(f"{code!r} is not an event code such as swaps.lock_seen", field="code")
    exc_info = extra.pop("exc_info", None)
    transfer_id = extra.pop("transfer_id", None) or TRANSFER_ID.get()
    tx_id = extra.pop("tx_id", None) or TX_ID.get()
    fields = {
        "event_code": code,
        "transfer_id": None if transfer_id is None else str(transfer_id),
        "tx_id": None if tx_id is None else str(tx_id),
        "event_data": {name: redact(name, value) for name, value in extra.items()},
    }
    logger.log(level, "%s", redact_text(message), extra=fields, exc_info=exc_info, stacklevel=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Value):
    """Something that happened, as ``on_event`` callbacks get it. ``code`` is stable; new codes may come in a minor release."""

    code: str
    at_ms: int
    """Unix time in milliseconds."""
    message: str = ""
    transfer_id: str | None = None
    tx_id: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """Facts, as text; never a secret."""


class EventDispatcher:
    """Hands events to callbacks, one after the other, in the order of subscription. A failing callback never hurts."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._callbacks: list[Callable[[Event], object]] = []
        self._logger = get_logger("events")

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with each event from now on, on the event loop; it must return at once. Gives what ends it.

        Raises:
            ValidationError: it cannot be called, or is a coroutine function.
        """
        if not callable(callback):
            raise ValidationError(f"an event callback is a function, not {type(callback).__name__}", field="callback")
        if inspect.iscoroutinefunction(callback):
            raise ValidationError(
                "an event callback is a plain function",
                field="callback",
                hint="from async code, pass queue.put_nowait of an asyncio.Queue",
            )
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def emit(self, logger: logging.Logger, level: int, code: str, message: str, **extra: Any) -> Event:
        """Log with ``log_event`` and tell the callbacks."""
        log_event(logger, level, code, message, **extra)
        transfer_id = extra.pop("transfer_id", None) or TRANSFER_ID.get()
        tx_id = extra.pop("tx_id", None) or TX_ID.get()
        extra.pop("exc_info", None)
        event = Event(
            code=code,
            at_ms=self._clock.now_ms(),
            message=redact_text(message),
            transfer_id=None if transfer_id is None else str(transfer_id),
            tx_id=None if tx_id is None else str(tx_id),
            data={name: str(redact(name, value)) for name, value in extra.items()},
        )
        self.dispatch(event)
        return event

    def dispatch(self, event: Event) -> None:
        """Tell the callbacks."""
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - whatever an application's callback raises must not stop a transfer
                log_event(
                    self._logger,
                    logging.WARNING,
                    "events.callback_failed",
                    f"an on_event callback failed on {event.code}",
                    callback=getattr(callback, "__qualname__", type(callback).__name__),
                    exc_info=True,
                )


@cache
def _tracer() -> Tracer | None:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("layer2")


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """An OpenTelemetry span around the block, if the API is installed; an exception marks it and goes on."""
    tracer = _tracer()
    if tracer is None:
        yield
        return
    ids = {"transfer_id": TRANSFER_ID.get(), "tx_id": TX_ID.get()}
    shown = {key: redact(key, value) for key, value in {**ids, **attributes}.items() if value is not None}
    # The exception itself is not recorded: its text and trace are the application's, and may quote what it was given.
    with tracer.start_as_current_span(
        f"layer2.{name}",
        attributes={
            f"layer2.{key}": value if isinstance(value, bool | int) else str(value) for key, value in shown.items()
        },
        record_exception=False,
        set_status_on_exception=True,
    ):
        yield
