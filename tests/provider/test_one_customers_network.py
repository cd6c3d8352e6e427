"""Who has a /48 of IPv6 has 65,536 networks of one customer each: offers, turns and connections take all of them for one address."""

import json
from types import SimpleNamespace

import pytest

from layer2.provider import ConnectionLimits, create_app
from layer2.provider._connections import bounded_protocol
from layer2.provider._rate import network_of, origin_of

HONEST = "203.0.113.7"


class Connection:
    has_place = False
    address = cycle = None
    transport = SimpleNamespace(abort=lambda: None)


def of_one_site(number):
    return f"2001:db8:1:{number:x}::1"


@pytest.fixture
async def ask(world, serve, http):
    """Asks for a reverse swap as if from an address; gives the status."""
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=10_000))

    async def send(address, **changes):
        body = json.loads((await world.reverse_request(**changes)).model_dump_json())
        headers = {"X-Forwarded-For": address}
        async with http.post(server.url + "/v1/swap/reverse", json=body, headers=headers) as answer:
            return answer.status

    return send


class TestOffers:
    @pytest.fixture
    async def world(self, make_world):
        return await make_world(max_held_per_channel=5)

    async def test_a_site_that_takes_all_there_is_keeps_nobody_out(self, ask):
        assert [await ask(of_one_site(number)) for number in range(5)] == [200] * 5
        assert await ask(HONEST) == 200

    async def test_a_site_has_no_first_offer_for_each_of_its_networks(self, ask):
        assert await ask(HONEST) == 200
        assert [await ask(of_one_site(number)) for number in range(4)] == [200] * 4
        assert await ask(of_one_site(9)) == 422

    async def test_sites_are_told_apart(self, ask):
        assert [await ask(f"2001:db8:{number}::1") for number in range(5)] == [200] * 5
        assert await ask(HONEST) == 422


async def test_turns_are_taken_by_site(world, ask):
    origins = []
    create = world.service.create_reverse

    async def noting(request, *, origin=None):
        origins.append(origin)
        return await create(request, origin=origin)

    world.service.create_reverse = noting
    for address in (of_one_site(1), of_one_site(2), "2001:db8:2::1", HONEST, f"::ffff:{HONEST}"):
        assert await ask(address) == 200
    assert origins == ["2001:db8:1::/48", "2001:db8:1::/48", "2001:db8:2::/48", HONEST, HONEST]


class TestConnections:
    @pytest.fixture
    def enter(self):
        places = bounded_protocol(ConnectionLimits(total=60, per_address=40)).places

        def take(address):
            return places.enter(Connection(), address)

        return take

    def test_a_site_has_as_many_as_one_address(self, enter):
        assert [enter(of_one_site(number)) for number in range(100)].count(True) == 40

    def test_where_all_are_taken_a_site_loses_one_to_a_newcomer(self, enter):
        assert all(enter(of_one_site(number)) for number in range(40))
        assert all(enter(f"198.51.100.{number}") for number in range(20))
        assert enter(HONEST)
        assert not enter(of_one_site(200))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        (None, "unknown"),
        ("x" * 100, "x" * 64),
    ],
)
def test_whose_request_it_is(host, origin):
    assert origin_of(host) == origin


def test_a_network_of_one_customer_is_told_apart_where_requests_are_counted():
    assert network_of(of_one_site(1)) != network_of(of_one_site(2))
