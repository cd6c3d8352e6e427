import asyncio
import json

import pytest

from layer2._clock import SystemClock
from layer2._operations import Operations
from layer2.addresses import EvmAddress, LightningAddress
from layer2.assets import BTC, ETH, AssetForm, AssetId, AssetRegistry
from layer2.bob import BOB_MAINNET, BOB_SEPOLIA, DEVNET, BobClient, ChainPreset
from layer2.errors import (
    AddressError,
    AmountError,
    AssetError,
    AsyncRuntimeError,
    AsyncTimeout,
    ConfigurationError,
    IdempotencyConflict,
    InsufficientFunds,
    NodeConnectionError,
    ProofError,
    Reverted,
    SignerError,
    TaskCancelled,
    UnknownOutcome,
    ValidationError,
)
from layer2.evm import (
    HTLC_ADDRESS,
    HttpLimits,
    HttpTransport,
    MemoryTxJournal,
    SenderSettings,
    UnsignedTransaction,
    encode_mint,
    encode_transfer,
    load_artifact,
    sign_transaction,
)
from layer2.proofs import EvmReceiptProof, LightningPaymentProof, collect_receipt_proof, collect_storage_proof
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall, LightningPayment, Outcome, SignedEvmTransaction, TxId

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
OTHER_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
TOKEN_CODE = load_artifact("test_token").bytecode
FRIEND = EvmAddress(raw=b"\x0b" * 20)
EvmReceiptProof.json_schema()  # the first use of pydantic reads files, which the detector of blocking calls finds on a loop
ETH_FORM = AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)


def make_client(url, **changes):
    arguments = {
        "transport": HttpTransport(url, limits=HttpLimits(attempts=1)),
        "signer": LocalSigner.from_hex(KEY),
        "registry": AssetRegistry([ETH_FORM]),
        "journal": MemoryTxJournal(),
        "preset": DEVNET,
    }
    return BobClient(**{**arguments, **changes})


async def add_token(client, amount=1_000_000):
    """Deploys the test token, makes it what BTC is there, and mints."""
    deployed = await client.submit_transaction_async(EvmCall(to=None, data=TOKEN_CODE))
    await client.wait_for_transaction_async(deployed.tx_id)
    token = (await client.rpc.receipt(deployed.tx_id.hash)).contract
    minted = await client.submit_transaction_async(EvmCall(to=token, data=encode_mint(client.account, amount)))
    await client.wait_for_transaction_async(minted.tx_id)
    client.registry = client.registry.with_form(AssetForm(asset=BTC, chain_id=60808, contract=token, decimals=8))
    return token


@pytest.fixture
async def anvil(start_anvil):
    return await start_anvil()


@pytest.fixture
async def bob(anvil):
    client = make_client(anvil.url)
    await client.initialize_async()
    yield client
    await client.close_async()


@pytest.fixture
async def token(bob):
    """A token that BTC is on this chain, of which the account has 1,000,000."""
    return await add_token(bob)


async def test_a_transfer_of_the_token_arrives(bob, token):
    tx_id = await bob.transfer_asset_async(BTC, 100_000, str(FRIEND))
    status = await bob.wait_for_transaction_async(tx_id)
    assert status.outcome is Outcome.SUCCEEDED
    assert status.at_least(Depth.INCLUDED)
    assert await bob.balance_async(BTC, FRIEND) == 100_000
    assert await bob.balance_async(BTC) == 900_000


async def test_a_transfer_of_ether_arrives_and_becomes_final(bob, anvil):
    tx_id = await bob.transfer_asset_async(ETH, 10**15, FRIEND)
    assert (await bob.wait_for_transaction_async(tx_id)).succeeded
    await anvil.mine(3)
    status = await bob.wait_for_transaction_async(str(tx_id), Depth.FINALIZED)
    assert status.is_final
    assert await bob.get_transaction_status_async(tx_id) == status
    assert await bob.balance_async(ETH, FRIEND) == 10**15


async def test_the_same_key_moves_the_money_once(bob, token):
    ids = await asyncio.gather(*(bob.transfer_asset_async(BTC, 10, FRIEND, idempotency_key="rent") for _ in range(5)))
    assert len(set(ids)) == 1
    await bob.wait_for_transaction_async(ids[0])
    assert await bob.transfer_asset_async(BTC, 10, FRIEND, idempotency_key="rent") == ids[0]
    assert await bob.balance_async(BTC, FRIEND) == 10
    with pytest.raises(IdempotencyConflict):
        await bob.transfer_asset_async(BTC, 11, FRIEND, idempotency_key="rent")


async def test_asking_again_works_when_the_first_has_spent_everything(bob, token):
    first = await bob.transfer_asset_async(BTC, 1_000_000, FRIEND, idempotency_key="all")
    await bob.wait_for_transaction_async(first)
    assert await bob.transfer_asset_async(BTC, 1_000_000, FRIEND, idempotency_key="all") == first


async def test_more_than_the_balance_is_refused(bob, token):
    with pytest.raises(InsufficientFunds) as caught:
        await bob.transfer_asset_async(BTC, 1_000_001, FRIEND)
    assert (caught.value.coin, caught.value.needed, caught.value.available) == ("BTC", 1_000_001, 1_000_000)


async def test_ether_that_is_not_there_is_refused(anvil):
    client = make_client(anvil.url, signer=LocalSigner(b"\x06" * 32))
    await client.initialize_async()
    with pytest.raises(InsufficientFunds) as caught:
        await client.transfer_asset_async(ETH, 10**18, FRIEND)
    assert (caught.value.coin, caught.value.available) == ("ETH", 0)
    await client.close_async()


@pytest.mark.parametrize("amount", [0, -1, 2**64, 1.0, True, "1", None])
async def test_what_is_no_amount_is_refused(bob, amount):
    with pytest.raises(AmountError):
        await bob.transfer_asset_async(ETH, amount, FRIEND)


async def test_recipients_that_cannot_be_right_are_refused(bob, token):
    wrong = str(FRIEND)[:-1] + ("b" if str(FRIEND)[-1] == "B" else "B")
    for recipient in (EvmAddress(raw=bytes(20)), token, HTLC_ADDRESS, wrong, "", "0x12", "alice@example.com"):
        with pytest.raises(AddressError):
            await bob.transfer_asset_async(BTC, 1, recipient)
    with pytest.raises(AddressError, match="cross-layer"):
        await bob.transfer_asset_async(BTC, 1, LightningAddress(user="a", domain="example.com"))


async def test_arguments_of_the_wrong_type_are_refused_with_a_layer2_error(bob):
    for key in (4711, "", "k" * 201):
        with pytest.raises(ValidationError, match="idempotency key"):
            await bob.transfer_asset_async(ETH, 1, FRIEND, idempotency_key=key)
        with pytest.raises(ValidationError, match="idempotency key"):
            EvmCall(to=FRIEND, value_wei=1, idempotency_key=key)
    with pytest.raises(ValidationError, match=r"Depth\.SAFE"):
        await bob.wait_for_transaction_async("0x" + "ab" * 32, "safe")
    with pytest.raises(AssetError, match="AssetId"):
        await bob.balance_async("BTC")
    with pytest.raises(AddressError):
        await bob.balance_async(ETH, 7)
    assert await bob.balance_async(ETH, str(FRIEND)) == await bob.balance_async(ETH, FRIEND)


async def test_assets_that_are_not_here_are_refused(bob):
    with pytest.raises(AssetError):
        await bob.transfer_asset_async(BTC, 1, FRIEND)
    nothing_there = AssetForm(asset=BTC, chain_id=60808, contract=EvmAddress(raw=b"\x77" * 20), decimals=8)
    bob.registry = bob.registry.with_form(nothing_there)
    with pytest.raises(AssetError, match="no contract"):
        await bob.transfer_asset_async(BTC, 1, FRIEND)


async def test_a_registry_with_wrong_decimals_moves_nothing(bob, token):
    bob.registry = bob.registry.with_form(AssetForm(asset=BTC, chain_id=60808, contract=token, decimals=18))
    with pytest.raises(AssetError, match="decimals"):
        await bob.transfer_asset_async(BTC, 1, FRIEND)
    fine = AssetId(name="FINE", decimals=9)
    bob.registry = bob.registry.with_form(AssetForm(asset=fine, chain_id=60808, contract=token, decimals=8))
    with pytest.raises(AmountError):
        await bob.transfer_asset_async(fine, 11, FRIEND)


async def test_a_call_that_reverts_says_why(bob, token):
    with pytest.raises(Reverted):
        await bob.submit_transaction_async(EvmCall(to=token, data=encode_transfer(FRIEND, 10**9)))
    sent = await bob.submit_transaction_async(EvmCall(to=token, data=encode_transfer(FRIEND, 10**9), gas_limit=100_000))
    status = await bob.wait_for_transaction_async(sent.tx_id)
    assert status.failed
    assert not status.is_final
    assert status.reason


async def signed_by(key, **changes):
    fields = {"chain_id": 60808, "nonce": 0, "gas_limit": 21_000, "max_fee_per_gas": 10**11}
    tx = UnsignedTransaction(**{**fields, "max_priority_fee_per_gas": 10**9, "to": FRIEND, "value": 3, **changes})
    return SignedEvmTransaction(raw=(await sign_transaction(tx, LocalSigner.from_hex(key))).raw)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["own", "foreign"])
async def test_a_transaction_signed_elsewhere_is_sent(bob, key):
    transaction = await signed_by(key)
    first = await bob.submit_transaction_async(transaction)
    assert (await bob.wait_for_transaction_async(first.tx_id)).succeeded
    again = await bob.submit_transaction_async(transaction)
    assert again.tx_id == first.tx_id
    assert await bob.balance_async(ETH, FRIEND) == 3


async def test_transactions_that_do_not_belong_here_are_refused(bob):
    with pytest.raises(ValidationError, match="chain 1"):
        await bob.submit_transaction_async(await signed_by(KEY, chain_id=1))
    with pytest.raises(ValidationError):
        await bob.submit_transaction_async(SignedEvmTransaction(raw=b"\x02junk"))
    with pytest.raises(ValidationError, match="LightningPayment"):
        await bob.submit_transaction_async(LightningPayment(invoice="lnbc1"))
    for tx_id in (TxId(layer="lightning", hash=bytes(32)), "lightning:" + "00" * 32, "0x12", ""):
        with pytest.raises(ValidationError):
            await bob.get_transaction_status_async(tx_id)


async def test_receipt_and_storage_proofs_are_checked_against_the_chain(bob, anvil, token):
    tx_id = await bob.transfer_asset_async(BTC, 5, FRIEND)
    await bob.wait_for_transaction_async(tx_id)

    async def call(method, params):
        return await bob.rpc.transport.call(method, params)

    receipt = await collect_receipt_proof(call, chain_id=60808, tx_hash=tx_id.hash)
    assert await bob.verify_proof_async(receipt)
    number = await bob.rpc.block_number()
    storage = await collect_storage_proof(call, chain_id=60808, address=token, slot=bytes(32), block=number)
    assert await bob.verify_proof_async(storage)
    broken = json.loads(receipt.to_json())
    broken["proof"][-1] = broken["proof"][-1][:-2] + ("00" if broken["proof"][-1][-2:] != "00" else "01")
    assert not await bob.verify_proof_async(type(receipt).from_json(json.dumps(broken)))
    other_chain = type(receipt).from_json(json.dumps({**json.loads(receipt.to_json()), "chain_id": 1}))
    with pytest.raises(ProofError, match="chain 1"):
        await bob.verify_proof_async(other_chain)
    await anvil.rpc("anvil_reorg", 2, [])
    assert not await bob.verify_proof_async(receipt)


async def test_another_kind_of_proof_is_refused(bob):
    proof = LightningPaymentProof.__new__(LightningPaymentProof)
    with pytest.raises(ProofError, match="does not verify"):
        await bob.verify_proof_async(proof)


async def test_the_wrong_chain_is_noticed(anvil):
    client = make_client(anvil.url, preset=BOB_SEPOLIA)
    with pytest.raises(ConfigurationError) as caught:
        await client.initialize_async()
    assert caught.value.key == "bob.rpc_url"
    await client.close_async()


async def test_life_cycle(anvil):
    client = make_client(anvil.url)
    with pytest.raises(AsyncRuntimeError):
        await client.balance_async(ETH)
    await client.initialize_async()
    await client.initialize_async()
    assert await client.balance_async(ETH) > 0
    await client.close_async()
    await client.close_async()
    with pytest.raises(AsyncRuntimeError):
        await client.transfer_asset_async(ETH, 1, FRIEND)


async def test_an_endpoint_that_is_away_can_be_tried_again(anvil):
    client = make_client("http://127.0.0.1:9")
    with pytest.raises(NodeConnectionError):
        await client.initialize_async()
    await client.close_async()


async def test_reading_needs_no_signer_and_sending_does(anvil):
    client = make_client(anvil.url, signer=None)
    await client.initialize_async()
    assert await client.balance_async(ETH, FRIEND) == 0
    status = await client.get_transaction_status_async("00" * 32)
    assert status.outcome is Outcome.UNKNOWN
    with pytest.raises(SignerError):
        await client.transfer_asset_async(ETH, 1, FRIEND)
    await client.close_async()


@pytest.fixture
async def narrow(start_anvil):
    """A client on a chain without blocks that may have one transaction on its way, which it has."""
    anvil = await start_anvil("--no-mining")
    settings = SenderSettings(layer="bob", max_unconfirmed_per_key=1, poll_interval_s=0.05)
    client = make_client(anvil.url, settings=settings)
    client.anvil = anvil
    await client.initialize_async()
    client.first = await client.transfer_asset_async(ETH, 1, FRIEND)
    yield client
    await client.close_async()


async def test_a_time_limit_in_the_queue_sends_nothing(narrow):
    with pytest.raises(AsyncTimeout) as caught:
        await narrow.transfer_asset_async(ETH, 5, FRIEND, timeout=0.1)
    assert not caught.value.money_may_have_moved
    assert caught.value.retry_safe
    await narrow.anvil.mine()
    await narrow.wait_for_transaction_async(narrow.first)
    assert await narrow.balance_async(ETH, FRIEND) == 1


async def test_cancel_in_the_queue_sends_nothing(narrow):
    cancel = asyncio.Event()
    waiting = asyncio.create_task(narrow.transfer_asset_async(ETH, 5, FRIEND, cancel=cancel))
    while not len(narrow.sender._queue):
        await asyncio.sleep(0)
    cancel.set()
    with pytest.raises(TaskCancelled) as caught:
        await waiting
    assert caught.value.goes_on is False
    assert not caught.value.money_may_have_moved


async def test_a_time_limit_after_sending_gives_the_id(start_anvil):
    anvil = await start_anvil()
    client = make_client(anvil.url)
    await client.initialize_async()
    sent = asyncio.Event()

    async def hang(raw):
        sent.set()
        await asyncio.Event().wait()

    client.rpc.send_raw, real = hang, client.rpc.send_raw
    for key in ("k", None):
        sent.clear()
        with pytest.raises(AsyncTimeout) as caught:
            await client.transfer_asset_async(ETH, 5, FRIEND, timeout=0.3, idempotency_key=key)
        assert sent.is_set()
        assert caught.value.money_may_have_moved
        assert caught.value.tx_id is not None
        assert caught.value.retry_safe is (key is not None)
    client.rpc.send_raw = real
    await client.close_async()


async def test_waiting_with_a_limit_says_that_nothing_moved(narrow):
    with pytest.raises(AsyncTimeout) as caught:
        await narrow.wait_for_transaction_async(narrow.first, timeout=0.1)
    assert caught.value.tx_id == narrow.first


def test_presets_and_chains_of_ones_own():
    assert (BOB_MAINNET.chain_id, BOB_SEPOLIA.chain_id, DEVNET.chain_id) == (60808, 808813, 60808)
    assert str(BOB_MAINNET.btc_token) == "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"
    assert not BOB_MAINNET.fork_active("jovian", 1_773_325_800)
    assert BOB_MAINNET.fork_active("jovian", 1_773_325_801)
    assert BOB_MAINNET.with_forks(jovian=5).fork_active("jovian", 5)
    assert not ChainPreset(name="mine", chain_id=7).fork_active("jovian", 2**40)


def test_what_it_declares():
    client = BobClient(
        transport=HttpTransport("http://127.0.0.1:9"),
        signer=None,
        registry=AssetRegistry(),
        journal=MemoryTxJournal(),
        preset=DEVNET,
        clock=SystemClock(),
    )
    assert client.protocol_type == "bob"
    assert client.capabilities.proofs == ("evm_receipt", "evm_storage")
    assert not client.capabilities.hold_invoices


async def test_the_default_limit_of_one_operation_ends_a_sending_that_hangs(anvil):
    operations = Operations(default_timeout_ms=300)
    client = make_client(anvil.url, operations=operations)
    await client.initialize_async()

    async def hang(raw):
        await asyncio.Event().wait()

    client.rpc.send_raw = hang
    with pytest.raises(UnknownOutcome) as caught:
        await client.transfer_asset_async(ETH, 5, FRIEND)
    assert caught.value.tx_id is not None
    await client.close_async()


async def test_close_with_work_in_flight_ends_it(start_anvil):
    anvil = await start_anvil("--no-mining")
    client = make_client(anvil.url, settings=SenderSettings(layer="bob", max_unconfirmed_per_key=1))
    await client.initialize_async()
    sent = await client.transfer_asset_async(ETH, 1, FRIEND)
    queued = asyncio.create_task(client.transfer_asset_async(ETH, 1, FRIEND))
    waiting = asyncio.create_task(client.wait_for_transaction_async(sent))
    while not len(client.sender._queue):
        await asyncio.sleep(0)
    await client._operations.close_async(grace_s=0.05)
    await client.close_async()
    results = await asyncio.gather(queued, waiting, return_exceptions=True)
    assert all(isinstance(result, AsyncRuntimeError) for result in results)
    assert not any(result.money_may_have_moved for result in results)


async def test_closing_goes_on_when_its_caller_stops_waiting(start_anvil):
    client = make_client((await start_anvil()).url)
    await client.initialize_async()
    cancel = asyncio.Event()
    cancel.set()
    with pytest.raises(TaskCancelled) as caught:
        await client.close_async(cancel=cancel)
    assert caught.value.goes_on
    with pytest.raises(AsyncRuntimeError, match="closed"):
        await client.balance_async(ETH)
    await client.close_async()
