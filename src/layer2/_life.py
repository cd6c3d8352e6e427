"""The life of a manager: opens the store, brings the layers and what drives transfers up, and closes all of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from layer2._layer_watch import LayerWatch
from layer2.errors import (
    AsyncRuntimeError,
    ConfigurationError,
    InitializationError,
    Layer2Error,
    ValidationError,
    another,
)
from layer2.protocol import Layer2ProtocolAsync, Layer2ProtocolType, Signer

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2._layers import LayerFactory
    from layer2._metrics import Metrics
    from layer2._observe import EventDispatcher
    from layer2._operations import Operations
    from layer2._proving import Prover
    from layer2._stored_transfers import UndrivenTransfers
    from layer2._transfer_news import TransferNews
    from layer2._transfers import TransferService
    from layer2.bob import BobClient
    from layer2.config import Layer2Config
    from layer2.lightning import LightningNetwork
    from layer2.storage import Store
    from layer2.swaps import ProviderApi, SwapEngine

__all__ = ["Life"]


class Life:
    """What a manager owns: what of it is there, or why it is not."""

    def __init__(
        self,
        *,
        config: Layer2Config | None,
        signer: Signer | None,
        given: Mapping[str, Layer2ProtocolAsync],
        clock: Clock,
        operations: Operations,
        events: EventDispatcher,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._signer = signer
        self._given = given
        self._clock = clock
        self._operations = operations
        self._events = events
        self._metrics = metrics
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._built: dict[str, Layer2ProtocolAsync] = {}
        self._failures: dict[str, Layer2Error] = {}
        self._parts: tuple[SwapEngine, Prover, TransferService, ProviderApi | None] | None = None
        self._prover: Prover | None = None
        self._transfers: TransferService | None = None
        self._news: TransferNews | None = None
        self._undriven: UndrivenTransfers | None = None
        self.protocols: dict[str, Layer2ProtocolAsync] = {}
        self.watch = LayerWatch(clock)
        self.store: Store | None = None
        self.factory: LayerFactory | None = None
        self.engine: SwapEngine | None = None
        self.closed = False

    def bind(self) -> None:
        """Belong to this loop and process from now on. Idempotent.

        Raises:
            AsyncRuntimeError: closed, on another loop, after fork.
        """
        if self.closed:
            raise AsyncRuntimeError("the manager is closed", hint="make a new one")
        self._operations.open()

    async def open(self) -> None:
        """Open the store. Idempotent.

        Raises:
            StoreInUse, StorageError: it cannot be opened.
        """
        if self.store is not None or self._config is None:
            return
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_store(self._config), name="layer2 store")
        opening = self._opening
        try:
            # One attempt for all who wait, which goes on when they are cancelled: two would be in each other's way.
            await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _open_store(self, config: Layer2Config) -> None:
        from layer2._preload import preload_async

        await preload_async(embedded=config.is_embedded)
        from layer2.storage import Store

        self.store = await Store.open(config.store_url, clock=self._clock)
        self._stack.push_async_callback(self.store.close)

    async def initialize(self) -> None:
        """See ``Layer2Manager.initialize_all_async``. What is noted as done is done, so that the next call does the rest."""
        await self.open()
        async with self._starting:
            await self._prepare()
            names = [name for name in self._names() if name not in self.protocols]
            results = await asyncio.gather(*(self._start(name) for name in names), return_exceptions=True)
            for name, result in zip(names, results, strict=True):
                if isinstance(result, Layer2Error):
                    self._failures[name] = result
                    self.watch.failed(name, result)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, Layer2Error):
                    raise result
            await self._start_transfers()
        if self._failures:
            shown = "; ".join(f"{name}: {error}" for name, error in sorted(self._failures.items()))
            raise InitializationError(f"not all layers started: {shown}", failures=dict(self._failures))

    @property
    def started(self) -> bool:
        """Whether all that is configured was brought up, or failed to come up."""
        names = self._names()
        transfers = self._config is None or self._transfers is not None or self._undriven is not None
        return transfers and bool(names) and all(name in self.watch.layers for name in names)

    def _names(self) -> tuple[str, ...]:
        configured = () if self.factory is None else self.factory.names()
        return tuple(dict.fromkeys([*self._given, *map(str, configured)]))

    async def _prepare(self) -> None:
        if self.factory is not None or self._config is None:
            return
        from layer2._layers import LayerFactory

        assert self.store is not None
        factory = LayerFactory(
            config=self._config,
            clock=self._clock,
            operations=self._operations,
            store=self.store,
            stack=self._stack,
            signer=self._signer,
        )
        await factory.prepare()
        self.factory = factory

    async def _start(self, name: str) -> None:
        protocol = self._given.get(name) or self._built.get(name)
        if protocol is None:
            assert self.factory is not None
            protocol = await self.factory.build(name)  # it reads certificates
            self._stack.push_async_callback(protocol.close_async)
            self._built[name] = protocol
        await protocol.initialize_async()
        self.protocols[name] = protocol
        self._failures.pop(name, None)
        self.watch.started(name, protocol)

    async def _start_transfers(self) -> None:
        if self._transfers is not None or self.factory is None:
            return
        from layer2._assembly import assemble_undriven, layers_that_are_up

        bob, lightning = layers_that_are_up(self.protocols)
        # Transfers of this store may need a node that is configured: without it they would be driven on half a view.
        blind = lightning is None and Layer2ProtocolType.LIGHTNING in self._names()
        if bob is None or self.factory.signer is None or blind:
            self._undriven = await assemble_undriven(self.factory, bob, lightning, self._failures)
            return
        if self._parts is None:
            self._parts = self._assemble(self.factory, bob, lightning)
        self.engine, prover, transfers, _ = self._parts
        await self.engine.start()
        self._prover, self._transfers, self._undriven = prover, transfers, None

    def _assemble(
        self, factory: LayerFactory, bob: BobClient, lightning: LightningNetwork | None
    ) -> tuple[SwapEngine, Prover, TransferService, ProviderApi | None]:
        from layer2._assembly import assemble_transfers
        from layer2._transfer_news import TransferNews

        self._news = TransferNews(self._events, self._metrics)
        parts = assemble_transfers(
            factory=factory,
            bob=bob,
            lightning=lightning,
            operations=self._operations,
            on_change=self._news.changed,
            on_alarm=self._news.alarm,
        )
        engine, _, _, provider = parts
        if provider is not None:
            self._stack.push_async_callback(provider.close)
        self._stack.push_async_callback(engine.close)
        return parts

    def protocol(self, name: str) -> Layer2ProtocolAsync:
        """See ``Layer2Manager.get_protocol_async``."""
        self._operations.check("get_protocol_async")
        if name in self._failures:
            raise another(self._failures[name])
        protocol = self.protocols.get(name)
        if protocol is not None:
            return protocol
        configured = self._names()
        if name not in (known := sorted({*configured, *map(str, Layer2ProtocolType)})):
            raise ValidationError(f"there is no layer {name[:40]!r}, only {', '.join(known)}", field="protocol_type")
        if name in configured or (self._config is not None and self.factory is None):
            raise AsyncRuntimeError(f"{name} is not initialised", hint="await initialize_all_async() first")
        raise ConfigurationError(f"the layer {name} is not configured", key=name, hint=f"add a [{name}] section")

    def service(self, what: str) -> TransferService:
        """What drives transfers; raises why there is nothing that does."""
        self._operations.check(what)
        if self._transfers is not None:
            return self._transfers
        for name in (Layer2ProtocolType.BOB, Layer2ProtocolType.LIGHTNING):
            if name in self._failures:
                raise another(self._failures[name])
        if self._config is None:
            hint = "give it settings too; to test code that moves value, make a mock of the manager"
            raise ConfigurationError(
                f"{what}: a manager of protocols= alone has no transfers", key="protocols", hint=hint
            )
        if self._undriven is None:
            raise AsyncRuntimeError(
                f"{what}: the manager is not initialised", hint="await initialize_all_async() first"
            )
        from layer2._assembly import why_no_transfers

        raise why_no_transfers(what, self._given)

    def records(self, what: str) -> TransferService | UndrivenTransfers:
        """The transfers of the store, driven or not."""
        self._operations.check(what)
        return self._undriven or self.service(what)

    def prover(self, what: str) -> Prover:
        """What makes and verifies proofs."""
        self._operations.check(what)
        if self._undriven is not None:
            return self._undriven.prover(what)
        self.service(what)
        assert self._prover is not None
        return self._prover

    @property
    def attention(self) -> set[str]:
        """Ids of the transfers that a person must look at."""
        known = self._undriven or self._news
        return set() if known is None else known.attention

    @property
    def known(self) -> SwapEngine | UndrivenTransfers | None:
        """What knows which transfers are unfinished."""
        return self.engine or self._undriven

    async def close(self) -> None:
        """See ``Layer2Manager.close_async``."""
        if self._closing is not None and self._closing.done():
            return
        self._operations.check_place("close_async")
        if self._closing is None:
            self.closed = True
            self._closing = asyncio.create_task(self._close(asyncio.current_task()), name="layer2 close")
        # It goes on when who waits for it is cancelled: half closed, the store would stay in use and the tasks would run on.
        await asyncio.shield(self._closing)

    async def _close(self, caller: asyncio.Task[object] | None) -> None:
        try:
            self._metrics.close()
            await self.watch.close()
            await self._operations.close_async(besides=caller)
            if self._opening is not None:
                self._opening.cancel()
                await asyncio.wait({self._opening})
        finally:
            # Also when the loop ends meanwhile, and with it this task.
            if self._undriven is not None:
                self._undriven.close()
            await self._stack.aclose()
