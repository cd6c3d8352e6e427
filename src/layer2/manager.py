"""The manager: brings the layers up, moves value between them, owns connections, tasks and the store."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Self, overload

from layer2._clock import Clock, SystemClock
from layer2._health import Health, HealthState, TaskHealth, worst
from layer2._layer_watch import tasks_of
from layer2._life import Life
from layer2._metrics import Levels, Metrics
from layer2._observe import Event, EventDispatcher
from layer2._operations import Operations
from layer2.errors import (
    AsyncTimeout,
    TaskCancelled,
)
from layer2.protocol import DEFAULT, Layer2ProtocolAsync, Layer2ProtocolType, Signer, Timeout
from layer2.transfers import Payer, Transfer, TransferQuote, TransferState

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from layer2.addresses import Address
    from layer2.assets import AssetId
    from layer2.bob import BobClient
    from layer2.config import Layer2Config
    from layer2.devnet import EmbeddedNetwork
    from layer2.lightning import LightningNetwork
    from layer2.proofs import Report, TransferProof

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
        from layer2._given import check_parts, layers_by_name

        check_parts(signer=signer, clock=clock, metrics_registry=metrics_registry)
        config = given_settings(config, needed=protocols is None)
        self._clock: Clock = clock or SystemClock()
        self._metrics = Metrics(metrics_registry, clock=self._clock)
        self._operations = Operations(
            max_concurrency=64 if config is None else config.max_concurrency,
            default_timeout_ms=30_000 if config is None else config.default_timeout_ms,
            metrics=self._metrics,
            owner="the manager",
        )
        self._events = EventDispatcher(self._clock)
        self._life = Life(
            config=config,
            signer=signer,
            given=layers_by_name(protocols),
            clock=self._clock,
            operations=self._operations,
            events=self._events,
            metrics=self._metrics,
        )

    async def __aenter__(self) -> Self:
        self._bind()
        await self._life.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close_async()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        life: Life | None = getattr(self, "_life", None)
        if life is not None and life.store is not None and not life.closed:
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
        return None if self._life.factory is None else self._life.factory.embedded

    def _bind(self) -> None:
        self._life.bind()
        self._metrics.watch(self._levels)

    async def initialize_all_async(self, *, timeout: Timeout = None, cancel: asyncio.Event | None = None) -> None:
        """Bring all configured layers up at once, and take up every unfinished transfer. Idempotent.

        Raises:
            InitializationError: some did not start; ``failures`` says which and why. The others are usable, and calling again
                tries only the failed.
            StoreInUse, StorageError: the store cannot be opened, or what is unfinished in it cannot be read.
            AsyncTimeout, TaskCancelled: it was ended. After any of these, calling again does what is left to do.
        """
        self._bind()
        await self._operations.run(
            self._life.initialize, timeout=timeout, cancel=cancel, what="initialising", slot=False, moves_money=False
        )

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
        return self._life.protocol(str(protocol_type))

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
        service = self._life.service("cross_layer_transfer_async")
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
        prover = self._life.prover("check_cross_layer_proof_async")
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
        idempotency_key: str | None = None,
        payer: Payer = "self",
    ) -> TransferQuote:
        """What a transfer would cost now and what it takes. Nothing is taken or reserved.

        ``idempotency_key`` is there so that one set of arguments serves the quote and the transfer: the price does not depend on
        it, nor on whether it was used.
        """
        service = self._life.service("quote_cross_layer_transfer_async")
        arguments = service.check(
            asset_id, amount, source_protocol, destination_protocol, recipient, max_fee, payer, idempotency_key
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
        service = self._life.service("start_cross_layer_transfer_async")
        arguments = service.check(
            asset_id, amount, source_protocol, destination_protocol, recipient, max_fee, payer, idempotency_key
        )
        return await service.start_alone(arguments)

    async def get_transfer_async(self, transfer_id: str) -> Transfer:
        """A transfer as it stands. Raises ``NotFound``."""
        return await self._life.records("get_transfer_async").get(transfer_id)

    async def get_transfer_proof_async(self, transfer_id: str) -> TransferProof:
        """The proof of a settled transfer. Raises ``NotFound``."""
        return await self._life.prover("get_transfer_proof_async").proof_of(transfer_id)

    async def list_transfers_async(
        self, *, state: TransferState | str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Transfer]:
        """Transfers, newest first; ``after`` is the last id of the page before."""
        return await self._life.records("list_transfers_async").page(state=state, limit=limit, after=after)

    async def wait_idle_async(self, *, timeout: Timeout = None, cancel: asyncio.Event | None = None) -> None:
        """Wait until no transfer is unfinished, finality included.

        Raises:
            UnknownOutcome: what is left needs attention; the message names each transfer.
            StoreInUse: another process has taken the store over, and goes on with them.
        """
        self._life.service("wait_idle_async")
        engine = self._life.engine
        assert engine is not None

        async def wait() -> None:
            while engine.active > len(engine.stuck_swaps):
                await self._clock.sleep(0.1)

        try:
            await self._operations.run(
                wait,
                timeout=timeout,
                cancel=cancel,
                what="waiting for all transfers",
                slot=False,
                awaits=True,
                repeatable=True,
            )
        except (AsyncTimeout, TaskCancelled) as error:
            error.run_again_by, error.hint = engine.run_again_by, "they go on while the manager is open: wait again"
            raise
        engine.check_not_lost()
        if stuck := engine.stuck_swaps:
            from layer2._transfer_view import needs_attention

            raise needs_attention(stuck)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with each event from now on; gives a function that ends it."""
        return self._events.subscribe(callback)

    def _levels(self) -> Levels:
        return Levels(
            unfinished_transfers=0 if self._life.known is None else self._life.known.active,
            needs_attention=len(self._life.attention),
            running=self._operations.running,
            queued=self._operations.queued,
        )

    def health(self) -> Health:
        """The state of the manager and of each layer, from memory: it asks nobody."""
        protocols, tasks = dict(self._life.watch.layers), self._tasks()
        state = worst([worst([part.state for part in protocols.values()]), *(task.state for task in tasks.values())])
        if self._life.closed:
            state = HealthState.CLOSED
        elif state is HealthState.OK and not self._life.started:
            state = HealthState.STARTING
        levels = self._levels()
        return Health(
            state=state,
            protocols=protocols,
            tasks=tasks,
            unfinished_transfers=levels.unfinished_transfers,
            needs_attention=tuple(sorted(self._life.attention)),
            run_again_by=None if self._life.known is None else self._life.known.run_again_by,
            operations_running=levels.running,
            operations_queued=levels.queued,
        )

    def _tasks(self) -> dict[str, TaskHealth]:
        tasks = {"health": self._life.watch.task} if self._life.watch.layers else {}
        if self._life.engine is not None:
            tasks |= self._life.engine.tasks
        for name, protocol in self._life.protocols.items():
            tasks |= tasks_of(name, protocol)
        return tasks

    async def close_async(self) -> None:
        """Close everything, in bounded time. Unfinished transfers stay in the store. Idempotent.

        Whoever is cancelled while it waits for it does not stop it, and may ask again.

        Raises:
            AsyncRuntimeError: called from another loop or after fork; nothing is closed.
        """
        await self._life.close()

    async def transfers_async(self) -> AsyncIterator[Transfer]:
        """All transfers, newest first."""
        after: str | None = None
        while page := await self.list_transfers_async(limit=200, after=after):
            for transfer in page:
                yield transfer
            after = page[-1].id
