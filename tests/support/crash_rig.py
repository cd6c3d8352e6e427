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

from campaign_files import CAMPAIGN
from crash_campaign import told
from crash_child import PRELOAD, UNDER_WAY, ClientJob, kind_of, run_client, run_provider

from layer2.devnet import DevnetAccount, RealNetwork

LIMIT_S = 600 if CAMPAIGN else 240
"""Longest for one transfer, restarts included; a timelock's refund fits."""
TRIES = 12
"""So often a swap is made, in a campaign, until it gets to the point at which it is to be interrupted."""
AT_ONCE, AT_ONCE_WAITING = 4, 10
"""Swaps at a time: those that work, and those that mostly wait for a deadline."""
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
    ended: tuple[str, str | None, str] | None = None
    """How its transfer ended, with the proof or the reason."""
    unfinished: int | None = None
    """How many swaps it has that are not over, finality included; None: it has not said so yet."""
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

    def _heard(self, message: Any) -> None:
        if message[0] == "point":
            self.run.points.append(message[1])
            self._seen(message[1])
        elif message[0] == "ready" and not self.ready.done():
            self.ready.set_result(message[1])
        elif message[0] == "ended":
            self.run.ended = message[1:]
        elif message[0] == "unfinished":
            self.run.unfinished = message[1]

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


async def client_lives(
    job: ClientJob,
    deaths: Sequence[int | str | None],
    seen: Callable[[str], None] = lambda _: None,
    *,
    comes_back: bool = True,
) -> list[Run]:
    """Run a client that is killed at one point in each of its lives, and once more, not killed. Gives all runs."""
    runs: list[Run] = []
    for kill_at in (*deaths, *([None] if comes_back else [])):
        runs.append(await _one_life(replace(job, kill_at=kill_at, from_the_start=len(runs) > 0), seen))
        if not runs[-1].killed:
            break
    return runs


async def _one_life(job: ClientJob, seen: Callable[[str], None]) -> Run:
    child = Child(run_client, job, seen=seen)
    try:
        return await child.finished()
    finally:
        await child.stop()


class Provider:
    """A provider process that is killed at one point in each of its first lives, and started again as soon as it was."""

    def __init__(self, config_path: str, deaths: Sequence[int | str | None]) -> None:
        self._config_path = config_path
        self._deaths = list(deaths)
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.runs: list[Run] = []

    async def start(self) -> None:
        """Serve, or serve again."""
        kill_at = self._deaths.pop(0) if self._deaths else None
        while True:
            self._child = child = Child(run_provider, self._config_path, kill_at, len(self.runs) > 0)
            try:
                await child.ready
            except EndedTooSoonError:
                if not child.run.killed:
                    continue
                self.runs.append(child.run)
                kill_at = self._deaths.pop(0) if self._deaths else None
            else:
                self.runs.append(child.run)
                break
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            assert self._child is not None
            await self._child.finished()
            await self.start()

    async def at_rest(self) -> None:
        """Wait until it has no unfinished swap."""
        while self._child is None or not self._child.running or self._child.run.unfinished != 0:
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End it for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._child is not None:
            await self._child.stop()


def provider_child(config_path: str, kill_at: int | str | None) -> Child:
    """A provider that serves until it is killed."""
    return Child(run_provider, config_path, kill_at, False)


@dataclass(frozen=True)
class Attempt:
    """One swap, interrupted once or never."""

    points: list[str]
    """What was reached up to the interruption."""
    killed: bool
    outcome: str
    why: str = ""


def kinds(*effects: str) -> list[str]:
    """The points around commits and some effects."""
    middle = [f"{effect}: under way" for effect in effects if effect in UNDER_WAY]
    return [f"{what}: {when}" for what in ("commit", *effects) for when in ("before", "after")] + middle


Attempts = Callable[[str | None], Awaitable[Attempt]]
"""Makes one swap that is interrupted at a point; None: never."""


async def at_every_point(title: str, attempt: Attempts, *, at_once: int) -> tuple[str, set[str]]:
    """Make one swap that nobody interrupts, then one for each point that it passed.

    Gives how the first ended, and how the others did. In a campaign each point must have been hit; otherwise most.
    """
    calm = await attempt(None)
    assert not calm.killed
    points = different(calm.points)
    attempts = await _made(attempt, points, at_once)
    hits = Counter(made.points[-1] for made in attempts if made.killed)
    told(title, points, hits, Counter(made.outcome for made in attempts))
    for made in attempts:
        if made.outcome != calm.outcome:
            print(f"  {'killed' if made.killed else 'passed'} at {made.points[-1:]}: {made.outcome}: {made.why}")
    missed = set(points) - set(hits)
    assert not missed if CAMPAIGN else len(missed) * 4 <= len(points), f"nothing was interrupted there: {missed}"
    return calm.outcome, {made.outcome for made in attempts}


async def at_each_kind(title: str, attempt: Attempts, kinds: Sequence[str]) -> set[str]:
    """Make one swap for each kind of point, all at a time, interrupted at the first of the kind. Gives how they ended.

    In a campaign, one for each point.
    """
    if CAMPAIGN:
        calm, others = await at_every_point(title, attempt, at_once=AT_ONCE_WAITING)
        return {calm, *others}
    attempts = await _made(attempt, kinds, len(kinds))
    hits = Counter(made.points[-1] for made in attempts if made.killed)
    told(title, kinds, hits, Counter(made.outcome for made in attempts))
    missed = set(kinds) - set(hits)
    assert not missed, f"nothing was interrupted there: {missed}"
    return {made.outcome for made in attempts}


def different(points: Sequence[str]) -> list[str]:
    """Without the second and later of a kind in a row: who asks again and again while nothing changes is where it was."""
    before = ["", *points]
    return [point for last, point in zip(before, points, strict=False) if kind_of(point) != kind_of(last)]


async def _made(attempt: Attempts, at: Iterable[str], at_once: int) -> list[Attempt]:
    limit = asyncio.Semaphore(at_once)

    async def one(point: str) -> list[Attempt]:
        async with limit:
            made = [await attempt(point)]
            while CAMPAIGN and not made[-1].killed and len(made) < TRIES:
                made.append(await attempt(point))
            return made

    async with asyncio.TaskGroup() as group:  # who fails must leave no process behind
        tasks = [group.create_task(one(point)) for point in at]
    return [made for task in tasks for made in task.result()]
