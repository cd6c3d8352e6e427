"""A provider on a network of real nodes: it listens on loopback and can be stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from uvicorn import Config, Server

from layer2.config import DepthRule
from layer2.devnet._embedded import DEVNET_OFFER
from layer2.devnet._processes import LOOPBACK, wait_until
from layer2.errors import AsyncRuntimeError
from layer2.evm import HTLC_ADDRESS, EvmClient, FeeLimits, FeeOracle, HttpTransport, SenderSettings, TxSender
from layer2.provider import ProviderPlace, ProviderRuntime
from layer2.provider._http import create_app
from layer2.storage import SqlTxJournal, Store
from layer2.swaps import DEVNET_TIMING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layer2._clock import Clock
    from layer2.assets import AssetForm
    from layer2.lightning import LightningNode
    from layer2.protocol import Signer

__all__ = ["ProviderHost"]

GAS_BOUND_WEI: Final = 10**17
POLL_S: Final = 0.25
REQUESTS_PER_MINUTE: Final = 1_000_000


class ProviderHost:
    """Engine, store and HTTP interface of one provider. ``node`` stays its caller's to close."""

    def __init__(
        self,
        *,
        evm_url: str,
        chain_id: int,
        token: AssetForm,
        node: LightningNode,
        signer: Signer,
        store_url: str,
        clock: Clock,
    ) -> None:
        self._evm_url = evm_url
        self._chain_id = chain_id
        self._token = token
        self._node = node
        self._signer = signer
        self._store_url = store_url
        self._clock = clock
        self._port = 0
        self._stack: AsyncExitStack | None = None
        self._runtime: ProviderRuntime | None = None

    @property
    def url(self) -> str:
        """Where it listens; the same after it was stopped and started again."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def runtime(self) -> ProviderRuntime:
        """Engine, journal, inventory and service, while it runs."""
        if self._runtime is None:
            raise AsyncRuntimeError("the provider of this network does not run", hint="await start() first")
        return self._runtime

    async def start(self) -> None:
        """Open the store, take up what is open, listen."""
        if self._stack is not None:
            return
        self._stack = AsyncExitStack()
        try:
            await self._start(self._stack)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and driving; open swaps stay in the store. Idempotent."""
        stack, self._stack, self._runtime = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        store = await Store.open(self._store_url, clock=self._clock)
        stack.push_async_callback(store.close)
        transport = HttpTransport(self._evm_url, clock=self._clock)
        stack.push_async_callback(transport.close)
        client = EvmClient(transport)
        journal = SqlTxJournal(store)
        sender = TxSender(
            client,
            self._signer,
            journal,
            chain_id=self._chain_id,
            clock=self._clock,
            settings=SenderSettings(poll_interval_s=POLL_S, heads_max_age_s=POLL_S, max_unconfirmed_per_key=1_000),
        )
        await sender.start()
        stack.push_async_callback(sender.close)
        self._runtime = ProviderRuntime(
            store=store,
            client=client,
            sender=sender,
            fees=FeeOracle(client, FeeLimits(), self._clock),
            transactions=journal,
            node=self._node,
            signer=self._signer,
            place=ProviderPlace(
                chain_id=self._chain_id, contract=HTLC_ADDRESS, token=self._token, timing=DEVNET_TIMING
            ),
            settings=DEVNET_OFFER,
            depth=(DepthRule(depth="included"),),
            clock=self._clock,
            version="devnet",
            max_gas_cost_wei=GAS_BOUND_WEI,
            poll_s=POLL_S,
        )
        await self._runtime.start()
        stack.push_async_callback(self._runtime.close)
        await self._listen(stack, self._runtime)

    async def _listen(self, stack: AsyncExitStack, runtime: ProviderRuntime) -> None:
        app = create_app(runtime.service, clock=self._clock, requests_per_minute=REQUESTS_PER_MINUTE)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stack.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, self._port))
        self._port = listener.getsockname()[1]
        server = _Embedded(Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=3))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="devnet provider")
        stack.push_async_callback(_end, server, serving)

        async def listens() -> bool:
            if serving.done():
                serving.result()
            return server.started

        await wait_until(listens, "the provider listens", clock=self._clock, pause_s=0.02)


class _Embedded(Server):
    """Leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture: the network is stopped by its owner."""
        yield


async def _end(server: Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.gather(serving, return_exceptions=True)
