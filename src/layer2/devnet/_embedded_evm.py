"""An EVM chain in this process, answering JSON-RPC as geth does. Needs the extra ``devnet``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from layer2._clock import Clock, SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import AsyncRuntimeError, ConfigurationError

if TYPE_CHECKING:
    from layer2.devnet._evm_chain import EvmChain
    from layer2.devnet._evm_methods import EvmMethods

__all__ = ["EmbeddedEvm"]

T = TypeVar("T")


class EmbeddedEvm:
    """A development chain with Prague's rules: real headers, receipts, state tries and proofs.

    Blocks come every ``block_time_s`` by ``clock``, with each transaction (``automine``), or only by ``mine`` (both off). A
    block's timestamp is the clock's, or its parent's plus one where that is later. ``safe`` and ``finalized`` follow the head at
    a distance of so many blocks; both can be changed while it runs.

    The genesis state has EIP-2935's history contract and, unless ``preinstalled`` is off, the HTLC contract, the test token
    (anybody can mint it), the deterministic deployment proxy, and OP Stack fee contracts that answer zero. Use it as an async
    context manager.

    ``in_thread=False`` runs the EVM on the event loop's own thread: for simulations that must be reproducible.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        chain_id: int = 60808,
        block_time_s: float | None = 1.0,
        automine: bool = False,
        safe_lag_blocks: int = 1,
        finalized_lag_blocks: int = 2,
        replacement_bump_percent: int = 10,
        balances: Mapping[EvmAddress, int] | None = None,
        preinstalled: bool = True,
        in_thread: bool = True,
    ) -> None:
        if automine:
            block_time_s = None
        if block_time_s is not None and block_time_s <= 0:
            raise ConfigurationError("the block time is a positive number of seconds, or None", key="block_time_s")
        self.chain_id = chain_id
        self.safe_lag_blocks = safe_lag_blocks
        self.finalized_lag_blocks = finalized_lag_blocks
        self._clock = clock or SystemClock()
        self._block_time_s = block_time_s
        self._automine = automine
        self._bump = replacement_bump_percent
        self._balances = {address.raw: wei for address, wei in (balances or {}).items()}
        self._preinstalled = preinstalled
        self._threaded = in_thread
        self._executor: ThreadPoolExecutor | None = None
        self._methods: EvmMethods | None = None
        self._miner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load py-evm, make the genesis block, begin to mine.

        Raises:
            ConfigurationError: py-evm is not installed.
        """
        if self._methods is not None:
            return
        if self._threaded and self._executor is None:
            self._executor = ThreadPoolExecutor(1, "layer2-evm")
        self._methods = await self._in_thread(self._build)
        if self._block_time_s is not None:
            self._miner = asyncio.create_task(self._mine_for_ever(self._block_time_s), name="embedded EVM miner")

    def _build(self) -> EvmMethods:
        try:
            from layer2.devnet._evm_chain import EvmChain
            from layer2.devnet._evm_methods import EvmMethods
        except ImportError as exc:
            raise ConfigurationError(
                "the embedded EVM needs py-evm", hint="install the extra: pip install 'layer2[devnet]'"
            ) from exc
        chain = EvmChain(
            chain_id=self.chain_id,
            genesis_timestamp=self._now_s(),
            balances=self._balances,
            replacement_bump_percent=self._bump,
            preinstalled=self._preinstalled,
        )
        return EvmMethods(chain, self._now_s, lambda: (self.safe_lag_blocks, self.finalized_lag_blocks))

    async def aclose(self) -> None:
        """Stop mining and end the thread. Later calls are refused. An error that ended the mining is raised here."""
        miner, self._miner, self._methods = self._miner, None, None
        executor, self._executor = self._executor, None
        try:
            if miner is not None:
                miner.cancel()
                await asyncio.wait([miner])
                if not miner.cancelled():
                    miner.result()
        finally:
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one JSON-RPC request with the ``result``.

        Raises:
            RpcError: what a node would answer as its ``error``.
            AsyncRuntimeError: not started, closed, or mining came to an end by an error (the cause).
        """
        methods = self._started()
        result = await self._in_thread(methods.handle, method, params)
        if self._automine and method == "eth_sendRawTransaction":
            await self._in_thread(self._mine, methods.chain, 1, None)
        return result

    async def mine(self, blocks: int = 1, *, timestamp: int | None = None) -> int:
        """Make blocks now, the first with ``timestamp`` (never at or below its parent's). Returns the new head's number."""
        return await self._in_thread(self._mine, self._started().chain, blocks, timestamp)

    def _mine(self, chain: EvmChain, blocks: int, timestamp: int | None) -> int:
        for _ in range(blocks):
            chain.mine(self._now_s() if timestamp is None else timestamp)
            timestamp = None
        return chain.head.number

    async def fund(self, address: EvmAddress, wei: int) -> None:
        """Mine a block that credits ``address`` with ``wei``, rounded up to whole gwei."""
        chain = self._started().chain
        await self._in_thread(lambda: chain.mine(self._now_s(), credits=[(address.raw, wei)]))

    async def reorganise(self, depth: int, *, transactions: Literal["include", "wait", "drop"] = "include") -> None:
        """Replace the last ``depth`` blocks by as many others.

        ``transactions``: those of the replaced blocks are included again at once, wait in the pool for later blocks, or are
        dropped, so that somebody has to send them again.
        """
        await self._in_thread(self._started().chain.reorganise, depth, transactions)

    async def drop_transaction(self, tx_hash: bytes) -> bool:
        """Let the pool forget a transaction. False if it does not have it."""
        return await self._in_thread(self._started().chain.pool.drop, tx_hash)

    def _started(self) -> EvmMethods:
        if self._methods is None:
            raise AsyncRuntimeError("the embedded EVM is not running", hint="use it as an async context manager")
        if self._miner is not None and self._miner.done():
            raise AsyncRuntimeError("the embedded EVM mines no more") from self._miner.exception()
        return self._methods

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    async def _mine_for_ever(self, block_time_s: float) -> None:
        chain = self._started().chain
        while True:
            await self._clock.sleep(block_time_s)
            await self._in_thread(self._mine, chain, 1, None)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._executor is None:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
