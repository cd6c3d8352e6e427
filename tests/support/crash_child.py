"""Runs in a child process that is killed at the N-th point at which something becomes durable or leaves the process.

The points are not listed anywhere: they are whatever passes through the store's commits and through the methods that reach a node
or the provider, counted as they happen. A new effect that uses them is tested without anyone remembering.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

PRELOAD = [
    "alembic.autogenerate",
    "alembic.command",
    "layer2._assembly",
    "layer2._layers",
    "layer2.manager",
    "layer2.provider._daemon",
    "layer2.lightning._lnd",
    "layer2.storage._journal",
    "layer2.swaps._wire",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn",
]

EVM_EFFECTS = ("send_raw",)
LND_EFFECTS = ("pay", "create_invoice", "create_hold_invoice", "settle_invoice", "cancel_invoice")
PROVIDER_EFFECTS = ("create_submarine", "create_reverse", "refund_signature")
UNDER_WAY = ("pay", "send_raw")
"""What is also interrupted in its middle."""


class Points:
    """Tells the parent the name of each point, and dies at the chosen one: by its name, or by its number among all."""

    def __init__(self, report: Connection, kill_at: int | str | None, *, armed: bool) -> None:
        self._report = report
        self._kill_at = kill_at
        self._of_a_kind: Counter[str] = Counter()
        self._one_at_a_time = threading.Lock()
        self.armed = armed

    def reach(self, kind: str) -> None:
        if not self.armed:
            return
        # Commits are made in the store's thread, everything else on the loop.
        with self._one_at_a_time:
            self._of_a_kind[kind] += 1
            name = numbered(kind, self._of_a_kind[kind])
            self._report.send(("point", name))
            self._at(name)

    def _at(self, name: str) -> None:
        if self._kill_at in (self._of_a_kind.total(), name):
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, *message: Any) -> None:
        """Tell the parent something else."""
        with self._one_at_a_time:
            self._report.send(message)

    def around(self, owner: type, method: str) -> None:
        """Make the moments just before, in the middle of and just after a method into points."""
        original = getattr(owner, method)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"{method}: before")
            running = asyncio.ensure_future(original(*args, **kwargs))
            if method in UNDER_WAY:
                await asyncio.sleep(0.02)
                self.reach(f"{method}: under way")
            result = await running
            self.reach(f"{method}: after")
            return result

        setattr(owner, method, wrapped)

    def around_commits(self) -> None:
        from layer2.storage._session import Session

        original = Session.run

        def run(session: Session, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            wrote: list[bool] = []

            def watched(conn: Any, *inner: Any, **named: Any) -> Any:
                before = changes(conn)
                result = function(conn, *inner, **named)
                wrote.append(changes(conn) != before)
                if wrote[-1]:
                    self.reach("commit: before")
                return result

            result = original(session, watched, *args, **kwargs)
            if wrote and wrote[-1]:
                self.reach("commit: after")
            return result

        Session.run = run  # type: ignore[method-assign]

    def install(self) -> None:
        from layer2.evm import EvmClient
        from layer2.lightning import LndNode
        from layer2.swaps import HttpProvider

        self.around_commits()
        for owner, methods in ((EvmClient, EVM_EFFECTS), (LndNode, LND_EFFECTS), (HttpProvider, PROVIDER_EFFECTS)):
            for method in methods:
                self.around(owner, method)


def numbered(kind: str, count: int) -> str:
    """The name of a point: numbers within a kind hardly shift when something is looked at or asked for once more."""
    return kind if count == 1 else f"{kind}, {count}"


def kind_of(point: str) -> str:
    """Without the number."""
    return point.partition(",")[0]


def changes(conn: Any) -> Any:
    """Something that is another once the transaction has written."""
    if conn.dialect.name == "sqlite":
        return conn.connection.driver_connection.total_changes
    return conn.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar()


def end_with_parent() -> None:
    """A child whose tests were killed must not live on, with its store and its swaps."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="crash child: parent", daemon=True).start()


@dataclass(frozen=True)
class ClientJob:
    """One transfer, asked for again and again under one key until it is decided."""

    config_path: str
    source: str
    destination: str
    amount: int
    recipient: str | None
    key: str
    kill_at: int | str | None = None
    payer: str = "self"
    patient: bool = False
    """Ask for the transfer until somebody answers."""
    to_rest: bool = False
    """Live until nothing is unfinished, finality included."""
    from_the_start: bool = False
    """Whether points count while what an earlier life began is taken up."""


def run_client(job: ClientJob, report: Connection) -> None:
    """Begin the transfer or go on with it; report how it ended."""
    end_with_parent()
    points = Points(report, job.kill_at, armed=job.from_the_start)
    points.install()
    asyncio.run(_client(job, points))


async def _client(job: ClientJob, points: Points) -> None:
    from layer2 import (
        InitializationError,
        Layer2Config,
        Layer2Manager,
        NodeError,
        SwapExpired,
        SwapRefunded,
        SwapRefused,
    )

    config = Layer2Config.load(job.config_path)
    async with Layer2Manager(config) as manager:
        while True:
            try:
                await manager.initialize_all_async()
                break
            except InitializationError:
                await asyncio.sleep(0.5)  # a busy node is not synchronised: a supervisor would start us again
        points.armed = True
        try:
            proof = await _transfer(job, manager)
        except (SwapRefunded, SwapExpired) as error:
            end = type(error).__name__, None, str(error)
        except (NodeError, SwapRefused) as error:
            # The first life had not agreed on anything, and now the provider is gone, or the invoice is too old.
            assert await manager.list_transfers_async() == []
            end = "nothing begun", None, str(error)
        else:
            assert await manager.verify_cross_layer_proof_async(proof)
            end = "settled", proof.to_json(), ""
        if job.to_rest:
            await manager.wait_idle_async()
        points.tell("ended", *end)
        points.armed = False


async def _transfer(job: ClientJob, manager: Any) -> Any:
    from layer2 import BTC, NodeError, SwapRefused

    while True:
        try:
            transfer = await manager.start_cross_layer_transfer_async(
                BTC,
                job.amount,
                job.source,
                job.destination,
                recipient=job.recipient,
                payer=job.payer,
                idempotency_key=job.key,
            )
            break
        except (NodeError, SwapRefused) as error:
            # An invoice that is given grows too old; one of its own is new each time.
            if not job.patient or (isinstance(error, SwapRefused) and job.recipient is not None):
                raise
            await asyncio.sleep(0.2)
    return await transfer.result_async()


def arm_at_the_first_request(points: Points) -> None:
    """Points of a provider count from the first request for a swap on."""
    from layer2.provider import ProviderService

    for method in ("create_submarine", "create_reverse"):
        original = getattr(ProviderService, method)

        async def armed(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            points.armed = True
            return await _original(*args, **kwargs)

        setattr(ProviderService, method, armed)


def run_provider(config_path: str, kill_at: int | str | None, from_the_start: bool, report: Connection) -> None:
    """Serve until killed. Points count from the start or from the first request for a swap on."""
    end_with_parent()
    points = Points(report, kill_at, armed=from_the_start)
    points.install()
    arm_at_the_first_request(points)
    asyncio.run(_serve(config_path, points))


async def _serve(config_path: str, points: Points) -> None:
    from layer2 import Layer2Config

    daemon = await _started(Layer2Config.load(config_path))
    points.tell("ready", daemon.url)
    told = None
    while True:
        unfinished = daemon.runtime.engine.active
        if unfinished != told:
            points.tell("unfinished", unfinished)
            told = unfinished
        await asyncio.sleep(0.1)


async def _started(config: Any) -> Any:
    from layer2 import NodeNotReady
    from layer2.provider import ProviderDaemon

    while True:
        daemon = ProviderDaemon(config)
        try:
            await daemon.start()
        except NodeNotReady:
            await asyncio.sleep(0.5)  # a busy node is not synchronised: a supervisor would start us again
        else:
            return daemon
