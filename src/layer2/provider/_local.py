"""A provider in the same process, behind the interface that clients use for one behind a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layer2.errors import NotFound, SwapRefused

if TYPE_CHECKING:
    from layer2.provider._service import ProviderService
    from layer2.swaps import Info, ReverseRequest, SubmarineRequest, SwapResponse, SwapStatus

__all__ = ["LocalProvider"]


class LocalProvider:
    """Implements ``layer2.swaps.ProviderApi``."""

    def __init__(self, service: ProviderService) -> None:
        self._service = service

    async def info(self) -> Info:
        """Who it is, what it costs."""
        return await self._service.info()

    async def create_submarine(self, request: SubmarineRequest) -> SwapResponse:
        """Ask for an invoice to be paid."""
        return await self._service.create_submarine(request)

    async def create_reverse(self, request: ReverseRequest) -> SwapResponse:
        """Ask for a lock against a hold invoice."""
        return await self._service.create_reverse(request)

    async def status(self, swap_id: str) -> SwapStatus:
        """Where a swap stands there."""
        return await self._service.status(swap_id)

    async def refund_signature(self, swap_id: str) -> bytes | None:
        """Its consent to an early refund; None if it does not give it."""
        try:
            return await self._service.sign_refund(swap_id)
        except (SwapRefused, NotFound):
            return None

    async def close(self) -> None:
        """Nothing to free."""
