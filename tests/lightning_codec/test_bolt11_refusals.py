"""What readers differ on, or fall for: each is refused or read in the one right way."""

import pytest
from btclib_secp256k1 import recovery

from layer2.errors import InvoiceError
from layer2.lightning import Invoice, UnsignedInvoice, decode_invoice

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OTHER = bytes([7]) * 32
PAYEE = bytes.fromhex("03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad")
OFF_CURVE = bytes([2]) + bytes(31) + bytes([5])


def refused(text, **options):
    with pytest.raises(InvoiceError) as caught:
        decode_invoice(text, **options)
    return caught.value


@pytest.fixture
def with_fields(writer):
    return lambda *fields, **options: writer.text([*writer.required, *fields], **options)


@pytest.mark.parametrize(
    ("hrp", "amount_msat"),
    [
        ("lnbc", None),
        ("lnbc1", 10**11),
        ("lnbc21000000", 21 * 10**17),
        ("lnbc1m", 10**8),
        ("lnbc1000u", 10**8),
        ("lnbc1n", 100),
        ("lnbc10p", 1),
        ("lnbc1000000000p", 10**8),
        ("lnbcrt25u", 2_500_000),
        ("lntbs25u", 2_500_000),
        ("lnsb25u", 2_500_000),
    ],
)
def test_amounts(with_fields, hrp, amount_msat):
    invoice = decode_invoice(with_fields(hrp=hrp))
    assert invoice.amount_msat == amount_msat
    assert hrp.startswith(invoice.prefix)
    assert invoice.amount_sat == (None if amount_msat is None else max(1, amount_msat // 1000))


@pytest.mark.parametrize(
    "hrp",
    [
        "lnbc0", "lnbc01m", "lnbc0u", "lnbcm", "lnbc2_500u", "lnbc+25u", "lnbc-25u", "lnbc2.5m", "lnbc25k", "lnbc25mm",
        "lnbc1p", "lnbc12345678901p", "lnbc21000001", "lnbc2100000000000000001u", "lnbc" + "9" * 5000, "lnbc 25u",
    ],
)  # fmt: skip
def test_amounts_that_are_none(with_fields, hrp):
    error = refused(with_fields(hrp=hrp))
    assert error.position is not None


@pytest.mark.parametrize(
    "hrp", ["lnxx25u", "ln", "ln25u", "bc25u", "lnltc25u", "lnbcc25u", "x", "ln[25u", "lnbc25u1tea"]
)
def test_prefixes_of_no_known_network(with_fields, hrp):
    assert refused(with_fields(hrp=hrp)).field in ("network", "text")


def test_the_network_that_is_asked_for(with_fields):
    text = with_fields(hrp="lntb20m")
    assert decode_invoice(text, network="testnet").network == "testnet"
    assert decode_invoice(text, network="testnet4").network == "testnet"
    error = refused(text, network="mainnet")
    assert (error.field, error.position) == ("network", 2)
    assert "lntb" in str(error)
    assert "lnbc" in str(error)
    assert refused(text, network="bitcoin").field == "network"


@pytest.mark.parametrize(
    ("letter", "content", "field"),
    [
        ("p", OTHER, "payment_hash"),
        ("s", OTHER, "payment_secret"),
        ("d", b"tea", "description"),
        ("d", b"", "description"),
        ("h", OTHER, "description"),
    ],
)
def test_a_second_of_what_may_stand_once(with_fields, letter, content, field):
    assert refused(with_fields((letter, content))).field == field


@pytest.mark.parametrize(("letter", "content"), [("x", [1]), ("c", [1]), ("m", b"1"), ("9", [8, 8, 0]), ("n", PAYEE)])
def test_a_second_optional_field(with_fields, letter, content):
    assert "twice" in str(refused(with_fields((letter, content), (letter, content))))


@pytest.mark.parametrize("letter", "pshn")
@pytest.mark.parametrize("length", [0, 51, 54, 60])
def test_extra_fields_of_another_length_are_skipped(with_fields, writer, letter, length):
    invoice = decode_invoice(with_fields((letter, [1] * length)))
    assert invoice.payment_hash == writer.payment_hash
    assert invoice.payment_secret == writer.payment_secret
    assert invoice.payee == PAYEE
    assert invoice.description_hash is None


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_field_that_must_be_there(writer, at):
    fields = list(writer.required)
    names = ("payment_hash", "payment_secret", "description")
    missing = fields.pop(at)
    assert refused(writer.text(fields)).field == names[at]
    if at < 2:
        assert refused(writer.text([*fields, (missing[0], missing[1] + b"\0")])).field == names[at]
    else:
        assert refused(writer.text([*fields, ("h", [0] * 51)])).field == names[at]
        assert decode_invoice(writer.text([*fields, ("d", b"")])).description == ""
        assert decode_invoice(writer.text([*fields, ("h", OTHER)])).description_hash == OTHER


@pytest.mark.parametrize("letter", "xc")
def test_numbers(with_fields, letter):
    name = {"x": "expiry_s", "c": "min_final_cltv_delta"}[letter]
    largest = [15] + [31] * 12
    assert getattr(decode_invoice(with_fields((letter, largest))), name) == 2**64 - 1
    assert getattr(decode_invoice(with_fields((letter, []))), name) == 0
    assert getattr(decode_invoice(with_fields((letter, [0]))), name) == 0
    for content in ([16] + [0] * 12, [1] * 1000, [0, 1], [0, 0]):
        assert refused(with_fields((letter, content))).field == name


def test_a_very_late_expiry_is_no_overflow(with_fields):
    invoice = decode_invoice(with_fields(("x", [15] + [31] * 12)))
    assert invoice.expires_at == 1_700_000_000 + 2**64 - 1
    assert not invoice.is_expired(2**63)
    assert Invoice.from_json(invoice.to_json()) == invoice


def test_the_last_second_still_counts(with_fields):
    invoice = decode_invoice(with_fields(("x", [10])))
    assert invoice.expires_at == 1_700_000_010
    assert not invoice.is_expired(1_700_000_010)
    assert invoice.is_expired(1_700_000_011)


def bits(*numbers):
    value = sum(1 << number for number in numbers)
    length = -(-value.bit_length() // 5)
    return [value >> 5 * (length - 1 - i) & 31 for i in range(length)]


@pytest.mark.parametrize(
    "numbers",
    [(8, 14), (9, 15), (8, 14, 17), (9, 14, 16, 99, 1001), (8, 24), (9, 48), (8, 14, 30), (37,), (8,), (1, 3)],
)
def test_features_that_are_known_or_optional(with_fields, numbers):
    invoice = decode_invoice(with_fields(("9", bits(*numbers))))
    assert invoice.features == tuple(sorted(numbers))
    assert all(invoice.has_feature(number & ~1) for number in numbers)
    assert not invoice.has_feature(40)


@pytest.mark.parametrize("number", [0, 2, 10, 12, 18, 50, 54, 100, 148, 2000])
def test_a_required_feature_that_is_not_known(with_fields, number):
    error = refused(with_fields(("9", bits(8, 14, number))))
    assert error.field == "features"
    assert str(number) in str(error)


@pytest.mark.parametrize("numbers", [(14,), (15,), (8, 16), (9, 17), (25,), (9, 31)])
def test_features_without_what_they_depend_on(with_fields, numbers):
    assert "depends" in str(refused(with_fields(("9", bits(*numbers)))))


def test_features_absent_empty_or_too_long(with_fields):
    assert decode_invoice(with_fields()).features == ()
    assert decode_invoice(with_fields(("9", []))).features == ()
    assert refused(with_fields(("9", [0, *bits(8, 14)]))).field == "features"


@pytest.mark.parametrize(
    ("content", "version", "size"),
    [([17] + [0] * 32, 17, 20), ([18] + [0] * 32, 18, 20), ([0] + [0] * 32, 0, 20), ([1] + [0] * 52, 1, 32), ([16, 0, 0, 0, 0], 16, 2)],
)  # fmt: skip
def test_fallback_addresses(with_fields, content, version, size):
    addresses = decode_invoice(with_fields(("f", [19]), ("f", content), ("f", [31, 1, 2]))).fallback_addresses
    assert [(a.version, len(a.program)) for a in addresses] == [(version, size)]


@pytest.mark.parametrize(
    "content", [[], [0], [0] * 31, [17], [17] + [0] * 31, [18] + [0] * 52, [1] + [0] * 66, [1, 0], [17] + [0] * 33]
)
def test_fallback_addresses_of_no_possible_length(with_fields, content):
    assert refused(with_fields(("f", content))).field == "fallback_addresses"


@pytest.mark.parametrize(
    "content", [b"", PAYEE, PAYEE + bytes(17), PAYEE + bytes(19), OFF_CURVE + bytes(18), PAYEE + bytes(18) + bytes(51)]
)
def test_route_hints_that_lead_nowhere(with_fields, content):
    assert refused(with_fields(("r", content))).field == "route_hints"


@pytest.mark.parametrize("raw", [b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_descriptions_that_are_not_utf_8(writer, raw):
    fields = [field for field in writer.required if field[0] != "d"]
    error = refused(writer.text([*fields, ("d", raw)]))
    assert error.field == "description"
    assert isinstance(error.__cause__, UnicodeDecodeError)


def test_a_payee_that_is_no_point(with_fields):
    assert refused(with_fields(("n", OFF_CURVE))).field == "payee"
    assert refused(with_fields(("n", bytes(33)))).field == "payee"


@pytest.mark.parametrize(
    ("letter", "length", "last"), [("p", 52, 1), ("s", 52, 8), ("d", 2, 1), ("d", 1, 0), ("m", 3, 0), ("m", 4, 1)]
)
def test_padding_that_is_not_zero_or_too_long(writer, letter, length, last):
    fields = [field for field in writer.required if field[0] != letter]
    error = refused(writer.text([*fields, (letter, [2] * (length - 1) + [last])]))
    assert "zero bits" in str(error)


def test_fields_that_reach_into_the_signature(writer):
    assert refused(writer.text(writer.required, tail=[10, 0, 1])).field == "data_length"
    assert refused(writer.text(writer.required, tail=[10, 31, 31, 0])).field == "data_length"
    for tail in ([0], [10, 0]):
        assert refused(writer.text(writer.required, tail=tail)).field == "data_length"
    assert decode_invoice(writer.text(writer.required, tail=[10, 0, 0])).payee == PAYEE


def test_too_short_for_a_signature(writer):
    text = writer.finish("lnbc", [0] * 6, bytes(65))
    assert refused(text).position == len(text)


def high_s(signature):
    s = CURVE_ORDER - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([signature[64] ^ 1])


def signed_by_hand(writer, fields, change):
    unsigned = writer.unsigned(fields)
    signature, recovery_id = recovery.sign(unsigned.signing_hash, writer.key)
    return writer.finish(
        unsigned.hrp, [int(chr(c), 32) for c in unsigned.digits], change(signature + bytes([recovery_id]))
    )


def test_high_s_counts_only_where_the_key_is_recovered(writer):
    low = decode_invoice(signed_by_hand(writer, writer.required, bytes))
    high = decode_invoice(signed_by_hand(writer, writer.required, high_s))
    assert low.payee == high.payee == PAYEE
    assert low.signature != high.signature
    named = [*writer.required, ("n", PAYEE)]
    assert decode_invoice(signed_by_hand(writer, named, bytes)).payee_given
    assert "high S" in str(refused(signed_by_hand(writer, named, high_s)))


def test_signatures_that_are_none(writer):
    named = [*writer.required, ("n", PAYEE)]
    for fields in (writer.required, named):
        for broken in (
            lambda s: bytes(64) + s[64:],
            lambda s: bytes([255]) * 64 + s[64:],
            lambda s: s[:32] + bytes(32) + s[64:],
        ):
            assert refused(signed_by_hand(writer, fields, broken)).field == "signature"
        assert refused(signed_by_hand(writer, fields, lambda s: s[:64] + b"\4")).field == "recovery_id"
        assert refused(signed_by_hand(writer, fields, lambda s: s[:64] + b"\xff")).field == "recovery_id"


def test_a_tampered_invoice_has_another_payee_or_is_refused(writer):
    unsigned, other = writer.unsigned(writer.required), writer.unsigned([("p", OTHER), *writer.required[1:]])
    invoice = unsigned.sign(writer.key)
    assert other.with_signature(invoice.signature, invoice.recovery_id).payee != PAYEE
    named = writer.unsigned([("p", OTHER), *writer.required[1:], ("n", PAYEE)])
    with pytest.raises(InvoiceError, match="not by the payee"):
        named.with_signature(invoice.signature, invoice.recovery_id)


def test_unknown_fields_are_kept_in_what_was_signed(with_fields, writer):
    text = with_fields(("5", b"blinded"), ("z", [31] * 1023), ("t", []))
    assert UnsignedInvoice.of(decode_invoice(text)).sign(writer.key).text == text


def test_neither_text_nor_secrets_are_shown(with_fields, writer):
    invoice = decode_invoice(with_fields(("m", b"metadata canary")))
    for shown in (repr(invoice), repr(UnsignedInvoice.of(invoice))):
        assert invoice.text[30:60] not in shown
        assert writer.payment_secret.hex() not in shown
        assert repr(writer.payment_secret) not in shown
        assert "canary" not in shown
    assert invoice.payment_hash.hex()[:4] not in str(refused(invoice.text[:-1]))


def test_values_from_outside_must_be_those_that_were_signed(with_fields):
    invoice = decode_invoice(with_fields())
    changed = invoice.to_json().replace(PAYEE.hex(), "02" + PAYEE.hex()[2:])
    with pytest.raises(ValueError, match="signed"):
        Invoice.from_json(changed)
