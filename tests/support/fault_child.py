"""Runs in a child process that stops itself, as SIGSTOP does, at one of the points of ``crash_child``, until somebody lets it go on."""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import crash_child
from crash_child import ClientJob, arm_at_the_first_request, end_with_parent

ASK_AGAIN_S = 0.3


class HoldingPoints(crash_child.Points):
    """Points at one of which the process stops: the parent does what it likes to the world, and sends SIGCONT."""

    def __init__(self, report: Connection, hold_at: str | None, *, armed: bool) -> None:
        super().__init__(report, None, armed=armed)
        self._hold_at = hold_at

    def _at(self, name: str) -> None:
        if name == self._hold_at:
            self._report.send(("held", name))
            os.kill(os.getpid(), signal.SIGSTOP)


def run_client(job: ClientJob, report: Connection) -> None:
    """Make a transfer; whatever fails on the way is asked for again under the same key until it is decided."""
    end_with_parent()
    points = HoldingPoints(report, None if job.kill_at is None else str(job.kill_at), armed=False)
    points.install()
    asyncio.run(_client(job, report, points))


async def _client(job: ClientJob, report: Connection, points: HoldingPoints) -> None:
    from layer2 import InitializationError, Layer2Config, Layer2Manager, StoreInUse

    async with Layer2Manager(Layer2Config.load(job.config_path)) as manager:
        while True:
            try:
                await manager.initialize_all_async()
                break
            except StoreInUse as error:
                report.send(("refused", type(error).__name__))
            except InitializationError:
                pass
            await asyncio.sleep(ASK_AGAIN_S)
        report.send(("ready", ""))
        points.armed = True
        report.send(("ended", *await _transfer(manager, job)))
        await asyncio.Event().wait()  # a claim is watched until it is final


async def _transfer(manager: Any, job: ClientJob) -> tuple[str, str | None]:
    from layer2 import (
        BTC,
        AsyncTimeout,
        InsufficientFunds,
        NodeError,
        StorageError,
        StoreInUse,
        SwapExpired,
        SwapRefunded,
        SwapRefused,
    )

    while True:
        try:
            proof = await manager.cross_layer_transfer_async(
                BTC, job.amount, job.source, job.destination, recipient=job.recipient, idempotency_key=job.key
            )
        except (SwapRefunded, SwapExpired, StoreInUse) as error:
            return type(error).__name__, None
        except (SwapRefused, InsufficientFunds) as error:
            # An endpoint that leads elsewhere for a while shows another balance there.
            if await manager.list_transfers_async():
                raise
            return f"nothing begun: {error.message}", None
        except (NodeError, StorageError, AsyncTimeout):
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            return "settled", proof.to_json()


def run_provider(config_path: str, hold_at: str | None, report: Connection) -> None:
    """Serve; points count from the first request for a swap on."""
    end_with_parent()
    points = HoldingPoints(report, hold_at, armed=False)
    points.install()
    arm_at_the_first_request(points)
    asyncio.run(_serve(config_path, report, points))


async def _serve(config_path: str, report: Connection, points: HoldingPoints) -> None:
    from layer2 import Layer2Config, NodeError, StoreInUse
    from layer2.provider import ProviderDaemon

    while True:
        daemon = ProviderDaemon(Layer2Config.load(config_path))
        try:
            await daemon.start()
            break
        except StoreInUse as error:
            report.send(("refused", type(error).__name__))
        except NodeError:
            pass  # a busy node is not synchronised: a supervisor would start us again
        await asyncio.sleep(ASK_AGAIN_S)
    points.armed = daemon.runtime.inventory.active > 0
    report.send(("ready", daemon.url))
    try:
        await daemon.serve()
    except StoreInUse as error:
        report.send(("ended", type(error).__name__, None))
    finally:
        await daemon.close()
