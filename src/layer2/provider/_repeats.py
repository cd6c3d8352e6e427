"""Requests that come again: whose answer was lost asks once more, and gets the swap that was made for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakValueDictionary

from layer2.errors import SwapRefused
from layer2.swaps import ReverseRequest, StoredSwap, SubmarineRequest, SwapResponse

__all__ = ["Asked", "KeptSwap", "Repeats"]

_MIN_ID: Final = 16
_MAX_ID: Final = 64
"""Bytes of a request id."""


class KeptSwap(StoredSwap, Protocol):
    """A stored swap that tells what it was made for."""

    @property
    def request_digest(self) -> str | None:
        """Of the request."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What is stored with a swap, so that its request is known when it comes again."""

    key: str | None = None
    digest: str | None = None


class Repeats:
    """One swap for each request id, however often it comes, and at once or after a restart.

    Only the id gives the swap: whoever sees an invoice knows or guesses everything else of the request that led to it, and a swap's
    id is a secret between the two who swap.
    """

    def __init__(self, by_key: Callable[[str], Awaitable[KeptSwap | None]]) -> None:
        self._by_key = by_key
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, request: SubmarineRequest | ReverseRequest, make: Callable[[Asked], Awaitable[SwapResponse]]
    ) -> SwapResponse:
        """The swap that was made for the request, or else the one that ``make`` makes.

        Raises:
            SwapRefused: ``rule`` is ``request_id``: it was used for another request, or has a wrong length; or ``ended``: nothing
                comes of that swap any more.
        """
        request_id = request.request_id
        if request_id is None:
            return await make(Asked())
        if not _MIN_ID <= len(request_id) <= _MAX_ID:
            raise SwapRefused(f"a request id has {_MIN_ID} to {_MAX_ID} bytes", rule="request_id")
        # Hashed, so that no stranger chooses what stands beside the keys of this store's own transfers.
        key = "request:" + hashlib.sha256(request_id).hexdigest()
        digest = hashlib.sha256(f"{type(request).__name__} {request.model_dump_json()}".encode()).hexdigest()
        # A request may come again while its first coming is still being answered.
        lock = self._under_way.setdefault(key, asyncio.Lock())
        async with lock:
            made = await self._by_key(key)
            return await make(Asked(key, digest)) if made is None else _again(made, digest)


def _again(swap: KeptSwap, digest: str) -> SwapResponse:
    if swap.request_digest != digest:
        raise SwapRefused("the request id was used for another request", rule="request_id")
    if swap.state.final or swap.restored:
        raise SwapRefused("the swap that was made for this request has ended", rule="ended")
    return SwapResponse(id=swap.deal.id, signed_terms=swap.deal.signed)
