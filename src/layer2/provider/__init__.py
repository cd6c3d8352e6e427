"""The provider daemon: offers, inventory, limits, HTTP interface."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.provider._inventory import Inventory
    from layer2.provider._local import LocalProvider
    from layer2.provider._runtime import ProviderRuntime
    from layer2.provider._service import ProviderChain, ProviderPlace, ProviderService

__all__ = [
    "Inventory",
    "LocalProvider",
    "ProviderChain",
    "ProviderPlace",
    "ProviderRuntime",
    "ProviderService",
]

_HOME = {
    "Inventory": "_inventory",
    "LocalProvider": "_local",
    "ProviderChain": "_service",
    "ProviderPlace": "_service",
    "ProviderRuntime": "_runtime",
    "ProviderService": "_service",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
