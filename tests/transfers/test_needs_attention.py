"""A transfer that a person must look at ends waits, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from swap_worlds import make_deal

from layer2 import Layer2Config, Layer2Manager, StoreConfig, SystemClock, TransferState, UnknownOutcome
from layer2.storage import Store, SwapJournal
from layer2.swaps import NeedsAttention, Role
from layer2.terms import SwapDirection


async def test_waits_end_with_the_reason(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/layer2.sqlite3"
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    store = await Store.open(url, clock=SystemClock())
    await SwapJournal(store, Role.CLIENT).insert(
        deal, NeedsAttention(reason="the lock is lost"), idempotency_key=None, request_digest=None, bind_hash=True
    )
    await store.close()
    async with Layer2Manager(Layer2Config.embedded().with_changes(store=StoreConfig(url=url))) as manager:
        await manager.initialize_all_async()
        transfer = await manager.get_transfer_async(deal.id)
        assert transfer.state is TransferState.NEEDS_ATTENTION
        for wait in (transfer.result_async(), manager.wait_idle_async()):
            with pytest.raises(UnknownOutcome, match=deal.id) as caught:
                await wait
            assert (caught.value.transfer_id, caught.value.reason) == (deal.id, "the lock is lost")
            assert caught.value.money_may_have_moved
        assert manager.health().needs_attention == (deal.id,)
