"""The specification's own examples, read, refused, and written again byte for byte."""

import json
from pathlib import Path

import pytest

from layer2.errors import InvoiceError
from layer2.lightning import (
    FallbackAddress,
    Invoice,
    RouteHop,
    UnsignedInvoice,
    decode_invoice,
    encode_invoice,
    sign_invoice,
)

VECTORS = json.loads((Path(__file__).parent / "bolt11_vectors.json").read_text(encoding="utf-8"))
KEY = bytes.fromhex(VECTORS["private_key"])
VALID = pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["name"][:40])
HIGH_S = "Public-key recovery with high-S signature"
WITH_UNKNOWN_FIELDS = "Same, but including fields which must be ignored."
LETTERS = "pshdmnxcfr9"


def said(vector):
    return {**VECTORS["defaults"], **vector["says"]}


def unhex(value):
    return None if value is None else bytes.fromhex(value)


def hop(node_id, channel, fee_base_msat, fee_proportional_millionths, cltv_expiry_delta):
    block, transaction, output = map(int, channel.split("x"))
    return RouteHop(
        node_id=bytes.fromhex(node_id),
        short_channel_id=block << 40 | transaction << 16 | output,
        fee_base_msat=fee_base_msat,
        fee_proportional_millionths=fee_proportional_millionths,
        cltv_expiry_delta=cltv_expiry_delta,
    )


@VALID
def test_each_valid_example_says_what_the_specification_says(vector):
    invoice = decode_invoice(vector["text"])
    want = said(vector)
    for name in ("network", "amount_msat", "timestamp", "description", "expiry_s", "min_final_cltv_delta"):
        assert getattr(invoice, name) == want[name], name
    for name in ("payment_hash", "payment_secret", "description_hash", "payee", "metadata"):
        assert getattr(invoice, name) == unhex(want[name]), name
    assert invoice.features == tuple(want["features"])
    assert [[f.version, f.program.hex()] for f in invoice.fallback_addresses] == want["fallback_addresses"]
    assert invoice.route_hints == tuple(tuple(hop(*values) for values in route) for route in want["route_hints"])
    assert [[h.channel for h in route] for route in invoice.route_hints] == [
        [values[1] for values in route] for route in want["route_hints"]
    ]
    assert invoice.payee_given is False
    assert invoice.expires_at == invoice.timestamp + invoice.expiry_s
    assert invoice.text == vector["text"].lower()


@VALID
def test_each_valid_example_is_written_again_from_its_values(vector, slow_reader):
    order = []
    for letter, _ in slow_reader(vector["text"].lower()):
        if letter in LETTERS and letter not in order:
            order.append(letter)
    want = said(vector)
    unsigned = encode_invoice(
        network=want["network"],
        timestamp=want["timestamp"],
        amount_msat=want["amount_msat"],
        payment_hash=unhex(want["payment_hash"]),
        payment_secret=unhex(want["payment_secret"]),
        description=want["description"],
        description_hash=unhex(want["description_hash"]),
        expiry_s=want["expiry_s"] if "x" in order else None,
        min_final_cltv_delta=want["min_final_cltv_delta"] if "c" in order else None,
        fallback_addresses=[
            FallbackAddress(version=v, program=bytes.fromhex(p)) for v, p in want["fallback_addresses"]
        ],
        route_hints=[[hop(*values) for values in route] for route in want["route_hints"]],
        features=want["features"],
        metadata=unhex(want["metadata"]),
        field_order="".join(order) + "".join(letter for letter in LETTERS if letter not in order),
    )
    again = sign_invoice(unsigned, KEY)
    if vector["name"] == WITH_UNKNOWN_FIELDS:
        assert again.payment_hash == unhex(want["payment_hash"])
        again = UnsignedInvoice.of(decode_invoice(vector["text"])).sign(KEY)
    if vector["name"] == HIGH_S:
        assert again.text[:-111] == vector["text"][:-111]
        original = decode_invoice(vector["text"])
        assert unsigned.with_signature(original.signature, original.recovery_id) == original
    else:
        assert again.text == vector["text"].lower()


@VALID
def test_each_valid_example_survives_json(vector):
    invoice = decode_invoice(vector["text"])
    assert Invoice.from_json(invoice.to_json()) == invoice


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["name"])
def test_each_invalid_example_is_refused(vector):
    with pytest.raises(InvoiceError) as caught:
        decode_invoice(vector["text"])
    assert vector["field"] in (None, caught.value.field)
    assert vector["text"][20:60] not in str(caught.value)


def test_the_wrong_character_of_the_checksum_example_is_found():
    text = next(v["text"] for v in VECTORS["invalid"] if v["field"] == "checksum")
    with pytest.raises(InvoiceError, match="most likely character") as caught:
        decode_invoice(text)
    assert caught.value.position == len(text) - 1
