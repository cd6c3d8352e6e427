"""The traps of a real lnd that no suite of all back ends can know."""

import asyncio
import base64
import hashlib
import secrets
import ssl

import pytest

from layer2.assets import BTC
from layer2.errors import (
    AuthenticationError,
    Expired,
    NodeConnectionError,
    NodeNotReady,
    NotFound,
    UnknownOutcome,
)
from layer2.lightning import InvoiceState, LightningNetwork, LndNode, PaymentState
from layer2.proofs import LightningPaymentProof
from layer2.transactions import LightningPayment

pytestmark = pytest.mark.real

LIMITS = {"fee_limit_msat": 1_000_000, "cltv_limit": 1_008, "time_limit_s": 30}
LIMIT_S = 60


@pytest.fixture
async def client(lnd_nodes):
    yield lnd_nodes["client"]
    await lnd_nodes["client"].close()


@pytest.fixture
async def provider(lnd_nodes):
    yield lnd_nodes["provider"]
    await lnd_nodes["provider"].close()


@pytest.fixture
def lnd_nodes(connect_lnd):
    return {name: connect_lnd(name) for name in ("client", "provider")}


@pytest.fixture
def impatient(connect_lnd):
    """The client's node over a connection that soon leaves a payment's stream."""
    return connect_lnd("client", hold_s=0.2, look_up_s=0.1)


@pytest.fixture
def credentials(regtest):
    """Macaroon files and certificate of the client, by name."""
    folder = regtest.client.macaroon_path.parent
    return {path.name: path.read_bytes() for path in folder.glob("*.macaroon")} | {
        "tls.cert": regtest.client.tls_cert_path.read_text(),
        "foreign.cert": regtest.provider.tls_cert_path.read_text(),
        "foreign.macaroon": regtest.provider.macaroon_path.read_bytes(),
    }


async def eventually(condition):
    async with asyncio.timeout(LIMIT_S):
        while not (result := await condition()):
            await asyncio.sleep(0.05)
    return result


async def held(payer, payee, **terms):
    """A payment that the payee holds: preimage, invoice, and the payer's task."""
    preimage = secrets.token_bytes(32)
    invoice = await payee.create_hold_invoice(
        payment_hash=hashlib.sha256(preimage).digest(),
        **{"amount_msat": 70_000, "expiry_s": 600, "cltv_delta": 80} | terms,
    )
    paying = asyncio.ensure_future(payer.pay(invoice.text, **LIMITS))

    async def accepted():
        return (await payee.lookup_invoice(invoice.payment_hash)).state is InvoiceState.ACCEPTED

    await eventually(accepted)
    return preimage, invoice, paying


async def check_refused(node, error):
    try:
        with pytest.raises(error):
            await node.info()
    finally:
        await node.close()


@pytest.mark.parametrize("macaroon", [b"\x02\x01", "foreign.macaroon", None])
async def test_a_wrong_or_missing_macaroon_is_an_authentication_error(regtest, credentials, macaroon):
    chosen = credentials[macaroon] if isinstance(macaroon, str) else macaroon
    node = LndNode.connect(regtest.client.rest_url, macaroon=chosen, certificate=credentials["tls.cert"])
    await check_refused(node, AuthenticationError)


async def test_a_foreign_certificate_or_fingerprint_is_refused_and_the_right_fingerprint_is_enough(
    regtest, credentials
):
    url, macaroon = regtest.client.rest_url, credentials["admin.macaroon"]
    await check_refused(
        LndNode.connect(url, macaroon=macaroon, certificate=credentials["foreign.cert"]), AuthenticationError
    )
    await check_refused(LndNode.connect(url, macaroon=macaroon), AuthenticationError)
    await check_refused(LndNode.connect(url, macaroon=macaroon, fingerprint="00" * 32), AuthenticationError)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(credentials["tls.cert"])).hexdigest()
    pinned = LndNode.connect(
        url, macaroon=macaroon.hex(), fingerprint=":".join(digest[i : i + 2] for i in range(0, 64, 2))
    )
    assert (await pinned.info()).network == "regtest"
    await pinned.close()


async def test_a_macaroon_that_may_only_read_reads_and_does_not_pay(regtest, credentials, provider):
    node = LndNode.connect(
        regtest.client.rest_url, macaroon=credentials["readonly.macaroon"], certificate=credentials["tls.cert"]
    )
    assert (await node.lookup_payment(bytes(32))).state is PaymentState.NONE
    with pytest.raises(NotFound):
        await node.lookup_invoice(bytes(32))
    invoice = await provider.create_invoice(amount_msat=1_000)
    with pytest.raises(AuthenticationError):
        await node.pay(invoice.text, **LIMITS)
    with pytest.raises(AuthenticationError):
        await node.create_invoice(amount_msat=1_000)
    await node.close()


async def test_hashes_whose_base64_needs_the_other_alphabet_arrive_whole(client, provider):
    preimage = next(
        candidate
        for candidate in (index.to_bytes(32) for index in range(10_000, 20_000))
        if {"+", "/"} <= set(base64.b64encode(hashlib.sha256(candidate).digest()).decode())
    )
    invoice = await provider.create_invoice(amount_msat=1_000, preimage=preimage)
    assert (await client.pay(invoice.text, **LIMITS)).preimage == preimage
    assert (await client.lookup_payment(invoice.payment_hash)).preimage == preimage
    async for record in provider.watch_invoice(invoice.payment_hash):
        assert record.state is InvoiceState.SETTLED


async def test_an_expired_invoice_that_is_in_flight_or_paid_is_never_reported_as_expired(client, provider):
    preimage, invoice, paying = await held(client, provider, expiry_s=2)
    await asyncio.sleep(3)
    again = asyncio.ensure_future(client.pay(invoice.text, **LIMITS))
    await provider.settle_invoice(preimage)
    assert (await paying).preimage == (await again).preimage == preimage
    assert (await client.pay(invoice.text, **LIMITS)).preimage == preimage
    other = await provider.create_invoice(amount_msat=1_000, expiry_s=1)
    await asyncio.sleep(2.5)
    with pytest.raises(Expired):
        await client.pay(other.text, **LIMITS)


async def test_a_caller_who_goes_away_at_once_does_not_stop_the_payment(client, provider):
    preimage, invoice, paying = await held(client, provider)
    paying.cancel()
    await asyncio.gather(paying, return_exceptions=True)
    record = await client.lookup_payment(invoice.payment_hash)
    assert record.state is PaymentState.IN_FLIGHT
    assert 0 <= record.in_flight_msat - invoice.amount_msat <= LIMITS["fee_limit_msat"]
    await provider.settle_invoice(preimage)

    async def done():
        return (await client.lookup_payment(invoice.payment_hash)).state is PaymentState.SUCCEEDED

    await eventually(done)


@pytest.mark.parametrize("settled", [True, False])
async def test_a_payment_that_is_held_for_long_ends_as_the_payee_decides(impatient, provider, settled):
    """Its request is left once lnd has begun it; the payment goes on, and its record tells the end."""
    preimage, invoice, paying = await held(impatient, provider)
    done, _ = await asyncio.wait({paying}, timeout=2)
    assert not done
    await (provider.settle_invoice(preimage) if settled else provider.cancel_invoice(invoice.payment_hash))
    record = await paying
    assert (record.state, record.preimage) == (
        (PaymentState.SUCCEEDED, preimage) if settled else (PaymentState.FAILED, None)
    )
    await impatient.close()


async def test_a_watch_is_silent_for_a_hash_that_nobody_has(provider):
    watching = asyncio.ensure_future(anext(provider.watch_invoice(secrets.token_bytes(32))))
    done, _ = await asyncio.wait([watching], timeout=0.5)
    assert not done
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_settled_htlc_is_resolved_in_the_end(client, provider):
    preimage, invoice, paying = await held(client, provider)
    await provider.settle_invoice(preimage)
    await paying

    async def resolved():
        return all(one.settled and one.offchain for one in await provider.htlc_resolutions(invoice.payment_hash))

    await eventually(resolved)


async def test_many_payments_at_once_all_arrive(client, provider):
    invoices = [await provider.create_invoice(amount_msat=1_000) for _ in range(30)]
    records = await asyncio.gather(*(client.pay(invoice.text, **LIMITS) for invoice in invoices))
    assert all(record.state is PaymentState.SUCCEEDED for record in records)


async def test_a_node_that_is_killed_leaves_the_outcome_unknown_and_tells_it_later(regtest, client, provider):
    preimage, invoice, paying = await held(client, provider)
    await regtest.stop_lnd("client", kill=True)
    try:
        with pytest.raises(UnknownOutcome) as caught:
            await paying
        assert caught.value.tx_id.hash == invoice.payment_hash
        with pytest.raises(NodeConnectionError) as refused:
            await client.pay(invoice.text, **LIMITS)
        assert refused.value.request_sent is False
    finally:
        await regtest.start_lnd("client")
    assert (await client.lookup_payment(invoice.payment_hash)).state is PaymentState.IN_FLIGHT
    await provider.settle_invoice(preimage)
    assert (await client.pay(invoice.text, **LIMITS)).preimage == preimage


async def test_the_layer_pays_proves_and_follows_on_a_real_node(client, provider):
    layer = LightningNetwork(client, network="regtest", owns_node=False)
    await layer.initialize_async()
    invoice = await provider.create_invoice(amount_msat=1_500_500)
    tx_id = await layer.transfer_asset_async(BTC, 1_501, invoice.text)
    status = await layer.get_transaction_status_async(tx_id)
    assert await layer.verify_proof_async(LightningPaymentProof(invoice=invoice.text, preimage=status.preimage))
    preimage = secrets.token_bytes(32)
    hold = await provider.create_hold_invoice(
        payment_hash=hashlib.sha256(preimage).digest(), amount_msat=9_000, expiry_s=600, cltv_delta=80
    )
    with pytest.raises(TimeoutError) as late:
        await layer.submit_transaction_async(LightningPayment(invoice=hold.text), timeout=2)
    await provider.settle_invoice(preimage)
    assert (await layer.wait_for_transaction_async(late.value.tx_id)).preimage == preimage
    await layer.close_async()


async def test_a_node_without_wallet_is_not_ready(walletless_lnd):
    node = await walletless_lnd()

    async def answers():
        try:
            await node.info()
        except NodeConnectionError:
            return None
        except NodeNotReady as error:
            return error

    error = await eventually(answers)
    assert "wallet" in str(error) or "start" in str(error)
    await node.close()


async def test_an_expired_certificate_is_refused(walletless_lnd):
    node = await walletless_lnd("--tlscertduration=1s")
    await asyncio.sleep(2)

    async def refusal():
        try:
            await node.info()
        except NodeConnectionError:
            return None
        except AuthenticationError as error:
            return error

    try:
        assert "expired" in str(await eventually(refusal))
    finally:
        await node.close()
