"""How deep a lock must be before a rescue shows its preimage goes by its value, in whatever unit its token is counted."""

from fractions import Fraction

import pytest

from layer2 import AssetConfig, BobConfig, Depth, EvmAddress, Layer2Config
from layer2.cli._rescue import depth_of_locks
from layer2.config import DepthRule, SwapConfig

SATOSHI = 10**8
RULES = (
    DepthRule(up_to=1_000_000, depth="included"),
    DepthRule(up_to=SATOSHI, depth="safe"),
    DepthRule(depth="finalized"),
)


def settings(decimals):
    return Layer2Config(
        network="devnet",
        bob=BobConfig(rpc_url="http://127.0.0.1:1", chain=60808),
        assets={"BTC": AssetConfig(contract=EvmAddress(raw=b"\x11" * 20), contract_decimals=decimals)},
        swap=SwapConfig(depth=RULES),
    )


@pytest.mark.parametrize("decimals", [6, 8, 11, 18])
def test_a_rescue_counts_the_value_of_a_lock_in_satoshi(decimals):
    depth_of = depth_of_locks(settings(decimals))
    unit = Fraction(10) ** (decimals - 8)
    for sat, depth in (
        (1_000_000, Depth.INCLUDED),
        (1_000_100, Depth.SAFE),
        (SATOSHI, Depth.SAFE),
        (SATOSHI + 100, Depth.FINALIZED),
    ):
        assert depth_of(int(sat * unit)).depth is depth


def test_what_is_a_little_more_than_a_bound_is_above_it():
    depth_of = depth_of_locks(settings(18))
    assert depth_of(1_000_000 * 10**10 + 1).depth is Depth.SAFE
