"""The embedded network: Lightning in memory, a real EVM, and a provider, all in this process.

Its Lightning is simulated: real invoices, signatures and hash locks over channels that exist in memory only. Its EVM is real: the
contract's bytecode, receipts and state tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from layer2._clock import Clock, SystemClock
from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm
from layer2.config import DepthRule, ProviderConfig
from layer2.devnet._embedded_evm import EmbeddedEvm
from layer2.evm import (
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    EvmClient,
    FeeLimits,
    FeeOracle,
    MemoryTxJournal,
    SenderSettings,
    TxSender,
    encode_mint,
)
from layer2.lightning import ChannelPolicy, MemoryLightning
from layer2.signers import LocalSigner
from layer2.storage import Store
from layer2.swaps import DEVNET_TIMING
from layer2.transactions import Depth, EvmCall

if TYPE_CHECKING:
    from layer2.lightning import MemoryNode
    from layer2.provider import LocalProvider, ProviderRuntime

__all__ = ["DEVNET_OFFER", "EmbeddedNetwork", "devnet_token"]

CHANNEL_MSAT: Final = 500_000_000_000
HOP_CLTV: Final = 24
TOKENS: Final = 100_000_000_000
ETHER: Final = 10**18
MINT_GAS: Final = 150_000
GAS_BOUND_WEI: Final = 10**17
DEVNET_OFFER: Final = ProviderConfig(
    fee_base=100,
    min_amount=1_000,
    max_amount=5_000_000,
    max_locked_total=10**10,
    max_unsafe_total=10**10,
    max_held_per_channel=483,
    max_soft_hold_percent=100,
    max_gas_per_hour_wei=10**22,
)
"""Nobody here is a stranger."""


def devnet_token(chain_id: int) -> AssetForm:
    """What BTC is on a development network's chain."""
    return AssetForm(asset=BTC, chain_id=chain_id, contract=TEST_TOKEN_ADDRESS, decimals=8)


class _InProcess:
    """The embedded EVM as a transport. Closing a client does not close the chain."""

    def __init__(self, evm: EmbeddedEvm) -> None:
        self._evm = evm

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one JSON-RPC request."""
        return await self._evm.call(method, params)

    async def close(self) -> None:
        """Nothing: the network owns the chain."""


class EmbeddedNetwork:
    """Four Lightning nodes (client, router, provider, merchant), one EVM chain, one provider.

    An async context manager. ``block_time_s`` is the time between blocks of either chain.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        block_time_s: float = 1.0,
        chain_id: int = 60808,
        with_provider: bool = True,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.block_time_s = block_time_s
        self.timing = DEVNET_TIMING
        self.client_signer = LocalSigner.generate()
        self.provider_signer = LocalSigner.generate()
        self.token = devnet_token(chain_id)
        self.contract = HTLC_ADDRESS
        self.evm = EmbeddedEvm(
            clock=self.clock,
            chain_id=chain_id,
            block_time_s=block_time_s,
            balances={self.client_signer.address: 100 * ETHER, self.provider_signer.address: 100 * ETHER},
        )
        self.lightning = MemoryLightning(clock=self.clock)
        self._with_provider = with_provider
        self._stack = AsyncExitStack()
        self._runtime: ProviderRuntime | None = None
        self.client_node: MemoryNode = self.lightning.add_node("client")
        self.router_node: MemoryNode = self.lightning.add_node("router")
        self.provider_node: MemoryNode = self.lightning.add_node("provider")
        self.merchant_node: MemoryNode = self.lightning.add_node("merchant")

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def transport(self) -> _InProcess:
        """A connection to the EVM."""
        return _InProcess(self.evm)

    @property
    def runtime(self) -> ProviderRuntime:
        """The provider's engine and service."""
        assert self._runtime is not None
        return self._runtime

    def provider(self) -> LocalProvider:
        """The provider, as clients see it."""
        from layer2.provider import LocalProvider

        return LocalProvider(self.runtime.service)

    async def _start(self) -> None:
        self._open_channels()
        await self._stack.enter_async_context(self.evm)
        blocks = asyncio.create_task(self.lightning.run_blocks(self.block_time_s), name="embedded Lightning blocks")
        self._stack.push_async_callback(_end, blocks)
        client = EvmClient(self.transport())
        journal = MemoryTxJournal()
        sender = TxSender(
            client,
            self.provider_signer,
            journal,
            chain_id=self.evm.chain_id,
            clock=self.clock,
            settings=SenderSettings(poll_interval_s=self.block_time_s / 2),
        )
        await sender.start()
        self._stack.push_async_callback(sender.close)
        await self._mint(sender)
        if self._with_provider:
            await self._start_provider(client, sender, journal)

    def _open_channels(self) -> None:
        half = CHANNEL_MSAT // 2
        for name in (self.client_node, self.provider_node, self.merchant_node):
            self.lightning.open_channel(
                name.node_id,
                self.router_node.node_id,
                local_msat=half,
                remote_msat=half,
                policy=ChannelPolicy(cltv_delta=HOP_CLTV),
            )

    async def _mint(self, sender: TxSender) -> None:
        for owner in (self.client_signer.address, self.provider_signer.address):
            await self.mint(sender, owner, TOKENS)

    async def mint(self, sender: TxSender, owner: EvmAddress, amount: int) -> None:
        """Give an account tokens, and wait until they are there."""
        call = EvmCall(to=TEST_TOKEN_ADDRESS, data=encode_mint(owner, amount), gas_limit=MINT_GAS)
        record = await sender.submit(call, exit=True)
        await sender.wait(record.hash, Depth.INCLUDED)

    async def _start_provider(self, client: EvmClient, sender: TxSender, journal: MemoryTxJournal) -> None:
        from layer2.provider import ProviderPlace, ProviderRuntime

        store = await Store.open("sqlite://", clock=self.clock)
        self._stack.push_async_callback(store.close)
        self._runtime = ProviderRuntime(
            store=store,
            client=client,
            sender=sender,
            fees=FeeOracle(client, FeeLimits(), self.clock),
            transactions=journal,
            node=self.provider_node,
            signer=self.provider_signer,
            place=ProviderPlace(
                chain_id=self.evm.chain_id, contract=self.contract, token=self.token, timing=self.timing
            ),
            settings=DEVNET_OFFER,
            depth=(DepthRule(depth="included"),),
            clock=self.clock,
            version="embedded",
            max_gas_cost_wei=GAS_BOUND_WEI,
            poll_s=self.block_time_s / 2,
        )
        await self._runtime.start()
        self._stack.push_async_callback(self._runtime.close)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
