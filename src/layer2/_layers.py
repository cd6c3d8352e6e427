"""Builds the layers of a configuration: node connections, accounts, the provider, the embedded network."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2.assets import BTC, AssetRegistry
from layer2.connect import (
    bound_of_gas,
    chain_preset,
    connect_chain,
    connect_node,
    fee_limits,
    load_signer,
    registry_of,
)
from layer2.errors import ConfigurationError
from layer2.protocol import Layer2ProtocolAsync, Layer2ProtocolType, Signer

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2._operations import Operations
    from layer2.addresses import EvmAddress
    from layer2.bob import BobClient, ChainPreset
    from layer2.config import Layer2Config
    from layer2.devnet import EmbeddedNetwork
    from layer2.evm import RpcTransport, TxJournal
    from layer2.lightning import LightningNetwork, LightningNode
    from layer2.storage import Store
    from layer2.swaps import Place, ProviderApi

__all__ = ["LayerFactory"]


@dataclass
class LayerFactory:
    """Makes what a manager works with. What it opens is closed by ``stack``."""

    config: Layer2Config
    clock: Clock
    operations: Operations
    store: Store
    stack: AsyncExitStack
    signer: Signer | None = None
    embedded: EmbeddedNetwork | None = None

    async def prepare(self) -> None:
        """Start the embedded network if that is the configuration, and load the signer."""
        if self.config.is_embedded and self.embedded is None:
            from layer2.devnet import EmbeddedNetwork

            self.embedded = await self.stack.enter_async_context(EmbeddedNetwork(clock=self.clock))
            self.signer = self.signer or self.embedded.client_signer
        if self.signer is None:
            self.signer = await load_signer(self.config)

    @property
    def registry(self) -> AssetRegistry:
        """What the assets are on the configured chain."""
        return registry_of(self.config)

    @property
    def contract(self) -> EvmAddress:
        """The HTLC contract."""
        from layer2.evm import HTLC_ADDRESS

        configured = None if self.config.bob is None else self.config.bob.htlc_contract
        return configured or HTLC_ADDRESS

    @property
    def max_gas_cost_wei(self) -> int:
        """Bound on the gas of one transfer."""
        return bound_of_gas(self.config)

    def names(self) -> tuple[str, ...]:
        """The layers that are configured."""
        if self.config.is_embedded:
            return (Layer2ProtocolType.BOB, Layer2ProtocolType.LIGHTNING)
        names = []
        if self.config.bob is not None:
            names.append(Layer2ProtocolType.BOB)
        if self.config.lightning is not None:
            names.append(Layer2ProtocolType.LIGHTNING)
        return tuple(names)

    async def build(self, name: str) -> Layer2ProtocolAsync:
        """A layer by its name, not initialised yet."""
        if name == Layer2ProtocolType.BOB:
            return self._bob()
        if name == Layer2ProtocolType.LIGHTNING:
            return await self._lightning()
        raise ConfigurationError(f"there is no layer {name!r}", key=name)

    def journal(self) -> TxJournal:
        """Signed transactions, in the store."""
        from layer2.storage import SqlTxJournal

        return SqlTxJournal(self.store)

    def preset(self) -> ChainPreset:
        """The chain."""
        return chain_preset(self.config)

    def _bob(self) -> BobClient:
        from layer2.bob import BobClient

        preset = self.preset()
        transport: RpcTransport
        transport = (
            connect_chain(self.config, preset, self.clock) if self.embedded is None else self.embedded.transport()
        )
        return BobClient(
            transport=transport,
            signer=self.signer,
            registry=self.registry,
            journal=self.journal(),
            preset=preset,
            clock=self.clock,
            limits=fee_limits(self.config),
            operations=self.operations,
            htlc_contract=self.contract,
            bind_chain=self.store.bind_chain,
        )

    async def _lightning(self) -> LightningNetwork:
        from layer2.lightning import LightningNetwork, LnurlClient, PaymentLimits
        from layer2.storage import SqlOperationJournal

        limits = PaymentLimits()
        section = self.config.lightning
        if section is not None:
            limits = PaymentLimits(
                fee_ppm=section.fee_limit_basis_points * 100,
                fee_base_msat=section.fee_limit_base_msat,
                cltv_limit=section.cltv_limit,
                time_limit_s=section.payment_time_limit_s,
            )
        return LightningNetwork(
            await self._node(),
            network=self.config.lightning_network,
            limits=limits,
            journal=SqlOperationJournal(self.store),
            operations=self.operations,
            lnurl=LnurlClient(allow_local=self.config.network in ("devnet", "embedded")),
            clock=self.clock,
        )

    async def _node(self) -> LightningNode:
        return await connect_node(self.config) if self.embedded is None else self.embedded.client_node

    def provider(self) -> ProviderApi | None:
        """The swap provider; None if none is configured."""
        if self.embedded is not None:
            return self.embedded.provider()
        if self.config.swap.provider_url is None:
            return None
        from layer2.swaps import HttpProvider

        return HttpProvider(self.config.swap.provider_url)

    def place(self) -> Place:
        """Where transfers happen."""
        from layer2.swaps import DEVNET_TIMING, Place

        timing = DEVNET_TIMING if self.embedded is not None else self.config.chain_timing()
        chain_id = self.preset().chain_id
        return Place(
            chain_id=chain_id,
            contract=self.contract,
            token=self.registry.form(BTC, chain_id),
            timing=timing,
            lightning_network=self.config.lightning_network,
            provider=self.config.swap.provider_address,
        )
