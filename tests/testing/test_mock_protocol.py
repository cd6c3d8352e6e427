"""The mock of a layer, as an application's tests use it."""

import asyncio

import pytest

from layer2.assets import BTC, ETH
from layer2.errors import AsyncRuntimeError, AsyncTimeout, NodeConnectionError, TaskCancelled, ValidationError
from layer2.protocol import Layer2ProtocolAsync
from layer2.testing import ANY, MockFailure, MockLayer2Protocol, VirtualClock
from layer2.transactions import Depth, Outcome, TxId, TxStatus

TX = TxId(layer="mock", hash=b"\x07" * 32)
STATUS = TxStatus(tx_id=TX, outcome=Outcome.SUCCEEDED, depth=Depth.INCLUDED)


async def test_returns_raises_and_calls():
    async with MockLayer2Protocol() as mock:
        mock.expect("transfer_asset_async", BTC, 100, ANY).returns(TX)
        mock.expect("submit_transaction_async", ANY).raises(NodeConnectionError("refused"))
        mock.expect("get_transaction_status_async", TX).calls(lambda tx_id, **_: STATUS)

        async def later(tx_id, depth, **_):
            await asyncio.sleep(0)
            return STATUS

        mock.expect("wait_for_transaction_async", TX, Depth.SAFE).calls(later)
        assert isinstance(mock, Layer2ProtocolAsync)
        assert await mock.transfer_asset_async(BTC, 100, "anybody") == TX
        with pytest.raises(NodeConnectionError):
            await mock.submit_transaction_async("anything")
        assert await mock.get_transaction_status_async(TX) == STATUS
        assert await mock.wait_for_transaction_async(TX, Depth.SAFE) == STATUS
        assert mock.calls[0].method == "transfer_asset_async"
        assert mock.calls[0].arguments == {"asset_id": BTC, "amount": 100, "recipient": "anybody"}


async def test_arguments_match_by_position_or_name_and_keywords_only_where_named():
    async with MockLayer2Protocol() as mock:
        mock.expect("transfer_asset_async", BTC, amount=100, recipient=ANY, idempotency_key="k").returns(TX)
        with pytest.raises(MockFailure):
            await mock.transfer_asset_async(BTC, 100, "x")
        assert await mock.transfer_asset_async(asset_id=BTC, amount=100, recipient="x", idempotency_key="k") == TX
        with pytest.raises(MockFailure, match="unexpected"):
            mock.verify()
        mock._problems.clear()
        mock.expect("transfer_asset_async", BTC, 5, ANY).returns(TX)
        assert await mock.transfer_asset_async(BTC, 5, "x", idempotency_key="any", timeout=3) == TX


async def test_an_unexpected_call_fails_at_the_end_even_if_the_application_swallowed_it():
    mock = MockLayer2Protocol()
    with pytest.raises(MockFailure, match=r"unexpected: transfer_asset_async\(asset_id=AssetId.*amount=101"):
        async with mock:
            mock.expect("transfer_asset_async", BTC, 100, ANY).returns(TX)
            with pytest.raises(MockFailure, match="open: transfer_asset_async"):
                await mock.transfer_asset_async(BTC, 101, "x")
            await mock.transfer_asset_async(BTC, 100, "x")


async def test_a_missing_call_fails_at_verify_and_at_the_end():
    mock = MockLayer2Protocol()
    with pytest.raises(MockFailure, match=r"missing: .* expected 2 time\(s\), came 1 time\(s\)"):
        async with mock:
            mock.expect("transfer_asset_async", BTC, 100, ANY).returns(TX).times(2)
            await mock.transfer_asset_async(BTC, 100, "x")
            with pytest.raises(MockFailure):
                mock.verify()


async def test_the_body_s_own_error_is_not_masked():
    with pytest.raises(LookupError):
        async with MockLayer2Protocol() as mock:
            mock.expect("transfer_asset_async", BTC, 100, ANY).returns(TX)
            raise LookupError


async def test_any_order_unless_in_order():
    async def use(mock):
        mock.expect("transfer_asset_async", BTC, 1, ANY).returns(TX)
        mock.expect("transfer_asset_async", ETH, 2, ANY).returns(TX)
        await mock.transfer_asset_async(ETH, 2, "x")
        await mock.transfer_asset_async(BTC, 1, "x")

    async with MockLayer2Protocol() as mock:
        await use(mock)
    ordered = MockLayer2Protocol(in_order=True)
    with pytest.raises(MockFailure, match="unexpected"):
        await use(ordered)


async def test_times_zero_means_never_and_too_many_calls_are_unexpected():
    mock = MockLayer2Protocol()
    mock.expect("transfer_asset_async", BTC, 1, ANY).returns(TX).times(0)
    mock.verify()
    with pytest.raises(MockFailure, match="unexpected"):
        await mock.transfer_asset_async(BTC, 1, "x")
    with pytest.raises(ValueError, match="less than 0"):
        mock.expect("close_async").times(-1)


async def test_mistakes_in_expectations_are_told_at_once():
    mock = MockLayer2Protocol()
    with pytest.raises(AttributeError, match="did you mean transfer_asset_async"):
        mock.expect("transfer_asset", BTC, 1, ANY)
    with pytest.raises(TypeError):
        mock.expect("transfer_asset_async", BTC)
    with pytest.raises(TypeError):
        mock.expect("transfer_asset_async", BTC, 1, ANY, fee=3)
    mock.expect("transfer_asset_async", BTC, 1, ANY)
    with pytest.raises(MockFailure, match="without a result"):
        await mock.transfer_asset_async(BTC, 1, "x")


async def test_a_mock_of_a_layer_has_that_layers_own_calls():
    async with MockLayer2Protocol("lightning") as lightning, MockLayer2Protocol("bob") as bob:
        lightning.expect("create_invoice_async", amount_msat=5_000, memo="coffee").returns("an invoice")
        lightning.expect("settle_invoice_async", ANY).raises(NodeConnectionError("gone"))
        bob.expect("balance_async", BTC).returns(17).times(2)
        assert await lightning.create_invoice_async(amount_msat=5_000, memo="coffee", expiry_s=60) == "an invoice"
        with pytest.raises(NodeConnectionError):
            await lightning.settle_invoice_async(bytes(32), timeout=5)
        assert await bob.balance_async(BTC) == await bob.balance_async(BTC, None) == 17
        assert lightning.calls[0].arguments == {"amount_msat": 5_000, "memo": "coffee", "expiry_s": 60}
        assert not hasattr(bob, "create_invoice_async")
        with pytest.raises(TypeError, match="amount"):
            lightning.expect("create_invoice_async", amount=5)
    mock = MockLayer2Protocol("lightning")
    with pytest.raises(MockFailure, match="unexpected: lookup_invoice_async"):
        await mock.lookup_invoice_async(bytes(32))
    with pytest.raises(MockFailure, match="unexpected: lookup_invoice_async"):
        mock.verify()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("create_invoice_async", r"mock has no call 'create_invoice_async': only lightning .*\('lightning'\) plays"),
        ("balance_async", "only bob has it"),
        ("cross_layer_transfer_async", "did you mean transfer_asset_async"),
        ("x", "it has close_async, .*wait_for_transaction_async"),
    ],
)
def test_a_call_that_a_mock_does_not_have_is_refused_with_what_to_do(method, words):
    with pytest.raises(AttributeError, match=words):
        MockLayer2Protocol().expect(method)


async def test_initialise_and_close_need_no_expectation_but_can_have_one():
    mock = MockLayer2Protocol("mine", strict_life=True)
    with pytest.raises(AsyncRuntimeError):
        await mock.transfer_asset_async(BTC, 1, "x")
    await mock.initialize_async()
    await mock.close_async()
    await mock.close_async()
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await mock.transfer_asset_async(BTC, 1, "x")
    failing = MockLayer2Protocol("mine")
    failing.expect("initialize_async").raises(NodeConnectionError("down"))
    with pytest.raises(NodeConnectionError):
        await failing.initialize_async()
    assert failing.protocol_type == "mine"


async def test_after_waits_on_the_virtual_clock_and_meets_the_time_limit():
    clock = VirtualClock()
    async with MockLayer2Protocol(clock=clock) as mock:
        mock.expect("transfer_asset_async", BTC, 1, ANY).returns(TX).after(20).times(2)
        mock.expect("transfer_asset_async", BTC, 2, ANY).returns(TX).after(31)
        slow = asyncio.create_task(mock.transfer_asset_async(BTC, 1, "x"))
        limited = asyncio.create_task(mock.transfer_asset_async(BTC, 1, "x", timeout=5))
        default = asyncio.create_task(mock.transfer_asset_async(BTC, 2, "x"))
        await clock.advance(19)
        assert not slow.done()
        with pytest.raises(AsyncTimeout, match="5 s"):
            limited.result()
        await clock.advance(1)
        assert slow.result() == TX
        await clock.advance(10)
        with pytest.raises(AsyncTimeout, match="30 s"):
            default.result()


async def test_the_api_s_own_examples_run_on_it():
    async def submit_with_timeout(protocol, tx, seconds):
        try:
            async with asyncio.timeout(seconds):
                return await protocol.submit_transaction_async(tx)
        except TimeoutError as error:
            raise AsyncTimeout("Transaction submission timed out") from error

    async def cancellable_transfer(protocol, asset_id, amount, recipient, cancel):
        return await protocol.transfer_asset_async(asset_id, amount, recipient, cancel=cancel)

    async with MockLayer2Protocol() as mock:
        mock.expect("submit_transaction_async", ANY).returns(STATUS).after(60)
        with pytest.raises(AsyncTimeout, match="submission timed out"):
            await submit_with_timeout(mock, "tx", 0.01)
        mock.expect("transfer_asset_async", BTC, 5, ANY).returns(TX).after(60)
        cancel = asyncio.Event()
        task = asyncio.create_task(cancellable_transfer(mock, BTC, 5, "x", cancel))
        while len(mock.calls) < 2:
            await asyncio.sleep(0)
        cancel.set()
        with pytest.raises(TaskCancelled):
            await task
        with pytest.raises(TaskCancelled):
            await cancellable_transfer(mock, BTC, 5, "x", cancel)
        assert len(mock.calls) == 2
        with pytest.raises(ValidationError):
            await mock.submit_transaction_async("tx", timeout=-1)


async def test_ten_thousand_at_once_each_get_their_own_answer():
    async with MockLayer2Protocol() as mock:
        mock.expect("submit_transaction_async", ANY).calls(lambda tx, **_: tx).times(10_000)
        results = await asyncio.gather(*map(mock.submit_transaction_async, range(10_000)))
        assert results == list(range(10_000))
