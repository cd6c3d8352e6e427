"""Whatever ends while a transfer is unfinished says by when it must run again."""

from __future__ import annotations

import pytest
from locked_transfers import locked_transfer

from layer2 import AsyncTimeout, Layer2Config, Layer2Manager

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_time_limit_and_a_close_name_the_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "layer2")
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        transfer = await locked_transfer(manager)
        assert transfer.act_by is not None
        for wait in (transfer.result_async(timeout=0.01), manager.wait_idle_async(timeout=0.01)):
            with pytest.raises(AsyncTimeout) as caught:
                await wait
            assert caught.value.run_again_by == transfer.act_by
            assert caught.value.retry_safe, "waiting again spends nothing"
        assert manager.health().run_again_by == transfer.act_by
    # The embedded provider is closed as well: it has paid and not yet claimed.
    said = [record for record in caplog.records if getattr(record, "event_code", "") == "swap.unfinished"]
    times = [record.event_data["run_again_by"] for record in said]  # type: ignore[attr-defined]
    assert transfer.act_by in times
    assert all(time is not None for time in times)
    assert all("run again by 20" in record.getMessage() for record in said)
    assert len(said) == 2
