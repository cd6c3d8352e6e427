"""What an asset is, and which contract it is on which layer.

An asset is never identified by its symbol: on BOB alone two tokens call themselves WBTC, and bitcoin comes with 8 or 18 decimals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from layer2._inputs import check_text, check_whole, kind_of
from layer2._values import Value
from layer2.addresses import EvmAddress
from layer2.errors import AmountError, AssetError

__all__ = ["BTC", "ETH", "MAX_AMOUNT", "AssetForm", "AssetId", "AssetRegistry", "check_amount", "convert_amount"]

MAX_AMOUNT = 2**64 - 1
"""Largest amount, in the asset's base unit."""


def _check_decimals(decimals: object) -> None:
    check_whole(decimals, "decimals", below=256, error=AssetError)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetId(Value):
    """An asset as the caller names it. Amounts are whole numbers of ``10 ** -decimals``."""

    name: str
    decimals: int

    def __post_init__(self) -> None:
        check_text(self.name, "name", error=AssetError)
        _check_decimals(self.decimals)

    def __str__(self) -> str:
        return self.name


BTC = AssetId(name="BTC", decimals=8)
"""Bitcoin; amounts in satoshi."""
ETH = AssetId(name="ETH", decimals=18)
"""Ether, the gas coin of BOB; amounts in wei."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetForm(Value):
    """What an asset is on one EVM chain: the ERC-20 at ``contract``, or the chain's native coin if that is None."""

    asset: AssetId
    chain_id: int
    contract: EvmAddress | None
    decimals: int

    def __post_init__(self) -> None:
        _check_asset(self.asset)
        check_whole(self.chain_id, "chain_id", least=1, error=AssetError)
        if self.contract is not None and not isinstance(self.contract, EvmAddress):
            raise AssetError(
                f"contract is an EvmAddress or None, not {kind_of(self.contract)}",
                field="contract",
                hint="EvmAddress.parse(text)",
            )
        _check_decimals(self.decimals)


class AssetRegistry:
    """Maps (asset, chain id) to its form there. Immutable; ``with_form`` gives a changed copy."""

    def __init__(self, forms: Iterable[AssetForm] = ()) -> None:
        self._forms = {(form.asset, form.chain_id): form for form in map(_check_form, forms)}

    def with_form(self, form: AssetForm) -> AssetRegistry:
        """A registry in which ``form`` replaces what the asset was on that chain."""
        return AssetRegistry([*self._forms.values(), form])

    def form(self, asset: AssetId, chain_id: int) -> AssetForm:
        """The asset's form on a chain.

        Raises:
            AssetError: the asset has none there.
        """
        _check_asset(asset)
        check_whole(chain_id, "chain_id", least=1, error=AssetError)
        try:
            return self._forms[asset, chain_id]
        except KeyError:
            raise AssetError(
                f"{asset} has no form on chain {chain_id}",
                field="asset_id",
                hint="add it to the asset registry with its contract and decimals",
            ) from None

    def at(self, chain_id: int, contract: EvmAddress | None) -> AssetForm | None:
        """What a contract of a chain is; None if it is no asset of the registry."""
        found = [form for form in self._forms.values() if (form.chain_id, form.contract) == (chain_id, contract)]
        return min(found, key=lambda form: form.asset.name, default=None)

    def assets(self) -> frozenset[AssetId]:
        """All assets that have a form somewhere."""
        return frozenset(asset for asset, _ in self._forms)


def _check_asset(asset: object) -> None:
    if not isinstance(asset, AssetId):
        raise AssetError(f"an asset is an AssetId, not {kind_of(asset)}", field="asset_id", hint="for example BTC")


def _check_form(form: object) -> AssetForm:
    if not isinstance(form, AssetForm):
        raise AssetError(f"a registry holds AssetForms, not {kind_of(form)}", field="form")
    return form


def check_amount(amount: object, *, field: str = "amount") -> int:
    """Give ``amount`` back if it is a whole number in 1..2**64-1.

    Raises:
        AmountError: it is not an int (bool, float and str are not), or out of range.
    """
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise AmountError(
            f"{field} must be a whole number of base units, not {type(amount).__name__} {amount!r:.40}",
            field=field,
            hint="give an int, for BTC in satoshi",
        )
    if not 0 < amount <= MAX_AMOUNT:
        raise AmountError(f"{field} must be between 1 and 2**64 - 1, not {amount}", field=field)
    return amount


def convert_amount(amount: int, from_decimals: int, to_decimals: int) -> int:
    """The same value in a unit with other decimals.

    Raises:
        AmountError: a digit would be lost. AssetError: decimals are 0..255, as a token's contract tells them.
    """
    check_whole(amount, "amount", below=2**1024, error=AmountError)
    _check_decimals(from_decimals)
    _check_decimals(to_decimals)
    if to_decimals >= from_decimals:
        factor: int = 10 ** (to_decimals - from_decimals)
        return amount * factor
    divisor: int = 10 ** (from_decimals - to_decimals)
    quotient, rest = divmod(amount, divisor)
    if rest:
        raise AmountError(
            f"{amount} with {from_decimals} decimals cannot be written with {to_decimals} without losing a digit",
            field="amount",
        )
    return quotient
