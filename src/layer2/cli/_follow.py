"""Waits for a transfer and shows each of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from layer2 import AsyncTimeout, Layer2Error, SwapExpired, SwapRefunded
from layer2.cli._views import event_json, event_line

if TYPE_CHECKING:
    from layer2 import Transfer, TransferProof
    from layer2.cli._cli import Cli

__all__ = ["begun", "finish"]

_LAST_STEP_S: Final = 1.0
"""The last step is announced at about the time of the result: it is waited for so long."""


@contextmanager
def begun(hint: str, *, key: str | None) -> Iterator[None]:
    """What was begun goes on whatever error ends the wait for it: without a key the same command would begin another.

    The library's errors speak of the call that waited, which can be made again; a command begins anew. ``hint`` says how to follow
    it up instead.
    """
    try:
        yield
    except (SwapRefunded, SwapExpired):
        raise  # nothing goes on
    except Layer2Error as error:
        error.money_may_have_moved = True
        if key is None:
            error.retry_safe = False
            kept = None if isinstance(error, AsyncTimeout) else error.hint
            error.hint = f"{kept}; {hint}" if kept else hint
        raise


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
