"""The handle, the proof and an error show the price as the quote did, whatever the token counts in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from swap_worlds import make_deal

from layer2 import BTC, FeeLimitExceeded, Layer2Config, Layer2Manager, StoreConfig, SystemClock, TransferQuote
from layer2 import Layer2ProtocolType as P
from layer2.config import AssetConfig
from layer2.storage import Store, SwapJournal
from layer2.swaps import AwaitingLock, Locked, Role
from layer2.terms import SwapDirection
from layer2.transfers import read_transfers

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 100_000


async def test_a_token_of_eighteen_decimals_is_shown_in_satoshi(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/layer2.sqlite3"
    store = await Store.open(url, clock=SystemClock())
    ids = {}
    for number, direction in enumerate(SwapDirection):
        deal = make_deal(Role.CLIENT, direction, id=f"{number:032x}", preimage_time_ms=1)
        terms = deal.terms
        wei = replace(
            terms,
            swap_id=deal.id,
            lock=replace(terms.lock, amount=terms.lock.amount * 10**10, preimage_hash=bytes([number + 1]) * 32),
            provider_fee=terms.provider_fee * 10**10,
        )
        deal = replace(deal, signed=replace(deal.signed, terms=wei))
        state = Locked() if direction is SwapDirection.SUBMARINE else AwaitingLock()
        ids[direction] = deal.id
        await SwapJournal(store, Role.CLIENT).insert(
            deal, state, idempotency_key=None, request_digest=None, bind_hash=False
        )
    await store.close()
    token = terms.lock.token
    config = Layer2Config(
        network="devnet",
        store=StoreConfig(url=url),
        assets={"BTC": AssetConfig(contract=token, contract_decimals=18)},
    )
    async with read_transfers(config) as transfers:
        submarine = (await transfers.get(ids[SwapDirection.SUBMARINE])).quote
        reverse = (await transfers.get(ids[SwapDirection.REVERSE])).quote
    assert (submarine.amount, submarine.fees[0].amount, submarine.rounding_msat) == (100_000, 600, 0)
    assert (reverse.amount, reverse.fees[0].amount) == (100_600, 600)
    assert submarine.token == token


def shown(quote: TransferQuote) -> dict[str, object]:
    return {
        "amount": quote.amount,
        "fees": [(fee.name, fee.coin, fee.amount) for fee in quote.fees if fee.name != "gas"],
        "requires": [(need.layer, need.coin) for need in quote.requires],
        "spent": quote.requires[0].amount if quote.requires[0].coin == "BTC" else None,
        "expected": quote.seconds_expected,
    }


@pytest.mark.parametrize(
    ("source", "destination", "payer"),
    [(P.BOB, P.LIGHTNING, "self"), (P.LIGHTNING, P.BOB, "self"), (P.LIGHTNING, P.BOB, "anyone")],
)
async def test_the_handle_shows_what_was_quoted(manager: Layer2Manager, source: P, destination: P, payer: str) -> None:
    quote = await manager.quote_cross_layer_transfer_async(BTC, SAT, source, destination, payer=payer)  # type: ignore[arg-type]
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, source, destination, payer=payer)  # type: ignore[arg-type]
    assert shown(transfer.quote) == shown(quote)
    # The invoice is made a moment before or after the terms, by clocks of whole seconds.
    assert abs(transfer.quote.seconds_worst - quote.seconds_worst) <= 2
    if payer == "anyone":
        await transfer.cancel_async()
        return
    proof = await transfer.result_async()
    fees = {fee.name: (fee.coin, fee.amount) for fee in proof.fees}
    assert fees["provider"] == ("BTC", quote.fees[0].amount)
    assert fees["gas"][0] == "ETH"
    assert 0 < fees["gas"][1] <= transfer.quote.fees[-1].amount
    assert await manager.verify_cross_layer_proof_async(proof)


async def test_a_price_above_the_bound_comes_with_the_quote(manager: Layer2Manager) -> None:
    quote = await manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    for call in (manager.quote_cross_layer_transfer_async, manager.cross_layer_transfer_async):
        with pytest.raises(FeeLimitExceeded) as caught:
            await call(BTC, SAT, P.BOB, P.LIGHTNING, max_fee=0)
        assert isinstance(caught.value.quote, TransferQuote)
        assert shown(caught.value.quote) == shown(quote)
        assert caught.value.needed == quote.fees[0].amount
