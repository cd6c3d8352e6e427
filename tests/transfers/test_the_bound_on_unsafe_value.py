"""The bound on what the sequencer alone has confirmed holds for transfers that begin at the same time, too."""

from __future__ import annotations

import asyncio

from layer2 import BTC, Layer2Config, Layer2Manager, SwapRefused
from layer2 import Layer2ProtocolType as P
from layer2.config import SwapConfig

SAT = 60_000


async def test_transfers_that_begin_at_once_do_not_pass_it_together() -> None:
    """Each alone is below it. One that nobody pays stays open, and so do all that begin."""
    config = Layer2Config.embedded().with_changes(swap=SwapConfig(max_unsafe_total=2 * SAT + SAT // 2))
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        begun = await asyncio.gather(
            *(manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB, payer="anyone") for _ in range(5)),
            return_exceptions=True,
        )
        refusals = [each for each in begun if isinstance(each, SwapRefused)]
        assert [each.rule for each in refusals] == ["max_unsafe"] * 3
        kept = [each for each in begun if not isinstance(each, BaseException)]
        assert {each.id for each in await manager.list_transfers_async()} == {each.id for each in kept}
        assert len(kept) == 2
        assert await kept[0].cancel_async()
        again = await manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB, payer="anyone")
        for each in (kept[1], again):
            assert await each.cancel_async()
