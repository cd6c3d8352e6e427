"""Whatever is given to a public call that cannot be right is refused as such: nothing is sent, and no accident comes out."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from layer2 import (
    BTC,
    ETH,
    EvmCall,
    Layer2Config,
    Layer2Error,
    Layer2Manager,
    LightningPayment,
    NotFound,
    SignedEvmTransaction,
)
from layer2 import Layer2ProtocolType as P

BAD: tuple[Any, ...] = (None, True, 1.5, "x", "", "\ud800", b"x", b"", -1, 2**64, 2**300, [], {}, object())
ACCOUNT = "0x" + "11" * 20
HASH = bytes(32)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def manager() -> AsyncIterator[Layer2Manager]:
    async with Layer2Manager(Layer2Config.embedded()) as opened:
        await opened.initialize_all_async()
        yield opened


def bob_calls(bob: Any) -> dict[str, tuple[Callable[[Any], Any], tuple[Any, ...]]]:
    """Each argument of each call, with what is fine in its place."""
    return {
        "submit": (bob.submit_transaction_async, ()),
        "submit EvmCall.value_wei": (
            lambda x: bob.submit_transaction_async(EvmCall(to=ACCOUNT, value_wei=x)),
            (2**64,),
        ),
        "submit SignedEvmTransaction": (lambda x: bob.submit_transaction_async(SignedEvmTransaction(raw=x)), ()),
        "status": (bob.get_transaction_status_async, ()),
        "wait": (bob.wait_for_transaction_async, ()),
        "wait depth": (lambda x: bob.wait_for_transaction_async("00" * 32, x), ()),
        "transfer asset": (lambda x: bob.transfer_asset_async(x, 1, ACCOUNT), ()),
        "transfer amount": (lambda x: bob.transfer_asset_async(BTC, x, ACCOUNT), ()),
        "transfer amount of ETH": (lambda x: bob.transfer_asset_async(ETH, x, ACCOUNT), ()),
        "transfer recipient": (lambda x: bob.transfer_asset_async(BTC, 1, x), ()),
        "transfer key": (lambda x: bob.transfer_asset_async(BTC, 1, ACCOUNT, idempotency_key=x), (None, "x")),
        "verify": (bob.verify_proof_async, ()),
        "balance asset": (bob.balance_async, ()),
        "balance account": (lambda x: bob.balance_async(BTC, x), (None,)),
        "timeout": (lambda x: bob.transfer_asset_async(BTC, 1, ACCOUNT, timeout=x), (None, 1.5, 2**64, 2**300)),
        "cancel": (lambda x: bob.transfer_asset_async(BTC, 1, ACCOUNT, cancel=x), (None,)),
    }


def lightning_calls(lightning: Any, open_invoice: str) -> dict[str, tuple[Callable[[Any], Any], tuple[Any, ...]]]:
    """The same for Lightning; the invoice names no amount."""

    def paying(**arguments: Any) -> Any:
        return lightning.submit_transaction_async(LightningPayment(**{"amount_msat": 1000, **arguments}))

    create, hold = lightning.create_invoice_async, lightning.create_hold_invoice_async
    return {
        "submit": (lightning.submit_transaction_async, ()),
        "submit invoice": (lambda x: paying(invoice=x), ()),
        "submit amount": (lambda x: paying(invoice=open_invoice, amount_msat=x), ()),
        "submit fee limit": (lambda x: paying(invoice=open_invoice, fee_limit_msat=x), (None,)),
        "submit cltv limit": (lambda x: paying(invoice=open_invoice, cltv_limit=x), (None,)),
        "submit time limit": (lambda x: paying(invoice=open_invoice, time_limit_s=x), (None,)),
        "status": (lightning.get_transaction_status_async, ()),
        "wait": (lightning.wait_for_transaction_async, ()),
        "wait depth": (lambda x: lightning.wait_for_transaction_async("00" * 32, x), ()),
        "transfer asset": (lambda x: lightning.transfer_asset_async(x, 1, open_invoice), ()),
        "transfer amount": (lambda x: lightning.transfer_asset_async(BTC, x, open_invoice), ()),
        "transfer recipient": (lambda x: lightning.transfer_asset_async(BTC, 1, x), ()),
        "transfer key": (
            lambda x: lightning.transfer_asset_async(BTC, 1, open_invoice, idempotency_key=x),
            (None, "x"),
        ),
        "verify": (lightning.verify_proof_async, ()),
        "create amount": (lambda x: create(amount_msat=x), ()),
        "create memo": (lambda x: create(amount_msat=1, memo=x), ("", "x")),
        "create hash": (lambda x: create(amount_msat=1, description_hash=x), (None,)),
        "create expiry": (lambda x: create(amount_msat=1, expiry_s=x), ()),
        "create preimage": (lambda x: create(amount_msat=1, preimage=x), (None,)),
        "create cltv": (lambda x: create(amount_msat=1, cltv_delta=x), (None,)),
        "hold hash": (lambda x: hold(payment_hash=x, amount_msat=1), ()),
        "hold amount": (lambda x: hold(payment_hash=HASH, amount_msat=x), ()),
        "hold memo": (lambda x: hold(payment_hash=HASH, amount_msat=1, memo=x), ("", "x")),
        "hold expiry": (lambda x: hold(payment_hash=HASH, amount_msat=1, expiry_s=x), ()),
        "hold cltv": (lambda x: hold(payment_hash=HASH, amount_msat=1, cltv_delta=x), ()),
        "lookup": (lightning.lookup_invoice_async, ()),
        "settle": (lightning.settle_invoice_async, ()),
        "cancel": (lightning.cancel_invoice_async, ()),
        "watch": (lambda x: anext(lightning.watch_invoice_async(x)), ()),
    }


def manager_calls(manager: Any) -> dict[str, tuple[Callable[[Any], Any], tuple[Any, ...]]]:
    """The same for the manager."""
    found = {
        "protocol": (manager.get_protocol_async, ()),
        "transfer": (manager.get_transfer_async, ()),
        "proof": (manager.get_transfer_proof_async, ()),
        "verify": (manager.verify_cross_layer_proof_async, ()),
        "check": (manager.check_cross_layer_proof_async, ()),
        "list state": (lambda x: manager.list_transfers_async(state=x), (None,)),
        "list limit": (lambda x: manager.list_transfers_async(limit=x), ()),
        "list after": (lambda x: manager.list_transfers_async(after=x), (None,)),
        "on_event": (manager.on_event, ()),
        "wait_idle timeout": (lambda x: manager.wait_idle_async(timeout=x), (None, 1.5, 2**64, 2**300)),
        "initialize timeout": (lambda x: manager.initialize_all_async(timeout=x), (None, 1.5, 2**64, 2**300)),
    }
    good: dict[str, Any] = {
        "asset_id": BTC,
        "amount": 10_000,
        "source_protocol": P.BOB,
        "destination_protocol": P.LIGHTNING,
    }
    fine = {"recipient": (None,), "max_fee": (None, 2**64, 2**300), "idempotency_key": (None, "x")}
    for call in ("cross_layer_transfer", "start_cross_layer_transfer", "quote_cross_layer_transfer"):
        method = getattr(manager, call + "_async")
        for name in inspect.signature(method).parameters:
            if name in ("timeout", "cancel", "payer"):
                continue
            found[f"{call} {name}"] = (
                lambda x, method=method, name=name: method(**{**good, name: x}),
                fine.get(name, ()),
            )
        if "payer" in inspect.signature(method).parameters:
            found[f"{call} payer"] = (lambda x, method=method: method(**good, payer=x), ())
    return found


async def accidents(calls: dict[str, tuple[Callable[[Any], Any], tuple[Any, ...]]]) -> list[str]:
    """What was taken that cannot be right, and what came out that is no refusal of it."""
    found = []
    for name, (call, fine) in calls.items():
        for bad in BAD:
            if any(type(bad) is type(good) and bad == good for good in fine):
                continue
            try:
                result = call(bad)
                if isinstance(result, Awaitable):
                    result = await result
            except (ValueError, NotFound) as error:
                if not isinstance(error, Layer2Error) or error.money_may_have_moved:
                    found.append(f"{name} {bad!r:.20}: {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - exactly that is looked for
                found.append(f"{name} {bad!r:.20}: {type(error).__name__}: {error}")
            else:
                found.append(f"{name} {bad!r:.20}: taken, {result!r:.60}")
    return found


async def test_bob_sends_nothing_for_bad_input(manager: Layer2Manager) -> None:
    bob = await manager.get_protocol_async(P.BOB)
    before = [await bob.balance_async(asset) for asset in (BTC, ETH)]
    nonce = await bob.rpc.nonce(bob.account)
    assert "\n".join(await accidents(bob_calls(bob))) == ""
    assert [await bob.balance_async(asset) for asset in (BTC, ETH)] == before
    assert await bob.rpc.nonce(bob.account) == nonce


async def test_lightning_pays_nothing_for_bad_input(manager: Layer2Manager) -> None:
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    assert manager.embedded_network is not None
    invoice = await manager.embedded_network.merchant_node.create_invoice(amount_msat=0)
    before = (await lightning.node.info()).spendable_msat
    assert "\n".join(await accidents(lightning_calls(lightning, invoice.text))) == ""
    assert (await lightning.node.info()).spendable_msat == before


async def test_the_manager_begins_nothing_for_bad_input(manager: Layer2Manager) -> None:
    assert "\n".join(await accidents(manager_calls(manager))) == ""
    assert await manager.list_transfers_async() == []


@pytest.mark.parametrize("name", ["config", "signer", "protocols", "clock", "metrics_registry"])
async def test_a_manager_is_not_made_of_what_it_cannot_work_with(name: str) -> None:
    good: dict[str, Any] = {"config": Layer2Config.embedded()}
    for bad in [bad for bad in BAD if bad is not None and not (name == "protocols" and bad == {})]:
        with pytest.raises(Layer2Error):
            Layer2Manager(**{**good, name: bad})
    for bad in ({5: None}, {"": None}, {"bob": None}, {"bob": 5}):
        with pytest.raises(Layer2Error):
            Layer2Manager(config=good["config"], protocols=bad)  # type: ignore[arg-type]
