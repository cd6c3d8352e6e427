"""Whether a payment hash was claimed on the contract before: whoever reads the chain then has its preimage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from layer2.errors import NodeError, UnexpectedReply
from layer2.evm import CLAIM_TOPIC, MAX_TIMELOCK_S, ClaimEvent, decode_htlc_event
from layer2.swaps._ports import Ask, ask_at_once

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.evm import EvmClient, Header

__all__ = ["ClaimSearch"]

_LEAST_BLOCKS: Final = 16
"""An endpoint that takes fewer blocks than this at once is not searched."""


_WHAT: Final = "searching for claims of a payment hash"


class ClaimSearch:
    """Searches the contract's ``Claim`` events by their preimage hash, the newest blocks first.

    It rests on the endpoint: one that has thrown old events away shows none of them. ``max_requests`` bounds what one search may
    cost it; ``ask`` makes each request.
    """

    def __init__(
        self,
        *,
        client: EvmClient,
        chain_id: int,
        contract: EvmAddress,
        block_time_s: float,
        max_requests: int,
        ask: Ask = ask_at_once,
    ) -> None:
        self._client = client
        self._chain_id = chain_id
        self._contract = contract
        self._block_time_s = block_time_s
        self._max_requests = max_requests
        self._ask = ask
        self._widest: int | None = None
        """Blocks that the endpoint takes at once, as far as that is known."""

    async def claimed(self, payment_hash: bytes, since_s: int) -> bool:
        """Whether a lock with this hash was claimed at ``since_s`` (Unix seconds) or later, but within the last 60 days.

        Raises:
            NodeError: the endpoint does not answer, does not serve events, or not that far back within the bound.
        """
        head = await self._ask(_WHAT, lambda: self._client.header("latest"))
        if head is None:
            raise UnexpectedReply("the endpoint has no latest block")
        first = await self._block_at(max(since_s, head.timestamp - MAX_TIMELOCK_S), head)
        last = head.number
        for _ in range(self._max_requests):
            found, begin = await self._newest(payment_hash, first, last)
            if found:
                return True
            if begin == first:
                return False
            last = begin - 1
        raise _unserved(f"it takes too few blocks at a time to search back to block {first}")

    async def _block_at(self, time_s: int, head: Header) -> int:
        """A block that is not later than ``time_s``, whatever the chain's block time was."""
        back = int(max(0, head.timestamp - time_s) / self._block_time_s) + 1
        while (number := head.number - back) > 0:
            header = await self._ask(_WHAT, partial(self._client.header, number))
            if header is not None and header.timestamp <= time_s:
                return number
            back *= 2
        return 0

    async def _newest(self, payment_hash: bytes, first: int, last: int) -> tuple[bool, int]:
        """Whether there is such a claim in as many blocks up to ``last`` as the endpoint takes, and where they begin."""
        while True:
            begin = first if self._widest is None else max(first, last - self._widest + 1)
            topics = (CLAIM_TOPIC, None, payment_hash)
            search = partial(self._client.logs_between, begin, last, address=self._contract, topics=topics)
            logs = await self._ask(_WHAT, search)
            if logs is not None:
                break
            self._widest = (last - begin + 1) // 2
            if self._widest < _LEAST_BLOCKS:
                self._widest = None
                raise _unserved("it takes hardly any blocks at a time")
        for log in logs:
            event = decode_htlc_event(
                chain_id=self._chain_id,
                contract=self._contract,
                address=log.address.raw,
                topics=log.topics,
                data=log.data,
            )
            if isinstance(event, ClaimEvent) and event.preimage_hash == payment_hash:
                return True, begin
        return False, begin


def _unserved(why: str) -> NodeError:
    return NodeError(
        f"the endpoint does not show whether the payment hash was claimed before: {why}",
        hint="use an endpoint that serves eth_getLogs over wider ranges; a newer invoice needs fewer blocks",
        code="eth_getLogs",
    )
