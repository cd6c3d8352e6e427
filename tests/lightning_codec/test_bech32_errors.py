"""What is said about texts that are not bech32, or whose checksum fails."""

import random

import pytest

from layer2.errors import InvoiceError
from layer2.lightning import decode_invoice

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def refused(text):
    with pytest.raises(InvoiceError) as caught:
        decode_invoice(text)
    return caught.value


@pytest.mark.parametrize("example", [0, 5, 12])
def test_one_wrong_character_is_located(vectors, example):
    chosen = random.Random(example)
    text = vectors["valid"][example]["text"].lower()
    start = text.rindex("1") + 1
    for at in range(start, len(text)):
        other = chosen.choice(ALPHABET.replace(text[at], ""))
        error = refused(text[:at] + other + text[at + 1 :])
        assert (error.field, error.position) == ("checksum", at)


@pytest.mark.parametrize(("at", "other"), [(2, "x"), (3, "k"), (4, "3"), (7, "1"), (8, "n")])
def test_one_wrong_character_before_the_separator_is_located(vectors, at, other):
    text = vectors["valid"][1]["text"]
    error = refused(text[:at] + other + text[at + 1 :])
    assert (error.field, error.position) == ("checksum", at)


def test_where_two_places_explain_the_error_none_is_named(writer):
    text = writer.text([*writer.required, ("m", bytes(600)), ("z", [0] * 200)])
    assert len(text) > 1100
    behind = len(text) - 3
    assert refused(text[:behind] + ("q" if text[behind] != "q" else "p") + text[behind + 1 :]).position is None
    middle = len(text) // 2
    assert refused(text[:middle] + ("q" if text[middle] != "q" else "p") + text[middle + 1 :]).position == middle


def test_several_wrong_characters_name_no_place(vectors):
    text = vectors["valid"][0]["text"]
    error = refused(text[:40] + "qqqqqqqq" + text[48:])
    assert error.position is None
    assert "likely" not in str(error)


def put(text, at, character):
    return text[:at] + character + text[at + 1 :]


def test_characters_that_no_invoice_has(vectors):
    text = vectors["valid"][1]["text"]
    k, two = text.index("k"), text.index("2")
    for changed, position in [
        (put(text, k, "\u212a"), k),
        (put(text, two, "\uff12"), two),
        (put(text, 50, " "), 50),
        (put(text, 60, "b"), 60),
        (put(text, 60, "_"), 60),
        (put(text, 60, "1"), 60),
        (text + "\n", len(text)),
        (" " + text, 0),
    ]:
        error = refused(changed)
        assert error.position == position, changed[position]


def test_mixed_case_is_located(vectors):
    text = vectors["valid"][1]["text"]
    letter = next(i for i in range(60, 90) if text[i].isalpha())
    assert refused(put(text, letter, text[letter].upper())).position == letter
    assert refused(put(text.upper(), letter, text[letter])).position == letter


@pytest.mark.parametrize(
    "text", ["", "1", "lnbc", "1qqqqqq", "lnbc1", "lnbc1qqqqq", "lnbc1" + "q" * 7085, "ln bc1qqqqqqq"]
)
def test_texts_that_are_no_bech32(text):
    assert refused(text).field in ("text", "checksum")


def test_other_types_are_refused():
    for value in (None, b"lnbc1", 7):
        assert "text" in str(refused(value))


def test_bech32m_is_something_else(writer, vectors):
    assert refused(writer.as_bech32m(vectors["valid"][0]["text"])).field == "checksum"


def test_a_longer_or_shorter_text_with_a_valid_checksum_is_refused(writer):
    # Where a code word ends in p, letters q in front of that p do not change the checksum: a known weakness of bech32.
    text = next(
        candidate
        for timestamp in range(1_700_000_000, 1_700_001_000)
        if (candidate := writer.text(writer.required, timestamp=timestamp)).endswith("p")
    )
    decode_invoice(text)
    for more in ("q", "qq"):
        error = refused(text[:-1] + more + text[-1])
        assert error.field != "checksum"


def test_the_uri_scheme_does_not_belong_to_the_text(vectors):
    error = refused("lightning:" + vectors["valid"][0]["text"])
    assert error.position == 9
    assert "leave out lightning:" in str(error)
