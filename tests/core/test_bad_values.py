"""Public values that a caller makes refuse what cannot be right when they are made, in words and not with an accident further on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from layer2 import (
    BTC,
    AmountError,
    AssetForm,
    AssetId,
    AssetRegistry,
    EvmAddress,
    EvmCall,
    InvoiceText,
    LightningAddress,
    LightningPayment,
    LnurlPay,
    NodeId,
    SignedEvmTransaction,
    TxId,
    ValidationError,
    parse_address,
)
from layer2.assets import convert_amount
from layer2.lightning import decode_invoice, decode_lnurl

BAD: tuple[Any, ...] = (None, True, False, 0, 1.5, -1, 2**64, 2**300, "", "x", "\ud800", b"", b"x", [], object())
TEXT = ("x",)
NOTHING: tuple[Any, ...] = ()
ACCOUNT = EvmAddress(raw=b"\x0b" * 20)
NODE = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")

VALUES: list[tuple[Callable[..., object], dict[str, Any], dict[str, tuple[Any, ...]]]] = [
    (AssetId, {"name": "X", "decimals": 8}, {"name": TEXT, "decimals": (0,)}),
    (
        AssetForm,
        {"asset": BTC, "chain_id": 1, "contract": ACCOUNT, "decimals": 8},
        {"asset": NOTHING, "chain_id": NOTHING, "contract": (None,), "decimals": (0,)},
    ),
    (TxId, {"layer": "bob", "hash": bytes(32)}, {"layer": TEXT, "hash": NOTHING}),
    (EvmAddress, {"raw": bytes(20)}, {"raw": NOTHING}),
    (NodeId, {"raw": NODE}, {"raw": NOTHING}),
    (InvoiceText, {"text": "lnbc1"}, {"text": TEXT}),
    (LightningAddress, {"user": "a", "domain": "b.c"}, {"user": TEXT, "domain": TEXT}),
    (LnurlPay, {"url": "https://b.c/"}, {"url": TEXT}),
    (
        EvmCall,
        {"to": ACCOUNT},
        {
            "to": (None,),
            "value_wei": (0, 2**64),
            "data": (b"", b"x"),
            "gas_limit": (None,),
            "max_fee_per_gas_wei": (None, 0, 2**64),
            "idempotency_key": (None, "x"),
        },
    ),
    (SignedEvmTransaction, {"raw": b"\x02"}, {"raw": (b"x",), "idempotency_key": (None, "x")}),
    (
        LightningPayment,
        {"invoice": "lnbc1"},
        {
            "invoice": TEXT,
            "amount_msat": (None,),
            "fee_limit_msat": (None, 0),
            "cltv_limit": (None,),
            "time_limit_s": (None,),
            "idempotency_key": (None, "x"),
        },
    ),
]
MONEY = {"amount_msat", "fee_limit_msat", "value_wei", "max_fee_per_gas_wei"}


def same(one: object, other: object) -> bool:
    """Equal and of one type: True is not 1 here."""
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("make", "good", "field", "fine"),
    [(make, good, field, fine) for make, good, fields in VALUES for field, fine in fields.items()],
    ids=lambda part: part if isinstance(part, str) else getattr(part, "__name__", ""),
)
@pytest.mark.parametrize("bad", BAD, ids=lambda value: repr(value)[:12])
def test_a_value_refuses_what_cannot_be_right(
    make: Callable[..., object], good: dict[str, Any], field: str, fine: tuple[Any, ...], bad: object
) -> None:
    if any(same(bad, value) for value in fine):
        assert same(getattr(make(**{**good, field: bad}), field), bad)
        return
    with pytest.raises(ValidationError) as caught:
        make(**{**good, field: bad})
    assert caught.value.field is not None
    assert not caught.value.money_may_have_moved
    if field in MONEY:
        assert isinstance(caught.value, AmountError)


PARSERS: list[Callable[[Any], object]] = [
    EvmAddress.parse,
    NodeId.parse,
    InvoiceText.parse,
    LightningAddress.parse,
    LnurlPay.parse,
    TxId.parse,
    lambda layer: TxId.parse("bob:" + "ab" * 32, layer=layer or 5),
    parse_address,
    decode_invoice,
    decode_lnurl,
    EvmCall.from_json,
    lambda amount: convert_amount(amount, 18, 8),
    lambda amount: convert_amount(amount, 8, 18),
    lambda decimals: convert_amount(1, decimals, 400),
    lambda decimals: convert_amount(1, 400, decimals),
    lambda asset: AssetRegistry().form(asset, 1),
    lambda chain_id: AssetRegistry().form(BTC, chain_id),
    lambda form: AssetRegistry([form]),
    lambda form: AssetRegistry().with_form(form),
]


@pytest.mark.parametrize("number", range(len(PARSERS)))
@pytest.mark.parametrize("bad", [*BAD, "é" * 70, "0x" + "1" * 41], ids=lambda value: repr(value)[:12])
def test_what_reads_a_value_refuses_what_cannot_be_read(number: int, bad: object) -> None:
    try:
        PARSERS[number](bad)
    except ValidationError:
        return
    assert type(bad) is int, "only some numbers can be converted"


def test_the_recipient_of_a_call_may_be_text_and_is_parsed_strictly() -> None:
    text = "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"
    call = EvmCall(to=text, value_wei=1)
    assert call == EvmCall(to=EvmAddress.parse(text), value_wei=1)
    assert EvmCall.from_json(call.to_json()) == call
    with pytest.raises(ValidationError, match="checksum"):
        EvmCall(to=text.replace("0555E", "0555e"))
