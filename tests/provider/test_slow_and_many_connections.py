"""Whoever holds connections open without asking anything keeps nobody else out, and no connection for long."""

import asyncio

import pytest

from layer2.provider import ConnectionLimits, create_app

HEAD = b"GET /v1/version HTTP/1.1\r\nHost: here\r\n\r\n"
QUICK = ConnectionLimits(head_s=0.3)


@pytest.fixture
def app(world):
    return create_app(world.service, clock=world.clock, requests_per_minute=10_000, metrics=world.metrics)


async def connect(server, address="127.0.0.1"):
    return await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0))


async def ends(reader):
    """Until the other side closes; what came before that."""
    received = b""
    try:
        async with asyncio.timeout(20):
            while data := await reader.read(65_536):
                received += data
    except ConnectionResetError:
        pass
    return received


async def trickles_until_closed(reader, writer, text):
    """Sends ``text`` over and over, a byte at a time, for as long as the other side lets it."""
    closed = asyncio.create_task(ends(reader))
    try:
        while not closed.done():
            for byte in text:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
                if closed.done():
                    break
    except ConnectionError:
        pass
    finally:
        writer.close()
    return await closed


async def answers(reader, writer):
    """Whether a whole request gets its answer on this connection."""
    writer.write(HEAD)
    async with asyncio.timeout(20):
        try:
            return (await reader.read(65_536)).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            return False


async def test_a_connection_that_says_nothing_is_closed(serve, app):
    reader, writer = await connect(await serve(app, limits=QUICK))
    assert await ends(reader) == b""
    writer.close()


async def test_a_head_that_comes_too_slowly_is_cut_off(serve, app):
    """However regularly its bytes come."""
    reader, writer = await connect(await serve(app, limits=QUICK))
    assert await trickles_until_closed(reader, writer, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1_000) == b""


async def test_the_second_head_on_a_connection_has_no_more_time(serve, app):
    reader, writer = await connect(await serve(app, limits=QUICK))
    assert await answers(reader, writer)
    assert await trickles_until_closed(reader, writer, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1_000) == b""


async def test_a_body_that_nobody_asked_for_cannot_keep_the_connection(serve, app):
    """The answer is out before the body has come; the rest of it is not waited for."""
    reader, writer = await connect(await serve(app, limits=QUICK))
    writer.write(b"GET /v1/version HTTP/1.1\r\nHost: here\r\nContent-Length: 60000\r\n\r\n")
    received = await trickles_until_closed(reader, writer, b"x" * 50_000)
    assert received.startswith(b"HTTP/1.1 200")


async def test_a_request_in_progress_is_not_cut_off(serve, app, world):
    """The limit is on asking, not on answering: an event stream lasts as long as its swap."""
    response = await world.submarine()
    reader, writer = await connect(await serve(app, limits=QUICK))
    writer.write(f"GET /v1/swap/{response.id}/events HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    async with asyncio.timeout(20):
        await reader.readuntil(b"swap.created")
    other, closing = await connect(await serve(app, limits=QUICK))
    assert await ends(other) == b""  # as long as it takes for a connection without a request to be closed
    world.chain.head_offset_s = 10_000
    world.engine.wake(response.id)
    async with asyncio.timeout(20):
        await reader.readuntil(b"invoice.failedToPay")
    for each in (writer, closing):
        each.close()


async def test_one_address_has_so_many_connections_and_no_more(serve, app):
    server = await serve(app, limits=ConnectionLimits(per_address=3, proxies=()))
    held = [await connect(server) for _ in range(3)]
    for reader, writer in held:
        assert await answers(reader, writer)
    reader, writer = await connect(server)
    assert not await answers(reader, writer)
    writer.close()
    held[0][1].close()
    await held[0][1].wait_closed()
    again = False
    async with asyncio.timeout(20):
        while not again:
            reader, writer = await connect(server)
            again = await answers(reader, writer)
            writer.close()
    for _, other in held:
        other.close()


async def test_a_proxy_has_as_many_as_it_needs(serve, app):
    server = await serve(app, limits=ConnectionLimits(per_address=1))
    held = [await connect(server) for _ in range(5)]
    for reader, writer in held:
        assert await answers(reader, writer)
        writer.close()


async def test_all_together_have_a_bound_too(serve, app):
    server = await serve(app, limits=ConnectionLimits(total=2))
    held = [await connect(server) for _ in range(2)]
    for reader, writer in held:
        assert await answers(reader, writer)
    reader, writer = await connect(server)
    assert not await answers(reader, writer)
    for _, each in [*held, (reader, writer)]:
        each.close()


@pytest.fixture
async def crowd(serve, app):
    """A server with four places, which strangers take, one after another; whether each was answered."""
    writers = []
    server = await serve(app, limits=ConnectionLimits(total=4, proxies=("127.0.0.9",)))

    async def enter(*addresses):
        made = []
        for address in addresses:
            reader, writer = await connect(server, address)
            writers.append(writer)
            made.append((reader, writer, await answers(reader, writer)))
        return made

    yield enter
    for writer in writers:
        writer.close()


async def test_whoever_has_most_places_loses_one_to_a_newcomer(crowd):
    first, *others = await crowd("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2")
    ((_, _, answered),) = await crowd("127.0.0.3")
    assert answered
    assert await ends(first[0]) == b""
    for reader, writer, _ in others:
        assert await answers(reader, writer)


async def test_a_newcomer_gains_no_more_than_he_takes(crowd):
    """So two who take turns do not throw out each other for ever."""
    held = await crowd("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    for address in ("127.0.0.1", "127.0.0.2"):
        ((_, _, answered),) = await crowd(address)
        assert not answered
    for reader, writer, _ in held:
        assert await answers(reader, writer)


async def test_a_request_under_way_is_spared_while_another_connection_is_idle(crowd, world):
    response = await world.submarine()
    held = await crowd("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    streaming, idle = held[:2]
    streaming[1].write(f"GET /v1/swap/{response.id}/events HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    async with asyncio.timeout(20):
        await streaming[0].readuntil(b"swap.created")
    ((_, _, answered),) = await crowd("127.0.0.4")
    assert answered
    assert await ends(idle[0]) == b""
    assert not streaming[0].at_eof()


async def test_a_proxy_takes_a_place_from_strangers_and_loses_none(crowd):
    first, *_ = await crowd("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.9")
    ((_, _, answered),) = await crowd("127.0.0.9")
    assert answered
    assert await ends(first[0]) == b""
    ((_, _, answered),) = await crowd("127.0.0.9")
    assert answered
    ((_, _, answered),) = await crowd("127.0.0.2")
    assert not answered


async def test_places_that_were_lost_are_not_counted_twice(crowd):
    await crowd(*["127.0.0.1"] * 4)
    found = await crowd(*[f"127.0.0.{number}" for number in (2, 3, 4, 5, 6)])
    assert [answered for _, _, answered in found] == [True, True, True, False, False]
    for _, writer, _ in found:
        writer.close()
        await writer.wait_closed()
    again = False
    async with asyncio.timeout(20):
        while not again:
            ((_, _, again),) = await crowd("127.0.0.7")


def test_without_a_number_half_of_the_files_are_left_to_everything_else():
    assert 0 < ConnectionLimits().most() <= 4_000
    assert ConnectionLimits(total=7).most() == 7
