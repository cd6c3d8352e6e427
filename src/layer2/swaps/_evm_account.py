"""Our account on the EVM chain: what it holds, and whether it can pay for the exits of a swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from layer2.errors import AssetError, FeeLimitExceeded, InsufficientFunds, Reverted, UnexpectedReply
from layer2.evm import (
    CLAIM_GAS,
    LOCK_GAS,
    REFUND_COOPERATIVE_GAS,
    UnsignedTransaction,
    decode_uint,
    encode_balance_of,
    encode_decimals,
)

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.evm import DataFee, EvmClient, FeeOracle

__all__ = ["EvmAccount", "SwapGas"]

_WORD: Final = 32
_WORST: Final = (
    (LOCK_GAS, 4 + 6 * _WORD),
    (CLAIM_GAS, 4 + 6 * _WORD),
    (REFUND_COOPERATIVE_GAS, 4 + 9 * _WORD),
)
"""Gas limit and bytes of call data of a lock and of both ways out of it, the dearer refund of the two."""
_CONGESTION: Final = 2
"""Factor on today's prices, L1's included, for the time until the exit."""
_ANY_NONCE: Final = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapGas:
    """What the transactions of one swap may cost, and what there is to pay for them, as read at one time."""

    account: EvmAddress
    one_swap_wei: int
    balance_wei: int

    def check(self, swaps: int) -> int:
        """What one costs; raises ``InsufficientFunds`` if the account cannot pay that for ``swaps`` swaps at a time."""
        needed = self.one_swap_wei * swaps
        if self.balance_wei < needed:
            raise InsufficientFunds(
                f"the account {self.account} holds {self.balance_wei} wei, but the gas of {swaps} transfer(s) may cost {needed}",
                coin="ETH",
                needed=needed,
                available=self.balance_wei,
                account=str(self.account),
                hint="send it some ETH on this chain",
            )
        return self.one_swap_wei


class EvmAccount:
    """Implements what ``SwapRequests`` and the provider ask of an account."""

    def __init__(
        self,
        *,
        client: EvmClient,
        chain_id: int,
        fees: FeeOracle,
        data_fee: DataFee,
        address: EvmAddress,
        token: EvmAddress,
        max_gas_cost_wei: int,
    ) -> None:
        self._client = client
        self._chain_id = chain_id
        self._fees = fees
        self._data_fee = data_fee
        self._address = address
        self._token = token
        self._max_gas_cost_wei = max_gas_cost_wei
        self._decimals: int | None = None

    @property
    def address(self) -> EvmAddress:
        """Whose it is."""
        return self._address

    async def token_balance(self) -> int:
        """In the token's base unit."""
        answer = await self._client.call(self._token, encode_balance_of(self._address))
        if len(answer) != 32:
            raise UnexpectedReply(f"the token {self._token} does not tell balances", code="balanceOf")
        return int.from_bytes(answer)

    async def check_decimals(self, decimals: int) -> None:
        """Look whether the token has so many, which its contract is asked once.

        Raises:
            AssetError: it has others, or there is no token that tells.
        """
        if self._decimals is None:
            try:
                told = await self._client.call(self._token, encode_decimals())
            except Reverted:
                told = b""
            # What the endpoint answers wrongly is not the token's fault: only what it relays of the token is judged here.
            try:
                self._decimals = decode_uint(told, 8)
            except UnexpectedReply as error:
                raise AssetError(
                    f"there is no token at {self._token}", field="asset_id", hint="correct assets.BTC.contract"
                ) from error
        if self._decimals != decimals:
            raise AssetError(
                f"the token {self._token} has {self._decimals} decimals, not {decimals}",
                field="asset_id",
                hint="correct assets.BTC.contract_decimals",
            )

    async def safe_lag_s(self, now_s: int) -> int | None:
        """How old the safe head is; None if the chain has none."""
        safe = await self._client.header("safe")
        return None if safe is None else max(0, now_s - safe.timestamp)

    async def gas(self) -> SwapGas:
        """What the transactions of one swap may cost at most: gas, and what the chain charges besides.

        Raises:
            FeeLimitExceeded: more than the configured bound.
        """
        one = await self._worst_wei()
        if one > self._max_gas_cost_wei:
            raise FeeLimitExceeded(
                f"the gas of a transfer may cost {one} wei now, above bob.max_gas_cost_wei = {self._max_gas_cost_wei}",
                limit=self._max_gas_cost_wei,
                needed=one,
                hint="wait for a lower price of gas, or raise the bound",
            )
        return SwapGas(account=self._address, one_swap_wei=one, balance_wei=await self._client.balance(self._address))

    async def check_gas(self, swaps: int) -> int:
        """The most that the transactions of one swap may cost, in wei.

        Raises:
            FeeLimitExceeded: more than the configured bound.
            InsufficientFunds: the account cannot pay it for ``swaps`` swaps at a time.
        """
        return (await self.gas()).check(swaps)

    async def _worst_wei(self) -> int:
        price = await self._fees.price()
        total = 0
        for gas_limit, size in _WORST:
            # Of the size that the real one has, and of bytes that compress no better: only that counts for what is charged.
            like_it = UnsignedTransaction(
                chain_id=self._chain_id,
                nonce=_ANY_NONCE,
                gas_limit=gas_limit,
                max_fee_per_gas=price.max_fee_per_gas,
                max_priority_fee_per_gas=price.max_priority_fee_per_gas,
                to=self._address,
                data=b"\xff" * size,
            )
            total += gas_limit * price.max_fee_per_gas + await self._data_fee.upper_bound_wei(like_it)
        return total * _CONGESTION
