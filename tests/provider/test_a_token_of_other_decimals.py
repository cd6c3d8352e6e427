"""A provider of a token that is counted in another unit than the satoshi."""

import json

import pytest
from refusals import nothing_left, refused

from layer2.provider import create_app

SAT = 10**10
"""In base units of a token with 18 decimals."""
DUST = pytest.mark.parametrize("dust", [0, 1, SAT - 1])


@pytest.fixture
async def fine(make_world):
    """The token has 18 decimals, so that balances are no whole satoshi."""
    return await make_world(decimals=18)


@DUST
async def test_what_anybody_sends_the_account_stops_no_offers(fine, dust):
    fine.account.balance = 1_000_000 * SAT + dust
    await fine.reverse(onchain_amount=50_000 * SAT)
    await fine.reverse(onchain_amount=60_000 * SAT)
    assert fine.inventory.token_bound() == 110_000 * SAT


@DUST
async def test_the_share_for_unpaid_offers_is_of_whole_satoshi(make_world, dust):
    world = await make_world(decimals=18, max_soft_hold_percent=50)
    world.account.balance = 100_000 * SAT - 1 - dust
    await refused(world.reverse(onchain_amount=50_000 * SAT), "max_soft_hold")
    await world.reverse(onchain_amount=49_999 * SAT)


async def test_amounts_that_are_no_whole_satoshi_are_refused(fine):
    fine.account.balance = 10**9 * SAT
    await refused(fine.reverse(onchain_amount=50_000 * SAT + 1), "amount")
    assert nothing_left(fine)


@DUST
@pytest.mark.parametrize("amount", [50_000 * SAT, 50_000 * SAT + 1, 900_000 * SAT, 10**30])
async def test_no_answer_tells_what_the_account_holds(fine, serve, http, dust, amount):
    balance = 876_543 * SAT + dust
    fine.account.balance = balance
    server = await serve(create_app(fine.service, clock=fine.clock, requests_per_minute=100, metrics=fine.metrics))
    request = await fine.reverse_request(onchain_amount=amount)
    async with http.post(f"{server.url}/v1/swap/reverse", json=json.loads(request.model_dump_json())) as answer:
        told = await answer.text()
    assert answer.status in (200, 422)
    assert str(balance // SAT) not in told
