"""Whose request it is, where a proxy stands in front: that customers have accounts of their own, and nobody chooses his."""

import aiohttp
import pytest

from layer2.errors import ConfigurationError
from layer2.provider import ConnectionLimits, HttpServer, create_app

CUSTOMERS = ["198.51.100.1", "198.51.100.2", "2001:db8:1::1", "2001:db8:2::1"]


@pytest.fixture
def app(world):
    """One that answers each customer ten times."""
    return create_app(world.service, clock=world.clock, requests_per_minute=1)


@pytest.fixture
async def statuses():
    """Of 20 questions on behalf of each customer."""

    async def ask(server, address="127.0.0.1"):
        found = []
        async with aiohttp.ClientSession() as session:
            for customer in CUSTOMERS * 20:
                url = f"http://{address}:{server.port}/v1/version"
                async with session.get(url, headers={"X-Forwarded-For": customer}) as response:
                    found.append(response.status)
        return found

    return ask


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "127.0.0.1"), ("::", "[::1]")]
)
async def test_a_proxy_on_this_machine_is_believed_however_it_connects(app, serve, statuses, host, address):
    found = await statuses(await serve(app, host=host), address)
    assert found.count(200) == 10 * len(CUSTOMERS)


@pytest.mark.parametrize("network", ["127.0.0.0/8", "::ffff:127.0.0.0/104", "127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_a_proxy_elsewhere_is_believed_by_its_network(app, serve, statuses, host, network):
    server = await serve(app, host=host, limits=ConnectionLimits(proxies=("192.0.2.1", network)))
    assert (await statuses(server)).count(200) == 10 * len(CUSTOMERS)


@pytest.mark.parametrize("proxies", [(), ("192.0.2.0/24", "::1"), ("::127.0.0.1",)])
async def test_nobody_else_is_believed(app, serve, statuses, proxies):
    server = await serve(app, limits=ConnectionLimits(proxies=proxies))
    assert (await statuses(server)).count(200) == 10


async def test_a_chain_of_proxies_ends_at_the_first_that_is_not_trusted(app, serve):
    """What a customer himself wrote into the header stands before it."""
    server = await serve(app, host="::", limits=ConnectionLimits(proxies=("127.0.0.1", "10.0.0.0/8")))
    found = []
    async with aiohttp.ClientSession() as session:
        for number in range(30):
            header = f"203.0.113.{number}, 198.51.100.1, ::ffff:10.1.2.3, 10.1.2.4"
            url = f"http://127.0.0.1:{server.port}/v1/version"
            async with session.get(url, headers={"X-Forwarded-For": header}) as response:
                found.append(response.status)
    assert found.count(200) == 10


async def test_only_what_is_trusted_has_as_many_connections_as_it_needs(app, serve):
    for proxies, expected in ((("127.0.0.0/8",), 3), (("10.0.0.0/8",), 1)):
        server = await serve(app, host="::", limits=ConnectionLimits(per_address=1, proxies=proxies))
        sessions = [aiohttp.ClientSession() for _ in range(3)]
        answered = 0
        for session in sessions:
            try:
                async with session.get(f"http://127.0.0.1:{server.port}/v1/version") as response:
                    answered += response.status == 200
            except aiohttp.ClientError:
                pass
        for session in sessions:
            await session.close()
        assert answered == expected


@pytest.mark.parametrize("proxies", [("proxy",), ("10.0.0.1/8",)])
def test_what_is_no_network_is_refused(app, proxies):
    with pytest.raises(ConfigurationError):
        HttpServer(app, host="127.0.0.1", port=0, shutdown_grace_s=1, limits=ConnectionLimits(proxies=proxies))
