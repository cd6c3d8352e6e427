"""Child processes of a devnet: started, logged, stopped by their own process id, and gone when their parent is."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from layer2._clock import Clock
from layer2.errors import NodeConnectionError, NodeNotReady

__all__ = ["ManagedProcess", "free_ports", "log_tail", "wait_until"]

LOOPBACK = "127.0.0.1"

# Run by a fresh interpreter that becomes the node. A preexec function would run between fork and exec in a process that may hold
# other threads' locks. The kernel sends the signal when the *thread* that forked ends: the thread of the network's event loop.
_LAUNCHER = """
import os, signal, sys
parent = int(sys.argv[1])
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != parent:
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ManagedProcess:
    """One program with its log file. It may be started again after it has ended."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log_path = log_path
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it; its output is appended to the log.

        Raises:
            NodeConnectionError: the program cannot be run.
        """
        if self.running:
            return
        log = await asyncio.to_thread(os.open, self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the nodes in order
            )  # fmt: skip
        except OSError as exc:
            raise NodeConnectionError(f"{self.name} cannot be started: {exc}", request_sent=False) from exc
        finally:
            os.close(log)

    async def stop(self, *, grace_s: float = 20.0) -> None:
        """Ask it to end, then make it, and wait until it has ended: only then are its ports free again."""
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once, as a crash would, and wait until it has ended."""
        self.send_signal(signal.SIGKILL)
        await self._wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal (``SIGSTOP`` and ``SIGCONT`` freeze and thaw it); nothing if it does not run."""
        if self.running and self._process is not None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return

    async def _wait(self) -> None:
        if self._process is not None:
            await self._process.wait()

    async def check_running(self) -> None:
        """Raise if it has ended by itself.

        Raises:
            NodeConnectionError: it has; the message ends with the tail of its log.
        """
        if self._process is not None and self._process.returncode is not None:
            tail = await asyncio.to_thread(log_tail, self.log_path)
            raise NodeConnectionError(
                f"{self.name} has ended with status {self._process.returncode}; the end of {self.log_path}:\n{tail}",
                endpoint=self.name,
                request_sent=False,
            )


async def wait_until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    *,
    clock: Clock,
    timeout_s: float = 60.0,
    pause_s: float = 0.1,
    processes: Sequence[ManagedProcess] = (),
) -> None:
    """Poll until ``condition`` holds.

    Raises:
        NodeNotReady: it did not within ``timeout_s``.
        NodeConnectionError: one of ``processes`` ended meanwhile.
    """
    deadline = clock.monotonic_s() + timeout_s
    while not await condition():
        for process in processes:
            await process.check_running()
        if clock.monotonic_s() > deadline:
            raise NodeNotReady(f"waited {timeout_s:.0f} s in vain: {what}")
        await clock.sleep(pause_s)


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nothing listens on now.

    They are taken from below the range of which the kernel gives ports to outgoing connections, so that a node finds its port
    still free when it starts again.
    """
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = 10_000 + secrets.randbelow(_first_ephemeral_port() - 10_000)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            ports.append(port)
    return ports


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > 11_000 else 32_768


def log_tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
