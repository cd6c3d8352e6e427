"""Quotes: from a provider's price before a transfer begins, and from the signed terms once it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.swaps import expected_s, worst_s
from layer2.terms import SwapDirection
from layer2.transfers import QuotedFee, Requirement, TransferQuote

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.swaps import Deal, Price
    from layer2.terms import DepthPolicy, Lock

__all__ = ["form_of", "quote_of_deal", "quote_of_price", "to_asset"]

_MSAT = 1000


def form_of(registry: AssetRegistry, lock: Lock) -> AssetForm:
    """What a lock's token is; one that is in the registry no more is taken for BTC with BTC's decimals."""
    known = registry.at(lock.chain_id, lock.token)
    return known or AssetForm(asset=BTC, chain_id=lock.chain_id, contract=lock.token, decimals=BTC.decimals)


def to_asset(units: int, form: AssetForm) -> int:
    """Token units in the asset's base unit, rounded up."""
    scale: int = 10**form.asset.decimals
    whole: int = 10**form.decimals
    return -(-units * scale // whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What a quote is made of, in the asset's base unit."""

    amount: int
    provider_fee: int
    routing_limit: int
    max_gas_wei: int
    pays_itself: bool


def quote_of_price(
    direction: SwapDirection, price: Price, form: AssetForm, contract: EvmAddress, *, rounding_msat: int, payer: str
) -> TransferQuote:
    """What a transfer would cost now."""
    figures = _Figures(
        amount=price.amount_sat,
        provider_fee=price.provider_fee_sat,
        routing_limit=price.routing_limit_sat,
        max_gas_wei=price.max_gas_wei,
        pays_itself=payer == "self",
    )
    return _quote(
        direction,
        figures,
        form,
        contract,
        rounding_msat=rounding_msat,
        provider=price.info.provider_address,
        policy=price.policy,
        seconds=(price.seconds_expected, price.seconds_worst),
        expires_at=price.expires_at,
    )


def quote_of_deal(deal: Deal, registry: AssetRegistry) -> TransferQuote:
    """What was agreed."""
    terms, lock = deal.terms, deal.terms.lock
    form = form_of(registry, lock)
    submarine = deal.direction is SwapDirection.SUBMARINE
    amount = to_asset(lock.amount - terms.provider_fee if submarine else lock.amount, form)
    figures = _Figures(
        amount=amount,
        provider_fee=to_asset(terms.provider_fee, form),
        routing_limit=-(-deal.routing_fee_limit_msat // _MSAT) if deal.pays_itself and not submarine else 0,
        max_gas_wei=deal.max_gas_wei,
        pays_itself=deal.pays_itself,
    )
    return _quote(
        deal.direction,
        figures,
        form,
        lock.contract,
        rounding_msat=max(0, amount * _MSAT - terms.invoice_amount_msat) if submarine else 0,
        provider=terms.provider,
        policy=terms.depth_policy,
        seconds=(expected_s(terms.timing, terms.depth_policy), worst_s(terms.timing, lock.timelock - terms.created_at)),
        expires_at=terms.lock_by,
    )


def _quote(
    direction: SwapDirection,
    figures: _Figures,
    form: AssetForm,
    contract: EvmAddress,
    *,
    rounding_msat: int,
    provider: EvmAddress,
    policy: DepthPolicy,
    seconds: tuple[int, int],
    expires_at: int,
) -> TransferQuote:
    assert form.contract is not None
    submarine = direction is SwapDirection.SUBMARINE
    coin = form.asset.name
    fees = [QuotedFee(name="provider", coin=coin, amount=figures.provider_fee)]
    if figures.routing_limit:
        fees.append(QuotedFee(name="routing", coin=coin, amount=figures.routing_limit, is_limit=True))
    fees.append(QuotedFee(name="gas", coin="ETH", amount=figures.max_gas_wei, is_limit=True))
    gas = Requirement(layer="bob", coin="ETH", amount=figures.max_gas_wei)
    needs = Requirement(
        layer="bob" if submarine else "lightning", coin=coin, amount=figures.amount + figures.provider_fee
    )
    return TransferQuote(
        asset=form.asset,
        amount=figures.amount,
        rounding_msat=rounding_msat,
        source="bob" if submarine else "lightning",
        destination="lightning" if submarine else "bob",
        direction=direction,
        fees=tuple(fees),
        requires=(needs, gas) if submarine or figures.pays_itself else (gas,),
        token=form.contract,
        htlc_contract=contract,
        provider=provider,
        depth_policy=policy,
        seconds_expected=seconds[0],
        seconds_worst=seconds[1],
        expires_at=expires_at,
    )
