"""The manager: brings the layers up, moves value between them, owns connections, tasks and the store."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Literal, Self, overload

from layer2._clock import Clock, SystemClock
from layer2._health import Health, HealthState, TaskHealth, worst
from layer2._layer_watch import LayerWatch, tasks_of
from layer2._metrics import Levels, Metrics
from layer2._observe import Event, EventDispatcher
from layer2._operations import Operations
from layer2.errors import (
    AsyncRuntimeError,
    AsyncTimeout,
    ConfigurationError,
    InitializationError,
    Layer2Error,
    TaskCancelled,
    ValidationError,
)
from layer2.protocol import DEFAULT, Layer2ProtocolAsync, Layer2ProtocolType, Signer, Timeout
from layer2.transfers import Payer, Transfer, TransferQuote, TransferState

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from layer2._layers import LayerFactory
    from layer2._proving import Prover
    from layer2._stored_transfers import UndrivenTransfers
    from layer2._transfer_news import TransferNews
    from layer2._transfers import TransferService
    from layer2.addresses import Address
    from layer2.assets import AssetId
    from layer2.bob import BobClient
    from layer2.config import Layer2Config
    from layer2.devnet import EmbeddedNetwork
    from layer2.lightning import LightningNetwork
    from layer2.proofs import Report, TransferProof
    from layer2.storage import Store
    from layer2.swaps import ProviderApi, SwapEngine

__all__ = ["Layer2Manager"]

logger: Final = logging.getLogger("layer2.manager")


class Layer2Manager:
    """All configured layers, and transfers between them.

    Use it as an async context manager, or call ``close_async`` yourself. It belongs to one event loop and one process.

    Args:
        config: the settings; None: read from the usual places (see ``Layer2Config.load``).
        signer: signs for the account on BOB, instead of the configured one.
        protocols: layers by name that replace or add to the configured ones; the caller closes them.
        clock: the time.
        metrics_registry: a ``prometheus_client`` registry to count in, never the global one; None: nothing is counted.
    """

    def __init__(
        self,
        config: Layer2Config | None = None,
        *,
        signer: Signer | None = None,
        protocols: Mapping[Layer2ProtocolType | str, Layer2ProtocolAsync] | None = None,
        clock: Clock | None = None,
        metrics_registry: CollectorRegistry | None = None,
    ) -> None:
        from layer2._config_load import given_settings

        self._config = config = given_settings(config, needed=protocols is None)
        self._signer = signer
        self._clock: Clock = clock or SystemClock()
        self._given = {str(name): protocol for name, protocol in (protocols or {}).items()}
        self._protocols: dict[str, Layer2ProtocolAsync] = {}
        self._failures: dict[str, Layer2Error] = {}
        self._metrics = Metrics(metrics_registry, clock=self._clock)
        self._operations = Operations(
            max_concurrency=64 if config is None else config.max_concurrency,
            default_timeout_ms=30_000 if config is None else config.default_timeout_ms,
            metrics=self._metrics,
            owner="the manager",
        )
        self._events = EventDispatcher(self._clock)
        self._stack = AsyncExitStack()
        self._store: Store | None = None
        self._factory: LayerFactory | None = None
        self._provider: ProviderApi | None = None
        self._engine: SwapEngine | None = None
        self._prover: Prover | None = None
        self._transfers: TransferService | None = None
        self._news: TransferNews | None = None
        self._undriven: UndrivenTransfers | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._watch = LayerWatch(self._clock)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close_async()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not getattr(self, "_closed", True) and self._store is not None:
            _warn(
                f"{self!r} was never closed; its unfinished transfers stay in the store", ResourceWarning, source=self
            )

    @property
    def operations(self) -> Operations:
        """Slots and limits that all layers share."""
        return self._operations

    @property
    def embedded_network(self) -> EmbeddedNetwork | None:
        """The network in this process, if that is the configuration and it is started."""
        return None if self._factory is None else self._factory.embedded

    async def _open(self) -> None:
        if self._closed:
            raise AsyncRuntimeError("the manager is closed", hint="make a new one")
        self._operations.open()
        self._metrics.watch(self._levels)
        if self._store is not None or self._config is None:
            return
        from layer2._preload import preload_async

        await preload_async(embedded=self._config.is_embedded)
        from layer2.storage import Store

        self._store = await Store.open(self._config.store_url, clock=self._clock)
        self._stack.push_async_callback(self._store.close)

    async def initialize_all_async(self, *, timeout: Timeout = None, cancel: asyncio.Event | None = None) -> None:
        """Bring all configured layers up at once, and take up every unfinished transfer. Idempotent.

        Raises:
            InitializationError: some did not start; ``failures`` says which and why. The others are usable, and calling again
                tries only the failed.
            StoreInUse, StorageError: the store cannot be opened.
        """
        await self._open()
        await self._operations.run(
            self._initialize, timeout=timeout, cancel=cancel, what="initialising", slot=False, moves_money=False
        )

    async def _initialize(self) -> None:
        async with self._starting:
            await self._prepare()
            names = [name for name in self._names() if name not in self._protocols or name in self._failures]
            results = await asyncio.gather(*(self._start(name) for name in names), return_exceptions=True)
            for name, result in zip(names, results, strict=True):
                if isinstance(result, Layer2Error):
                    self._failures[name] = result
                    self._watch.failed(name, result)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    self._failures.pop(name, None)
            await self._start_transfers()
        if self._failures:
            shown = "; ".join(f"{name}: {error}" for name, error in sorted(self._failures.items()))
            raise InitializationError(f"not all layers started: {shown}", failures=dict(self._failures))

    def _names(self) -> tuple[str, ...]:
        configured = () if self._factory is None else self._factory.names()
        return tuple(dict.fromkeys([*self._given, *map(str, configured)]))

    async def _prepare(self) -> None:
        if self._factory is not None or self._config is None:
            return
        from layer2._layers import LayerFactory

        assert self._store is not None
        factory = LayerFactory(
            config=self._config,
            clock=self._clock,
            operations=self._operations,
            store=self._store,
            stack=self._stack,
            signer=self._signer,
        )
        await factory.prepare()
        self._factory = factory

    async def _start(self, name: str) -> None:
        protocol = self._given.get(name) or self._protocols.get(name)
        if protocol is None:
            assert self._factory is not None
            protocol = await self._factory.build(name)  # it reads certificates
            self._stack.push_async_callback(protocol.close_async)
        self._protocols[name] = protocol
        await protocol.initialize_async()
        self._watch.started(name, protocol)

    async def _start_transfers(self) -> None:
        if self._transfers is not None or self._factory is None:
            return
        from layer2._assembly import assemble_transfers, assemble_undriven, layers_that_are_up
        from layer2._transfer_news import TransferNews

        bob, lightning = layers_that_are_up(self._protocols, self._failures)
        # Transfers of this store may need a node that is configured: without it they would be driven on half a view.
        blind = lightning is None and Layer2ProtocolType.LIGHTNING in self._names()
        if bob is None or self._factory.signer is None or blind:
            self._undriven = await assemble_undriven(self._factory, bob, lightning, self._failures)
            return
        self._news = TransferNews(self._events, self._metrics)
        parts = assemble_transfers(
            factory=self._factory,
            bob=bob,
            lightning=lightning,
            operations=self._operations,
            on_change=self._news.changed,
            on_alarm=self._news.alarm,
        )
        self._engine, self._prover, self._transfers, self._provider = parts
        self._undriven = None
        if self._provider is not None:
            self._stack.push_async_callback(self._provider.close)
        self._stack.push_async_callback(self._engine.close)
        await self._engine.start()

    @overload
    async def get_protocol_async(self, protocol_type: Literal[Layer2ProtocolType.BOB, "bob"]) -> BobClient: ...
    @overload
    async def get_protocol_async(
        self, protocol_type: Literal[Layer2ProtocolType.LIGHTNING, "lightning"]
    ) -> LightningNetwork: ...
    @overload
    async def get_protocol_async(self, protocol_type: Layer2ProtocolType | str) -> Layer2ProtocolAsync: ...
    async def get_protocol_async(self, protocol_type: Layer2ProtocolType | str) -> Layer2ProtocolAsync:
        """A layer that is up.

        Raises:
            ValidationError: no such layer; ConfigurationError: it is not configured; AsyncRuntimeError: not initialised;
            the error with which it failed to start.
        """
        self._operations.check("get_protocol_async")
        name = str(protocol_type)
        if name in self._failures:
            raise self._failures[name]
        protocol = self._protocols.get(name)
        if protocol is not None:
            return protocol
        if name not in (known := sorted({*self._names(), *map(str, Layer2ProtocolType)})):
            raise ValidationError(f"there is no layer {name[:40]!r}, only {', '.join(known)}", field="protocol_type")
        if self._factory is None and not self._given:
            raise AsyncRuntimeError("the manager is not initialised", hint="await initialize_all_async() first")
        raise ConfigurationError(f"the layer {name} is not configured", key=name, hint=f"add a [{name}] section")

    def _service(self, what: str) -> TransferService:
        self._operations.check(what)
        if self._transfers is not None:
            return self._transfers
        for name in (Layer2ProtocolType.BOB, Layer2ProtocolType.LIGHTNING):
            if name in self._failures:
                raise self._failures[name]
        if self._factory is None and not self._given:
            raise AsyncRuntimeError(
                f"{what}: the manager is not initialised", hint="await initialize_all_async() first"
            )
        if self._factory is None:
            hint = "give it settings too; to test code that moves value, make a mock of the manager"
            raise ConfigurationError(
                f"{what}: a manager of protocols= alone has no transfers", key="protocols", hint=hint
            )
        from layer2._assembly import why_no_transfers

        raise why_no_transfers(what, self._given)

    def _records(self, what: str) -> TransferService | UndrivenTransfers:
        self._operations.check(what)
        return self._undriven or self._service(what)

    def _prover_for(self, what: str) -> Prover:
        self._operations.check(what)
        if self._undriven is not None:
            return self._undriven.prover(what)
        self._service(what)
        assert self._prover is not None
        return self._prover

    async def cross_layer_transfer_async(
        self,
        asset_id: AssetId,
        amount: int,
        source_protocol: Layer2ProtocolType | str,
        destination_protocol: Layer2ProtocolType | str,
        *,
        recipient: Address | str | None = None,
        max_fee: int | None = None,
        timeout: Timeout = None,
        cancel: asyncio.Event | None = None,
        idempotency_key: str | None = None,
    ) -> TransferProof:
        """Move ``amount`` (base units, as it arrives) from one layer to the other, and return the proof once it is settled.

        Args:
            asset_id: what to move, for example ``BTC``.
            amount: what arrives at the destination, in the asset's base unit.
            source_protocol: where it comes from.
            destination_protocol: where it arrives.
            recipient: None: our own node or account; else an invoice, a Lightning address, an LNURL or an EVM address.
            max_fee: bound on provider and routing fees, in the asset; None: the configured bound.
            timeout: seconds for the whole call; it ends the wait, not the transfer.
            cancel: abandons the transfer if nothing is bound yet; else it ends the wait.
            idempotency_key: the same key and arguments attach to the first transfer.

        Raises:
            SwapRefunded: it failed and the money is back; SwapRefused, SwapExpired: nothing was bound.
            UnknownOutcome: it needs attention (``reason``).
            FeeLimitExceeded, InsufficientFunds, ValidationError, Expired (the invoice): refused before anything was sent.
            AsyncTimeout, TaskCancelled: the wait ended; ``transfer_id`` says under which id it goes on.
        """
        service = self._service("cross_layer_transfer_async")
        arguments = service.check(
            asset_id, amount, source_protocol, destination_protocol, recipient, max_fee, "self", idempotency_key
        )
        return await service.run_to_end(arguments, None if timeout is DEFAULT else timeout, cancel)

    async def verify_cross_layer_proof_async(
        self, proof: TransferProof, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> bool:
        """True if every check of a proof holds against our node's chain, False if one was made and failed.

        Raises:
            ProofError, NodeError: a check could not be made.
        """
        return (await self.check_cross_layer_proof_async(proof, timeout=timeout, cancel=cancel)).verdict()

    async def check_cross_layer_proof_async(
        self, proof: TransferProof, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> Report:
        """Every check of a proof by name, its result, and what had to be trusted."""
        prover = self._prover_for("check_cross_layer_proof_async")
        return await self._operations.run(
            lambda: prover.report(proof), timeout=timeout, cancel=cancel, what="verifying a proof", moves_money=False
        )

    async def quote_cross_layer_transfer_async(
        self,
        asset_id: AssetId,
        amount: int,
        source_protocol: Layer2ProtocolType | str,
        destination_protocol: Layer2ProtocolType | str,
        *,
        recipient: Address | str | None = None,
        max_fee: int | None = None,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
        payer: Payer = "self",
    ) -> TransferQuote:
        """What a transfer would cost now and what it takes. Nothing is taken or reserved."""
        service = self._service("quote_cross_layer_transfer_async")
        arguments = service.check(
            asset_id, amount, source_protocol, destination_protocol, recipient, max_fee, payer, None
        )
        return await service.quote(arguments, timeout, cancel)

    async def start_cross_layer_transfer_async(
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
    ) -> Transfer:
        """Begin a transfer and return its handle at once.

        With ``payer="anyone"`` (Lightning to BOB) the handle shows an invoice that anyone can pay.
        """
        service = self._service("start_cross_layer_transfer_async")
        arguments = service.check(
            asset_id, amount, source_protocol, destination_protocol, recipient, max_fee, payer, idempotency_key
        )
        return await service.start_alone(arguments)

    async def get_transfer_async(self, transfer_id: str) -> Transfer:
        """A transfer as it stands. Raises ``NotFound``."""
        return await self._records("get_transfer_async").get(transfer_id)

    async def get_transfer_proof_async(self, transfer_id: str) -> TransferProof:
        """The proof of a settled transfer. Raises ``NotFound``."""
        return await self._prover_for("get_transfer_proof_async").proof_of(transfer_id)

    async def list_transfers_async(
        self, *, state: TransferState | str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Transfer]:
        """Transfers, newest first; ``after`` is the last id of the page before."""
        if not 1 <= limit <= 1000:
            raise ValidationError("limit must be between 1 and 1000", field="limit")
        return await self._records("list_transfers_async").page(state=state, limit=limit, after=after)

    async def wait_idle_async(self, *, timeout: Timeout = None, cancel: asyncio.Event | None = None) -> None:
        """Wait until no transfer is unfinished, finality included.

        Raises:
            UnknownOutcome: what is left needs attention; the message names each transfer.
        """
        self._service("wait_idle_async")
        engine = self._engine
        assert engine is not None

        async def wait() -> None:
            while engine.active > len(engine.stuck_swaps):
                await self._clock.sleep(0.1)

        try:
            await self._operations.run(
                wait, timeout=timeout, cancel=cancel, what="waiting for all transfers", slot=False, repeatable=True
            )
        except (AsyncTimeout, TaskCancelled) as error:
            error.run_again_by, error.hint = engine.run_again_by, "they go on while the manager is open: wait again"
            raise
        if stuck := engine.stuck_swaps:
            from layer2._transfer_view import needs_attention

            raise needs_attention(stuck)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with each event from now on; gives a function that ends it."""
        return self._events.subscribe(callback)

    @property
    def _attention(self) -> set[str]:
        known = self._undriven or self._news
        return set() if known is None else known.attention

    @property
    def _known(self) -> SwapEngine | UndrivenTransfers | None:
        return self._engine or self._undriven

    def _levels(self) -> Levels:
        return Levels(
            unfinished_transfers=0 if self._known is None else self._known.active,
            needs_attention=len(self._attention),
            running=self._operations.running,
            queued=self._operations.queued,
        )

    def health(self) -> Health:
        """The state of the manager and of each layer, from memory: it asks nobody."""
        protocols, tasks = dict(self._watch.layers), self._tasks()
        state = worst([worst([part.state for part in protocols.values()]), *(task.state for task in tasks.values())])
        if self._closed:
            state = HealthState.CLOSED
        elif not protocols:
            state = HealthState.STARTING
        levels = self._levels()
        return Health(
            state=state,
            protocols=protocols,
            tasks=tasks,
            unfinished_transfers=levels.unfinished_transfers,
            needs_attention=tuple(sorted(self._attention)),
            run_again_by=None if self._known is None else self._known.run_again_by,
            operations_running=levels.running,
            operations_queued=levels.queued,
        )

    def _tasks(self) -> dict[str, TaskHealth]:
        tasks = {"health": self._watch.task} if self._watch.layers else {}
        if self._engine is not None:
            tasks |= self._engine.tasks
        for name, protocol in self._protocols.items():
            tasks |= tasks_of(name, protocol)
        return tasks

    async def close_async(self) -> None:
        """Close everything, in bounded time. Unfinished transfers stay in the store. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._metrics.close()
        await self._watch.close()
        await self._operations.close_async()
        if self._undriven is not None:
            self._undriven.close()
        await self._stack.aclose()

    async def transfers_async(self) -> AsyncIterator[Transfer]:
        """All transfers, newest first."""
        after: str | None = None
        while page := await self.list_transfers_async(limit=200, after=after):
            for transfer in page:
                yield transfer
            after = page[-1].id
