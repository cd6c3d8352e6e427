"""A layer that answers as it was told and remembers what it was asked."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from layer2._clock import Clock, SystemClock
from layer2._operations import Operations, check_timeout
from layer2.errors import AsyncTimeout
from layer2.protocol import DEFAULT, Capabilities, Layer2ProtocolAsync, Timeout
from layer2.transactions import Depth

if TYPE_CHECKING:
    from layer2.addresses import Address
    from layer2.assets import AssetId
    from layer2.proofs import Proof
    from layer2.transactions import Transaction, TxId, TxStatus

__all__ = ["Expectation", "MockCall", "MockFailure", "MockLayer2Protocol"]

_METHODS = {
    name: inspect.signature(getattr(Layer2ProtocolAsync, name))
    for name in sorted(Layer2ProtocolAsync.__abstractmethods__)
    if name.endswith("_async")
}
_LAYERS = {"bob": ("layer2.bob", "BobClient"), "lightning": ("layer2.lightning", "LightningNetwork")}
_MOVES_MONEY = (
    "submit_transaction_async",
    "transfer_asset_async",
    "settle_invoice_async",
    "cancel_invoice_async",
)
_WITHOUT_RESULT = ("close_async", "initialize_async")
_MISSING: Any = object()
_ALL_CAPABILITIES = Capabilities(hold_invoices=True, proofs=(), depths=tuple(Depth), smart_contracts=True)


@cache
def _methods_of(protocol_type: str) -> Mapping[str, inspect.Signature]:
    """What the layer of this name has, its own calls included; of an unknown one, what all have. Iterators are no calls."""
    if protocol_type not in _LAYERS:
        return _METHODS
    module, name = _LAYERS[protocol_type]
    members = inspect.getmembers(getattr(import_module(module), name), inspect.iscoroutinefunction)
    own = {name: inspect.signature(member) for name, member in members if not name.startswith("_")}
    return own | _METHODS


class MockFailure(AssertionError):
    """The calls were not those that were expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MockCall:
    """One call that the mock got. ``arguments`` are by parameter name, without keyword-only ones left at their default."""

    method: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Expectation:
    """What ``expect`` returns: say what the call gives, how often it comes and how long it takes."""

    def __init__(self, method: str, arguments: Mapping[str, Any]) -> None:
        self.method = method
        self.arguments = arguments
        self.met = 0
        self.wanted = 1
        self._delay_s = 0.0
        self._value: Any = None if method in _WITHOUT_RESULT else _MISSING
        self._error: BaseException | type[BaseException] | None = None
        self._function: Callable[..., Any] | None = None

    def returns(self, value: Any) -> Self:
        """The call returns ``value``."""
        self._value, self._error, self._function = value, None, None
        return self

    def raises(self, error: BaseException | type[BaseException]) -> Self:
        """The call raises ``error``."""
        self._value, self._error, self._function = _MISSING, error, None
        return self

    def calls(self, function: Callable[..., Any]) -> Self:
        """The call returns what ``function`` gives for the caller's arguments; it may be a coroutine function."""
        self._value, self._error, self._function = _MISSING, None, function
        return self

    def times(self, n: int) -> Self:
        """It comes exactly ``n`` times; 0: never."""
        if n < 0:
            raise ValueError("a call cannot come less than 0 times")
        self.wanted = n
        return self

    def after(self, seconds: float) -> Self:
        """The outcome comes after ``seconds`` of the mock's clock."""
        self._delay_s = seconds
        return self

    def _matches(self, method: str, arguments: Mapping[str, Any]) -> bool:
        return method == self.method and all(bool(arguments[name] == wanted) for name, wanted in self.arguments.items())

    async def _outcome(self, clock: Clock, limit_s: float | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if limit_s is not None and limit_s < self._delay_s:
            await clock.sleep(limit_s)
            moves_money = self.method in _MOVES_MONEY
            key = kwargs.get("idempotency_key") or getattr(args[0] if args else None, "idempotency_key", None)
            raise AsyncTimeout(
                f"{self.method} took longer than {limit_s:g} s",
                money_may_have_moved=moves_money,
                retry_safe=key is not None or not moves_money,
            )
        if self._delay_s > 0:
            await clock.sleep(self._delay_s)
        if self._error is not None:
            raise self._error
        if self._function is None:
            return self._value
        result = self._function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.method}({shown}) expected {self.wanted} time(s), came {self.met} time(s)"


class MockLayer2Protocol(Layer2ProtocolAsync):
    """Stands for any layer in tests of applications.

    Args:
        protocol_type: name of the layer that it plays; as ``bob`` or ``lightning`` it has the calls of ``BobClient`` or
            ``LightningNetwork`` too, but for iterators.
        capabilities: what it says it can do; None: everything.
        in_order: calls must come in the order of ``expect``.
        clock: on which ``after`` waits.
        strict_life: refuse use before ``initialize_async`` as real layers do.

    ``initialize_async`` and ``close_async`` need no expectation. An unexpected call raises ``MockFailure`` where it is made, and
    again at the end, because the application may have swallowed it.
    """

    def __init__(
        self,
        protocol_type: str = "mock",
        *,
        capabilities: Capabilities | None = None,
        in_order: bool = False,
        clock: Clock | None = None,
        default_timeout_ms: int = 30_000,
        strict_life: bool = False,
    ) -> None:
        self._protocol_type = str(protocol_type)
        self._capabilities = capabilities or _ALL_CAPABILITIES
        self._in_order = in_order
        self._clock = clock or SystemClock()
        self._operations = Operations(max_concurrency=100_000, default_timeout_ms=default_timeout_ms, owner="the mock")
        self._strict_life = strict_life
        self._expectations: list[Expectation] = []
        self._problems: list[str] = []
        self.calls: list[MockCall] = []
        """Every call, in order."""

    @property
    def protocol_type(self) -> str:
        """The name that it was given."""
        return self._protocol_type

    @property
    def capabilities(self) -> Capabilities:
        """What it was told to declare."""
        return self._capabilities

    if not TYPE_CHECKING:  # a type checker would take it for any attribute at all

        def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
            """The calls that only the layer of this name has."""
            if name.startswith("_") or name not in _methods_of(self._protocol_type):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            parameters = _methods_of(self._protocol_type)[name].parameters

            async def call(*args: Any, cancel: asyncio.Event | None = None, **kwargs: Any) -> Any:
                kwargs.setdefault("timeout", parameters["timeout"].default)
                return await self._call(name, args, cancel=cancel, **kwargs)

            return call

    def expect(self, method: str, *args: Any, **kwargs: Any) -> Expectation:
        """Expect a call of ``method`` with these arguments; ``ANY`` matches everything.

        Keyword-only parameters that are not named (``timeout``, ``cancel``, ``idempotency_key``) match everything too.

        Raises:
            AttributeError: no such method.
            TypeError: arguments that the method does not take, or too few.
        """
        methods = _methods_of(self._protocol_type)
        signature = methods.get(method)
        if signature is None:
            raise AttributeError(f"{self._protocol_type} has no call {method!r}{_instead_of(method, methods)}")
        bound = signature.bind(self, *args, **kwargs)
        named = set(bound.arguments)
        bound.apply_defaults()
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        arguments = {
            name: value
            for name, value in bound.arguments.items()
            if name != "self" and (name in named or signature.parameters[name].kind is not keyword_only)
        }
        expectation = Expectation(method, arguments)
        self._expectations.append(expectation)
        return expectation

    def verify(self) -> None:
        """Raise ``MockFailure`` if an expected call is missing or an unexpected one came."""
        unmet = [f"missing: {item}" for item in self._expectations if item.met != item.wanted]
        if unmet or self._problems:
            raise MockFailure("\n".join([f"the calls of {self._protocol_type} are wrong:", *self._problems, *unmet]))

    async def __aenter__(self) -> Self:
        self._operations.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._operations.close_async(grace_s=0)
        if kind is None:
            self.verify()

    def _find(self, method: str, arguments: Mapping[str, Any]) -> Expectation | None:
        open_ones = [item for item in self._expectations if item.met < item.wanted]
        if self._in_order:
            open_ones = open_ones[:1]
        return next((item for item in open_ones if item._matches(method, arguments)), None)  # noqa: SLF001 - one unit with its class

    async def _call(self, method: str, args: tuple[Any, ...], *, cancel: asyncio.Event | None, **kwargs: Any) -> Any:
        if not self._strict_life:
            self._operations.open()
        self._operations.check(method)
        limit = check_timeout(kwargs["timeout"])
        kwargs["cancel"] = cancel
        return await self._operations.run(
            lambda: self._answer(method, limit, args, kwargs),
            what=method,
            timeout=None,
            cancel=cancel,
            slot=False,
            awaits=method == "wait_for_transaction_async",
            moves_money=method in _MOVES_MONEY,
        )

    def _answer(self, method: str, limit: Timeout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        signature = _methods_of(self._protocol_type)[method]
        binding = signature.bind(self, *args, **kwargs)
        binding.apply_defaults()
        bound = binding.arguments
        del bound["self"]
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        call = MockCall(
            method=method,
            arguments={
                name: value
                for name, value in bound.items()
                if (parameter := signature.parameters[name]).kind is not keyword_only or value is not parameter.default
            },
        )
        self.calls.append(call)
        expectation = self._find(method, bound)
        if expectation is None:
            if call.method in _WITHOUT_RESULT:
                return _nothing()
            raise self._problem(f"unexpected: {call}")
        expectation.met += 1
        if expectation._value is _MISSING and expectation._error is None and expectation._function is None:  # noqa: SLF001 - same file
            raise self._problem(f"without a result (say returns, raises or calls): {call}")
        limit_s = self._operations.default_timeout_s if limit is DEFAULT else limit
        return expectation._outcome(self._clock, limit_s, args, kwargs)  # noqa: SLF001 - same file

    def _problem(self, text: str) -> MockFailure:
        self._problems.append(text)
        open_ones = [f"  open: {item}" for item in self._expectations if item.met < item.wanted]
        return MockFailure("\n".join([f"{self._protocol_type}: {text}", *open_ones]))

    async def initialize_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """As expected; without an expectation it succeeds."""
        self._operations.open()
        await self._call("initialize_async", (), timeout=timeout, cancel=cancel)

    async def submit_transaction_async(
        self, transaction: Transaction, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """As expected."""
        status: TxStatus = await self._call("submit_transaction_async", (transaction,), timeout=timeout, cancel=cancel)
        return status

    async def get_transaction_status_async(
        self, tx_id: TxId | str, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """As expected."""
        status: TxStatus = await self._call("get_transaction_status_async", (tx_id,), timeout=timeout, cancel=cancel)
        return status

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
        """As expected."""
        tx_id: TxId = await self._call(
            "transfer_asset_async",
            (asset_id, amount, recipient),
            idempotency_key=idempotency_key,
            timeout=timeout,
            cancel=cancel,
        )
        return tx_id

    async def verify_proof_async(
        self, proof: Proof, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> bool:
        """As expected."""
        holds: bool = await self._call("verify_proof_async", (proof,), timeout=timeout, cancel=cancel)
        return holds

    async def wait_for_transaction_async(
        self,
        tx_id: TxId | str,
        depth: Depth = Depth.INCLUDED,
        *,
        timeout: Timeout = None,
        cancel: asyncio.Event | None = None,
    ) -> TxStatus:
        """As expected."""
        status: TxStatus = await self._call(
            "wait_for_transaction_async", (tx_id, depth), timeout=timeout, cancel=cancel
        )
        return status

    async def close_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """As expected; without an expectation it succeeds. Idempotent."""
        if self._operations.is_open:
            await self._call("close_async", (), timeout=timeout, cancel=cancel)
        await self._operations.close_async(grace_s=0)


def _instead_of(method: str, methods: Mapping[str, inspect.Signature]) -> str:
    owners = [layer for layer in _LAYERS if method in _methods_of(layer)]
    if owners:
        return f": only {owners[0]} has it, which MockLayer2Protocol({owners[0]!r}) plays"
    close = difflib.get_close_matches(method, methods, n=1)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(sorted(methods))}"


async def _nothing() -> None:
    return None
