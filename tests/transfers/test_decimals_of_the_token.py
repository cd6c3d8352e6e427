"""What an amount of a token is worth is for its contract to say: wrong settings must not sell sats for a fraction."""

from __future__ import annotations

import pytest

from layer2 import BTC, AssetConfig, AssetError, Layer2Config, Layer2Manager, Layer2ProtocolType
from layer2.evm import TEST_TOKEN_ADDRESS

AMOUNT = 40_000
WAYS = [
    (Layer2ProtocolType.LIGHTNING, Layer2ProtocolType.BOB),
    (Layer2ProtocolType.BOB, Layer2ProtocolType.LIGHTNING),
]


@pytest.mark.parametrize(("source", "target"), WAYS)
async def test_nothing_begins_while_the_settings_give_the_token_others_than_it_has(
    config: Layer2Config, source: Layer2ProtocolType, target: Layer2ProtocolType
) -> None:
    six = {"BTC": AssetConfig(contract=TEST_TOKEN_ADDRESS, contract_decimals=6)}
    async with Layer2Manager(config.with_changes(assets=six)) as manager:
        await manager.initialize_all_async()
        with pytest.raises(AssetError, match="8 decimals, not 6") as refusal:
            await manager.cross_layer_transfer_async(BTC, AMOUNT, source, target)
        assert "contract_decimals" in str(refusal.value.hint)
        assert not refusal.value.money_may_have_moved
        assert not await manager.list_transfers_async()
