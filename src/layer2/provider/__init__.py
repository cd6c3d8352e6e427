"""The provider: offers, inventory and caps; its HTTP interface; and the daemon that runs all of it.

``ProviderService`` is the provider without HTTP, ``ProviderRuntime`` adds the engine that drives its swaps, ``create_app`` the HTTP
interface, and ``ProviderDaemon`` makes all of these from a ``Layer2Config``. ``LocalProvider`` is one in the client's own process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.provider._connections import ConnectionLimits
    from layer2.provider._daemon import ProviderDaemon
    from layer2.provider._events import EventStreams
    from layer2.provider._hashes import Hashes
    from layer2.provider._held import HeldParts
    from layer2.provider._http import SwapService, create_app
    from layer2.provider._inventory import Inventory
    from layer2.provider._last_look import LastLook
    from layer2.provider._local import LocalProvider
    from layer2.provider._metrics import ProviderMetrics
    from layer2.provider._rate import RateLimiter
    from layer2.provider._repeats import KeptSwap
    from layer2.provider._room import ProviderChain, Room
    from layer2.provider._runtime import ProviderRuntime
    from layer2.provider._server import HttpServer
    from layer2.provider._service import ProviderPlace, ProviderService
    from layer2.provider._turns import Turns

__all__ = [
    "ConnectionLimits",
    "EventStreams",
    "Hashes",
    "HeldParts",
    "HttpServer",
    "Inventory",
    "KeptSwap",
    "LastLook",
    "LocalProvider",
    "ProviderChain",
    "ProviderDaemon",
    "ProviderMetrics",
    "ProviderPlace",
    "ProviderRuntime",
    "ProviderService",
    "RateLimiter",
    "Room",
    "SwapService",
    "Turns",
    "create_app",
]

_HOME = {
    "ConnectionLimits": "_connections",
    "EventStreams": "_events",
    "Hashes": "_hashes",
    "HeldParts": "_held",
    "HttpServer": "_server",
    "Inventory": "_inventory",
    "KeptSwap": "_repeats",
    "LastLook": "_last_look",
    "LocalProvider": "_local",
    "ProviderChain": "_room",
    "ProviderDaemon": "_daemon",
    "ProviderMetrics": "_metrics",
    "ProviderPlace": "_service",
    "ProviderRuntime": "_runtime",
    "ProviderService": "_service",
    "Room": "_room",
    "RateLimiter": "_rate",
    "SwapService": "_http",
    "Turns": "_turns",
    "create_app": "_http",
}
_EXTRA = ("fastapi", "prometheus_client", "starlette", "uvicorn")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        from layer2.errors import ConfigurationError

        raise ConfigurationError(
            f"{name} needs the package {error.name}", hint="install the extra: pip install 'layer2[provider]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
