"""A provider on a network of real nodes: it listens on loopback and can be stopped and started again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from layer2.devnet._processes import LOOPBACK
from layer2.errors import AsyncRuntimeError
from layer2.provider import ProviderDaemon

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.config import Layer2Config
    from layer2.provider import ProviderRuntime

__all__ = ["ProviderHost"]


class ProviderHost:
    """One provider, over any number of runs on one store. ``config`` has a ``provider`` section."""

    def __init__(self, config: Layer2Config, *, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._daemon: ProviderDaemon | None = None

    @property
    def url(self) -> str:
        """Where it listens; the same after it was stopped and started again."""
        assert self.config.provider is not None
        return f"http://{LOOPBACK}:{self.config.provider.listen_port}"

    @property
    def runtime(self) -> ProviderRuntime:
        """Engine, journal, inventory and service, while it runs."""
        if self._daemon is None:
            raise AsyncRuntimeError("the provider of this network does not run", hint="await start() first")
        return self._daemon.runtime

    async def start(self) -> None:
        """Open the store, take up what is open, listen. Idempotent."""
        if self._daemon is not None:
            return
        daemon = ProviderDaemon(self.config, clock=self._clock)
        await daemon.start()
        self._daemon = daemon
        assert self.config.provider is not None
        self.config = self.config.with_changes(provider=replace(self.config.provider, listen_port=daemon.port))

    async def stop(self) -> None:
        """Stop listening and driving; open swaps stay in the store. Idempotent."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await daemon.close()
