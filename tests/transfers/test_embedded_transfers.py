"""Transfers through the whole public API on the embedded network."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable

import pytest

from layer2 import (
    BTC,
    ETH,
    AddressError,
    AmountError,
    AssetError,
    ConfigurationError,
    Depth,
    EvmCall,
    Expired,
    FeeLimitExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    InvoiceError,
    Layer2Config,
    Layer2Error,
    Layer2Manager,
    NotFound,
    ProofError,
    SwapExpired,
    SwapRefunded,
    SwapRefused,
    TaskCancelled,
    TransferProof,
    TransferState,
    ValidationError,
)
from layer2 import Layer2ProtocolType as P
from layer2.lightning import InvoiceState, decode_invoice

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAT = 100_000


async def balances(manager: Layer2Manager) -> tuple[int, int]:
    """Token base units on BOB and msat in the channels of our node."""
    bob = await manager.get_protocol_async(P.BOB)
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    return await bob.balance_async(BTC), (await lightning.node.info()).spendable_msat


async def test_bob_to_lightning(manager: Layer2Manager) -> None:
    before = await balances(manager)
    proof = await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    token, msat = await balances(manager)
    fee = proof.terms.provider_fee
    assert before[0] - token == SAT + fee
    assert msat - before[1] == SAT * 1000
    assert await manager.verify_cross_layer_proof_async(proof)
    report = await manager.check_cross_layer_proof_async(TransferProof.from_json(proof.to_json()))
    assert report.ok


async def test_lightning_to_bob(manager: Layer2Manager) -> None:
    before = await balances(manager)
    proof = await manager.cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB)
    token, msat = await balances(manager)
    assert token - before[0] == SAT
    routing = before[1] - msat - (SAT + proof.terms.provider_fee) * 1000
    assert 0 <= routing <= 2_000
    assert await manager.verify_cross_layer_proof_async(proof)


async def test_an_invoice_of_somebody_else_is_paid_and_the_rest_below_a_satoshi_is_named(
    manager: Layer2Manager,
) -> None:
    network = manager.embedded_network
    assert network is not None
    invoice = await network.merchant_node.create_invoice(amount_msat=50_000_400, memo="coffee")
    quote = await manager.quote_cross_layer_transfer_async(BTC, 50_001, P.BOB, P.LIGHTNING, recipient=invoice.text)
    assert quote.rounding_msat == 600
    with pytest.raises(AmountError, match="50001"):
        await manager.cross_layer_transfer_async(BTC, 50_000, P.BOB, P.LIGHTNING, recipient=invoice.text)
    await manager.cross_layer_transfer_async(BTC, 50_001, P.BOB, P.LIGHTNING, recipient=invoice.text)
    paid = await network.merchant_node.lookup_invoice(invoice.payment_hash)
    assert paid.state is InvoiceState.SETTLED
    assert paid.received_msat == 50_000_400


async def test_an_invoice_that_was_shown_can_be_withdrawn(manager: Layer2Manager) -> None:
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB, payer="anyone")
    before = await balances(manager)
    async for event in transfer.events():
        if event.state is TransferState.AWAITING_PAYMENT:
            break
    assert await transfer.cancel_async()
    with pytest.raises(SwapExpired, match="cancelled"):
        await transfer.result_async()
    await manager.wait_idle_async(timeout=20)
    assert await balances(manager) == before


async def test_anyone_can_pay_and_it_lands_on_bob(manager: Layer2Manager) -> None:
    network = manager.embedded_network
    assert network is not None
    before, _ = await balances(manager)
    transfer = await manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB, payer="anyone")
    assert transfer.invoice is not None
    payment = asyncio.ensure_future(
        network.merchant_node.pay(transfer.invoice, fee_limit_msat=10_000, cltv_limit=1000, time_limit_s=30)
    )
    proof = await transfer.result_async()
    record = await payment
    assert record.preimage == proof.preimage
    after, _ = await balances(manager)
    assert after - before == SAT
    states = [event.state async for event in transfer.events()]
    assert states[0] is TransferState.AGREED
    assert TransferState.AWAITING_PAYMENT in states
    assert states[-1] is TransferState.SETTLED


async def test_a_quote_lists_everything_and_takes_nothing(manager: Layer2Manager) -> None:
    before = await balances(manager)
    quote = await manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    assert quote.amount == SAT
    assert {fee.name for fee in quote.fees} >= {"provider", "gas"}
    assert {(need.layer, need.coin) for need in quote.requires} == {("bob", "BTC"), ("bob", "ETH")}
    assert quote.seconds_expected < quote.seconds_worst
    assert await balances(manager) == before


async def test_a_quote_takes_what_the_transfer_takes(manager: Layer2Manager) -> None:
    asked, moved = (
        set(inspect.signature(call).parameters)
        for call in (manager.quote_cross_layer_transfer_async, manager.cross_layer_transfer_async)
    )
    assert moved <= asked
    quote = await manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key="order 16")
    assert quote.amount == SAT


async def test_sixteen_at_a_time_both_ways(manager: Layer2Manager) -> None:
    before = await balances(manager)
    ways = [(P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)] * 8
    proofs = await asyncio.gather(
        *(manager.cross_layer_transfer_async(BTC, 20_000 + i, *way) for i, way in enumerate(ways))
    )
    assert len({proof.preimage for proof in proofs}) == 16
    token, _ = await balances(manager)
    moved = sum(-(proof.terms.lock.amount) if i % 2 == 0 else proof.terms.lock.amount for i, proof in enumerate(proofs))
    assert token - before[0] == moved


async def test_the_same_key_is_the_same_transfer(manager: Layer2Manager) -> None:
    async def start() -> str:
        transfer = await manager.start_cross_layer_transfer_async(
            BTC, 30_000, P.BOB, P.LIGHTNING, idempotency_key="order 17"
        )
        return transfer.id

    ids = await asyncio.gather(*(start() for _ in range(5)))
    assert len(set(ids)) == 1
    with pytest.raises(IdempotencyConflict):
        await manager.start_cross_layer_transfer_async(BTC, 30_001, P.BOB, P.LIGHTNING, idempotency_key="order 17")
    transfer = await manager.get_transfer_async(ids[0])
    proof = await transfer.result_async()
    again = await manager.cross_layer_transfer_async(BTC, 30_000, P.BOB, P.LIGHTNING, idempotency_key="order 17")
    assert again == proof


async def test_a_payment_that_cannot_be_made_is_refunded_at_once(manager: Layer2Manager) -> None:
    network = manager.embedded_network
    assert network is not None
    stranger = network.lightning.add_node("unreachable")
    invoice = await stranger.create_invoice(amount_msat=SAT * 1000)
    before, _ = await balances(manager)
    with pytest.raises(SwapRefunded) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text)
    assert caught.value.transfer_id is not None
    after, _ = await balances(manager)
    assert after == before
    transfer = await manager.get_transfer_async(caught.value.transfer_id)
    assert transfer.state is TransferState.REFUNDED


async def test_cancelled_before_anything_is_bound(manager: Layer2Manager) -> None:
    cancel = asyncio.Event()
    cancel.set()
    before = await balances(manager)
    with pytest.raises(TaskCancelled) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, cancel=cancel)
    assert caught.value.goes_on is False
    assert await balances(manager) == before


async def test_cancelled_later_it_goes_on(manager: Layer2Manager) -> None:
    cancel = asyncio.Event()
    running = asyncio.ensure_future(
        manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, cancel=cancel, idempotency_key="goes on")
    )
    while not (found := await manager.list_transfers_async(state=TransferState.LOCKED, limit=5)):
        await asyncio.sleep(0)
    cancel.set()
    with pytest.raises(TaskCancelled) as caught:
        await running
    assert caught.value.goes_on is True
    assert caught.value.transfer_id == found[0].id
    assert caught.value.run_again_by is not None
    await (await manager.get_transfer_async(found[0].id)).result_async()


async def test_a_time_limit_ends_the_wait_and_not_the_transfer(manager: Layer2Manager) -> None:
    with pytest.raises(TimeoutError) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, timeout=1.0)
    transfer_id = caught.value.transfer_id  # type: ignore[attr-defined]
    if transfer_id is not None:
        await (await manager.get_transfer_async(transfer_id)).result_async()


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (0, AmountError),
        (-1, AmountError),
        (2**64, AmountError),
        (1.5, AmountError),
        (True, AmountError),
        ("5", AmountError),
    ],
)
async def test_amounts_that_are_none(manager: Layer2Manager, amount: object, error: type[Layer2Error]) -> None:
    with pytest.raises(error) as caught:
        await manager.cross_layer_transfer_async(BTC, amount, P.BOB, P.LIGHTNING)  # type: ignore[arg-type]
    assert caught.value.field == "amount"  # type: ignore[attr-defined]
    assert not caught.value.money_may_have_moved


@pytest.mark.parametrize("amount", [999, 5_000_001])
async def test_amounts_outside_the_providers_limits(manager: Layer2Manager, amount: int) -> None:
    with pytest.raises(SwapRefused, match="1000 to 5000000") as caught:
        await manager.cross_layer_transfer_async(BTC, amount, P.BOB, P.LIGHTNING)
    assert caught.value.rule == "limits", "the rule by which the provider itself would refuse"
    assert (
        caught.value.hint
        == f"{'move more at a time' if amount == 999 else 'split the amount'}, or ask another provider"
    )


async def test_an_expired_invoice_is_the_same_mistake_on_every_way(manager: Layer2Manager) -> None:
    network = manager.embedded_network
    assert network is not None
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    invoice = await network.merchant_node.create_invoice(amount_msat=SAT * 1000, expiry_s=1)
    at = decode_invoice(invoice.text).expires_at
    while network.clock.now_ms() < at * 1000:
        await asyncio.sleep(0.1)
    for call in (
        manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text),
        manager.quote_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text),
        lightning.transfer_asset_async(BTC, SAT, invoice.text),
    ):
        with pytest.raises(Expired) as caught:
            await call
        assert caught.value.expired_at == at
        assert not caught.value.money_may_have_moved


Call = Callable[[Layer2Manager], Awaitable[object]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda m: m.cross_layer_transfer_async(ETH, 5, P.BOB, P.LIGHTNING),
            AssetError,
            "ETH has no form on Lightning",
        ),
        (lambda m: m.cross_layer_transfer_async("BTC", 5, P.BOB, P.LIGHTNING), AssetError, "AssetId"),
        (lambda m: m.cross_layer_transfer_async(BTC, 5, P.BOB, P.BOB), ValidationError, "same layer"),
        (lambda m: m.cross_layer_transfer_async(BTC, 5, "rootstock", P.BOB), ValidationError, "rootstock"),
        (lambda m: m.cross_layer_transfer_async(BTC, 5, P.BOB, P.LIGHTNING, max_fee=-1), AmountError, "max_fee"),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, max_fee=1),
            FeeLimitExceeded,
            "above the bound of 1",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient="lnbc1nonsense"),
            InvoiceError,
            "checksum|character",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient="0x" + "11" * 20),
            ValidationError,
            "an invoice",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB, recipient="0x" + "00" * 20),
            ValidationError,
            "lost",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=4711),
            AddressError,
            "not int",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, idempotency_key=4711),
            ValidationError,
            "str\\(number\\)",
        ),
        (
            lambda m: m.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, cancel=threading.Event()),
            ValidationError,
            "not threading.Event",
        ),
        (
            lambda m: m.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, payer="anyone"),
            ValidationError,
            "your own account pays",
        ),
        (lambda m: m.verify_cross_layer_proof_async("{}"), ProofError, "from_json"),
        (lambda m: m.list_transfers_async(state="done"), ValidationError, "none of agreed"),
        (lambda m: m.get_transfer_async("ab" * 16), NotFound, "no transfer"),
        (lambda m: m.get_protocol_async("rootstock"), ValidationError, "rootstock.*bob, lightning"),
    ],
)
async def test_arguments_that_cannot_be_right(
    manager: Layer2Manager, call: Call, error: type[Layer2Error], words: str
) -> None:
    before = await balances(manager)
    with pytest.raises(error, match=words) as caught:
        await call(manager)
    assert not caught.value.money_may_have_moved
    assert await balances(manager) == before


async def test_an_own_invoice_is_not_paid_by_a_swap(manager: Layer2Manager) -> None:
    lightning = await manager.get_protocol_async(P.LIGHTNING)
    invoice = await lightning.node.create_invoice(amount_msat=SAT * 1000)
    with pytest.raises(SwapRefused, match="own node"):
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text)


async def test_an_invoice_is_swapped_for_once_only(manager: Layer2Manager) -> None:
    network = manager.embedded_network
    assert network is not None
    invoice = await network.merchant_node.create_invoice(amount_msat=SAT * 1000)
    await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text)
    with pytest.raises(SwapRefused) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=invoice.text)
    assert caught.value.rule == "hash"


async def test_more_than_the_account_holds(manager: Layer2Manager) -> None:
    bob = await manager.get_protocol_async(P.BOB)
    held = await bob.balance_async(BTC)
    network = manager.embedded_network
    assert network is not None
    await bob.transfer_asset_async(BTC, held - 1_000, network.provider_signer.address)
    while await bob.balance_async(BTC) != 1_000:
        await asyncio.sleep(0)
    with pytest.raises(InsufficientFunds) as caught:
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)
    assert caught.value.coin == "BTC"
    assert caught.value.available == 1_000


async def test_without_gas_nothing_begins() -> None:
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        bob = await manager.get_protocol_async(P.BOB)
        network = manager.embedded_network
        assert network is not None
        balance = await bob.balance_async(ETH)
        left = 21_000 * 4 * await bob.rpc.gas_price()
        status = await bob.submit_transaction_async(
            EvmCall(to=network.provider_signer.address, value_wei=balance - left, gas_limit=21_000)
        )
        await bob.wait_for_transaction_async(status.tx_id, Depth.INCLUDED)
        for way in ((P.BOB, P.LIGHTNING), (P.LIGHTNING, P.BOB)):
            with pytest.raises(InsufficientFunds) as caught:
                await manager.cross_layer_transfer_async(BTC, SAT, *way)
            assert caught.value.coin == "ETH"


async def test_life_cycle() -> None:
    manager = Layer2Manager(Layer2Config.embedded())
    with pytest.raises(Layer2Error, match="initialize"):
        await manager.get_transfer_async("ab" * 16)
    await manager.initialize_all_async()
    await manager.initialize_all_async()
    assert manager.health().ok
    await manager.close_async()
    await manager.close_async()
    with pytest.raises(Layer2Error, match="closed"):
        await manager.cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING)


async def test_nothing_configured_names_the_way_out(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LAYER2_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match="layer2 init"):
        Layer2Manager()
