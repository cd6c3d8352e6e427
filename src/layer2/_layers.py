"""Builds the layers of a configuration: node connections, accounts, the provider, the embedded network."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.errors import ConfigurationError
from layer2.protocol import Layer2ProtocolAsync, Layer2ProtocolType, Signer

if TYPE_CHECKING:
    from pathlib import Path

    from layer2._clock import Clock
    from layer2._operations import Operations
    from layer2.addresses import EvmAddress
    from layer2.bob import BobClient, ChainPreset
    from layer2.config import Layer2Config
    from layer2.devnet import EmbeddedNetwork
    from layer2.evm import TxJournal
    from layer2.lightning import LightningNetwork, LightningNode
    from layer2.storage import Store
    from layer2.swaps import Place, ProviderApi

__all__ = ["LayerFactory", "load_signer"]

_DEVNET_GAS_COST_WEI: Final = 10**17
"""Development chains begin with a price of gas that real ones do not know, and their ether is free."""


async def load_signer(config: Layer2Config) -> Signer | None:
    """The signer of the configuration; None if it has none.

    Raises:
        SignerError: wrong password, or not a key; ConfigurationError: its secret cannot be read.
    """
    from layer2.signers import LocalSigner, load_keystore

    section = config.signer
    if section is None:
        return None
    if section.private_key is not None:
        return LocalSigner.from_hex(section.private_key.reveal())
    assert section.keystore is not None
    assert section.password is not None
    return await load_keystore(section.keystore, section.password.reveal())


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
        registry = self.config.asset_registry()
        if self.config.network in ("devnet", "embedded") and "BTC" not in self.config.assets:
            from layer2.evm import TEST_TOKEN_ADDRESS

            form = AssetForm(asset=BTC, chain_id=self.preset().chain_id, contract=TEST_TOKEN_ADDRESS, decimals=8)
            return registry.with_form(form)
        return registry

    @property
    def contract(self) -> EvmAddress:
        """The HTLC contract."""
        from layer2.evm import HTLC_ADDRESS

        configured = None if self.config.bob is None else self.config.bob.htlc_contract
        return configured or HTLC_ADDRESS

    @property
    def max_gas_cost_wei(self) -> int:
        """Bound on the gas of one transfer."""
        local = self.config.network in ("devnet", "embedded")
        if self.config.bob is None or (local and self.config.bob.max_gas_cost_wei < _DEVNET_GAS_COST_WEI):
            return _DEVNET_GAS_COST_WEI
        return self.config.bob.max_gas_cost_wei

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

    def build(self, name: str) -> Layer2ProtocolAsync:
        """A layer by its name, not initialised yet."""
        if name == Layer2ProtocolType.BOB:
            return self._bob()
        if name == Layer2ProtocolType.LIGHTNING:
            return self._lightning()
        raise ConfigurationError(f"there is no layer {name!r}", key=name)

    def journal(self) -> TxJournal:
        """Signed transactions, in the store."""
        from layer2.storage import SqlTxJournal

        return SqlTxJournal(self.store)

    def preset(self) -> ChainPreset:
        """The chain."""
        from layer2.bob import BOB_MAINNET, BOB_SEPOLIA, DEVNET, ChainPreset

        chain = "devnet" if self.config.bob is None else self.config.bob.chain
        if isinstance(chain, int):
            return ChainPreset(name=f"chain {chain}", chain_id=chain)
        return {"bob": BOB_MAINNET, "bob-sepolia": BOB_SEPOLIA}.get(chain, DEVNET)

    def _bob(self) -> BobClient:
        from layer2.bob import BobClient
        from layer2.evm import FeeLimits, HttpLimits, HttpTransport, RpcTransport

        preset = self.preset()
        transport: RpcTransport
        limits = FeeLimits()
        if self.embedded is not None:
            transport = self.embedded.transport()
        else:
            section = self.config.bob
            assert section is not None
            url = section.rpc_url or preset.rpc_url
            if url is None:
                raise ConfigurationError(f"there is no public endpoint of {preset.name}", key="bob.rpc_url")
            pool = self.config.connection_pool
            transport = HttpTransport(
                url,
                clock=self.clock,
                limits=HttpLimits(
                    max_connections=min(pool.max_connections, pool.max_connections_per_host),
                    connect_timeout_s=pool.connect_timeout_ms / 1000,
                    idle_timeout_s=pool.idle_timeout_ms / 1000,
                ),
            )
            limits = replace(limits, max_gas_cost_wei=max(section.max_gas_cost_wei, limits.max_gas_cost_wei))
            if section.max_fee_per_gas_wei is not None:
                limits = replace(limits, max_fee_per_gas_wei=section.max_fee_per_gas_wei)
            if self.config.network in ("bob", "bob-sepolia"):
                preset = replace(preset, max_unconfirmed_per_key=section.max_unconfirmed_per_key)
        return BobClient(
            transport=transport,
            signer=self.signer,
            registry=self.registry,
            journal=self.journal(),
            preset=preset,
            clock=self.clock,
            limits=limits,
            operations=self.operations,
            htlc_contract=self.contract,
        )

    def _lightning(self) -> LightningNetwork:
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
            self._node(),
            network=self.config.lightning_network,
            limits=limits,
            journal=SqlOperationJournal(self.store),
            operations=self.operations,
            lnurl=LnurlClient(allow_local=self.config.network in ("devnet", "embedded")),
            clock=self.clock,
        )

    def _node(self) -> LightningNode:
        if self.embedded is not None:
            return self.embedded.client_node
        from layer2.lightning import LndNode

        section = self.config.lightning
        assert section is not None
        return LndNode.connect(
            section.rest_url,
            macaroon=section.macaroon_hex,
            certificate=_certificate(section.tls_cert),
            fingerprint=section.tls_fingerprint,
            max_connections=self.config.connection_pool.max_connections_per_host,
        )

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
        )


def _certificate(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeError) as exc:
        raise ConfigurationError(
            f"lightning.tls_cert: cannot read {path}: {type(exc).__name__}", key="lightning.tls_cert", path=str(path)
        ) from exc
