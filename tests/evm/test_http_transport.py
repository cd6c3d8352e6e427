import asyncio
import contextlib
import json
import re
import socket

import pytest

from layer2.errors import (
    AsyncRuntimeError,
    AuthenticationError,
    ConfigurationError,
    NodeConnectionError,
    RateLimited,
    UnexpectedReply,
)
from layer2.evm import HttpLimits, HttpTransport, RpcError

LIMITS = HttpLimits(attempts=1, connect_timeout_s=5, read_timeout_s=0.2, total_timeout_s=5)


class FakeClock:
    def __init__(self):
        self.slept = []

    def now_ms(self):
        return 0

    def monotonic_s(self):
        return 0.0

    async def sleep(self, seconds):
        self.slept.append(seconds)


def http(status, body, headers=""):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Server:
    """Answers each request with what ``reply(request)`` gives: bytes, or None for silence; then closes if ``close``."""

    def __init__(self):
        self.reply = lambda request: http(200, json.dumps({"id": request["id"], "result": "0x1"}).encode())
        self.close = False
        self.requests = []
        self.connections = 0
        self.headers = b""

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.headers = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", self.headers.lower())[1])
                request = json.loads(await reader.readexactly(length))
                self.requests.append(request)
                answer = self.reply(request)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    if self.close:
                        break
        writer.close()


@pytest.fixture
async def server():
    fake = Server()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield fake
    listener.close()


@pytest.fixture
async def transport(server):
    made = HttpTransport(server.url, limits=LIMITS)
    yield made
    await made.close()


async def test_a_result_comes_back_over_a_kept_connection(server, transport):
    for _ in range(20):
        assert await transport.call("eth_chainId", []) == "0x1"
    assert server.connections == 1


async def test_at_most_so_many_connections_for_any_number_of_calls(server):
    transport = HttpTransport(server.url, limits=HttpLimits(max_connections=5))
    results = await asyncio.gather(*(transport.call("eth_chainId", []) for _ in range(500)))
    await transport.close()
    assert results == ["0x1"] * 500
    assert server.connections <= 5


async def test_each_call_gets_its_own_answer(server):
    server.reply = lambda request: http(200, json.dumps({"id": request["id"], "result": request["params"][0]}).encode())
    transport = HttpTransport(server.url)
    results = await asyncio.gather(*(transport.call("eth_call", [n]) for n in range(1000)))
    await transport.close()
    assert results == list(range(1000))


async def test_exits_pass_user_traffic_that_hangs(server):
    async def reply(request):
        if request["method"] == "eth_call":
            return None
        return http(200, json.dumps({"id": request["id"], "result": "0x1"}).encode())

    server.reply = reply
    transport = HttpTransport(server.url, limits=HttpLimits(max_connections=2))
    stuck = [asyncio.create_task(transport.call("eth_call", [])) for _ in range(10)]
    while len(server.requests) < 2:
        await asyncio.sleep(0)
    assert await transport.exits.call("eth_chainId", []) == "0x1"
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    await transport.close()


async def test_refused_connection_says_that_nothing_was_sent():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    transport = HttpTransport(url, limits=LIMITS)
    with pytest.raises(NodeConnectionError) as caught:
        await transport.call("eth_chainId", [])
    await transport.close()
    assert caught.value.request_sent is False


async def test_silence_after_accept_ends_in_time(server, transport):
    server.reply = lambda _: None
    with pytest.raises(NodeConnectionError, match="in time") as caught:
        await transport.call("eth_chainId", [])
    assert caught.value.request_sent is True


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id":', NodeConnectionError, "broke"),
        (b"", NodeConnectionError, "broke"),
        (b"garbage\r\n\r\n", NodeConnectionError, "broke"),
        (http(200, b"<html>welcome</html>"), UnexpectedReply, "JSON-RPC"),
        (http(200, b""), UnexpectedReply, "JSON-RPC"),
        (http(200, b"[1]"), UnexpectedReply, "JSON-RPC"),
        (http(200, b"[" * 200_000), UnexpectedReply, "JSON-RPC"),
        (http(200, b'{"id":424242,"result":"0x1"}'), UnexpectedReply, "instead of"),
        (http(200, b'{"id":null,"result":"0x1"}'), UnexpectedReply, "instead of"),
        (http(200, b'{"id":1,"error":"no"}'), UnexpectedReply, "malformed"),
        (http(302, b"", "Location: http://127.0.0.1:1/\r\n"), UnexpectedReply, "302"),
        (http(401, b"no"), AuthenticationError, "401"),
        (http(403, b'{"id":1,"error":{"code":1,"message":"key"}}'), AuthenticationError, "403"),
        (http(404, b"not here"), UnexpectedReply, "404"),
        (http(429, b"slow"), RateLimited, "too often"),
        (http(500, b"oops"), NodeConnectionError, "500"),
        (http(503, b"<html>"), NodeConnectionError, "503"),
        (http(200, b'{"id":1,"error":{"code":-32005,"message":"limit exceeded"}}'), RateLimited, "too often"),
        (http(200, b'{"id":1,"error":{"code":-32000,"message":"rate limit reached"}}'), RateLimited, "too often"),
    ],
    ids=str,
)
async def test_what_a_bad_answer_means(server, transport, answer, error, text):
    server.reply = lambda _: answer
    server.close = True
    with pytest.raises(error, match=text) as caught:
        await transport.call("eth_chainId", [])
    assert caught.value.endpoint == server.url


async def test_an_error_object_is_read_whatever_the_status(server, transport):
    server.reply = lambda request: http(
        500,
        json.dumps(
            {"id": request["id"], "error": {"code": 3, "message": "execution reverted", "data": "0x01"}}
        ).encode(),
    )
    with pytest.raises(RpcError) as caught:
        await transport.call("eth_call", [])
    assert (caught.value.code, caught.value.data) == (3, "0x01")


async def test_too_many_logs_are_not_taken_for_too_many_requests(server, transport):
    server.reply = lambda request: http(
        200,
        json.dumps(
            {"id": request["id"], "error": {"code": -32005, "message": "query returned more than 10000 results"}}
        ).encode(),
    )
    with pytest.raises(RpcError):
        await transport.call("eth_getLogs", [])


async def test_a_huge_answer_is_cut_off(server):
    server.reply = lambda _: http(200, b" " * 100_000)
    transport = HttpTransport(server.url, limits=HttpLimits(attempts=1, max_response_bytes=50_000))
    with pytest.raises(UnexpectedReply, match="more than 50000"):
        await transport.call("eth_chainId", [])
    await transport.close()


async def test_reads_are_tried_again_with_growing_pauses(server):
    answers = [http(503, b""), http(503, b""), None]

    def reply(request):
        answer = answers.pop(0)
        return answer or http(200, json.dumps({"id": request["id"], "result": "0x7"}).encode())

    server.reply = reply
    clock = FakeClock()
    limits = HttpLimits(attempts=4, backoff_s=1.0)
    transport = HttpTransport(server.url, limits=limits, clock=clock, jitter=lambda: 0.0)
    assert await transport.call("eth_getBalance", []) == "0x7"
    await transport.close()
    assert clock.slept == [1.0, 2.0]


async def test_retry_after_is_respected(server):
    answers = [http(429, b"", "Retry-After: 7\r\n"), None]

    def reply(request):
        answer = answers.pop(0)
        return answer or http(200, json.dumps({"id": request["id"], "result": "0x7"}).encode())

    server.reply = reply
    clock = FakeClock()
    transport = HttpTransport(server.url, clock=clock)
    assert await transport.call("eth_chainId", []) == "0x7"
    await transport.close()
    assert clock.slept == [7.0]


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 7, "9" * 5000])
async def test_a_retry_after_that_is_no_short_number_says_nothing(server, transport, value):
    server.reply = lambda _: http(429, b"", f"Retry-After: {value}\r\n")
    with pytest.raises(RateLimited) as caught:
        await transport.call("eth_chainId", [])
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "evm_mine", "anvil_setBalance"])
async def test_what_changes_something_is_tried_once(server, method):
    server.reply = lambda _: http(503, b"")
    transport = HttpTransport(server.url, clock=FakeClock())
    with pytest.raises(NodeConnectionError):
        await transport.call(method, [])
    await transport.close()
    assert len(server.requests) == 1


async def test_credentials_are_used_and_never_shown(server):
    server.reply = lambda _: http(401, b"")
    host = server.url.removeprefix("http://")
    url = f"http://user:hunter2@{host}/v3/SECRETKEY?token=ALSOSECRET"
    transport = HttpTransport(url, headers={"X-Key": "HEADERSECRET"}, limits=LIMITS)
    shown = [repr(transport)]
    try:
        await transport.call("eth_chainId", [])
    except AuthenticationError as error:
        shown += [str(error), repr(error), repr(error.fields())]
    await transport.close()
    assert b"/v3/SECRETKEY?token=ALSOSECRET" in server.headers
    assert b"Basic " in server.headers
    assert b"HEADERSECRET" in server.headers
    assert not any(secret in text for text in shown for secret in ("hunter2", "SECRET", "user"))


async def test_credentials_do_not_hide_in_the_causes(server):
    server.reply = lambda _: None
    transport = HttpTransport(f"{server.url}/v3/SECRETKEY", limits=LIMITS)
    with pytest.raises(NodeConnectionError) as caught:
        await transport.call("eth_chainId", [])
    await transport.close()
    assert "SECRETKEY" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "localhost:8545", "http://[::1", "ws://host"])
def test_an_url_that_cannot_be_right_is_refused(url):
    with pytest.raises(ConfigurationError):
        HttpTransport(url)


async def test_use_after_close_is_refused_and_closing_twice_is_not(server):
    transport = HttpTransport(server.url)
    await transport.close()
    await transport.close()
    with pytest.raises(AsyncRuntimeError):
        await transport.call("eth_chainId", [])
    assert server.connections == 0
