"""A provider of a token that is counted in another unit than the satoshi."""

import json

import pytest
from refusals import nothing_left, refused

from layer2.config import DepthRule
from layer2.errors import AmountError, FeeLimitExceeded
from layer2.provider import LocalProvider, create_app
from layer2.provider._service import ANY_AMOUNT
from layer2.terms import SwapDirection

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


class TestACoarseToken:
    """Its base unit is worth 100 satoshi."""

    @pytest.fixture
    async def world(self, make_world):
        world = await make_world(
            decimals=6,
            depth=(DepthRule(up_to=99_999, depth="included"), DepthRule(depth="safe")),
            min_amount=1_050,
            max_amount=200_099,
            fee_basis_points=25,
            fee_base=7,
        )
        world.account.balance = 10**7
        return world

    @pytest.fixture
    def client(self, world, make_requests):
        client = make_requests(LocalProvider(world.service))
        client.account.decimals = 6
        return client

    async def test_its_price_is_rounded_to_whole_units(self, world):
        pair = (await world.service.info()).submarine
        assert (pair.limits.minimal, pair.limits.maximal) == (11, 2_000)
        assert pair.fees.base == 1
        assert [bound for bound, _ in pair.depth_policies] == [999, ANY_AMOUNT // 100]

    @pytest.mark.parametrize("amount", [1_100, 50_000, 99_900, 100_000, 200_000])
    async def test_both_ways_are_agreed_on(self, client, amount):
        for direction in SwapDirection:
            price = await client.price(direction, amount, max_fee_sat=1_399, pays_itself=True)
            if direction is SwapDirection.REVERSE:
                deal = await client.reverse(client.account.address, price, max_fee_sat=1_399, pays_itself=True)
                assert deal.terms.lock.amount == amount // 100
            else:
                invoice = await client.own_invoice(amount, price.policy)
                deal = await client.submarine(invoice, price, max_fee_sat=1_399, own_invoice=True)
                assert deal.terms.lock.amount == amount // 100 + deal.terms.provider_fee
            fee_sat = deal.terms.provider_fee * 100
            exact = -(-amount * 25 // 10_000) + 7
            assert exact <= fee_sat < exact + 100
            assert fee_sat <= price.provider_fee_sat < exact + 200

    async def test_the_bound_on_the_fee_holds_for_the_rounded_fee(self, client):
        with pytest.raises(FeeLimitExceeded):
            await client.price(SwapDirection.REVERSE, 50_000, max_fee_sat=199, pays_itself=True)

    @pytest.mark.parametrize("direction", list(SwapDirection))
    async def test_amounts_that_the_token_cannot_name_are_refused(self, client, direction):
        with pytest.raises(AmountError):
            await client.price(direction, 50_050, max_fee_sat=5_000, pays_itself=True)

    async def test_invoices_of_such_amounts_are_refused(self, world):
        await refused(world.submarine(invoice=await world.invoice(50_050_000)), "amount")
        assert nothing_left(world)
