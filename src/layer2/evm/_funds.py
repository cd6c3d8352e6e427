"""What an account can still pay: its balance, less what is under way, less what is kept for exits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from layer2.errors import InsufficientFunds

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.evm._client import EvmClient
    from layer2.evm._live import LivePool

__all__ = ["Funds"]


class Funds:
    """The native coin of one account. ``look`` brings ``pool`` up to date with the chain."""

    def __init__(
        self, client: EvmClient, account: EvmAddress, pool: LivePool, look: Callable[[], Awaitable[None]]
    ) -> None:
        self._client = client
        self._account = account
        self._pool = pool
        self._look = look
        self._balance: int | None = None

    def forget(self) -> None:
        """Something was included: ask for the balance again."""
        self._balance = None

    async def check(self, needed: int) -> None:
        """Refuse what the account cannot pay besides all that is under way.

        Raises:
            InsufficientFunds: ``needed`` wei are not there.
        """
        if self._balance is None:
            self._balance = await self._client.balance(self._account)
        if self._balance - self._pool.committed_wei >= needed:
            return
        await self._look()
        self._balance = await self._client.balance(self._account)
        available = max(self._balance - self._pool.committed_wei, 0)
        if available < needed:
            raise InsufficientFunds(
                f"the account {self._account} has {available} wei to spend and needs {needed}",
                hint="send ETH to the account, or wait until what is under way is included",
                coin="ETH",
                needed=needed,
                available=available,
                account=str(self._account),
            )
