"""The parent's side: settings files, children that are forked from a warmed process, and what they report."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from crash_child import PRELOAD, UNDER_WAY, ClientJob, run_client, run_provider

from layer2.devnet import DevnetAccount, RealNetwork

LIMIT_S = 240
"""Longest for one transfer, restarts included; a timelock's refund fits."""
STORES = os.environ.get("LAYER2_CRASH_STORES", "sqlite").split(",")


def context() -> ForkServerContext:
    """Children are forked from a server that has imported everything."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOAD)
    return made


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings(
    network: RealNetwork,
    account: DevnetAccount,
    lnd: str,
    folder: Path,
    *,
    store: str = "",
    provider_url: str = "",
    port: int = 0,
) -> str:
    """Path of a settings file for a client (with ``provider_url``) or a provider (with ``port``).

    ``store`` is the URL of its store; without one it is a file of its own.
    """
    node = network.nodes.lnd(lnd)  # type: ignore[arg-type]
    lines = [
        'network = "devnet"',
        "[bob]",
        'chain = "devnet"',
        f'rpc_url = "{network.nodes.evm_url}"',
        "[lightning]",
        f'rest_url = "{node.rest_url}"',
        f'tls_cert = "{node.tls_cert_path}"',
        'network = "regtest"',
        f'macaroon = {{ file = "{node.macaroon_path}" }}',
        "[signer]",
        f'private_key = {{ file = "{account.key_file}" }}',
        "[store]",
        f'url = "{store or f"sqlite:///{folder / account.key_file.stem}.sqlite3"}"',
    ]
    if provider_url:
        lines += ["[swap]", f'provider_url = "{provider_url}"']
    else:
        lines += ["[provider]", f"listen_port = {port}", "requests_per_minute = 100000", "min_amount = 1000"]
    path = folder / f"{account.key_file.stem}.toml"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return str(path)


@dataclass
class Run:
    """One child: what it reported and how it ended."""

    points: list[str] = field(default_factory=list)
    ended: tuple[str, str | None] | None = None
    killed: bool = False


class EndedTooSoonError(Exception):
    """A child ended before it was ready: its node was not, say. A supervisor would start it again."""


class Child:
    """A child process and its reports, awaited without blocking the loop. ``seen`` is called with the name of each point."""

    def __init__(self, target: Any, *args: Any, seen: Callable[[str], None] = lambda _: None) -> None:
        ctx = context()
        self.reports, theirs = ctx.Pipe(duplex=False)
        self.process: BaseProcess = ctx.Process(target=target, args=(*args, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.run = Run()
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = self._loop.create_future()
        self._end = asyncio.Event()
        self._collecting: asyncio.Future[None] | None = None
        self._loop.add_reader(self.reports.fileno(), self._read)

    def _read(self) -> None:
        try:
            while self.reports.poll():
                self._heard(self.reports.recv())
        except (EOFError, OSError):
            self._loop.remove_reader(self.reports.fileno())
            self.reports.close()
            self._collecting = asyncio.ensure_future(self._collect())

    def _heard(self, message: tuple[str, ...]) -> None:
        if message[0] == "point":
            self.run.points.append(message[1])
            self._seen(message[1])
        elif message[0] == "ready" and not self.ready.done():
            self.ready.set_result(message[1])
        elif message[0] == "ended":
            self.run.ended = (message[1], message[2])

    async def _collect(self) -> None:
        while self.process.exitcode is None:  # its pipe closes a moment before it is gone
            await asyncio.sleep(0.01)
        self.run.killed = self.process.exitcode == -signal.SIGKILL
        if not self.ready.done():
            self.ready.set_exception(EndedTooSoonError("the child ended before it was ready"))
            self.ready.exception()  # who does not wait for it need not know
        self._end.set()

    async def finished(self) -> Run:
        """Wait for its end."""
        await self._end.wait()
        return self.run

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return not self._end.is_set()

    def kill(self) -> None:
        """End it as a crash does; ``finished`` tells when it is gone."""
        if self.process.is_alive():
            self.process.kill()

    async def stop(self) -> None:
        """End it, and wait until it is gone."""
        self.kill()
        await self._end.wait()


async def client_to_the_end(job: ClientJob, seen: Callable[[str], None] = lambda _: None) -> tuple[Run, Run]:
    """Run a client, killed at ``job.kill_at``; then again, not killed. Gives both runs."""
    first = await _one_life(job, seen)
    if not first.killed:
        return first, first
    return first, await _one_life(replace(job, kill_at=None), seen)


async def _one_life(job: ClientJob, seen: Callable[[str], None]) -> Run:
    child = Child(run_client, job, seen=seen)
    try:
        return await child.finished()
    finally:
        await child.stop()


def provider_child(config_path: str, kill_at: int | str | None) -> Child:
    """A provider that serves until it is killed."""
    return Child(run_provider, config_path, kill_at)


@dataclass(frozen=True)
class Attempt:
    """One swap, interrupted once or never."""

    points: list[str]
    """What was reached up to the interruption."""
    killed: bool
    outcome: str


def kinds(*effects: str) -> list[str]:
    """The points around commits and some effects."""
    middle = [f"{effect}: under way" for effect in effects if effect in UNDER_WAY]
    return [f"{what}: {when}" for what in ("commit", *effects) for when in ("before", "after")] + middle


Attempts = Callable[[int | str | None], Awaitable[Attempt]]
"""Makes one swap that is interrupted at a point: its number, or the first of a name; None: never."""


async def at_every_point(title: str, attempt: Attempts, *, at_once: int) -> tuple[str, set[str]]:
    """Make one swap that nobody interrupts, then one for each point that it passed.

    Gives how the first ended, and how the others did.
    """
    calm = await attempt(None)
    assert not calm.killed
    # By name where it comes first, for numbers shift when something is looked at or asked for once more than in the calm run.
    points = [n if name in calm.points[: n - 1] else name for n, name in enumerate(calm.points, 1)]
    attempts = await _made(attempt, points, at_once)
    _tell(title, attempts)
    hits = sum(made.killed for made in attempts)
    assert hits * 4 >= len(points) * 3, "most points must be reached again, or the run shows nothing"
    return calm.outcome, {made.outcome for made in attempts}


async def at_each_kind(title: str, attempt: Attempts, kinds: Sequence[str]) -> set[str]:
    """Make one swap for each kind of point, all at a time, interrupted at the first of the kind. Gives how they ended."""
    attempts = await _made(attempt, kinds, len(kinds))
    _tell(title, attempts)
    missed = set(kinds) - {made.points[-1] for made in attempts if made.killed}
    assert not missed, f"nothing was interrupted there: {missed}"
    return {made.outcome for made in attempts}


async def _made(attempt: Attempts, at: Iterable[int | str], at_once: int) -> list[Attempt]:
    limit = asyncio.Semaphore(at_once)

    async def one(point: int | str) -> Attempt:
        async with limit:
            return await attempt(point)

    async with asyncio.TaskGroup() as group:  # who fails must leave no process behind
        tasks = [group.create_task(one(point)) for point in at]
    return [task.result() for task in tasks]


def _tell(title: str, attempts: list[Attempt]) -> None:
    hit = Counter(made.points[-1] for made in attempts if made.killed)
    ends = dict(Counter(made.outcome for made in attempts))
    print(f"\n{title}: {hit.total()} of {len(attempts)} were interrupted; they ended {ends}")
    for name, count in sorted(hit.items()):
        print(f"  {count:3} x {name}")
