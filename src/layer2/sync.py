"""The manager and the layers for code that is not async.

Every public ``X_async`` has its ``X_sync``: the same call, made on an event loop that runs in one thread of the manager's own. It
blocks the calling thread only, so it works from any thread, and in a notebook whose own loop is running.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from layer2._portal import Portal, SyncIterator, close_at_exit
from layer2._sync_manager import ManagerMethods, TransferSync
from layer2._sync_protocols import BobClientSync, Layer2ProtocolSync, LightningNetworkSync

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from layer2._clock import Clock
    from layer2._health import Health
    from layer2.config import Layer2Config
    from layer2.protocol import Layer2ProtocolAsync, Layer2ProtocolType, Signer

__all__ = [
    "BobClientSync",
    "Layer2ManagerSync",
    "Layer2ProtocolSync",
    "LightningNetworkSync",
    "SyncIterator",
    "TransferSync",
]


class Layer2ManagerSync(ManagerMethods):
    """``Layer2Manager`` for code that is not async; use it as ``with Layer2ManagerSync(config) as manager``.

    ``cancel`` is a ``threading.Event``. Ctrl-C ends the wait, not what was already set going: a transfer that has bound money goes
    on, in this process or the next. If the interpreter ends with the manager open, it is closed in order, in bounded time. The
    embedded network has no twin here: its nodes are asynchronous.

    Raises:
        ConfigurationError: as ``Layer2Config.load`` does, if neither ``config`` nor ``protocols`` is given.
        AsyncRuntimeError: from any call that is made on the manager's own thread (where it would wait for itself), after close
            or after fork.
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
        from layer2.config import Layer2Config
        from layer2.manager import Layer2Manager

        settings = Layer2Config.load() if config is None and protocols is None else config
        options: dict[str, Any] = {} if clock is None else {"clock": clock}
        if metrics_registry is not None:
            options["metrics_registry"] = metrics_registry
        portal = Portal()
        try:
            manager = portal.call_plain(
                lambda: Layer2Manager(settings, signer=signer, protocols=protocols, **options), what="Layer2ManagerSync"
            )
        except BaseException:
            portal.close()
            raise
        super().__init__(portal, manager)
        self._closing = threading.Lock()
        close_at_exit(self)

    def __enter__(self) -> Self:
        self._portal.call(lambda _: self._async.__aenter__(), what="with Layer2ManagerSync")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close_sync()

    def health(self) -> Health:
        """See ``Layer2Manager.health``; after close too."""
        # It is read from memory, to which nothing is added once the loop has ended.
        return self._async.health() if self._portal.ended else super().health()

    def close_sync(self) -> None:
        """See ``Layer2Manager.close_async``; ends the manager's thread too. Idempotent, from any thread."""
        self._portal.check_thread("close_sync")
        with self._closing:
            if not self._portal.closed:
                try:
                    self._portal.call(lambda _: self._async.close_async(), what="close_sync")
                finally:
                    self._portal.close()

    def __del__(self) -> None:
        portal: Portal | None = self.__dict__.get("_portal")
        if portal is not None and not portal.closed:
            warnings.warn(f"unclosed {type(self).__name__}", ResourceWarning, source=self, stacklevel=2)
            portal.abandon()
