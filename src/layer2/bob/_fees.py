"""What an OP-Stack chain charges besides gas: the L1 data fee (Fjord) and the operator fee (Isthmus, Jovian).

``eth_estimateGas`` and the gas price know neither, and both are taken from the sender's balance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from layer2.addresses import EvmAddress
from layer2.errors import Reverted
from layer2.evm import decode_uint, encode_call, unsigned_size

if TYPE_CHECKING:
    from layer2._clock import Clock
    from layer2.evm import EvmClient, UnsignedTransaction

__all__ = ["GAS_PRICE_ORACLE", "L1FeeParameters", "OpStackFees", "l1_fee_upper_bound", "operator_fee"]

GAS_PRICE_ORACLE: Final = EvmAddress.parse("0x420000000000000000000000000000000000000F")
_SIGNATURE_BYTES: Final = 68
"""What the oracle contract adds for a signature."""
_HEADROOM_PERCENT: Final = 150
"""L1's fees may rise until the transaction is included; its base fee by an eighth a block."""
_MAX_AGE_S: Final = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class L1FeeParameters:
    """L1's prices as the chain knows them, in wei, and the chain's scalars (six decimals)."""

    base_fee: int
    blob_base_fee: int
    base_fee_scalar: int
    blob_base_fee_scalar: int


def l1_fee_upper_bound(size: int, parameters: L1FeeParameters) -> int:
    """Most that a transaction of ``size`` bytes, unsigned, pays for L1 data: the Fjord formula on the worst compression.

    Fjord: ``max(100e6, -42_585_600 + 836_500 * flz) * (16 * scalar * fee + blob scalar * blob fee) / 1e12``, where ``flz`` is the
    FastLZ length of the signed transaction, at most ``n + n / 255 + 16``.
    """
    signed = size + _SIGNATURE_BYTES
    compressed = signed + signed // 255 + 16
    scaled = max(100_000_000, -42_585_600 + 836_500 * compressed)
    price = 16 * parameters.base_fee_scalar * parameters.base_fee + (
        parameters.blob_base_fee_scalar * parameters.blob_base_fee
    )
    return -(-scaled * price // 10**12)


def operator_fee(gas: int, *, scalar: int, constant: int, jovian: bool) -> int:
    """The operator fee in wei: ``gas * scalar / 1e6 + constant`` from Isthmus, ``gas * scalar * 100 + constant`` from Jovian."""
    return (gas * scalar * 100 if jovian else gas * scalar // 1_000_000) + constant


class OpStackFees:
    """``DataFee`` of an OP-Stack chain, from its gas price oracle. A chain without one (a local chain) charges nothing.

    Only sizes and gas limits reach the endpoint, never a transaction.
    """

    def __init__(self, client: EvmClient, clock: Clock) -> None:
        self._client = client.exits
        self._clock = clock
        self._has_oracle: bool | None = None
        self._parameters: L1FeeParameters | None = None
        self._operator: dict[int, int] = {}
        self._asked_at = 0.0

    async def upper_bound_wei(self, tx: UnsignedTransaction) -> int:
        """L1 and operator fee of ``tx``, with room for L1's prices to rise. The operator fee is taken on the gas limit."""
        if self._has_oracle is None:
            self._has_oracle = bool(await self._client.code(GAS_PRICE_ORACLE))
        if not self._has_oracle:
            return 0
        now = self._clock.monotonic_s()
        if self._parameters is None or now - self._asked_at >= _MAX_AGE_S:
            self._parameters = L1FeeParameters(
                base_fee=await self._ask("l1BaseFee()"),
                blob_base_fee=await self._ask("blobBaseFee()"),
                base_fee_scalar=await self._ask("baseFeeScalar()"),
                blob_base_fee_scalar=await self._ask("blobBaseFeeScalar()"),
            )
            self._operator.clear()
            self._asked_at = now
        if tx.gas_limit not in self._operator:
            self._operator[tx.gas_limit] = await self._operator_fee(tx.gas_limit)
        l1_fee = l1_fee_upper_bound(unsigned_size(tx), self._parameters) * _HEADROOM_PERCENT // 100
        return l1_fee + self._operator[tx.gas_limit]

    async def _ask(self, signature: str) -> int:
        return decode_uint(await self._client.call(GAS_PRICE_ORACLE, encode_call(signature)))

    async def _operator_fee(self, gas: int) -> int:
        try:
            answer = await self._client.call(GAS_PRICE_ORACLE, encode_call("getOperatorFee(uint256)", gas))
        except Reverted:
            return 0  # before Isthmus the oracle has no such function, and the chain no such fee
        return decode_uint(answer)
