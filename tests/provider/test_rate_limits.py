"""How often strangers may ask, and that nobody uses up what is others'."""

import json

import pytest

from layer2.errors import RateLimited
from layer2.provider import RateLimiter, create_app


async def problem(answer, status, rule=None):
    body = json.loads(await answer.text())
    assert (answer.status, answer.content_type, body.get("rule")) == (status, "application/problem+json", rule)


async def test_too_many_requests_wait(world, serve, http, connect):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=2))
    for _ in range(2):
        async with http.post(server.url + "/v1/swap/reverse", data=b"{}") as answer:
            await problem(answer, 400, "validation")
    async with http.post(server.url + "/v1/swap/reverse", data=b"{}") as answer:
        await problem(answer, 429)
        assert answer.headers["Retry-After"] == "30"
    with pytest.raises(RateLimited) as caught:
        await connect(server).create_reverse(await world.reverse_request())
    assert caught.value.retry_after_s == 30
    await world.clock.advance(30)
    assert (await connect(server).create_reverse(await world.reverse_request())).id


async def test_reading_has_an_account_of_its_own(world, serve, http):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=1))
    for _ in range(10):
        async with http.get(server.url + "/v1/version") as answer:
            assert answer.status == 200
    async with http.get(server.url + "/v1/version") as answer:
        await problem(answer, 429)
    async with http.post(server.url + "/v1/swap/reverse", data=b"{}") as answer:
        await problem(answer, 400, "validation")
    async with http.get(server.url + "/v1/health/live") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/metricsX", "/metrics/", "/v1/health/", "/v1/health/else"])
async def test_what_only_begins_like_an_unlimited_path_is_limited(world, serve, http, path):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=1))
    for _ in range(10):
        async with http.get(server.url + path, allow_redirects=False) as answer:
            assert answer.status != 429
    async with http.get(server.url + path, allow_redirects=False) as answer:
        await problem(answer, 429)


@pytest.mark.parametrize("path", ["/metrics", "/v1/health/live", "/v1/health/ready"])
async def test_whoever_watches_may_do_so_ten_times_a_second(world, serve, http, path):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=1))
    for _ in range(600):
        async with http.get(server.url + path) as answer:
            assert answer.status == 200
    async with http.get(server.url + path) as answer:
        await problem(answer, 429)
    async with http.post(server.url + path, data=b"{}") as answer:
        await problem(answer, 405)
    async with http.post(server.url + path, data=b"{}") as answer:
        await problem(answer, 429)
    async with http.get(server.url + "/v1/version") as answer:
        assert answer.status == 200


async def test_the_proxys_clients_have_accounts_of_their_own(world, serve, http):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=1))
    for address in ("203.0.113.1", "203.0.113.2", "2001:db8::1"):
        headers = {"X-Forwarded-For": address}
        async with http.post(server.url + "/v1/swap/reverse", data=b"{}", headers=headers) as answer:
            await problem(answer, 400, "validation")
    same_network = {"X-Forwarded-For": "2001:db8::2"}
    async with http.post(server.url + "/v1/swap/reverse", data=b"{}", headers=same_network) as answer:
        await problem(answer, 429)


async def test_the_limiter_forgets_the_oldest_and_never_grows(clock):
    limiter = RateLimiter(1, clock, max_addresses=100)
    for number in range(1_000):
        assert limiter.take(f"10.0.{number // 250}.{number % 250}") is None
    assert len(limiter) == 100
    assert limiter.take("10.0.3.249") == 60


async def test_the_networks_of_one_site_have_four_times_as_much_together(clock):
    """A /48 is to be had for nothing, and has 65,536 networks."""
    limiter = RateLimiter(2, clock)
    assert [limiter.take(f"2001:db8:1:{number:x}::/64") for number in range(100)].count(None) == 8
    assert limiter.take("2001:db8:1:ffff::/64") == 8
    assert limiter.take("2001:db8:2::/64") is None
    assert limiter.take("192.0.2.1") is None
    await clock.advance(8)
    assert limiter.take("2001:db8:1:ffff::/64") is None


async def test_who_is_refused_takes_nothing_from_his_neighbours(clock):
    limiter = RateLimiter(2, clock)
    assert [limiter.take("2001:db8:1:1::/64") for _ in range(100)].count(None) == 2
    assert [limiter.take(f"2001:db8:1:{number:x}::/64") for number in range(2, 100)].count(None) == 6


async def test_a_name_that_looks_like_a_network_has_one_account(clock):
    limiter = RateLimiter(1, clock)
    assert [limiter.take(name) for name in ("x/64", "::1::/64", "2001:db8::1/64", "x/64")] == [None, None, None, 60]


async def test_a_site_has_one_account_through_a_proxy(world, serve, http):
    server = await serve(create_app(world.service, clock=world.clock, requests_per_minute=1))
    statuses = []
    for number in range(5):
        headers = {"X-Forwarded-For": f"2001:db8:1:{number}::1"}
        async with http.post(server.url + "/v1/swap/reverse", data=b"{}", headers=headers) as answer:
            statuses.append(answer.status)
    assert statuses == [400, 400, 400, 400, 429]


async def test_tokens_come_back_with_time_and_no_more_than_a_minutes(clock):
    limiter = RateLimiter(60, clock)
    assert [limiter.take("a") for _ in range(60)] == [None] * 60
    assert limiter.take("a") == 1
    await clock.advance(3)
    assert [limiter.take("a") for _ in range(4)] == [None, None, None, 1]
    await clock.advance(10_000)
    assert [limiter.take("a") for _ in range(61)].count(None) == 60
