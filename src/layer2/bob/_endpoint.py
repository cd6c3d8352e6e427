"""What is checked of an endpoint before anything is sent through it: that it serves the chain, and the one of the store."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from layer2._observe import log_event
from layer2.errors import (
    AuthenticationError,
    ConfigurationError,
    NodeConnectionError,
    NodeError,
    NodeNotReady,
    RateLimited,
)

if TYPE_CHECKING:
    from layer2.bob._chains import ChainPreset
    from layer2.evm import EvmClient

__all__ = ["BindChain", "check_chain_id", "check_endpoint"]

BindChain = Callable[[int, bytes], Awaitable[None]]
"""Takes a chain id and the hash of the chain's first block, and raises if another chain of that id was bound before."""

logger: Final = logging.getLogger("layer2.bob")


async def check_chain_id(rpc: EvmClient, chain_id: int, name: str | None = None) -> None:
    """Check that the endpoint serves the chain, which errors call ``name``.

    Raises:
        ConfigurationError: it serves another; NodeError: it does not answer.
    """
    served = await rpc.chain_id()
    if served != chain_id:
        wanted = str(chain_id) if name is None else f"{name} ({chain_id})"
        raise ConfigurationError(
            f"the endpoint serves chain {served}, not {wanted}",
            hint="give the URL of an endpoint of that chain, or configure the chain it serves",
            key="bob.rpc_url",
        )


async def check_endpoint(rpc: EvmClient, preset: ChainPreset, bind_chain: BindChain | None) -> None:
    """Check the chain id, and that the chain is the one that what is stored belongs to.

    Raises:
        ConfigurationError: the endpoint serves another chain; NodeError: it does not answer.
    """
    await check_chain_id(rpc, preset.chain_id, preset.name)
    if bind_chain is None:
        return
    try:
        first = await rpc.header(0)
    except (NodeConnectionError, AuthenticationError, RateLimited, NodeNotReady):
        raise
    except NodeError as error:
        _unknown(preset, str(error))
        return
    if first is None:
        _unknown(preset, "it gives none")
        return
    await bind_chain(preset.chain_id, first.hash)


def _unknown(preset: ChainPreset, reason: str) -> None:
    # Endpoints that drop history exist, and a chain id is all that they leave to go by.
    text = f"{preset.name}: the endpoint does not show the chain's first block ({reason})"
    log_event(logger, logging.WARNING, "bob.first_block_unknown", text)
