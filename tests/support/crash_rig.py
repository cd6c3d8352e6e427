"""The parent's side: settings files, children that are forked from a warmed process, and what they report."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from crash_child import PRELOAD, ClientJob, run_client, run_provider

from layer2.devnet import DevnetAccount, RealNetwork

LIMIT_S = 240
"""Longest for one transfer, restarts included; a timelock's refund fits."""


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
    network: RealNetwork, account: DevnetAccount, lnd: str, folder: Path, *, provider_url: str = "", port: int = 0
) -> str:
    """Path of a settings file for a client (with ``provider_url``) or a provider (with ``port``)."""
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
        f'url = "sqlite:///{folder / f"{account.key_file.stem}.sqlite3"}"',
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
    """A child process and its reports, awaited without blocking the loop."""

    def __init__(self, target: Any, *args: Any) -> None:
        ctx = context()
        self.reports, theirs = ctx.Pipe(duplex=False)
        self.process: BaseProcess = ctx.Process(target=target, args=(*args, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.run = Run()
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            try:
                message = await asyncio.to_thread(self.reports.recv)
            except (EOFError, OSError):
                break
            if message[0] == "point":
                self.run.points.append(message[1])
            elif message[0] == "ready" and not self.ready.done():
                self.ready.set_result(message[1])
            elif message[0] == "ended":
                self.run.ended = (message[1], message[2])
        await asyncio.to_thread(self.process.join)
        self.run.killed = self.process.exitcode == -9
        if not self.ready.done():
            self.ready.set_exception(EndedTooSoonError("the child ended before it was ready"))
            self.ready.exception()  # who does not wait for it need not know

    async def finished(self) -> Run:
        """Wait for its end."""
        await asyncio.shield(self._reader)
        return self.run

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return not self._reader.done()

    async def stop(self) -> None:
        """End it."""
        if self.process.is_alive():
            self.process.kill()
        await asyncio.shield(self._reader)


async def client_to_the_end(job: ClientJob) -> tuple[Run, Run]:
    """Run a client, killed at ``job.kill_at``; then again, not killed. Gives both runs."""
    first = await Child(run_client, job).finished()
    if not first.killed:
        return first, first
    again = ClientJob(**{**job.__dict__, "kill_at": None})
    return first, await Child(run_client, again).finished()


def provider_child(config_path: str, kill_at: int | None) -> Child:
    """A provider that serves until it is killed."""
    return Child(run_provider, config_path, kill_at)
