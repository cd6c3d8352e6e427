"""The provider as a daemon: everything between a configuration and a listening HTTP interface, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from layer2 import Clock, SystemClock
from layer2.bob import BobClient
from layer2.connect import (
    bound_of_gas,
    chain_preset,
    check_settings,
    connect_chain,
    connect_node,
    fee_limits,
    load_signer,
    provider_store_url,
    registry_of,
    token_of,
)
from layer2.errors import AsyncRuntimeError, ConfigurationError, InsufficientFunds, Layer2Error, StoreInUse, another
from layer2.evm import HTLC_ADDRESS, FeeOracle, exit_lane
from layer2.provider._connections import ConnectionLimits
from layer2.provider._events import EventStreams
from layer2.provider._http import create_app
from layer2.provider._metrics import ProviderMetrics
from layer2.provider._runtime import ProviderRuntime
from layer2.provider._server import HttpServer
from layer2.provider._service import ProviderPlace
from layer2.provider._startup import check_chain, check_node
from layer2.storage import SqlTxJournal, Store

if TYPE_CHECKING:
    from layer2.config import Layer2Config, ProviderConfig
    from layer2.evm import RpcTransport
    from layer2.lightning import LightningNode
    from layer2.protocol import Signer
    from layer2.swaps import Deal, StoredSwap

__all__ = ["ProviderDaemon"]

_READY_FOR_S: Final = 2.0
"""For so long an answer about readiness holds: strangers may ask, and each asks two nodes."""
_OLD_HEAD_S: Final = 120
"""A chain whose head is older does not move."""

logger: Final = logging.getLogger("layer2.provider")
T = TypeVar("T")


class ProviderDaemon:
    """A provider that runs: ``async with ProviderDaemon(config) as daemon: await daemon.serve()``.

    Entering opens the store, checks chain, contract, token and node, takes up what is unfinished, and listens. Leaving stops
    new swaps, ends requests and event streams within ``provider.shutdown_grace_s``, and leaves open swaps to the journal: start
    again before their deadlines.

    Args:
        config: needs ``provider``, ``bob``, ``lightning`` and ``signer``; what is passed below stands in for its section.
        signer: of the account that locks, claims and refunds.
        node: the Lightning node. It stays its caller's to close.
        transport: to the chain. It stays its caller's to close.
        clock: the time; None: the machine's.
        metrics: counts; None: in a registry of its own.
    """

    def __init__(
        self,
        config: Layer2Config,
        *,
        signer: Signer | None = None,
        node: LightningNode | None = None,
        transport: RpcTransport | None = None,
        clock: Clock | None = None,
        metrics: ProviderMetrics | None = None,
    ) -> None:
        check_settings(config)
        if config.provider is None:
            raise ConfigurationError(
                "there is no [provider] section", key="provider", hint="layer2 init --offer-swaps writes one"
            )
        self._config = config
        self._offer: ProviderConfig = config.provider
        self._signer = signer
        self._node = node
        self._transport = transport
        self._clock = clock or SystemClock()
        self.metrics = metrics or ProviderMetrics()
        self._stack: AsyncExitStack | None = None
        self._store: Store | None = None
        self._runtime: ProviderRuntime | None = None
        self._bob: BobClient | None = None
        self._server: HttpServer | None = None
        self._streams: EventStreams | None = None
        self._stop = asyncio.Event()
        self._ready_at = 0.0
        self._ready: Mapping[str, str] | None = None
        self._ready_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return _running(self._server).url

    @property
    def port(self) -> int:
        """The port it listens on, also where the configuration says 0."""
        return _running(self._server).port

    @property
    def runtime(self) -> ProviderRuntime:
        """Engine, inventory and service."""
        return _running(self._runtime)

    @property
    def run_again_by(self) -> int | None:
        """Unix seconds by which it must run again, if it stops now; None if nothing of its own is bound."""
        return None if self._runtime is None else self._runtime.engine.run_again_by

    @property
    def accept_new(self) -> bool:
        """Whether it takes new swaps. Set to False, it finishes what is open and begins nothing."""
        return self.runtime.service.accepting

    @accept_new.setter
    def accept_new(self, accept: bool) -> None:
        self.runtime.service.accepting = accept

    async def start(self) -> None:
        """Open, check, take up what is unfinished, listen.

        Raises:
            ConfigurationError: a setting is missing or wrong, the port is taken, chain, contract, token or network are others.
            StoreInUse: another process has the store.
            NodeError: the chain's endpoint or the Lightning node do not answer, or are not ready.
        """
        if self._stack is not None:
            raise AsyncRuntimeError("the provider was started before")
        self._stack = AsyncExitStack()
        try:
            await self._start(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        text = f"provider: listens on {self.url}, {self.runtime.inventory.active} swaps open"
        logger.info("%s", text, extra={"event_code": "provider.started"})

    async def serve(self) -> None:
        """Return when ``stop`` was called.

        Raises:
            AsyncRuntimeError: the HTTP server ended by itself.
            StoreInUse: another process has taken the store over, and drives its swaps.
        """
        server = _running(self._server)
        stop = asyncio.create_task(self._stop.wait(), name="provider: stop")
        ended = asyncio.create_task(server.wait(), name="provider: server")
        lost = asyncio.create_task(_running(self._store).until_lost(), name="provider: store")
        try:
            await asyncio.wait({stop, ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise another(lost.result())
            if ended.done() and not self._stop.is_set():
                ended.result()
        finally:
            stop.cancel()
            ended.cancel()
            lost.cancel()
            await asyncio.gather(stop, ended, lost, return_exceptions=True)

    def stop(self) -> None:
        """Make ``serve`` return; for a signal handler of the event loop. Idempotent."""
        self._stop.set()

    async def close(self) -> None:
        """Take nothing new, end requests within the grace, stop driving, close the store. Idempotent."""
        self._stop.set()
        if self._runtime is not None:
            self._runtime.service.accepting = False
        stack, self._stack = self._stack, AsyncExitStack()
        if stack is not None:
            await stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        config, clock = self._config, self._clock
        preset = chain_preset(config)
        token = token_of(config)
        place = ProviderPlace(
            chain_id=preset.chain_id,
            contract=(config.bob.htlc_contract if config.bob is not None else None) or HTLC_ADDRESS,
            token=token,
            timing=config.chain_timing(),
        )
        signer = self._signer or await load_signer(config)
        if signer is None:
            raise ConfigurationError("a provider needs an account: there is no [signer] section", key="signer")
        node = self._node
        if node is None:
            node = await connect_node(config)
            stack.push_async_callback(node.close)
        transport = self._transport
        if transport is None:
            transport = connect_chain(config, preset, clock)
            stack.push_async_callback(transport.close)
        store = await Store.open(provider_store_url(config), clock=clock)
        stack.push_async_callback(store.close)
        self._store = store
        journal = SqlTxJournal(store)
        bob = BobClient(
            transport=_Borrowed(transport),
            signer=signer,
            registry=registry_of(config),
            journal=journal,
            preset=preset,
            clock=clock,
            limits=fee_limits(config),
            htlc_contract=place.contract,
            bind_chain=store.bind_chain,
        )
        stack.push_async_callback(bob.close_async)
        await check_chain(bob.rpc, place)
        await check_node(node, config.lightning_network)
        await bob.initialize_async()
        self._bob = bob
        self._runtime = runtime = ProviderRuntime(
            store=store,
            client=bob.rpc,
            sender=bob.sender,
            fees=FeeOracle(bob.rpc, fee_limits(config), clock),
            transactions=journal,
            node=node,
            signer=signer,
            place=place,
            settings=self._offer,
            depth=config.depth_rules,
            max_safe_lag_s=config.swap.max_safe_lag_s,
            clock=clock,
            version=await asyncio.to_thread(_version),
            max_gas_cost_wei=bound_of_gas(config),
            poll_s=config.bob.poll_interval_ms / 1000 if config.bob is not None else preset.poll_interval_s,
            on_change=self._changed,
            on_alarm=self._alarm,
        )
        stack.push_async_callback(runtime.close)
        await runtime.start()
        await self._listen(stack, runtime, node)

    async def _listen(self, stack: AsyncExitStack, runtime: ProviderRuntime, node: LightningNode) -> None:
        self._streams = EventStreams(clock=self._clock, metrics=self.metrics)

        async def ready() -> Mapping[str, str]:
            return await self._readiness(runtime, node)

        app = create_app(
            runtime.service,
            clock=self._clock,
            requests_per_minute=self._offer.requests_per_minute,
            ready=ready,
            metrics=self.metrics,
            streams=self._streams,
        )
        self._server = HttpServer(
            app,
            host=self._offer.listen_host,
            port=self._offer.listen_port,
            shutdown_grace_s=self._offer.shutdown_grace_s,
            limits=ConnectionLimits(proxies=self._offer.trusted_proxies),
        )
        stack.push_async_callback(self._server.close)
        stack.callback(self._streams.close)
        await self._server.start()

    async def _readiness(self, runtime: ProviderRuntime, node: LightningNode) -> Mapping[str, str]:
        async with self._ready_lock:
            now = self._clock.monotonic_s()
            if self._ready is None or now - self._ready_at >= _READY_FOR_S:
                self._ready = await self._look(runtime, node)
                self._ready_at = now
            problems = dict(self._ready)
        if not runtime.service.accepting:
            problems["accept_new"] = "no new swaps are accepted now"
        return problems

    async def _look(self, runtime: ProviderRuntime, node: LightningNode) -> Mapping[str, str]:
        problems = {}
        try:
            await _running(self._store).still_ours()
        except StoreInUse:
            problems["store"] = "another process has it"
        try:
            if not (await node.info()).synced_to_chain:
                problems["lightning"] = "not synchronised"
        except Layer2Error as error:
            problems["lightning"] = type(error).__name__
        try:
            head = await _running(self._bob).rpc.header()
            if head is None or self._clock.now_ms() // 1000 - head.timestamp > _OLD_HEAD_S:
                problems["chain"] = "its head is old"
            await runtime.account.check_gas(runtime.inventory.active + 1)
        except InsufficientFunds:
            problems["gas"] = "short"
        except Layer2Error as error:
            problems["chain"] = type(error).__name__
        return problems

    def _changed(self, swap: StoredSwap) -> None:
        self.metrics.changed(swap)
        if self._runtime is not None:
            self.metrics.open_swaps.set(self._runtime.inventory.active)

    def _alarm(self, _deal: Deal, code: str, _reason: str) -> None:
        self.metrics.alarm(code)


class _Borrowed:
    """A transport that is somebody else's to close."""

    def __init__(self, transport: RpcTransport) -> None:
        self._transport = transport
        self.exits = exit_lane(transport)

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one request."""
        return await self._transport.call(method, params)

    async def close(self) -> None:
        """Nothing."""


def _running(part: T | None) -> T:
    if part is None:
        raise AsyncRuntimeError("the provider does not run")
    return part


def _version() -> str:
    try:
        return installed_version("layer2")
    except PackageNotFoundError:
        return "unknown"
