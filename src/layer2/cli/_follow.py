"""Waits for a transfer and shows each of its steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from layer2.cli._views import event_json, event_line

if TYPE_CHECKING:
    from layer2 import Transfer, TransferProof
    from layer2.cli._cli import Cli

__all__ = ["finish"]

_LAST_STEP_S: Final = 1.0
"""The last step is announced at about the time of the result: it is waited for so long."""


async def finish(
    cli: Cli, transfer: Transfer, *, timeout_s: float | None = None, stream: bool = False
) -> TransferProof:
    """Show the steps until the transfer is decided; its proof.

    ``stream``: programs get each step as a line too.

    Raises:
        SwapRefunded, SwapExpired: it did not settle. AsyncTimeout: the wait ended, the transfer goes on.
    """

    async def show() -> None:
        async for event in transfer.events():
            cli.step(f"  {event_line(event)}")
            if stream and cli.json_output:
                cli.emit({"event": event_json(event)})
            if event.state.is_final:
                return

    steps = asyncio.create_task(show(), name="steps of a transfer")
    try:
        proof = await transfer.result_async(timeout=timeout_s)
        await asyncio.wait({steps}, timeout=_LAST_STEP_S)
        return proof
    finally:
        steps.cancel()
        await asyncio.gather(steps, return_exceptions=True)
