"""A whole local network of real nodes: btcd, three lnd in a row (client - router - provider) and anvil as BOB."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from layer2._clock import Clock, SystemClock
from layer2._observe import log_event
from layer2.devnet._anvil import Anvil, EvmAccount
from layer2.devnet._binaries import NodeBinaries, ensure_binaries
from layer2.devnet._btcd import Btcd, BtcdEndpoint
from layer2.devnet._lnd_process import LndEndpoint, LndProcess
from layer2.devnet._processes import ManagedProcess, free_ports, log_tail, wait_until
from layer2.errors import AsyncRuntimeError, NodeError, NodeNotReady, NotFound

__all__ = ["LndName", "RegtestNetwork"]

LndName: TypeAlias = Literal["client", "router", "provider"]
"""Which of the three Lightning nodes: payments go from client over router to provider."""
_NAMES: tuple[LndName, ...] = ("client", "router", "provider")
_CHANNELS: tuple[tuple[LndName, LndName], ...] = (("client", "router"), ("router", "provider"))
_RESERVE_SAT = 200_000_000
"""Coins that each lnd keeps on chain, with which it bumps the fees of forced closes."""
_ANNOUNCED_AFTER = 6

logger = logging.getLogger("layer2.devnet")


def _log_progress(text: str) -> None:
    log_event(logger, logging.INFO, "devnet.progress", text)


class RegtestNetwork:
    """Real nodes on loopback, as an async context manager.

    Entered, both channels are open, announced and balanced, every lnd is synchronised, and a Bitcoin block comes every
    ``bitcoin_block_s`` seconds. All attributes are plain values, usable from any thread; the methods belong to the event loop
    that entered. The nodes end with the context, and with the process (on Linux) however it ends.

    Args:
        directory: where the nodes keep data and logs; a new temporary one if not given.
        keep: keep the directory even if all went well. After an error it is always kept.
        bitcoin_block_s: seconds from one scheduled Bitcoin block to the next; None: blocks come only from ``mine``.
        evm_block_s: seconds from one BOB block to the next.
        evm_safe_lag_blocks: so many blocks behind the head is the safe one, and twice as many the finalized one. A reorganisation
            of fewer blocks undoes nothing that was safe.
        channel_sat: what each side of each channel holds at first, in satoshi (at most 5 BTC: lnd's limit for a channel is 10).
        binaries: the programs; found or built if not given.
        clock: where the time comes from.
        progress: called with one line about each step.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        keep: bool = False,
        bitcoin_block_s: float | None = 1.0,
        evm_block_s: int = 1,
        evm_safe_lag_blocks: int = 1,
        channel_sat: int = 500_000_000,
        binaries: NodeBinaries | None = None,
        clock: Clock | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.bitcoin_block_s = bitcoin_block_s
        self.evm_block_s = evm_block_s
        self.evm_safe_lag_blocks = evm_safe_lag_blocks
        self.channel_sat = channel_sat
        self._given_directory = directory
        self._keep = keep
        self._binaries = binaries
        self._clock: Clock = clock or SystemClock()
        self._progress = progress or _log_progress
        self._directory: Path | None = None
        self._btcd: Btcd | None = None
        self._anvil: Anvil | None = None
        self._lnds: dict[LndName, LndProcess] = {}
        self._miner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._keep = True
            await self._stop()
            if self._directory is not None:
                text = f"the devnet did not start; its logs are in {self._directory}"
                log_event(logger, logging.WARNING, "devnet.start_failed", text)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        if kind is not None:
            self._keep = True
        await self._stop()

    @property
    def directory(self) -> Path:
        """Where data and logs are: ``<node>/<node>.log``."""
        if self._directory is None:
            raise _not_started()
        return self._directory

    @property
    def client(self) -> LndEndpoint:
        """The user's lnd."""
        return self.lnd("client")

    @property
    def router(self) -> LndEndpoint:
        """The lnd in between, which is also the third party of tests."""
        return self.lnd("router")

    @property
    def provider(self) -> LndEndpoint:
        """The swap provider's lnd."""
        return self.lnd("provider")

    def lnd(self, name: LndName) -> LndEndpoint:
        """Where one lnd is reached."""
        return self._lnd_process(name).endpoint

    @property
    def btcd(self) -> BtcdEndpoint:
        """Where btcd is reached."""
        return self._btcd_process.endpoint

    @property
    def evm_url(self) -> str:
        """URL of anvil's JSON-RPC."""
        return self._anvil_process.url

    @property
    def evm_chain_id(self) -> int:
        """BOB's: 60808."""
        return self._anvil_process.chain_id

    @property
    def evm_accounts(self) -> tuple[EvmAccount, ...]:
        """Accounts with 10,000 ETH each. Their keys are anvil's, known to everybody."""
        return self._anvil_process.accounts

    async def mine(self, count: int = 1) -> list[str]:
        """Mine Bitcoin blocks now; their hashes."""
        return await self._btcd_process.mine(count)

    def mining_paused(self) -> AbstractAsyncContextManager[None]:
        """Inside, Bitcoin blocks come from ``mine`` only. Pauses may overlap."""
        return self._btcd_process.mining_paused()

    async def bitcoin_height(self) -> int:
        """Height of the Bitcoin chain."""
        return await self._btcd_process.height()

    async def send_bitcoin(self, outputs: dict[str, int]) -> str:
        """Pay witness addresses (address -> satoshi) from the miner's coins; the transaction id. The next block has it."""
        return await self._btcd_process.pay(outputs)

    async def btcd_rpc(self, method: str, *params: Any) -> Any:
        """The result of a call to btcd."""
        return await self._btcd_process.rpc(method, *params)

    async def evm_rpc(self, method: str, *params: Any) -> Any:
        """The result of a call to anvil."""
        return await self._anvil_process.rpc(method, *params)

    async def lnd_call(self, name: LndName, method: str, path: str, body: Any = None) -> Any:
        """The answer of an lnd to a REST call with its admin macaroon."""
        return await self._lnd_process(name).call(method, path, body)

    async def stop_lnd(self, name: LndName, *, kill: bool = False) -> None:
        """End one lnd: in order (takes about five seconds), or with ``kill`` at once, as a crash would."""
        await self._lnd_process(name).stop(kill=kill)

    async def start_lnd(self, name: LndName) -> None:
        """Start it again; returns when it is synchronised and its channels can be used."""
        lnd = self._lnd_process(name)
        await lnd.start()
        await self.wait_synced(name)
        count = sum(name in pair for pair in _CHANNELS)

        async def usable() -> bool:
            return await lnd.active_channels() >= count

        await self._wait(usable, f"the channels of lnd {name!r} are active again", lnd.process)

    async def wait_synced(self, *names: LndName) -> None:
        """Wait until these lnds (all, if none is named) have seen the Bitcoin chain as it is now."""
        height = await self.bitcoin_height()
        for name in names or _NAMES:
            lnd = self._lnd_process(name)

            async def synced(lnd: LndProcess = lnd) -> bool:
                return await lnd.synced(height)

            await self._wait(synced, f"lnd {name!r} has seen block {height}", lnd.process)

    def process(self, name: str) -> ManagedProcess:
        """The process of one node: ``btcd``, ``anvil`` or the name of an lnd."""
        for known, process in self._processes():
            if known == name:
                return process
        raise NotFound(f"there is no node {name!r} on this devnet")

    def log_tails(self, lines: int = 40) -> dict[str, str]:
        """The end of each node's log. It reads files: call it from a thread, or when nothing else runs."""
        return {name: log_tail(process.log_path, lines) for name, process in self._processes()}

    @property
    def _btcd_process(self) -> Btcd:
        if self._btcd is None:
            raise _not_started()
        return self._btcd

    @property
    def _anvil_process(self) -> Anvil:
        if self._anvil is None:
            raise _not_started()
        return self._anvil

    def _lnd_process(self, name: LndName) -> LndProcess:
        if not self._lnds:
            raise _not_started()
        if name not in self._lnds:
            raise NotFound(f"there is no lnd {name!r} on this devnet, only {', '.join(_NAMES)}")
        return self._lnds[name]

    def _processes(self) -> list[tuple[str, ManagedProcess]]:
        nodes: dict[str, Btcd | Anvil | LndProcess | None] = {"btcd": self._btcd, "anvil": self._anvil}
        nodes.update((name, lnd) for name, lnd in self._lnds.items())
        return [(name, node.process) for name, node in nodes.items() if node is not None]

    async def _wait(self, condition: Callable[[], Awaitable[bool]], what: str, *processes: ManagedProcess) -> None:
        await wait_until(condition, what, clock=self._clock, timeout_s=120, processes=processes)

    async def _start(self) -> None:
        if self._directory is not None:
            raise AsyncRuntimeError("a devnet can be entered once", hint="make a new RegtestNetwork")
        if self._binaries is None:
            self._binaries = await asyncio.to_thread(ensure_binaries, progress=self._progress)
        await self._prepare(self._binaries)
        await _all(self._btcd_process.start(), self._anvil_process.start())
        await self.mine(_ANNOUNCED_AFTER + 100)
        await _all(*(lnd.start() for lnd in self._lnds.values()))
        await self.wait_synced()
        await self._fund()
        await self._open_channels()
        if self.bitcoin_block_s is not None:
            self._miner = asyncio.create_task(self._mine_on_schedule(self.bitcoin_block_s), name="layer2-devnet-miner")
        self._progress("the devnet is ready")

    async def _prepare(self, binaries: NodeBinaries) -> None:
        directory = self._directory = await asyncio.to_thread(_new_directory, self._given_directory)
        self._progress(f"starting btcd, three lnd and anvil in {directory}")
        ports = await asyncio.to_thread(free_ports, 3 + 3 * len(_NAMES))
        self._btcd = btcd = Btcd(
            binaries.btcd, directory / "btcd", rpc_port=ports.pop(), p2p_port=ports.pop(), clock=self._clock
        )
        self._anvil = Anvil(
            binaries.anvil,
            directory / "anvil",
            port=ports.pop(),
            clock=self._clock,
            block_s=self.evm_block_s,
            safe_lag_blocks=self.evm_safe_lag_blocks,
        )
        self._lnds = {
            name: LndProcess(
                name,
                binaries.lnd,
                directory / name,
                ports=[ports.pop() for _ in range(3)],
                btcd=btcd.endpoint,
                clock=self._clock,
            )
            for name in _NAMES
        }

    async def _mine_on_schedule(self, interval_s: float) -> None:
        try:
            await self._btcd_process.mine_for_ever(interval_s)
        except NodeError:
            log_event(logger, logging.WARNING, "devnet.mining_stopped", "scheduled mining has stopped", exc_info=True)
            raise

    async def _fund(self) -> None:
        self._progress("funding the wallets")
        opened = {name: sum(opener == name for opener, _ in _CHANNELS) for name in _NAMES}
        wanted = {name: _RESERVE_SAT + opened[name] * 2 * self.channel_sat for name in _NAMES}
        addresses = await _all(*(self._lnds[name].new_address() for name in _NAMES))
        await self.send_bitcoin({address: wanted[name] for name, address in zip(_NAMES, addresses, strict=True)})
        await self.mine()
        for name in _NAMES:
            lnd = self._lnds[name]

            async def funded(lnd: LndProcess = lnd, amount_sat: int = wanted[name]) -> bool:
                return await lnd.wallet_sat() >= amount_sat

            await self._wait(funded, f"lnd {name!r} sees its coins", lnd.process)

    async def _open_channels(self) -> None:
        self._progress("opening the channels")
        await self.wait_synced()

        async def open_one(opener: LndName, peer: LndName) -> None:
            lnd = self._lnds[opener]
            await lnd.connect(self.lnd(peer))

            async def connected() -> bool:
                return await lnd.connected_to(self.lnd(peer)) and await self._lnds[peer].connected_to(lnd.endpoint)

            await self._wait(connected, f"lnd {opener!r} and {peer!r} are connected", lnd.process)
            txid = await lnd.open_channel(self.lnd(peer), 2 * self.channel_sat, self.channel_sat)

            async def in_mempool() -> bool:
                return txid in await self.btcd_rpc("getrawmempool")

            # lnd answers before it publishes: blocks mined earlier would not have the transaction.
            await self._wait(in_mempool, "btcd has the funding transaction", lnd.process)

        await _all(*(open_one(opener, peer) for opener, peer in _CHANNELS))
        await self.mine(_ANNOUNCED_AFTER)
        await self.wait_synced()
        ends: tuple[tuple[LndName, LndName], ...] = (("client", "provider"), ("provider", "client"))
        for sender, receiver in ends:
            lnd, target = self._lnds[sender], self._lnds[receiver].endpoint.node_id

            async def routable(lnd: LndProcess = lnd, target: str = target) -> bool:
                return await lnd.can_route_to(target, self.channel_sat // 10)

            await self._wait(routable, f"the graph of lnd {sender!r} has both channels", lnd.process)

    async def _stop(self) -> None:
        if self._miner is not None:
            self._miner.cancel()
            await asyncio.gather(self._miner, return_exceptions=True)
        closing = [self._anvil.close()] if self._anvil is not None else []
        closing += [lnd.stop(kill=True) for lnd in self._lnds.values()]
        closing += [self._btcd.close()] if self._btcd is not None else []
        await _all(*closing)
        if self._directory is not None and not self._keep and self._given_directory is None:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)


async def _all(*awaitables: Awaitable[Any]) -> list[Any]:
    """Wait for all of them to end; then raise the first error, if there is one."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _new_directory(given: Path | None) -> Path:
    if given is None:
        return Path(tempfile.mkdtemp(prefix="layer2-devnet-"))
    given.mkdir(parents=True, exist_ok=True)
    return given.resolve()


def _not_started() -> NodeNotReady:
    return NodeNotReady("the devnet was not started", hint="use it inside 'async with RegtestNetwork() as network:'")
