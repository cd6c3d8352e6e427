"""The macaroon of the documentation opens what layer2 asks of lnd, and neither the coins on chain nor the node itself."""

import asyncio
import hashlib
import re
import secrets
from contextlib import suppress
from pathlib import Path

import pytest

from layer2.errors import AuthenticationError
from layer2.lightning import InvoiceState, LndNode, PaymentState

pytestmark = pytest.mark.real

LIMITS = {"fee_limit_msat": 1_000_000, "cltv_limit": 1_008, "time_limit_s": 30}
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


def documented():
    command = re.search(r"lncli bakemacaroon --save_to \S+((?: \w+:\w+)+)", DOCUMENTATION.read_text())
    assert command is not None
    return [part.split(":") for part in command[1].split()]


@pytest.fixture
async def connect_least(regtest):
    """Connects to an lnd with what the documentation has one bake."""
    nodes = []

    async def connect(name):
        wanted = [{"entity": entity, "action": action} for entity, action in documented()]
        baked = await regtest.lnd_call(name, "POST", "/v1/macaroon", {"permissions": wanted})
        lnd = regtest.lnd(name)
        certificate = await asyncio.to_thread(lnd.tls_cert_path.read_text)
        nodes.append(LndNode.connect(lnd.rest_url, macaroon=baked["macaroon"], certificate=certificate))
        return nodes[-1]

    yield connect
    for node in nodes:
        await node.close()


async def until(state, node, payment_hash):
    async with asyncio.timeout(60):
        while (record := await node.lookup_invoice(payment_hash)).state is not state:
            await asyncio.sleep(0.05)
    return record


async def test_it_opens_what_is_asked_for(connect_least):
    payer, payee = await connect_least("client"), await connect_least("provider")
    assert (await payer.info()).network == "regtest"
    plain = await payee.create_invoice(amount_msat=70_000)
    assert (await payer.pay(plain.text, **LIMITS)).state is PaymentState.SUCCEEDED
    for settles in (True, False):
        preimage = secrets.token_bytes(32)
        payment_hash = hashlib.sha256(preimage).digest()
        held = await payee.create_hold_invoice(
            payment_hash=payment_hash, amount_msat=70_000, expiry_s=600, cltv_delta=80
        )
        paying = asyncio.ensure_future(payer.pay(held.text, **LIMITS))
        assert (await until(InvoiceState.ACCEPTED, payee, payment_hash)).htlcs
        await (payee.settle_invoice(preimage) if settles else payee.cancel_invoice(payment_hash))
        await until(InvoiceState.SETTLED if settles else InvoiceState.CANCELED, payee, payment_hash)
        with suppress(Exception):
            await paying
        wanted = PaymentState.SUCCEEDED if settles else PaymentState.FAILED
        assert (await payer.lookup_payment(payment_hash)).state is wanted


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/transactions", {"addr": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "amount": "1000"}),
        ("GET", "/v1/balance/blockchain", None),
        ("POST", "/v1/macaroon", {"permissions": [{"entity": "onchain", "action": "write"}]}),
        ("POST", "/v1/signmessage", {"msg": "aGVsbG8="}),
    ],
)
async def test_it_opens_nothing_of_the_chain_or_the_node(connect_least, method, path, body):
    node = await connect_least("client")
    with pytest.raises(AuthenticationError):
        await node._rest.call(method, path, body)
