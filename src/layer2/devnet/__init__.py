"""Whole local networks to run on: real nodes, started, funded and stopped in one context manager."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.devnet._anvil import EvmAccount
    from layer2.devnet._binaries import NodeBinaries, ensure_binaries, find_binaries
    from layer2.devnet._btcd import BtcdEndpoint
    from layer2.devnet._embedded import EmbeddedNetwork
    from layer2.devnet._embedded_evm import EmbeddedEvm
    from layer2.devnet._lnd_process import LndEndpoint
    from layer2.devnet._local import DevnetAccount, RealNetwork
    from layer2.devnet._provider_host import ProviderHost
    from layer2.devnet._regtest import LndName, RegtestNetwork

__all__ = [
    "BtcdEndpoint",
    "DevnetAccount",
    "EmbeddedEvm",
    "EmbeddedNetwork",
    "EvmAccount",
    "LndEndpoint",
    "LndName",
    "NodeBinaries",
    "ProviderHost",
    "RealNetwork",
    "RegtestNetwork",
    "ensure_binaries",
    "find_binaries",
]

_HOME = {
    "BtcdEndpoint": "_btcd",
    "DevnetAccount": "_local",
    "EmbeddedEvm": "_embedded_evm",
    "EmbeddedNetwork": "_embedded",
    "EvmAccount": "_anvil",
    "LndEndpoint": "_lnd_process",
    "LndName": "_regtest",
    "NodeBinaries": "_binaries",
    "ProviderHost": "_provider_host",
    "RealNetwork": "_local",
    "RegtestNetwork": "_regtest",
    "ensure_binaries": "_binaries",
    "find_binaries": "_binaries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
