"""What can happen to the world while processes stand still."""

from __future__ import annotations

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from crash_rig import free_port
from fault_endpoint import Lie, LyingEndpoint
from fault_rig import Fault, Swap, go_on, standby

from layer2.devnet import RegtestNetwork
from layer2.devnet._processes import ManagedProcess

if TYPE_CHECKING:
    from fault_wire import Wire

STANDS_STILL_S = 240
"""Longer than any timelock of these networks."""


class PostgresServer:
    """A PostgreSQL server of its own, reached over TCP through a ``Wire``, whose processes can be killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.uri: str = server.get_uri()
        self.socket = Path(self.uri.partition("host=")[2]) / ".s.PGSQL.5432"

    def create(self, name: str, port: int) -> str:
        """URL of a new database, behind a wire that listens on ``port``."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql://postgres:@127.0.0.1:{port}/{name}"

    def end_sessions(self, name: str) -> None:
        """End every session on a database from the server's side, and wait until they are gone."""
        query = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(query, (name,))

    def crash(self) -> None:
        """End all its processes at once, as a loss of power does, and start it again: it recovers from its log."""
        import psutil

        postmaster = psutil.Process(self._server.get_pid())
        postmaster.suspend()  # it would start new ones, or end them in order
        family = [*postmaster.children(recursive=True), postmaster]
        for process in family:
            process.kill()
        psutil.wait_procs(family)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


async def forget_failures(nodes: RegtestNetwork) -> None:
    """Let each lnd look for a route as if none had ever failed: for an hour it takes no way on which a payment could not go on."""
    for name in ("client", "router", "provider"):
        await nodes.lnd_call(name, "POST", "/v2/router/mc/reset", {})


def a_node_dies(nodes: RegtestNetwork, name: str, *, for_s: float = 2.0) -> Fault:
    """An lnd is killed, and started again with its data."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        await nodes.stop_lnd(name, kill=True)  # type: ignore[arg-type]
        go_on(swaps)
        await asyncio.sleep(for_s)
        await nodes.start_lnd(name)  # type: ignore[arg-type]
        await forget_failures(nodes)
        yield

    return fault


def anvil_dies(nodes: RegtestNetwork, *, for_s: float = 2.0) -> Fault:
    """anvil is killed, and started again with the blocks that it had. What waited for a block is lost, as with any node."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        process = nodes.process("anvil")
        # It writes nothing down while it runs: its blocks are taken from it just before.
        await nodes.evm_rpc("evm_setIntervalMining", 0)
        state = await nodes.evm_rpc("anvil_dumpState", True)
        await process.kill()
        go_on(swaps)
        kept = nodes.directory / "anvil" / "state.json"
        kept.write_bytes(gzip.decompress(bytes.fromhex(state[2:])))
        if "--load-state" not in process.argv:
            process.argv = (*process.argv, "--load-state", str(kept))
        await asyncio.sleep(for_s)
        await nodes._anvil_process.start()
        yield

    return fault


def postgresql_dies(server: PostgresServer, *, for_s: float = 2.0) -> Fault:
    """All processes of the server are killed, and it is started again."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        await asyncio.to_thread(server.crash)
        go_on(swaps)
        await asyncio.sleep(for_s)
        await asyncio.to_thread(server.start)
        yield

    return fault


def a_standby_takes_over(server: PostgresServer, *, first_ends: bool) -> Fault:
    """The session of a process that stands still ends, and another takes its store over. Then the first goes on, as a zombie.

    ``first_ends``: not before the transfer is over.
    """

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        for swap in swaps:
            assert swap.subject.refusals == 0
            await asyncio.to_thread(server.end_sessions, database_of(swap.store))
        await asyncio.gather(*(standby(swap) for swap in swaps))
        if first_ends:
            await asyncio.gather(*(swap.last_client.outcome() for swap in swaps))
        go_on(swaps)
        yield
        async with asyncio.timeout(60):
            ends = await asyncio.gather(*(swap.subject.outcome() for swap in swaps))
        assert set(ends) == {"StoreInUse"}, ends
        sent = {f"{swap.plan}": swap.subject.sent_since for swap in swaps if swap.subject.sent_since}
        assert not sent, f"a process that had lost its store has sent something: {sent}"

    return fault


def the_disk_is_full(*, for_s: float = 3.0) -> Fault:
    """Nothing that the process writes to a file has room, for a while."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        pids = [swap.subject.process.pid for swap in swaps]
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        go_on(swaps)
        await asyncio.sleep(for_s)
        while_full = {f"{swap.plan.who}, {swap.plan.at}": swap.subject.sent_since for swap in swaps}
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(f"\nwhat left a process whose disk was full: {while_full}")
        yield

    return fault


def a_wire(wires: Sequence[Wire], how: str, *, for_s: float = 4.0) -> Fault:
    """The wires (none: those from the clients to their providers) are cut, or pass nothing on, for a while."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        broken = wires or [swap.door for swap in swaps]
        for wire in broken:
            (wire.cut if how == "cut" else wire.stall)()
        go_on(swaps)
        await asyncio.sleep(for_s)
        for wire in broken:
            wire.mend()
        yield

    return fault


def it_lies(endpoint: LyingEndpoint, lie: Lie, *, for_s: float = 6.0) -> Fault:
    """The endpoint of both sides answers so for a while."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        endpoint.tell(lie)
        go_on(swaps)
        await asyncio.sleep(for_s)
        endpoint.tell(Lie.NONE)
        assert endpoint.answered, "nobody was lied to"
        print(f"\nthe endpoint {lie.value}: {sum(endpoint.answered.values())} answers so far were no true ones")
        yield

    return fault


def another_chain(nodes: RegtestNetwork, endpoint: LyingEndpoint, *, for_s: float = 6.0) -> Fault:
    """The endpoint leads to a chain with another id for a while, as a name that was given to somebody else does."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        port = free_port()
        given = {"--chain-id": "60809", "--port": str(port), "--config-out": str(nodes.directory / "other.json")}
        argv = [
            f"{name}={given[name]}" if (name := part.split("=")[0]) in given else part
            for part in nodes.process("anvil").argv
        ]
        if "--load-state" in argv:
            del argv[argv.index("--load-state") :]
        other = ManagedProcess("another anvil", argv, nodes.directory / "other.log")
        await other.start()
        try:
            with endpoint.elsewhere(f"http://127.0.0.1:{port}"):
                go_on(swaps)
                await asyncio.sleep(for_s)
        finally:
            await other.kill()
        yield

    return fault


def blocks_are_undone(nodes: RegtestNetwork, count: int, how: str, *, times: int = 4) -> Fault:
    """So many times, as soon as a block has transactions, it is undone with those before it.

    Its transactions are in another block, or forgotten, so that they must be sent again (``how``: wait, drop).
    """

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        go_on(swaps)
        undone = [0] * times
        for turn in range(times):
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    undone[turn] = await _undo_what_comes(nodes, count, how)
        print(f"\ntransactions that were undone with {count} blocks: {undone}")
        yield

    return fault


async def _undo_what_comes(nodes: RegtestNetwork, count: int, how: str) -> int:
    while not (block := await nodes.evm_rpc("eth_getBlockByNumber", "latest", False))["transactions"]:
        await asyncio.sleep(0.05)
    head = int(block["number"], 16)
    gone: list[str] = []
    for number in range(head - count + 1, head + 1):
        gone += (await nodes.evm_rpc("eth_getBlockByNumber", hex(number), False))["transactions"]
    kept = [[await nodes.evm_rpc("debug_getRawTransaction", sent), count - 1] for sent in gone] if how == "wait" else []
    await nodes.evm_rpc("anvil_reorg", count, kept)
    while int(await nodes.evm_rpc("eth_blockNumber"), 16) <= head:
        await asyncio.sleep(0.05)
    return len(gone)


def it_stands_still(nodes: RegtestNetwork) -> Fault:
    """Processes stand still until the timelock of their swap has passed, and so have all their deadlines."""

    @asynccontextmanager
    async def fault(swaps: Sequence[Swap]) -> AsyncIterator[None]:
        block = await nodes.evm_rpc("eth_getBlockByNumber", "latest", False)
        until = int(block["timestamp"], 16) + STANDS_STILL_S
        while int(block["timestamp"], 16) < until:
            await asyncio.sleep(1)
            block = await nodes.evm_rpc("eth_getBlockByNumber", "latest", False)
        go_on(swaps)
        yield

    return fault
