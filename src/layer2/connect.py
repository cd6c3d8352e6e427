"""What a configuration stands for: the account, the connections, the assets, the bounds.

Public, so that a program of your own can stand on the same settings as the manager, the command line and the provider.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layer2._config_load import check_settings
from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.bob import BOB_MAINNET, BOB_SEPOLIA, DEVNET, ChainPreset
from layer2.errors import ConfigurationError
from layer2.evm import TEST_TOKEN_ADDRESS, FeeLimits, HttpLimits, HttpTransport
from layer2.lightning import LndNode
from layer2.signers import LocalSigner, load_keystore

if TYPE_CHECKING:
    from layer2 import Clock
    from layer2.config import Layer2Config
    from layer2.protocol import Signer

__all__ = [
    "bound_of_gas",
    "bound_of_unsafe",
    "chain_preset",
    "check_settings",
    "connect_chain",
    "connect_node",
    "fee_limits",
    "load_signer",
    "provider_store_url",
    "registry_of",
    "token_of",
]

_UNSAFE_TOTAL: Final = 5_000_000
_LOCAL_UNSAFE_TOTAL: Final = 2**64
"""Development networks have no sequencer that could stall."""
_GAS_COST_WEI: Final = 2 * 10**15
_LOCAL_GAS_COST_WEI: Final = 10**17
"""Development chains begin with a price of gas that real ones do not know, and their ether is free."""


def _is_local(config: Layer2Config) -> bool:
    return config.network in ("devnet", "embedded")


def chain_preset(config: Layer2Config) -> ChainPreset:
    """The chain."""
    if config.bob is None:
        return DEVNET
    chain = config.bob.chain
    if isinstance(chain, int):
        preset = ChainPreset(name=f"chain {chain}", chain_id=chain)
    else:
        preset = {"bob": BOB_MAINNET, "bob-sepolia": BOB_SEPOLIA}.get(chain, DEVNET)
    return replace(
        preset,
        max_unconfirmed_per_key=config.bob.max_unconfirmed_per_key,
        poll_interval_s=config.bob.poll_interval_ms / 1000,
    )


def registry_of(config: Layer2Config) -> AssetRegistry:
    """The assets; on development networks BTC is the test token unless the file says otherwise."""
    registry = config.asset_registry()
    if _is_local(config) and BTC.name not in config.assets:
        form = AssetForm(asset=BTC, chain_id=config.chain_id, contract=TEST_TOKEN_ADDRESS, decimals=8)
        return registry.with_form(form)
    return registry


def token_of(config: Layer2Config) -> AssetForm:
    """What BTC is on the chain.

    Raises:
        ConfigurationError: nothing there.
    """
    try:
        return registry_of(config).form(BTC, config.chain_id)
    except ValueError as error:
        raise ConfigurationError(
            f"it is not known what BTC is on chain {config.chain_id}",
            key="assets.BTC",
            hint="name the token's contract",
        ) from error


def bound_of_gas(config: Layer2Config) -> int:
    """The most that the gas of one swap may cost, in wei."""
    configured = None if config.bob is None else config.bob.max_gas_cost_wei
    if configured is not None:
        return configured
    return _LOCAL_GAS_COST_WEI if _is_local(config) else _GAS_COST_WEI


def bound_of_unsafe(config: Layer2Config) -> int:
    """The most that may hang on what the sequencer alone has confirmed, over all transfers, in satoshi."""
    configured = config.swap.max_unsafe_total
    if configured is not None:
        return configured
    return _LOCAL_UNSAFE_TOTAL if _is_local(config) else _UNSAFE_TOTAL


def fee_limits(config: Layer2Config) -> FeeLimits:
    """Bounds on what transactions pay."""
    limits = FeeLimits()
    limits = replace(limits, max_gas_cost_wei=bound_of_gas(config))
    if config.bob is not None and config.bob.max_fee_per_gas_wei is not None:
        limits = replace(limits, max_fee_per_gas_wei=config.bob.max_fee_per_gas_wei)
    return limits


def connect_chain(config: Layer2Config, preset: ChainPreset, clock: Clock) -> HttpTransport:
    """The endpoint.

    Raises:
        ConfigurationError: none is configured.
    """
    url = (config.bob.rpc_url if config.bob is not None else None) or preset.rpc_url
    if url is None:
        raise ConfigurationError(f"there is no public endpoint of {preset.name}", key="bob.rpc_url")
    pool = config.connection_pool
    limits = HttpLimits(
        max_connections=min(pool.max_connections, pool.max_connections_per_host),
        connect_timeout_s=pool.connect_timeout_ms / 1000,
        idle_timeout_s=pool.idle_timeout_ms / 1000,
    )
    return HttpTransport(url, clock=clock, limits=limits)


async def connect_node(config: Layer2Config) -> LndNode:
    """The Lightning node.

    Raises:
        ConfigurationError: none is configured, or its credentials cannot be read.
    """
    section = config.lightning
    if section is None:
        raise ConfigurationError("a Lightning node is needed: there is no [lightning] section", key="lightning")
    pool = config.connection_pool

    def connect() -> LndNode:
        return LndNode.connect(
            section.rest_url,
            macaroon=section.macaroon_hex,
            certificate=None if section.tls_cert is None else _read(section.tls_cert),
            fingerprint=section.tls_fingerprint,
            allow_plain_http=section.allow_plain_http,
            max_connections=min(pool.max_connections, pool.max_connections_per_host),
            connect_timeout_s=pool.connect_timeout_ms / 1000,
            idle_timeout_s=pool.idle_timeout_ms / 1000,
        )

    return await asyncio.to_thread(connect)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot read the node's certificate: {error}", key="lightning.tls_cert") from error


async def load_signer(config: Layer2Config) -> Signer | None:
    """The account on the chain; None if none is configured.

    Raises:
        ConfigurationError: its secret cannot be read; SignerError: wrong password, or not a key.
    """
    section = config.signer
    if section is None:
        return None
    if section.private_key is not None:
        return LocalSigner.from_hex(await asyncio.to_thread(section.private_key.reveal))
    assert section.keystore is not None
    assert section.password is not None
    return await load_keystore(section.keystore, await asyncio.to_thread(section.password.reveal))


def provider_store_url(config: Layer2Config) -> str:
    """Where the provider's journal is: by default beside the user's own, which another process may have open."""
    if config.store.url is not None:
        return config.store.url
    default = config.store_url
    if default == "sqlite://":
        return default
    return default.removesuffix(".sqlite3") + "-provider.sqlite3"
