"""An amount of the token is worth what its decimals make of it: the contract's, and both sides must count with those."""

import pytest
from refusals import refused

from layer2.errors import AssetError
from layer2.provider import LocalProvider
from layer2.terms import SwapDirection

BOTH = pytest.mark.parametrize("direction", list(SwapDirection))
AMOUNT = 100_000


class Told:
    """The world's provider, with what it says of the token's decimals replaced."""

    def __init__(self, service, decimals):
        self._provider = LocalProvider(service)
        self._decimals = decimals
        self.asked = 0

    async def info(self):
        self.asked += 1
        return (await self._provider.info()).model_copy(update={"decimals": self._decimals})


async def price(client, direction):
    return await client.price(direction, AMOUNT, max_fee_sat=5_000, pays_itself=True)


@BOTH
@pytest.mark.parametrize("decimals", [6, 7, 9, 18])
async def test_settings_that_the_token_contradicts_ask_nobody_for_a_price(world, make_requests, direction, decimals):
    provider = Told(world.service, {"BTC": 8})
    client = make_requests(provider)
    client.account.decimals = decimals
    with pytest.raises(AssetError, match=f"has {decimals} decimals, not 8"):
        await price(client, direction)
    assert provider.asked == 0


@BOTH
@pytest.mark.parametrize("said", [{"BTC": 6}, {"BTC": 18}, {"ETH": 8}, {}], ids=["6", "18", "of-another", "none"])
async def test_a_provider_that_counts_with_others_is_refused(world, make_requests, direction, said):
    await refused(price(make_requests(Told(world.service, said)), direction), "decimals")
