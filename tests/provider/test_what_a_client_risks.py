"""What a client has open already bounds what it begins: value that only the sequencer has confirmed, and gas for every exit."""

from types import SimpleNamespace

import pytest
from refusals import refused

from layer2.errors import InsufficientFunds
from layer2.provider import LocalProvider
from layer2.swaps import Agreed, Cancelling, Locked, Locking
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transactions import Depth

AMOUNT = 100_000
INCLUDED = DepthPolicy(depth=Depth.INCLUDED)
SAFE = DepthPolicy(depth=Depth.SAFE)
BOTH = pytest.mark.parametrize("direction", list(SwapDirection))


@pytest.fixture
def make_client(world, make_requests):
    def make(policy=INCLUDED, **parts):
        return make_requests(LocalProvider(world.service), depth_policy=lambda _: policy, **parts)

    return make


async def price(client, direction=SwapDirection.REVERSE, amount=AMOUNT):
    return await client.price(direction, amount, max_fee_sat=5_000, pays_itself=True)


@pytest.fixture
def open_swap(world, make_client):
    """Makes a swap of ``AMOUNT`` in a state."""

    async def make(state, policy=INCLUDED):
        await world.clock.advance(1)  # else the next one would have the same preimage
        client = make_client(policy)
        agreed = await client.reverse(client.account.address, await price(client), max_fee_sat=5_000, pays_itself=True)
        assert agreed.terms.lock.amount == AMOUNT
        return SimpleNamespace(deal=agreed, state=state)

    return make


@pytest.fixture
def locked(world):
    """What the lock of a swap of ``amount`` holds: the provider's fee too, where it is the client's."""

    def amount_of_lock(direction, amount):
        return amount + world.settings.fee(amount) if direction is SwapDirection.SUBMARINE else amount

    return amount_of_lock


class TestWhatTheSequencerAloneHasConfirmed:
    """A stalled batcher undoes all of it together, so what counts is the sum over all swaps."""

    @BOTH
    async def test_is_bounded_for_a_first_swap(self, make_client, locked, direction):
        bound = locked(direction, AMOUNT)
        assert await price(make_client(max_unsafe=bound), direction)
        await refused(price(make_client(max_unsafe=bound - 1), direction), "max_unsafe")

    @BOTH
    @pytest.mark.parametrize("state", [Agreed(), Locking(), Locked()], ids=["agreed", "locking", "locked"])
    async def test_is_bounded_over_all_open_swaps(self, make_client, open_swap, locked, direction, state):
        swaps = [await open_swap(state)]
        client = make_client(open_swaps=lambda: swaps, max_unsafe=AMOUNT + locked(direction, 60_000))
        assert await price(client, direction, 60_000)
        await refused(price(client, direction, 60_001), "max_unsafe")
        swaps.clear()
        assert await price(client, direction, 60_001)

    async def test_does_not_count_swaps_with_nothing_bound_or_that_wait_for_more(self, make_client, open_swap):
        given_up = Cancelling(outcome="expired", reason="cancelled")
        swaps = [await open_swap(given_up), await open_swap(Locked(), SAFE)]
        assert await price(make_client(open_swaps=lambda: swaps, max_unsafe=AMOUNT))

    async def test_does_not_bound_a_swap_that_waits_for_more(self, make_client, open_swap):
        swaps = [await open_swap(Locked())]
        assert await price(make_client(SAFE, open_swaps=lambda: swaps, max_unsafe=0))


class TestWhileTheSafeHeadLags:
    @staticmethod
    def lag(seconds):
        async def safe_lag_s():
            return seconds

        return safe_lag_s

    @BOTH
    async def test_nothing_begins_that_does_not_wait_for_it(self, make_client, direction):
        assert await price(make_client(safe_lag_s=self.lag(7_200)), direction)
        await refused(price(make_client(safe_lag_s=self.lag(7_201)), direction), "safe_lag")

    async def test_what_waits_for_it_begins(self, make_client):
        assert await price(make_client(SAFE, safe_lag_s=self.lag(10**6)))


class TestGas:
    """Each open swap may still have to claim and to refund: a new one must leave their gas in the account."""

    @BOTH
    @pytest.mark.parametrize("swaps", [0, 1, 2])
    async def test_is_asked_for_the_exits_of_all_open_swaps_and_of_the_new_one(
        self, make_client, open_swap, direction, swaps
    ):
        are_open = [await open_swap(Agreed()) for _ in range(swaps)]
        client = make_client(open_swaps=lambda: are_open)
        await price(client, direction)
        assert client.account.gas_of == [swaps + 1]

    @BOTH
    async def test_for_as_many_as_there_are_and_no_more_begins_nothing(self, world, make_client, open_swap, direction):
        are_open = [await open_swap(Locked()), await open_swap(Locked())]
        client = make_client(open_swaps=lambda: are_open)
        offers = world.inventory.active
        client.account.gas_for = 2
        with pytest.raises(InsufficientFunds):
            await price(client, direction)
        are_open.pop()
        assert await price(client, direction)
        assert world.inventory.active == offers
