"""Writing: what is read back is what was given, and what no reader would accept is not written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer2.errors import InvoiceError
from layer2.lightning import FallbackAddress, Feature, Invoice, RouteHop, decode_invoice, encode_invoice, sign_invoice

KEY = bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734")
PAYEE = bytes.fromhex("03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad")
UINT64 = st.integers(0, 2**64 - 1)
PLAIN = {
    "network": "regtest",
    "timestamp": 1_700_000_000,
    "payment_hash": bytes(32),
    "payment_secret": bytes([1]) * 32,
    "amount_msat": 1234,
    "description": "tea",
}

hops = st.builds(
    RouteHop,
    node_id=st.just(PAYEE),
    short_channel_id=UINT64,
    fee_base_msat=st.integers(0, 2**32 - 1),
    fee_proportional_millionths=st.integers(0, 2**32 - 1),
    cltv_expiry_delta=st.integers(0, 2**16 - 1),
)
fallbacks = st.one_of(
    st.builds(FallbackAddress, version=st.sampled_from([0, 17, 18]), program=st.binary(min_size=20, max_size=20)),
    st.builds(FallbackAddress, version=st.integers(1, 16), program=st.binary(min_size=2, max_size=40)),
)
feature_sets = st.sets(st.integers(0, 300).map(lambda n: 2 * n + 1)).map(
    lambda odd: sorted({Feature.VAR_ONION, Feature.PAYMENT_SECRET, *odd})
)
invoices = st.fixed_dictionaries(
    {
        "network": st.sampled_from(["mainnet", "testnet", "signet", "regtest", "simnet"]),
        "timestamp": st.integers(0, 2**35 - 1),
        "amount_msat": st.none() | st.integers(1, 21 * 10**17) | st.integers(1, 2 * 10**6).map(lambda n: n * 10**6),
        "payment_hash": st.binary(min_size=32, max_size=32),
        "payment_secret": st.binary(min_size=32, max_size=32),
        "description": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=150),
        "description_hash": st.binary(min_size=32, max_size=32),
        "expiry_s": st.none() | UINT64,
        "min_final_cltv_delta": st.none() | UINT64,
        "payee": st.sampled_from([None, PAYEE]),
        "fallback_addresses": st.lists(fallbacks, max_size=3),
        "route_hints": st.lists(st.lists(hops, min_size=1, max_size=12), max_size=3),
        "features": feature_sets,
        "metadata": st.none() | st.binary(max_size=639),
        "field_order": st.permutations("pshdmnxcfr9").map("".join),
    }
)


@settings(max_examples=150, deadline=None)
@given(values=invoices)
def test_what_is_written_is_read_back(values):
    if values["description"] is not None:
        values["description_hash"] = None
    invoice = sign_invoice(encode_invoice(**values), KEY)
    values.pop("field_order")
    payee = values.pop("payee")
    assert invoice.payee == PAYEE
    assert invoice.payee_given == (payee is not None)
    defaults = {"expiry_s": 3600, "min_final_cltv_delta": 18}
    for name, value in values.items():
        got = getattr(invoice, name)
        want = defaults.get(name) if value is None else value
        if name == "route_hints":
            want = [tuple(route) for route in value]
        assert (list(got) if isinstance(want, list) else got) == want, name
    assert decode_invoice(invoice.text.upper()) == invoice
    assert Invoice.from_json(invoice.to_json()) == invoice


@pytest.mark.parametrize(
    ("amount_msat", "written"),
    [(10**11, "1"), (2 * 10**8, "2m"), (25 * 10**7, "2500u"), (10**5, "1u"), (100, "1n"), (1, "10p"), (1234, "12340p")],
)
def test_amounts_are_written_as_short_as_possible(amount_msat, written):
    assert encode_invoice(**{**PLAIN, "amount_msat": amount_msat}).hrp == "lnbcrt" + written


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"network": "bitcoin"}, "network"),
        ({"timestamp": 2**35}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"amount_msat": 0}, "amount_msat"),
        ({"amount_msat": -5}, "amount_msat"),
        ({"amount_msat": True}, "amount_msat"),
        ({"amount_msat": "5"}, "amount_msat"),
        ({"amount_msat": 21 * 10**17 + 1}, "amount_msat"),
        ({"payment_hash": bytes(31)}, "payment_hash"),
        ({"payment_secret": bytes(33)}, "payment_secret"),
        ({"description": None}, "description"),
        ({"description_hash": bytes(32)}, "description"),
        ({"description": None, "description_hash": bytes(20)}, "description_hash"),
        ({"description": "x" * 640}, "description"),
        ({"description": "\ud800"}, "description"),
        ({"metadata": bytes(640)}, "metadata"),
        ({"expiry_s": 2**64}, "expiry_s"),
        ({"min_final_cltv_delta": -1}, "min_final_cltv_delta"),
        ({"payee": bytes(33)}, "payee"),
        ({"features": [8, 14, 100]}, "features"),
        ({"features": [17]}, "features"),
        ({"features": [-1]}, "features"),
        ({"fallback_addresses": [FallbackAddress(version=19, program=bytes(20))]}, "fallback_addresses"),
        ({"route_hints": [[]]}, "route_hints"),
        ({"field_order": "pshd"}, "field_order"),
    ],
)
def test_what_no_reader_accepts_is_not_written(change, field):
    with pytest.raises(InvoiceError) as caught:
        encode_invoice(**{**PLAIN, **change})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": bytes(33)},
        {"short_channel_id": 2**64},
        {"fee_base_msat": 2**32},
        {"fee_proportional_millionths": -1},
        {"cltv_expiry_delta": 2**16},
    ],
)
def test_hops_out_of_range(change):
    values = {"node_id": PAYEE, "short_channel_id": 1, "fee_base_msat": 1, "fee_proportional_millionths": 1}
    hop = RouteHop(**{**values, "cltv_expiry_delta": 1, **change})
    with pytest.raises(InvoiceError) as caught:
        encode_invoice(**PLAIN, route_hints=[[hop]])
    assert caught.value.field == "route_hints"


def test_a_route_or_an_invoice_that_is_too_long():
    hop = RouteHop(
        node_id=PAYEE, short_channel_id=1, fee_base_msat=1, fee_proportional_millionths=1, cltv_expiry_delta=1
    )
    with pytest.raises(InvoiceError, match="639"):
        encode_invoice(**PLAIN, route_hints=[[hop] * 13])
    with pytest.raises(InvoiceError, match="7089"):
        encode_invoice(**PLAIN, route_hints=[[hop] * 12] * 7)


@pytest.mark.parametrize("key", [b"", bytes(32), bytes([255]) * 32, bytes(31)])
def test_keys_that_are_none(key):
    with pytest.raises(InvoiceError) as caught:
        sign_invoice(encode_invoice(**PLAIN), key)
    assert caught.value.field == "private_key"


def test_only_the_named_payee_signs():
    with pytest.raises(InvoiceError) as caught:
        encode_invoice(**PLAIN, payee=PAYEE).sign(bytes([1]) * 32)
    assert caught.value.field == "payee"


@pytest.mark.parametrize(
    ("signature", "recovery_id"), [(bytes(64), 0), (bytes(63), 0), (bytes(64), 4), (bytes(64), -1)]
)
def test_signatures_from_elsewhere_are_checked(signature, recovery_id):
    with pytest.raises(InvoiceError):
        encode_invoice(**PLAIN).with_signature(signature, recovery_id)
