"""What a transfer's exits may cost is asked of the whole price, and left in the account while the transfer is open."""

import pytest

from layer2 import BTC, ETH, EvmAddress, EvmCall, FeeLimitExceeded, InsufficientFunds, Layer2Config, Layer2Manager
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedEvm

pytestmark = pytest.mark.asyncio(loop_scope="module")
GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F"
FRIEND = EvmAddress(raw=b"\x0b" * 20)


async def test_what_the_rollup_charges_for_l1_is_part_of_the_price(monkeypatch):
    honest = EmbeddedEvm.call

    async def dear(self, method, params):
        if method == "eth_call" and params[0]["to"] == GAS_PRICE_ORACLE:
            return "0x" + (10**17).to_bytes(32).hex()
        return await honest(self, method, params)

    monkeypatch.setattr(EmbeddedEvm, "call", dear)
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        with pytest.raises(FeeLimitExceeded) as caught:
            await manager.quote_cross_layer_transfer_async(BTC, 50_000, P.BOB, P.LIGHTNING)
    assert caught.value.needed > 10**17
    assert next(fee.amount for fee in caught.value.quote.fees if fee.name == "gas") == caught.value.needed


async def test_the_gas_of_an_open_transfer_is_left_in_the_account(manager):
    bob = await manager.get_protocol_async(P.BOB)
    transfer = await manager.start_cross_layer_transfer_async(BTC, 50_000, P.LIGHTNING, P.BOB, payer="anyone")
    kept = next(fee.amount for fee in transfer.quote.fees if fee.name == "gas")
    assert kept > 0
    spendable = await bob.balance_async(ETH) - kept
    with pytest.raises(InsufficientFunds):
        await bob.submit_transaction_async(EvmCall(to=FRIEND, value_wei=spendable))
    await transfer.cancel_async()
