import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.bob import L1FeeParameters, OpStackFees, l1_fee_upper_bound, operator_fee
from layer2.evm import EvmClient, UnsignedTransaction, unsigned_size

ORACLE = "0x420000000000000000000000000000000000000F"
TX = UnsignedTransaction(
    chain_id=60808,
    nonce=1,
    gas_limit=21_000,
    max_fee_per_gas=10**9,
    max_priority_fee_per_gas=1,
    to=EvmAddress(raw=b"\x0b" * 20),
    data=b"secret" * 10,
)


def test_the_fjord_formula():
    # Ten gwei on L1, one wei a blob, the scalars of a usual chain; 200 bytes signed at most are 268 compressed.
    parameters = L1FeeParameters(base_fee=10**10, blob_base_fee=1, base_fee_scalar=1368, blob_base_fee_scalar=810949)
    compressed = 200 + 68 + 1 + 16
    scaled = -42_585_600 + 836_500 * compressed
    price = 16 * 1368 * 10**10 + 810949
    assert l1_fee_upper_bound(200, parameters) == -(-scaled * price // 10**12)


def test_small_transactions_pay_for_a_hundred_bytes():
    parameters = L1FeeParameters(base_fee=10**9, blob_base_fee=0, base_fee_scalar=10**6, blob_base_fee_scalar=0)
    assert l1_fee_upper_bound(0, parameters) == 100 * 16 * 10**9


def test_the_operator_fee_before_and_after_jovian():
    assert operator_fee(50_000, scalar=2_000_000, constant=7, jovian=False) == 100_007
    assert operator_fee(50_000, scalar=2, constant=7, jovian=True) == 10_000_007


async def test_a_chain_without_the_oracle_charges_nothing(start_anvil):
    anvil = await start_anvil()
    assert await OpStackFees(anvil.client, SystemClock()).upper_bound_wei(TX) == 0


async def test_the_bound_comes_from_the_oracle_with_headroom(start_anvil):
    anvil = await start_anvil()
    # Answers 1000 to whatever is asked: PUSH2 1000, MSTORE at 0, RETURN 32 bytes.
    await anvil.rpc("anvil_setCode", ORACLE, "0x6103e85f5260205ff3")
    parameters = L1FeeParameters(base_fee=1000, blob_base_fee=1000, base_fee_scalar=1000, blob_base_fee_scalar=1000)
    expected = l1_fee_upper_bound(unsigned_size(TX), parameters) * 3 // 2 + 1000
    fees = OpStackFees(anvil.client, SystemClock())
    assert await fees.upper_bound_wei(TX) == expected


async def test_an_oracle_without_an_operator_fee_means_none(start_anvil):
    anvil = await start_anvil()
    # CALLDATASIZE == 4 ? answer 1000 : revert
    await anvil.rpc("anvil_setCode", ORACLE, "0x36600414600a575f5ffd5b6103e85f5260205ff3")
    parameters = L1FeeParameters(base_fee=1000, blob_base_fee=1000, base_fee_scalar=1000, blob_base_fee_scalar=1000)
    bound = await OpStackFees(anvil.client, SystemClock()).upper_bound_wei(TX)
    assert bound == l1_fee_upper_bound(unsigned_size(TX), parameters) * 3 // 2


async def test_the_oracle_never_sees_the_transaction(start_anvil):
    anvil = await start_anvil()
    await anvil.rpc("anvil_setCode", ORACLE, "0x6103e85f5260205ff3")
    asked = []
    real = anvil.client.transport.exits.call

    class Spy:
        async def call(self, method, params):
            asked.append(str(params))
            return await real(method, params)

        async def close(self):
            pass

    await OpStackFees(EvmClient(Spy()), SystemClock()).upper_bound_wei(TX)
    assert len(asked) == 6
    assert not any(b"secret".hex() in params for params in asked)


@pytest.mark.parametrize("size", [0, 100, 1000, 100_000])
def test_the_bound_grows_with_size(size):
    parameters = L1FeeParameters(base_fee=10**9, blob_base_fee=1, base_fee_scalar=1368, blob_base_fee_scalar=1)
    assert l1_fee_upper_bound(size + 1000, parameters) > l1_fee_upper_bound(size, parameters)
