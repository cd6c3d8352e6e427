import asyncio
import hashlib
import json

import pytest
from aiohttp import web

from layer2.addresses import LightningAddress, LnurlPay
from layer2.assets import BTC
from layer2.errors import (
    AddressError,
    AmountError,
    InvoiceError,
    NodeConnectionError,
    NodeError,
    RateLimited,
    UnexpectedReply,
)
from layer2.lightning import LightningNetwork, LnurlClient

METADATA = '[["text/plain", "caf\\u00e9 \u00e9"]]'


class Service:
    """A Lightning address service whose answers a test can change."""

    def __init__(self, node) -> None:
        self.node = node
        self.pay_request = {}
        self.pay_reply = {}
        self.handler = None
        self.description = METADATA
        self.discount_msat = 0
        self.amounts = []

    async def start(self):
        app = web.Application()
        app.router.add_get("/.well-known/lnurlp/bob", self.describe)
        app.router.add_get("/callback", self.issue)
        app.router.add_get("/again/{count}", self.redirect)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.address = LightningAddress.parse(f"bob@127.0.0.1:{self.port}")

    async def describe(self, request):
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response(
            {
                "tag": "payRequest",
                "callback": f"{self.url}/callback?session=1",
                "minSendable": 1_000,
                "maxSendable": 10_000_000,
                "metadata": METADATA,
            }
            | self.pay_request
        )

    async def issue(self, request):
        assert request.query["session"] == "1"
        amount = int(request.query["amount"])
        self.amounts.append(amount)
        record = await self.node.create_invoice(
            amount_msat=amount - self.discount_msat,
            description_hash=hashlib.sha256(self.description.encode()).digest(),
        )
        return web.json_response({"pr": record.text, "routes": []} | self.pay_reply)

    async def redirect(self, request):
        count = int(request.match_info["count"])
        raise web.HTTPFound(f"/again/{count - 1}" if count > 1 else "/.well-known/lnurlp/bob")


@pytest.fixture
async def service(line):
    service = Service(line.bob)
    await service.start()
    yield service
    await service.runner.cleanup()


@pytest.fixture
def client():
    return LnurlClient(allow_local=True)


async def test_a_lightning_address_is_paid_and_a_repeated_key_does_not_ask_again(line, service, client):
    layer = LightningNetwork(line.alice, clock=line.clock, lnurl=client)
    await layer.initialize_async()
    for _ in range(2):
        await layer.transfer_asset_async(BTC, 21, str(service.address), idempotency_key="once")
    assert service.amounts == [21_000]
    assert line.network.spendable_msat(line.bob.node_id) == 5 * 10**9 + 21_000
    await layer.transfer_asset_async(BTC, 21, LnurlPay(url=f"{service.url}/.well-known/lnurlp/bob"))
    assert service.amounts == [21_000, 21_000]
    await layer.close_async()


async def test_a_service_that_gave_no_invoice_leaves_the_key_to_the_next_call(line, service, client):
    layer = LightningNetwork(line.alice, clock=line.clock, lnurl=client)
    await layer.initialize_async()
    with pytest.raises(NodeConnectionError):
        await layer.transfer_asset_async(
            BTC, 20, LnurlPay(url="http://127.0.0.1:1/lnurlp/bob"), idempotency_key="order"
        )
    await layer.transfer_asset_async(BTC, 21, str(service.address), idempotency_key="order")
    assert service.amounts == [21_000]
    await layer.close_async()


@pytest.mark.parametrize("amount", [999, 10_000_001])
async def test_amounts_outside_the_services_bounds_are_not_asked_for(service, client, amount):
    with pytest.raises(AmountError, match="1000 to 10000000"):
        await client.fetch_invoice(service.address, amount)
    assert service.amounts == []


async def test_an_invoice_of_another_amount_is_refused(service, client):
    service.discount_msat = 1
    with pytest.raises(InvoiceError, match="4999 msat for 5000"):
        await client.fetch_invoice(service.address, 5_000)


async def test_an_invoice_that_is_not_bound_to_the_metadata_is_refused(service, client):
    service.description = METADATA + " "
    with pytest.raises(InvoiceError, match="LUD-06"):
        await client.fetch_invoice(service.address, 5_000)


async def test_the_services_own_refusal_is_passed_on_without_control_characters(service, client):
    service.pay_reply = {"status": "ERROR", "reason": "no\x1b[31m such user"}
    with pytest.raises(NodeError, match=r"refused: no\[31m such user"):
        await client.fetch_invoice(service.address, 5_000)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tag": "withdrawRequest"}, AddressError),
        ({"callback": None}, UnexpectedReply),
        ({"minSendable": "1000"}, UnexpectedReply),
        ({"maxSendable": True}, UnexpectedReply),
        ({"maxSendable": 5}, UnexpectedReply),
        ({"metadata": ["x"]}, UnexpectedReply),
        ({"callback": "ftp://127.0.0.1/x"}, AddressError),
        ({"callback": "http://example.com/x"}, AddressError),
    ],
)
async def test_a_service_that_breaks_lud_06_is_refused(service, client, change, error):
    service.pay_request = change
    with pytest.raises(error):
        await client.fetch_invoice(service.address, 5_000)


async def test_three_redirects_are_followed_and_not_four(service, client):
    await client.fetch_invoice(LnurlPay(url=f"{service.url}/again/3"), 5_000)
    with pytest.raises(UnexpectedReply, match="redirects"):
        await client.fetch_invoice(LnurlPay(url=f"{service.url}/again/4"), 5_000)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda: web.Response(text="<html>"), UnexpectedReply),
        (lambda: web.Response(text="[" * 60_000), UnexpectedReply),
        (lambda: web.Response(text="[]"), UnexpectedReply),
        (lambda: web.Response(text=json.dumps({"x": "y" * 70_000})), UnexpectedReply),
        (lambda: web.Response(status=404, text="{}"), UnexpectedReply),
        (lambda: web.Response(status=429), RateLimited),
    ],
)
async def test_answers_that_are_none_are_refused(service, client, reply, error):
    async def handler(_request):
        return reply()

    service.handler = handler
    with pytest.raises(error):
        await client.fetch_invoice(service.address, 5_000)


async def test_a_service_that_cannot_be_reached_is_named(service, client, unused_tcp_port):
    with pytest.raises(NodeConnectionError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        await client.fetch_invoice(LnurlPay(url=f"http://127.0.0.1:{unused_tcp_port}/pay"), 5_000)
    assert caught.value.endpoint == "127.0.0.1"
    service.pay_reply = {"status": "ERROR", "reason": "no"}
    with pytest.raises(NodeError) as caught:
        await client.fetch_invoice(service.address, 5_000)
    assert caught.value.endpoint == "127.0.0.1"


async def test_a_service_that_says_nothing_is_given_up(service, client, monkeypatch):
    monkeypatch.setattr("layer2.lightning._lnurl_pay.TIME_LIMIT_S", 0.05)
    silent = asyncio.Event()

    async def handler(_request):
        await silent.wait()
        return web.Response()

    service.handler = handler
    with pytest.raises(NodeConnectionError, match="in time"):
        await client.fetch_invoice(service.address, 5_000)
    silent.set()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:192.168.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://localhost/",
        "https://0.0.0.0/",
        "http://example.com/",
        "https://user@example.com/",
    ],
)
async def test_addresses_that_strangers_may_not_choose_are_never_connected_to(url):
    with pytest.raises(AddressError):
        await LnurlClient().fetch_invoice(LnurlPay(url=url), 5_000)


async def test_a_redirect_to_a_private_address_is_refused(service, client):
    async def handler(_request):
        raise web.HTTPFound("https://user:pass@10.0.0.1/")

    service.handler = handler
    with pytest.raises(AddressError):
        await client.fetch_invoice(service.address, 5_000)


async def test_nobody_there_is_a_connection_error(client, unused_tcp_port):
    with pytest.raises(NodeConnectionError):
        await client.fetch_invoice(LightningAddress.parse(f"bob@127.0.0.1:{unused_tcp_port}"), 5_000)
