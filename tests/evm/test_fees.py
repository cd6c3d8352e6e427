import pytest

from layer2.errors import FeeLimitExceeded
from layer2.evm import FeeHistory, FeeLimits, FeeOracle, GasPrice, RpcError
from layer2.evm._broadcast import SendAnswer, classify_refusal
from layer2.evm._fees import bumped, offer, tipping_at_most


class FakeChain:
    def __init__(self, *histories):
        self.histories = list(histories)

    async def fee_history(self):
        return self.histories.pop(0)


class FakeClock:
    now = 0.0

    def now_ms(self):
        return int(self.now * 1000)

    def monotonic_s(self):
        return self.now


def price(fee, tip=0, floor=0):
    return GasPrice(max_fee_per_gas=fee, max_priority_fee_per_gas=tip, floor=floor)


async def test_the_price_is_the_median_tip_on_a_base_fee_with_headroom():
    chain = FakeChain(FeeHistory(base_fees=(5, 100), tips=(1, 30, 20)), FeeHistory(base_fees=(7,), tips=()))
    clock = FakeClock()
    oracle = FeeOracle(chain, FeeLimits(min_tip_wei=3), clock, max_age_s=2)
    assert await oracle.price() == price(220, 20, 120)
    assert await oracle.price() == price(220, 20, 120)
    clock.now = 2.0
    assert await oracle.price() == price(17, 3, 10)


async def test_a_price_that_was_too_low_is_asked_again():
    chain = FakeChain(FeeHistory(base_fees=(100,), tips=()), FeeHistory(base_fees=(200,), tips=()))
    oracle = FeeOracle(chain, FeeLimits(min_tip_wei=0), FakeClock())
    await oracle.price()
    oracle.forget()
    assert (await oracle.price()).floor == 200


def test_headroom_gives_way_to_the_bounds_and_the_floor_does_not():
    full = {"gas_limit": 100, "data_fee_wei": 50}
    assert offer(price(20, 2, 12), **full, price_bound=100, cost_bound=10_000) == price(20, 2, 12)
    assert offer(price(20, 2, 12), **full, price_bound=15, cost_bound=10_000) == price(15, 2, 12)
    assert offer(price(20, 2, 12), **full, price_bound=100, cost_bound=1_350) == price(13, 2, 12)
    with pytest.raises(FeeLimitExceeded) as caught:
        offer(price(20, 2, 12), **full, price_bound=100, cost_bound=1_249)
    assert (caught.value.limit, caught.value.needed) == (1_249, 1_250)
    with pytest.raises(FeeLimitExceeded) as caught:
        offer(price(20, 2, 12), **full, price_bound=11, cost_bound=10_000)
    assert (caught.value.limit, caught.value.needed) == (11, 12)


@pytest.mark.parametrize("fee", [1, 9, 10, 11, 99, 10**9, 10**9 + 1])
def test_a_bump_raises_both_fields_by_a_tenth_at_least(fee):
    new = bumped(price(fee * 2, fee), price(0, 0), bound=10**12)
    assert new.max_fee_per_gas * 10 >= fee * 2 * 11
    assert new.max_priority_fee_per_gas * 10 >= fee * 11
    assert new.max_priority_fee_per_gas <= new.max_fee_per_gas


def test_a_bump_follows_the_market_grows_with_urgency_and_stops_at_the_bound():
    assert bumped(price(100, 10), price(500, 50), bound=1000).max_fee_per_gas == 500
    calm, urgent = (bumped(price(100, 10), price(0), bound=1000, times=times) for times in (1, 6))
    assert urgent.max_fee_per_gas > calm.max_fee_per_gas * 1.5
    assert bumped(price(100, 10), price(500, 50), bound=120).max_fee_per_gas == 120
    assert bumped(price(100, 10), price(500, 50), bound=111) is None
    assert bumped(price(100, 100), price(0), bound=112) == price(112, 112)


def test_a_bump_keeps_to_a_bound_on_the_tip_and_stops_where_pools_would_refuse_it():
    assert bumped(price(100, 10), price(500, 50), bound=1000, tip_bound=20) == price(500, 20)
    assert bumped(price(100, 10), price(500, 50), bound=1000, tip_bound=11) is None, "less than pools ask for"


def test_a_tip_is_lowered_to_its_bound_and_the_headroom_stays():
    assert tipping_at_most(price(220, 20, 120), 5) == price(205, 5, 105)
    assert tipping_at_most(price(220, 20, 120), 20) == price(220, 20, 120)
    assert tipping_at_most(price(220, 20, 120), None) == price(220, 20, 120)


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("already known", SendAnswer.TAKEN),
        ("transaction already imported", SendAnswer.TAKEN),
        ("known transaction: 0x12", SendAnswer.TAKEN),
        ("unknown transaction: 0x12", SendAnswer.UNCLEAR),
        ("nonce too low: next nonce 5, tx nonce 4", SendAnswer.NONCE_USED),
        ("replacement transaction underpriced", SendAnswer.NONCE_HELD),
        ("transaction underpriced", SendAnswer.PRICE_TOO_LOW),
        ("max fee per gas less than block base fee: address 0x", SendAnswer.PRICE_TOO_LOW),
        ("insufficient funds for gas * price + value", SendAnswer.FUNDS_TOO_LOW),
        ("intrinsic gas too low", SendAnswer.INVALID),
        ("exceeds block gas limit", SendAnswer.INVALID),
        ("txpool is full", SendAnswer.BUSY),
        ("internal error", SendAnswer.UNCLEAR),
        ("", SendAnswer.UNCLEAR),
    ],
)
def test_what_nodes_say_about_a_transaction(message, meaning):
    assert classify_refusal(RpcError(-32000, message)) is meaning
