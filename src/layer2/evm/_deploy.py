"""Puts the HTLC contract (and, on development chains, the test token) where it stands on every chain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from layer2._crypto import keccak256
from layer2.errors import NotFound, Reverted, UnexpectedReply
from layer2.evm._artifacts import (
    CREATE2_PROXY,
    CREATE2_PROXY_DEPLOYER,
    CREATE2_PROXY_DEPLOYMENT,
    CREATE2_PROXY_FUNDING_WEI,
    HTLC_ADDRESS,
    HTLC_CODE_HASH,
    TEST_TOKEN_ADDRESS,
    encode_create2,
    load_artifact,
)
from layer2.transactions import Depth, EvmCall

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.evm._client import EvmClient
    from layer2.evm._sender import TxSender

__all__ = ["Deployment", "check_htlc", "deploy_htlc", "deploy_test_token"]

_DEPLOY_GAS: Final = 4_000_000
_TRANSFER_GAS: Final = 21_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A contract that is where it belongs."""

    address: EvmAddress
    code_hash: bytes
    tx_hash: bytes | None
    """Of the transaction that put it there; None if it was there before."""


async def check_htlc(client: EvmClient, address: EvmAddress = HTLC_ADDRESS) -> Deployment:
    """Check that the HTLC contract stands at ``address`` with just the code that this package knows.

    Raises:
        NotFound: there is no code; UnexpectedReply: there is other code, with which nothing may be locked.
    """
    code = await client.code(address)
    if not code:
        raise NotFound(f"there is no contract at {address}", hint="deploy it: layer2 contract deploy")
    code_hash = keccak256(code)
    if code_hash != HTLC_CODE_HASH:
        raise UnexpectedReply(
            f"the code at {address} is not the HTLC contract of this package (code hash 0x{code_hash.hex()})",
            hint="do not lock anything there",
        )
    return Deployment(address=address, code_hash=code_hash, tx_hash=None)


async def deploy_htlc(client: EvmClient, sender: TxSender) -> Deployment:
    """Deploy the HTLC contract, and the deployment proxy if the chain has none; nothing if they are there.

    Raises:
        Reverted: the deployment failed; InsufficientFunds: the account cannot pay for it.
    """
    tx_hash = await _deploy(client, sender, "htlc", HTLC_ADDRESS)
    found = await check_htlc(client)
    return Deployment(address=found.address, code_hash=found.code_hash, tx_hash=tx_hash)


async def deploy_test_token(client: EvmClient, sender: TxSender) -> EvmAddress:
    """Deploy the development networks' token; anybody can mint it."""
    await _deploy(client, sender, "test_token", TEST_TOKEN_ADDRESS)
    return TEST_TOKEN_ADDRESS


async def _deploy(
    client: EvmClient, sender: TxSender, name: Literal["htlc", "test_token"], address: EvmAddress
) -> bytes | None:
    if await client.code(address):
        return None
    await _ensure_proxy(client, sender)
    artifact = await asyncio.to_thread(load_artifact, name)
    call = EvmCall(to=CREATE2_PROXY, data=encode_create2(artifact.bytecode), gas_limit=_DEPLOY_GAS)
    record = await sender.submit(call)
    status = await sender.wait(record.hash, Depth.INCLUDED)
    if not status.succeeded or not await client.code(address):
        raise Reverted(f"the deployment of {name} failed: {status.reason or 'no code appeared'}", tx_id=status.tx_id)
    return record.hash


async def _ensure_proxy(client: EvmClient, sender: TxSender) -> None:
    if await client.code(CREATE2_PROXY):
        return
    if await client.balance(CREATE2_PROXY_DEPLOYER) < CREATE2_PROXY_FUNDING_WEI:
        call = EvmCall(to=CREATE2_PROXY_DEPLOYER, value_wei=CREATE2_PROXY_FUNDING_WEI, gas_limit=_TRANSFER_GAS)
        record = await sender.submit(call)
        await sender.wait(record.hash, Depth.INCLUDED)
    tx_hash = await client.send_raw(CREATE2_PROXY_DEPLOYMENT)
    await sender.wait(tx_hash, Depth.INCLUDED)
    if not await client.code(CREATE2_PROXY):
        raise Reverted("the chain does not take the deployment proxy's transaction")
