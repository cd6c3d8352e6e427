"""Before money moves the account must hold what the worst way out costs, and on a rollup gas is not all of it."""

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import FeeLimitExceeded, InsufficientFunds
from layer2.evm import CLAIM_GAS, LOCK_GAS, REFUND_COOPERATIVE_GAS, GasPrice, NoDataFee, unsigned_size
from layer2.swaps import EvmAccount

PRICE = 1_000_000
GAS_WEI = 2 * PRICE * (LOCK_GAS + CLAIM_GAS + REFUND_COOPERATIVE_GAS)
"""For one swap, with the factor for congestion."""
L1_FEE = 10**13


class Prices:
    async def price(self):
        return GasPrice(max_fee_per_gas=PRICE, max_priority_fee_per_gas=1, floor=PRICE // 2)


class DearL1:
    """Takes the same for each transaction, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    async def upper_bound_wei(self, tx):
        self.asked.append(tx)
        return L1_FEE


class Chain:
    def __init__(self, balance):
        self._balance = balance

    async def balance(self, account):
        return self._balance


def account(balance, data_fee, bound=10**18):
    return EvmAccount(
        client=Chain(balance),
        chain_id=60808,
        fees=Prices(),
        data_fee=data_fee,
        address=EvmAddress(raw=b"\x05" * 20),
        token=EvmAddress(raw=b"\x06" * 20),
        max_gas_cost_wei=bound,
    )


async def test_gas_alone_is_not_enough_where_the_chain_charges_for_l1():
    """A lock whose claim and refund cannot be paid for is lost to whoever waits for its timelock."""
    assert await account(GAS_WEI, NoDataFee()).check_gas(1) == GAS_WEI
    with pytest.raises(InsufficientFunds) as caught:
        await account(GAS_WEI, DearL1()).check_gas(1)
    needed = GAS_WEI + 2 * 3 * L1_FEE
    assert (caught.value.needed, caught.value.available) == (needed, GAS_WEI)
    assert await account(needed, DearL1()).check_gas(1) == needed


async def test_each_open_swap_needs_its_own():
    needed = GAS_WEI + 2 * 3 * L1_FEE
    assert await account(3 * needed, DearL1()).check_gas(3) == needed
    with pytest.raises(InsufficientFunds):
        await account(3 * needed - 1, DearL1()).check_gas(3)


async def test_the_users_bound_counts_it_too():
    with pytest.raises(FeeLimitExceeded) as caught:
        await account(10**18, DearL1(), bound=GAS_WEI).check_gas(1)
    assert (caught.value.limit, caught.value.needed) == (GAS_WEI, GAS_WEI + 2 * 3 * L1_FEE)


async def test_l1_is_asked_about_transactions_of_the_real_sizes():
    fee = DearL1()
    await account(10**18, fee).check_gas(1)
    lock, claim, refund = fee.asked
    assert (lock.gas_limit, claim.gas_limit, refund.gas_limit) == (LOCK_GAS, CLAIM_GAS, REFUND_COOPERATIVE_GAS)
    assert [len(tx.data) for tx in fee.asked] == [4 + 6 * 32, 4 + 6 * 32, 4 + 9 * 32]
    assert unsigned_size(refund) > unsigned_size(claim) > 4 + 6 * 32
