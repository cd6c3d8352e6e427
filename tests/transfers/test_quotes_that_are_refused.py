"""A quote refuses what the transfer would refuse, as far as the invoice and the provider's figures tell."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from layer2 import BTC, Layer2Manager, SwapRefused
from layer2 import Layer2ProtocolType as P
from layer2.lightning import LightningNode, encode_invoice

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 20_000


def with_terms(**terms: Any) -> Callable[[Layer2Manager], Awaitable[str]]:
    async def make(_manager: Layer2Manager) -> str:
        invoice = encode_invoice(
            network="regtest",
            timestamp=int(time.time()),
            payment_hash=secrets.token_bytes(32),
            payment_secret=secrets.token_bytes(32),
            amount_msat=SAT * 1000,
            description="tea",
            **terms,
        )
        return invoice.sign(secrets.token_bytes(32)).text

    return make


def of_node(name: str) -> Callable[[Layer2Manager], Awaitable[str]]:
    async def make(manager: Layer2Manager) -> str:
        node: LightningNode = getattr(manager.embedded_network, name)
        return (await node.create_invoice(amount_msat=SAT * 1000, expiry_s=3600)).text

    return make


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (of_node("client_node"), "own_invoice"),
        (of_node("provider_node"), "payee"),
        (with_terms(expiry_s=5), "expiry"),
        (with_terms(min_final_cltv_delta=5_000), "timelock"),
        (with_terms(expiry_s=10**8), "timelock"),
    ],
    ids=["own node", "provider's node", "about to expire", "held for too long", "lives for too long"],
)
async def test_with_the_same_rule_as_the_transfer(
    manager: Layer2Manager, make: Callable[[Layer2Manager], Awaitable[str]], rule: str
) -> None:
    invoice = await make(manager)
    for ask in (manager.quote_cross_layer_transfer_async, manager.start_cross_layer_transfer_async):
        with pytest.raises(SwapRefused) as caught:
            await ask(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice)
        assert caught.value.rule == rule
        assert caught.value.hint
