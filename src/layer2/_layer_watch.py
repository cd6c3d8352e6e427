"""Asks the node of each layer now and then whether it is there, so that ``health()`` can tell from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from layer2._health import HealthState, LoopHealth, ProtocolHealth, TaskHealth
from layer2.errors import Layer2Error, SignerError

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.bob import BobClient
    from layer2.lightning import LightningNetwork
    from layer2.protocol import Layer2ProtocolAsync

__all__ = ["LayerWatch", "tasks_of"]

INTERVAL_S: Final = 15.0
LIMIT_S: Final = 10.0
_Question: TypeAlias = Callable[[], Awaitable[str | None]]


class LayerWatch:
    """How the layers of a manager are. Layers of the package's own are asked; of others only their start is known."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._layers: dict[str, ProtocolHealth] = {}
        self._asked: dict[str, _Question] = {}
        self._loop = LoopHealth(clock)
        self._task: asyncio.Task[None] | None = None

    @property
    def layers(self) -> Mapping[str, ProtocolHealth]:
        """Each layer that was started, or that failed to."""
        return self._layers

    @property
    def task(self) -> TaskHealth:
        """How the asking itself fares."""
        return self._loop.value

    def started(self, name: str, protocol: Layer2ProtocolAsync) -> None:
        """A layer came up: from now on its node is asked."""
        self._note(name, HealthState.OK, None)
        question = _question(protocol)
        if question is None:
            return
        self._asked[name] = question
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="layer2 health")

    def failed(self, name: str, error: Layer2Error) -> None:
        """A layer did not start."""
        self._note(name, HealthState.FAILED, str(error))

    async def close(self) -> None:
        """Ask no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _note(self, name: str, state: HealthState, reason: str | None) -> None:
        before = self._layers.get(name)
        since_ms = self._clock.now_ms() if before is None or before.state is not state else before.since_ms
        self._layers[name] = ProtocolHealth(state=state, since_ms=since_ms, reason=reason)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            looks = (self._look(name, ask) for name, ask in self._asked.items())
            # Whatever one node does to us, all are asked, and asked again.
            failed = [error for error in await asyncio.gather(*looks, return_exceptions=True) if error is not None]
            if failed:
                self._loop.failed(type(failed[0]).__name__)
            else:
                self._loop.worked()

    async def _look(self, name: str, ask: _Question) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                trouble = await ask()
        except Layer2Error as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"its node did not answer within {LIMIT_S:g} s"
        self._note(name, HealthState.OK if trouble is None else HealthState.DEGRADED, trouble)


def _question(protocol: Layer2ProtocolAsync) -> _Question | None:
    """What asks the node behind a layer, and gives what is wrong with it; None: it cannot be asked."""
    from layer2.bob import BobClient
    from layer2.lightning import LightningNetwork

    match protocol:
        case BobClient():
            return partial(_ask_chain, protocol)
        case LightningNetwork():
            return partial(_ask_node, protocol)
        case _:
            return None


async def _ask_chain(bob: BobClient) -> str | None:
    await bob.rpc.exits.header("latest")
    return None


async def _ask_node(lightning: LightningNetwork) -> str | None:
    info = await lightning.node.info()
    return None if info.synced_to_chain else "the Lightning node is not synchronised with the Bitcoin chain"


def tasks_of(name: str, protocol: Layer2ProtocolAsync) -> dict[str, TaskHealth]:
    """How the background tasks of a layer fare, by name."""
    from layer2.bob import BobClient

    if not isinstance(protocol, BobClient):
        return {}
    try:
        loops = protocol.sender.loops.health
    except SignerError:
        return {}
    return {f"{name}.{task}": health.value for task, health in loops.items()}
