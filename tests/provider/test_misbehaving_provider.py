"""What a client makes of a provider that does not answer as it should: a typed error, in bounded time and memory."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import pytest

from layer2.errors import (
    ConfigurationError,
    NodeConnectionError,
    NodeNotReady,
    NotFound,
    RateLimited,
    SwapRefused,
    UnexpectedReply,
)
from layer2.swaps import HttpProvider


def reply(body, status="200 OK", content_type="application/json", headers=""):
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return (head + headers + "\r\n").encode() + body


@pytest.fixture
async def answering():
    """A client of a server that answers every request with the given bytes."""
    async with AsyncExitStack() as stack:
        seen = []

        async def start(answer, *, stay_silent=False, timeout_s=5.0):
            released = asyncio.Event()

            async def serve(reader, writer):
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                try:
                    writer.write(answer)
                    await writer.drain()
                    if stay_silent:
                        await released.wait()
                except ConnectionError:
                    pass
                finally:
                    writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            client = HttpProvider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=timeout_s)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            stack.callback(released.set)
            stack.push_async_callback(client.close)
            client.seen = seen
            return client

        yield start


INFO = b'{"version": "1", "chainId": 60808'


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"<html><body>Welcome to the hotel's wireless network</body></html>", content_type="text/html"),
        reply(b""),
        reply(b"null"),
        reply(b"[]"),
        reply(b"{}"),
        reply(b'{"version": 5}'),
        reply(INFO),
        reply(b"\xff\xfe\x00"),
        reply(b"[" * 100_000),
        reply(b"1" * 5_000),
        reply(b"", status="204 No Content"),
        reply(b"oops", status="500 Internal Server Error", content_type="text/plain"),
        reply(b"<html>bad gateway</html>", status="502 Bad Gateway", content_type="text/html"),
    ],
    ids=[
        "html",
        "empty",
        "null",
        "list",
        "no fields",
        "wrong type",
        "cut JSON",
        "no text",
        "deep nesting",
        "long number",
        "204",
        "500",
        "502",
    ],
)
async def test_nonsense_is_an_unexpected_reply(answering, answer):
    client = await answering(answer)
    with pytest.raises(UnexpectedReply) as caught:
        await client.info()
    assert caught.value.endpoint.startswith("http://127.0.0.1:")
    assert not caught.value.money_may_have_moved


async def test_a_refusal_whose_reason_cannot_be_read_is_still_a_refusal(answering):
    limit = sys.getrecursionlimit()
    # Other packages raise the limit past the end of the stack; a parser that recurses with the text would end the process.
    sys.setrecursionlimit(100_000)
    try:
        client = await answering(reply(b"[" * 200_000, status="422 Unprocessable Content"))
        with pytest.raises(SwapRefused, match="no reason given"):
            await client.info()
    finally:
        sys.setrecursionlimit(limit)


async def test_half_an_answer_is_a_broken_connection(answering):
    whole = reply(INFO + b"}" * 50)
    client = await answering(whole[:-40])
    with pytest.raises(NodeConnectionError):
        await client.info()


@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x01\x02\x00", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 2"])
async def test_what_is_no_http_is_a_broken_connection(answering, answer):
    client = await answering(answer)
    with pytest.raises(NodeConnectionError):
        await client.info()


async def test_an_answer_of_ten_megabytes_is_cut_off(answering):
    client = await answering(reply(b" " * 10_000_000 + b"{}"))
    with pytest.raises(UnexpectedReply, match="longer than 262144"):
        await client.info()


async def test_a_compressed_answer_of_ten_megabytes_is_cut_off(answering):
    import gzip

    packed = gzip.compress(b" " * 10_000_000)
    client = await answering(reply(packed, headers="Content-Encoding: gzip\r\n"))
    with pytest.raises((UnexpectedReply, NodeConnectionError)):
        await client.info()


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent"])
async def test_redirects_are_not_followed(answering, status):
    client = await answering(reply(b"", status=status, headers="Location: http://127.0.0.1:9/v1/info\r\n"))
    with pytest.raises(UnexpectedReply):
        await client.info()
    assert len(client.seen) == 1


async def test_a_provider_that_says_nothing_is_given_up(answering):
    client = await answering(b"", stay_silent=True, timeout_s=0.2)
    with pytest.raises(NodeConnectionError, match="nothing came in time"):
        await client.info()


async def test_a_provider_that_stops_in_the_middle_is_given_up(answering):
    client = await answering(reply(b"x" * 1_000)[:-500], stay_silent=True, timeout_s=0.2)
    with pytest.raises(NodeConnectionError):
        await client.info()


async def test_why_there_was_no_answer_is_said_in_words_and_what_to_do(answering):
    broken = await answering(b"SSH-2.0-OpenSSH_9.6\r\n")

    async def speak_first(_, writer):
        writer.write(reply(b"{}"))
        writer.close()

    plain = await asyncio.start_server(speak_first, "127.0.0.1", 0)
    async with AsyncExitStack() as stack:
        stack.callback(plain.close)
        for client, words in (
            (broken, "broke"),
            (HttpProvider(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}"), "TLS"),
            (HttpProvider("http://127.0.0.1:1"), "no connection"),
        ):
            stack.push_async_callback(client.close)
            with pytest.raises(NodeConnectionError, match=words) as caught:
                await client.info()
            assert "Error" not in caught.value.message
            assert "swap.provider_url" in caught.value.hint


async def test_nobody_there(answering):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = HttpProvider(f"http://127.0.0.1:{port}")
    with pytest.raises(NodeConnectionError):
        await client.info()
    await client.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "fields"),
    [
        ("404 Not Found", {"detail": "gone"}, NotFound, {}),
        ("404 Not Found", "<html>", NotFound, {}),
        ("422 Unprocessable", {"detail": "too small", "rule": "limits"}, SwapRefused, {"rule": "limits"}),
        ("400 Bad Request", {"detail": "bad", "rule": "validation"}, SwapRefused, {"rule": "validation"}),
        ("403 Forbidden", "<html>", SwapRefused, {"rule": None}),
        ("422 Unprocessable", ["a", "list"], SwapRefused, {"rule": None}),
        ("422 Unprocessable", {"detail": {"deep": 1}, "rule": 7}, SwapRefused, {"rule": "7"}),
        ("422 Unprocessable", {"detail": "x" * 9_000, "rule": "y" * 900}, SwapRefused, {"rule": "y" * 60}),
        ("503 Service Unavailable", {"detail": "later"}, NodeNotReady, {}),
        ("429 Too Many Requests", {}, RateLimited, {"retry_after_s": None}),
    ],
)
async def test_refusals_become_typed_errors(answering, status, body, error, fields):
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    client = await answering(reply(raw, status=status, content_type="application/problem+json"))
    with pytest.raises(error) as caught:
        await client.status("0" * 32)
    assert len(str(caught.value)) < 400
    for name, value in fields.items():
        assert getattr(caught.value, name) == value


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("soon", None), ("-1", None), ("²", None), ("9" * 7, None), ("9" * 5000, None)]
)
async def test_retry_after_is_read_strictly(answering, value, seconds):
    header = f"Retry-After: {value}\r\n"
    client = await answering(reply(b"{}", status="429 Too Many Requests", headers=header))
    with pytest.raises(RateLimited) as caught:
        await client.info()
    assert caught.value.retry_after_s == seconds


async def test_a_signature_that_is_none_is_not_taken_for_one(answering):
    client = await answering(reply(b'{"signature": "zz"}'))
    with pytest.raises(UnexpectedReply):
        await client.refund_signature("0" * 32)
    client = await answering(reply(b"{}", status="422 Unprocessable"))
    assert await client.refund_signature("0" * 32) is None


@pytest.mark.parametrize("url", ["", "provider.example", "ftp://provider.example", "http://", "file:///etc/passwd"])
def test_other_urls_are_refused(url):
    with pytest.raises(ConfigurationError):
        HttpProvider(url)
