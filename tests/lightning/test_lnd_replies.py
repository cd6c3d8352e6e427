"""What a client of lnd has to withstand, from a server that answers as the test says."""

import asyncio
import base64
import contextlib
import hashlib
import json
import random

import pytest
from aiohttp import web

from layer2._operations import Operations
from layer2.errors import (
    AsyncRuntimeError,
    AuthenticationError,
    ConfigurationError,
    Expired,
    InvoiceError,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    NodeNotReady,
    NotFound,
    RateLimited,
    UnexpectedReply,
    UnknownOutcome,
)
from layer2.lightning import LndNode, MemoryLightning, PaymentState

PREIMAGE = bytes(range(32))
HASH = hashlib.sha256(PREIMAGE).digest()
MACAROON = bytes.fromhex("0201036c6e64beef")
LIMITS = {"fee_limit_msat": 1_000, "cltv_limit": 500, "time_limit_s": 5}


class FakeLnd:
    """Answers each path with what the test has put there: a function of the request."""

    def __init__(self) -> None:
        self.routes = {}
        self.requests = []

    async def start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def answer(self, request):
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.raw_path, body, request.headers.get("Grpc-Metadata-macaroon")))
        for prefix, handler in self.routes.items():
            if request.raw_path.startswith(prefix):
                return await handler(request)
        return web.json_response({"code": 5, "message": "Not Found", "details": []}, status=404)


def says(body=None, *, status=200, text=None, headers=None):
    async def handler(_request):
        if text is not None:
            return web.Response(text=text, status=status, headers=headers, content_type="text/html")
        return web.json_response(body, status=status, headers=headers)

    return handler


def refuses(message, code=2, status=500):
    return says({"code": code, "message": message, "details": []}, status=status)


def stream_error(message, code=2, status=500):
    return says({"error": {"code": code, "message": message, "details": []}}, status=status)


def streams(*messages, then="end"):
    """Sends messages, then ends the stream, breaks the connection, or keeps silent."""

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for message in messages:
            await response.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        if then == "break":
            request.transport.abort()
        if then == "hang":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return response

    return handler


async def breaks(request):
    request.transport.abort()
    return web.Response()


def payment(status, **changes):
    return {
        "result": {
            "payment_hash": HASH.hex(),
            "payment_preimage": (PREIMAGE if status == "SUCCEEDED" else bytes(32)).hex(),
            "status": status,
            "value_msat": "1000",
            "fee_msat": "1",
            "failure_reason": "FAILURE_REASON_NO_ROUTE" if status == "FAILED" else "FAILURE_REASON_NONE",
            "htlcs": [],
        }
        | changes
    }


@pytest.fixture
async def fake():
    server = FakeLnd()
    await server.start()
    yield server
    await server.runner.cleanup()


@pytest.fixture
async def lnd(fake):
    node = LndNode.connect(fake.url, macaroon=MACAROON, call_timeout_s=20)
    yield node
    await node.close()


@pytest.fixture
async def invoice(clock):
    node = MemoryLightning(clock=clock, random_bytes=random.Random(1).randbytes).add_node("payee")
    return (await node.create_invoice(amount_msat=1_000, preimage=PREIMAGE)).text


SEND, TRACK = "/v2/router/send", "/v2/router/track/"
UNKNOWN = stream_error("payment isn't initiated", 5, 404)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refuses("wallet locked, unlock it to enable full RPC access"), NodeNotReady),
        (refuses("wallet not created, create one to enable full RPC access"), NodeNotReady),
        (refuses("waiting to start, RPC services not available"), NodeNotReady),
        (refuses("the RPC server is in the process of starting up, but not yet ready to accept calls"), NodeNotReady),
        (refuses("x", 14, 503), NodeNotReady),
        (refuses("expected 1 macaroon, got 0"), AuthenticationError),
        (refuses("cannot get macaroon: root key with id 0 doesn't exist"), AuthenticationError),
        (refuses("verification failed: signature mismatch after caveat verification"), AuthenticationError),
        (refuses("permission denied"), AuthenticationError),
        (says(text="no", status=401), AuthenticationError),
        (says(text="no", status=403), AuthenticationError),
        (says(text="slow down", status=429), RateLimited),
        (refuses("x", 8, 429), RateLimited),
        (refuses("Not Found", 5, 404), UnexpectedReply),
        (refuses("unknown service", 12, 501), UnexpectedReply),
        (refuses("something new"), NodeError),
        (says(text="<html>502</html>", status=502), UnexpectedReply),
        (says(text="<html>200</html>"), UnexpectedReply),
        (says(text=""), UnexpectedReply),
        (says(text='{"identity_pub'), UnexpectedReply),
        (says([]), UnexpectedReply),
        (says({}), UnexpectedReply),
        (says({"identity_pubkey": 5}), UnexpectedReply),
        (breaks, NodeConnectionError),
    ],
)
async def test_every_bad_reply_is_a_typed_error(fake, lnd, reply, error):
    fake.routes["/"] = reply
    with pytest.raises(error) as caught:
        await lnd.info()
    assert caught.value.retry_safe
    assert "beef" not in f"{caught.value!r} {caught.value}"


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("soon", None), ("9" * 5000, None)])
async def test_rate_limit_says_when_to_come_back(fake, lnd, value, seconds):
    fake.routes["/"] = says(text="", status=429, headers={"Retry-After": value})
    with pytest.raises(RateLimited) as caught:
        await lnd.info()
    assert caught.value.retry_after_s == seconds


async def test_nobody_there_is_certain_and_a_hanging_server_is_not(fake, unused_tcp_port, invoice):
    nobody = LndNode.connect(f"http://127.0.0.1:{unused_tcp_port}", macaroon=None)
    with pytest.raises(NodeConnectionError) as caught:
        await nobody.pay(invoice, **LIMITS)
    assert caught.value.request_sent is False
    await nobody.close()
    hanging = LndNode.connect(fake.url, macaroon=None, call_timeout_s=0.05)
    fake.routes["/"] = streams(then="hang")
    with pytest.raises(NodeConnectionError) as caught:
        await hanging.info()
    assert caught.value.request_sent is True
    await hanging.close()


async def test_requests_carry_what_lnd_wants(fake, lnd, invoice):
    fake.routes[SEND] = streams(payment("IN_FLIGHT"), payment("SUCCEEDED"))
    record = await lnd.pay(invoice, **LIMITS)
    assert (record.state, record.preimage, record.fee_msat) == (PaymentState.SUCCEEDED, PREIMAGE, 1)
    method, path, body, macaroon = fake.requests[-1]
    assert (method, path, macaroon) == ("POST", SEND, MACAROON.hex())
    assert body == {
        "payment_request": invoice,
        "fee_limit_msat": "1000",
        "cltv_limit": 500,
        "timeout_seconds": 5,
        "max_parts": 16,
        "no_inflight_updates": False,
    }
    fake.routes[TRACK] = UNKNOWN
    assert (await lnd.lookup_payment(b"\xfb\xff" * 16)).state is PaymentState.NONE
    assert fake.requests[-1][1] == TRACK + base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode()
    assert fake.requests[-1][1].endswith("=")


async def test_a_stream_may_be_silent_for_long_and_split_its_messages_anywhere(fake, invoice):
    patient = LndNode.connect(fake.url, macaroon=None, call_timeout_s=0.05)
    released = asyncio.Event()
    text = json.dumps(payment("SUCCEEDED")).encode() + b"\n"

    async def handler(request):
        await asyncio.sleep(0.15)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(text[:50])
        released.set()
        await asyncio.sleep(0.01)
        await response.write(text[50:] + b"\n")
        return response

    fake.routes[SEND] = handler
    assert (await patient.pay(invoice, **LIMITS)).state is PaymentState.SUCCEEDED
    await patient.close()


@pytest.mark.parametrize("message", ["payment already exists", "payment is in transition", "invoice is already paid"])
async def test_a_duplicate_is_tracked_to_its_outcome(fake, lnd, invoice, message):
    fake.routes[SEND] = stream_error(message, 6, 409)
    fake.routes[TRACK] = streams(payment("IN_FLIGHT"), payment("SUCCEEDED"))
    assert (await lnd.pay(invoice, **LIMITS)).preimage == PREIMAGE


async def test_expired_is_no_failure_while_the_payment_is_in_flight_or_done(fake, lnd, invoice):
    fake.routes[SEND] = stream_error("invoice expired. Valid until 2020-01-01 00:00:00 +0000 UTC")
    fake.routes[TRACK] = streams(payment("IN_FLIGHT"), payment("SUCCEEDED"))
    assert (await lnd.pay(invoice, **LIMITS)).state is PaymentState.SUCCEEDED
    fake.routes[TRACK] = UNKNOWN
    with pytest.raises(Expired):
        await lnd.pay(invoice, **LIMITS)


async def test_a_refusal_without_record_names_its_reason(fake, lnd, invoice):
    fake.routes[TRACK] = UNKNOWN
    fake.routes[SEND] = stream_error("self-payments not allowed")
    with pytest.raises(InvoiceError):
        await lnd.pay(invoice, **LIMITS)


@pytest.mark.parametrize("lost", [breaks, streams(), streams(then="break"), says(text="<html>", status=502)])
@pytest.mark.parametrize("track", [UNKNOWN, streams(payment("FAILED")), breaks, streams(payment("IN_FLIGHT"))])
async def test_after_a_lost_reply_neither_failure_nor_absence_is_believed(fake, lnd, invoice, lost, track):
    fake.routes[SEND], fake.routes[TRACK] = lost, track
    with pytest.raises(UnknownOutcome) as caught:
        await lnd.pay(invoice, **LIMITS)
    assert caught.value.tx_id.hash == HASH
    assert caught.value.money_may_have_moved


async def test_after_a_lost_reply_success_is_believed(fake, lnd, invoice):
    fake.routes[SEND], fake.routes[TRACK] = breaks, streams(payment("IN_FLIGHT"), payment("SUCCEEDED"))
    assert (await lnd.pay(invoice, **LIMITS)).preimage == PREIMAGE


async def test_once_lnd_confirmed_the_payment_its_record_is_believed_after_a_break(fake, lnd, invoice):
    fake.routes[SEND], fake.routes[TRACK] = streams(payment("IN_FLIGHT"), then="break"), streams(payment("FAILED"))
    assert (await lnd.pay(invoice, **LIMITS)).failure_reason == "no_route"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (stream_error("wallet locked, unlock it to enable full RPC access"), NodeNotReady),
        (stream_error("cannot get macaroon: root key with id 0 doesn't exist"), AuthenticationError),
        (says(text="no", status=403), AuthenticationError),
        (says(text="slow down", status=429), RateLimited),
    ],
)
async def test_a_payment_that_was_turned_away_at_the_door_has_no_unknown_outcome(fake, lnd, invoice, reply, error):
    fake.routes["/"] = reply
    with pytest.raises(error) as caught:
        await lnd.pay(invoice, **LIMITS)
    assert not caught.value.money_may_have_moved


@pytest.mark.parametrize("message", ["server is shutting down", "context canceled"])
async def test_a_node_that_stops_leaves_the_outcome_unknown(fake, lnd, invoice, message):
    fake.routes[SEND], fake.routes[TRACK] = stream_error(message, 1, 499), UNKNOWN
    with pytest.raises(UnknownOutcome):
        await lnd.pay(invoice, **LIMITS)


@pytest.mark.parametrize(
    "lie",
    [
        payment("SUCCEEDED", payment_preimage="00" * 32),
        payment("SUCCEEDED", payment_preimage="11" * 32),
        payment("SUCCEEDED", payment_hash="22" * 32),
        payment("UNKNOWN"),
        payment("FAILED", value_msat=None),
        {"result": []},
        {"surprise": {}},
        b'{"result":\n',
    ],
)
async def test_records_that_contradict_themselves_are_refused(fake, lnd, invoice, lie):
    fake.routes[TRACK] = streams(lie)
    with pytest.raises(UnexpectedReply):
        await lnd.lookup_payment(HASH)
    fake.routes[SEND] = streams(lie)
    with pytest.raises(UnknownOutcome):
        await lnd.pay(invoice, **LIMITS)


async def test_failed_and_initiated_payments_have_no_preimage(fake, lnd):
    fake.routes[TRACK] = streams(payment("FAILED"))
    record = await lnd.lookup_payment(HASH)
    assert (record.state, record.preimage, record.failure_reason) == (PaymentState.FAILED, None, "no_route")
    fake.routes[TRACK] = streams(payment("INITIATED"))
    assert (await lnd.lookup_payment(HASH)).state is PaymentState.IN_FLIGHT


async def test_what_is_in_flight_has_left_the_channels(fake, lnd):
    def part(status, msat):
        return {"status": status, "route": {"total_time_lock": 700, "total_amt_msat": str(msat)}}

    htlcs = [part("IN_FLIGHT", 400), part("FAILED", 70), part("IN_FLIGHT", 601)]
    fake.routes[TRACK] = streams(payment("IN_FLIGHT", htlcs=htlcs))
    record = await lnd.lookup_payment(HASH)
    assert (record.in_flight_msat, record.highest_expiry_height) == (1_001, 700)


async def test_a_missing_path_is_not_taken_for_a_missing_invoice(fake, lnd):
    with pytest.raises(UnexpectedReply, match="invoicesrpc"):
        await lnd.settle_invoice(PREIMAGE)
    fake.routes["/v1/invoice/"] = refuses("unable to locate invoice", 5, 404)
    with pytest.raises(NotFound):
        await lnd.lookup_invoice(HASH)


async def test_a_broken_watch_says_so(fake, lnd):
    fake.routes["/v2/invoices/subscribe/"] = streams(then="break")
    with pytest.raises(NodeConnectionError):
        await anext(lnd.watch_invoice(HASH))
    fake.routes["/v2/invoices/subscribe/"] = streams()
    with pytest.raises(NodeConnectionError):
        await anext(lnd.watch_invoice(HASH))


async def test_errors_never_show_whole_invoices(fake, lnd, invoice):
    fake.routes[TRACK] = UNKNOWN
    fake.routes[SEND] = stream_error(f"cannot handle {invoice} today")
    with pytest.raises(Layer2Error) as caught:
        await lnd.pay(invoice, **LIMITS)
    assert invoice not in str(caught.value)


async def test_closing_is_idempotent_and_ends_use(lnd):
    await lnd.close()
    await lnd.close()
    with pytest.raises(AsyncRuntimeError):
        await lnd.info()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://example.com:8080"},
        {"url": "ftp://127.0.0.1"},
        {"url": "https://"},
        {"url": "https://user:secret@127.0.0.1"},
        {"macaroon": "not hex"},
        {"fingerprint": "aa:bb"},
        {"certificate": "no PEM"},
        {"certificate": "x", "fingerprint": "00" * 32},
    ],
)
def test_settings_that_cannot_be_right_are_named(options):
    with pytest.raises(ConfigurationError) as caught:
        LndNode.connect(**{"url": "https://127.0.0.1:8080", "macaroon": None} | options)
    assert caught.value.key.startswith("lightning.")
    assert "secret" not in str(caught.value)


async def test_a_settlement_does_not_wait_for_look_ups_that_hang(fake):
    """Look-ups come with every offer that strangers ask for; a payment that is not settled in time goes back."""
    hanging = asyncio.Event()
    asked = asyncio.Event()

    async def hang(_request):
        asked.set()
        await hanging.wait()
        return web.json_response({})

    fake.routes = {"/v1/invoice/": hang, "/v2/invoices/settle": says({}), "/v2/invoices/cancel": says({})}
    node = LndNode.connect(fake.url, macaroon=MACAROON, max_connections=2)
    look_ups = [asyncio.create_task(node.lookup_invoice(HASH)) for _ in range(5)]
    await asked.wait()
    async with asyncio.timeout(20):
        await node.settle_invoice(PREIMAGE)
        await node.cancel_invoice(HASH)
    for look_up in look_ups:
        look_up.cancel()
    await asyncio.gather(*look_ups, return_exceptions=True)
    hanging.set()
    await node.close()


class TestAPaymentThatIsHeldForLong:
    """Its number is others' to choose, so it has no connection for itself; what was asked is told from what is on its way."""

    @pytest.fixture
    async def lnd(self, fake):
        node = LndNode.connect(fake.url, macaroon=MACAROON, call_timeout_s=2, hold_s=0.1, look_up_s=0.01)
        yield node
        await node.close()

    @pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
    async def test_its_stream_is_left_and_its_record_looked_up(self, fake, lnd, invoice, end):
        sends, looks = [], []

        async def send(request):
            sends.append(request)
            return await streams(payment("IN_FLIGHT"), then="hang")(request)

        async def track(request):
            looks.append(request)
            return await streams(payment(end if len(looks) > 3 else "IN_FLIGHT"), then="hang")(request)

        fake.routes[SEND], fake.routes[TRACK] = send, track
        record = await lnd.pay(invoice, **LIMITS)
        assert record.state is PaymentState(end.lower())
        assert len(looks) == 4
        (request,) = sends
        async with asyncio.timeout(20):
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.01)

    async def test_it_takes_a_slot_for_each_look_up_and_none_between(self, fake, lnd, invoice):
        operations = Operations(max_concurrency=1)
        operations.open()
        looks, asked, answer, settled = [], asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def track(request):
            looks.append(request)
            asked.set()
            await answer.wait()
            return await streams(payment("SUCCEEDED" if settled.is_set() else "IN_FLIGHT"), then="hang")(request)

        async def balance():
            return len(looks)

        fake.routes[SEND], fake.routes[TRACK] = streams(payment("IN_FLIGHT"), then="hang"), track
        async with asyncio.timeout(20):
            paying = asyncio.create_task(
                operations.run(lambda: lnd.pay(invoice, **LIMITS), timeout=None, what="paying")
            )
            await asked.wait()
            other = asyncio.create_task(operations.run(balance, what="asking"))
            await asyncio.sleep(0.1)
            assert not other.done()
            answer.set()
            assert await other > 0
            await asyncio.gather(*(operations.run(balance, what="asking") for _ in range(5)))
            assert not paying.done()
            settled.set()
            assert (await paying).state is PaymentState.SUCCEEDED
            await operations.run(balance, what="asking")

    async def test_a_request_that_lnd_has_not_begun_is_never_left(self, fake, lnd, invoice):
        """It could begin after its record was looked up and found to be none."""

        async def slow(request):
            await asyncio.sleep(0.5)
            return await streams(payment("SUCCEEDED"))(request)

        fake.routes[SEND], fake.routes[TRACK] = slow, UNKNOWN
        assert (await lnd.pay(invoice, **LIMITS)).state is PaymentState.SUCCEEDED
        assert not any(path.startswith(TRACK) for _, path, _, _ in fake.requests)

    @pytest.mark.parametrize("track", [UNKNOWN, breaks, stream_error("it is starting", 14, 503)])
    async def test_what_cannot_be_looked_up_is_unknown_and_no_failure(self, fake, lnd, invoice, track):
        fake.routes[SEND], fake.routes[TRACK] = streams(payment("IN_FLIGHT"), then="hang"), track
        with pytest.raises(UnknownOutcome):
            await lnd.pay(invoice, **LIMITS)
