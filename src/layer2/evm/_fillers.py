"""Uses up nonces that nobody took and that others wait behind, with transfers of nothing to the account itself."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from layer2._observe import log_event
from layer2.errors import Layer2Error
from layer2.evm._queue import request_digest
from layer2.transactions import EvmCall

if TYPE_CHECKING:
    import asyncio

    from layer2.addresses import EvmAddress
    from layer2.evm._journal import TxRecord
    from layer2.evm._live import LivePool, LiveTx
    from layer2.evm._queue import Job, JobQueue

__all__ = ["Fillers", "is_filler"]

_log = logging.getLogger("layer2.evm")
_PLAIN_TRANSFER_GAS = 21_000


def is_filler(record: TxRecord) -> bool:
    """Whether all that it does is to use up its nonce."""
    return record.request_digest == request_digest(_filler_of(record.sender))


def _filler_of(account: EvmAddress) -> EvmCall:
    return EvmCall(to=account, gas_limit=_PLAIN_TRANSFER_GAS)


class Fillers:
    """Fills the holes of one account. ``make`` makes a job; ``launch`` signs one, ``deliver`` sends it, and ``spawn`` runs both."""

    def __init__(
        self,
        account: EvmAddress,
        pool: LivePool,
        queue: JobQueue,
        *,
        make: Callable[[EvmCall, str], Job],
        launch: Callable[[Job], Awaitable[LiveTx | None]],
        deliver: Callable[[Job, LiveTx], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._account = account
        self._pool = pool
        self._queue = queue
        self._make = make
        self._launch = launch
        self._deliver = deliver
        self._spawn = spawn
        self._filling: set[int] = set()

    def fill(self) -> None:
        """Use a nonce that nobody took, and those of refused transactions, if others wait behind them."""
        self.fill_contested()
        if self._pool.blocking_hole is not None and not len(self._queue):
            self._queue.put(self._job())

    def fill_contested(self) -> None:
        """Use the nonces of refused transactions. Not through the queue: those behind them may fill the window."""
        for nonce in self._pool.blocking_contested:
            if nonce not in self._filling:
                self._filling.add(nonce)
                self._spawn(self._fill(nonce))

    async def _fill(self, nonce: int) -> None:
        job = self._job()
        job.nonce = nonce
        try:
            live = await self._launch(job)
            if live is not None:
                await self._deliver(job, live)
        except Layer2Error as error:
            text = f"nonce {nonce} of {self._account} cannot be used up now, which is tried again: {error}"
            log_event(_log, logging.WARNING, "evm.sender_failed", text, account=self._account)
        finally:
            self._filling.discard(nonce)

    def _job(self) -> Job:
        job = self._make(_filler_of(self._account), f"fill:{secrets.token_hex(16)}")
        job.gas_limit = _PLAIN_TRANSFER_GAS
        job.done.add_done_callback(_swallow)
        return job


def _swallow(future: asyncio.Future[TxRecord]) -> None:
    _ = future.cancelled() or future.exception()
