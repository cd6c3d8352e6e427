"""A provider that quotes one price and signs another."""

import pytest

from layer2.errors import FeeLimitExceeded, SwapRefused
from layer2.provider import LocalProvider
from layer2.swaps import Fees
from layer2.terms import SwapDirection

AMOUNT = 100_000


class Greedy:
    """Shows ``shown`` as its fees, and passes everything else on to an honest provider."""

    def __init__(self, service, shown):
        self._honest = LocalProvider(service)
        self._shown = shown

    async def info(self):
        info = await self._honest.info()
        changed = {name: getattr(info, name).model_copy(update=self._shown) for name in ("submarine", "reverse")}
        return info.model_copy(update=changed)

    def __getattr__(self, name):
        return getattr(self._honest, name)


@pytest.fixture
def requests_of(world, make_requests):
    def make(**shown):
        return make_requests(Greedy(world.service, shown))

    return make


async def deal(requests, direction, world, max_fee):
    price = await requests.price(direction, AMOUNT, max_fee_sat=max_fee, pays_itself=True)
    if direction is SwapDirection.REVERSE:
        return await requests.reverse(requests.account.address, price, max_fee_sat=max_fee, pays_itself=True)
    text = await world.invoice(AMOUNT * 1000)
    return await requests.submarine(text, price, max_fee_sat=max_fee, own_invoice=False)


@pytest.mark.parametrize("direction", list(SwapDirection))
async def test_more_than_was_quoted_is_refused_even_below_the_bound(world, requests_of, direction):
    requests = requests_of(fees=Fees(ppm=0, base=0))
    with pytest.raises(SwapRefused) as caught:
        await deal(requests, direction, world, 5_000)
    assert caught.value.rule == "fee"


async def test_routing_gets_only_what_the_providers_fee_leaves_of_the_bound(world, requests_of):
    requests = requests_of()
    fee = world.settings.fee(AMOUNT)
    made = await deal(requests, SwapDirection.REVERSE, world, fee + 30)
    assert made.routing_fee_limit_msat == 30_000


@pytest.mark.parametrize("fees", [{"ppm": -10_000, "base": 0}, {"ppm": -1, "base": 0}, {"ppm": 10**400, "base": 0}])
async def test_a_fee_that_is_no_amount_is_none(world, requests_of, fees):
    """Below zero it would raise what may be spent on routing above the bound."""
    requests = requests_of(fees=Fees.model_construct(**fees))
    for direction in SwapDirection:
        with pytest.raises(SwapRefused):
            await deal(requests, direction, world, 5_000)


async def test_a_provider_without_depths_is_refused(world, requests_of):
    requests = requests_of(depth_policies=())
    with pytest.raises(SwapRefused) as caught:
        await deal(requests, SwapDirection.SUBMARINE, world, 5_000)
    assert caught.value.rule == "depth"


async def test_a_fee_above_the_bound_is_refused_before_anything_is_asked_for(world, requests_of):
    with pytest.raises(FeeLimitExceeded):
        await deal(requests_of(), SwapDirection.SUBMARINE, world, 1)
    assert world.inventory.active == 0


async def test_an_invoice_that_our_own_node_has_paid_is_not_paid_by_a_swap_too(world, requests_of):
    requests = requests_of()
    price = await requests.price(SwapDirection.SUBMARINE, AMOUNT, max_fee_sat=5_000, pays_itself=True)
    payee = world.lightning.add_node("payee")
    world.lightning.open_channel(world.merchant.node_id, payee.node_id, local_msat=10**9, remote_msat=10**9)
    text = (await payee.create_invoice(amount_msat=AMOUNT * 1000)).text
    await world.merchant.pay(text, fee_limit_msat=1_000, cltv_limit=400, time_limit_s=5)
    with pytest.raises(SwapRefused, match="has paid this invoice") as caught:
        await requests.submarine(text, price, max_fee_sat=5_000, own_invoice=False)
    assert caught.value.rule == "hash"
