"""What is checked before a provider makes its first offer: that chain, contract, token and node are those of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2.bob import check_chain_id
from layer2.errors import ConfigurationError, NodeNotReady, NotFound, Reverted, UnexpectedReply
from layer2.evm import check_htlc, decode_uint, encode_decimals

if TYPE_CHECKING:
    from layer2.evm import EvmClient
    from layer2.lightning import LightningNode
    from layer2.provider._service import ProviderPlace

__all__ = ["check_chain", "check_node"]


async def check_chain(client: EvmClient, place: ProviderPlace) -> None:
    """Check the chain id, the HTLC contract's code, and the token's decimals.

    Raises:
        ConfigurationError: one is not what is configured; NodeError: the endpoint does not answer.
    """
    await check_chain_id(client, place.chain_id)
    try:
        await check_htlc(client, place.contract)
    except (NotFound, UnexpectedReply) as error:
        raise ConfigurationError(error.message, key="bob.htlc_contract", hint=error.hint) from error
    token = place.token.contract
    assert token is not None
    try:
        decimals = decode_uint(await client.call(token, encode_decimals()), 8)
    except (Reverted, UnexpectedReply, ValueError) as error:
        raise ConfigurationError(f"there is no token at {token}", key="assets.BTC.contract") from error
    if decimals != place.token.decimals:
        raise ConfigurationError(
            f"the token {token} has {decimals} decimals, not {place.token.decimals}", key="assets.BTC.contract_decimals"
        )


async def check_node(node: LightningNode, network: str) -> None:
    """Check the node's network, and that it knows the chain's present.

    Raises:
        ConfigurationError: it is on another network; NodeNotReady: it is not synchronised; NodeError: it does not answer.
    """
    info = await node.info()
    if info.network != network:
        raise ConfigurationError(
            f"the Lightning node is on {info.network}, not on {network}",
            key="lightning.network",
            hint="connect the node of that network",
        )
    if not info.synced_to_chain:
        raise NodeNotReady("the Lightning node is not synchronised with its chain", hint="wait until it is")
