"""Loads in a thread what the package otherwise loads when it is first used, which would stop an event loop for that long."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Final

__all__ = ["preload_async"]

_ALWAYS: Final = (
    "aiohttp",
    "layer2._assembly",
    "layer2._layers",
    "layer2._proving",
    "layer2._quoting",
    "layer2._transfer_news",
    "layer2._transfer_view",
    "layer2._transfers",
    "layer2.bob:BobClient",
    "layer2.evm:HttpTransport",
    "layer2.lightning:LightningNetwork",
    "layer2.lightning:LndNode",
    "layer2.lightning:LnurlClient",
    "layer2.proofs:TransferProof",
    "layer2.signers",
    "layer2.storage:SqlTxJournal",
    "layer2.storage:Store",
    "layer2.swaps:HttpProvider",
    "layer2.swaps:SwapEngine",
    "opentelemetry.trace",
)
_EMBEDDED: Final = ("layer2.devnet:EmbeddedNetwork", "layer2.provider:ProviderRuntime", "eth.exceptions")


async def preload_async(*, embedded: bool = False) -> None:
    """Load what a manager needs. What is missing is left to its own import, whose error says more."""
    await asyncio.to_thread(_preload, (*_ALWAYS, *(_EMBEDDED if embedded else ())))


def _preload(names: tuple[str, ...]) -> None:
    from layer2.terms import ChainTiming

    for name in names:
        module, _, attribute = name.partition(":")
        try:
            loaded = import_module(module)
        except ImportError:
            continue
        if attribute:
            getattr(loaded, attribute)
    # The first schema that pydantic builds looks for plugins on the disk.
    ChainTiming.json_schema()
