"""100,000 random changes to valid invoices: the right value or InvoiceError, nothing else.

Half are made to the text; there only the same invoice may come out. Half are made behind the checksum, which is written anew, with
the old signature or a new one: whatever is read then must be what a second, slow reader finds.
"""

import random

import pytest

from layer2.errors import InvoiceError
from layer2.lightning import Invoice, UnsignedInvoice, decode_invoice

pytestmark = pytest.mark.slow

CHANGES = 10_000
SEEDS = range(5)
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
DIGITS = "0123456789abcdefghijklmnopqrstuv"
STRANGE = "1bio_-+ .\n\0\x7f\u212a\u0131\uff12\u0663\U0001f34cQPZRY"


def substitute(chosen, text, symbols):
    at = chosen.randrange(len(text))
    return text[:at] + chosen.choice(symbols) + text[at + 1 :]


def insert(chosen, text, symbols):
    at = chosen.randrange(len(text) + 1)
    return text[:at] + "".join(chosen.choices(symbols, k=chosen.choice([1, 1, 1, 2, 3, 8]))) + text[at:]


def delete(chosen, text, symbols):
    at = chosen.randrange(len(text))
    return text[:at] + text[at + chosen.choice([1, 1, 1, 2, 3, 8, 60]) :]


def swap(chosen, text, symbols):
    at = chosen.randrange(len(text) - 1)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def repeat(chosen, text, symbols):
    at = chosen.randrange(len(text))
    return text[: at + chosen.randrange(60)] + text[at:]


def cut(chosen, text, symbols):
    return text[: chosen.randrange(len(text))] if chosen.random() < 0.5 else text[chosen.randrange(len(text)) :]


def change_case(chosen, text, symbols):
    at = chosen.randrange(len(text))
    return chosen.choice([text.swapcase(), text.upper(), text[:at] + text[at].swapcase() + text[at + 1 :], text])


WAYS = [substitute, substitute, substitute, insert, delete, swap, repeat, cut]


def outcome_of(call, *arguments):
    """What it returns, or the ``InvoiceError`` that it raises; any other error fails the test."""
    try:
        outcome = call(*arguments)
    except InvoiceError as error:
        return error
    assert isinstance(outcome, Invoice)
    return outcome


def texts(vectors):
    return [vector["text"].lower() for vector in vectors["valid"]]


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_texts(vectors, seed):
    chosen = random.Random(seed)
    known = {text: decode_invoice(text) for text in texts(vectors)}
    originals = list(known)
    read = 0
    for _ in range(CHANGES):
        original = chosen.choice(originals)
        text = original
        for _ in range(chosen.choice([1, 1, 1, 2, 4])):
            way = chosen.choice([*WAYS, change_case])
            text = way(chosen, text, chosen.choice([ALPHABET, ALPHABET, "0123456789munp", STRANGE])) or "1"
            if len(text) < 2:
                text += original
        outcome = outcome_of(decode_invoice, text)
        if isinstance(outcome, InvoiceError):
            assert outcome.position is None or 0 <= outcome.position <= len(text)
            continue
        assert outcome == known[text.lower()]
        read += 1
    assert 0 < read < CHANGES / 5


def change_number(chosen, symbols, _):
    """Another length or value where numbers are likely to stand."""
    at = chosen.randrange(7, len(symbols) - 2)
    return symbols[:at] + chosen.choice(["00", "01", "1k", "1l", "0v", "vv"]) + symbols[at + 2 :]


def change_tag(chosen, symbols, _):
    return symbols[:7] + chosen.choice(DIGITS) + symbols[8:]


def move_field(chosen, symbols, _):
    """The first field again at the end."""
    length = int(symbols[8:10], 32)
    return symbols + symbols[7 : 10 + length]


HRPS = [
    "lnbc",
    "lntb20m",
    "lnbcrt2500u",
    "lntbs10p",
    "lnsb1n",
    "lnbc1",
    "lnbc2500x",
    "lnbc11p",
    "lnbc0u",
    "lnbc9" + "0" * 20,
]


def numbers_behind(text):
    return text[text.rindex("1") + 1 : -110], text[-110:-6]


def expect(letter_bits, letter, length):
    """The bits of the only field of this letter that counts."""
    found = [bits for name, bits in letter_bits if name == letter and len(bits) == length]
    assert len(found) <= 1
    return found[0] if found else None


def in_bytes(bits, count):
    return int(bits[: 8 * count], 2).to_bytes(count)


def assert_read_right(invoice, fields):
    assert invoice.payment_hash == in_bytes(expect(fields, "p", 260), 32)
    assert invoice.payment_secret == in_bytes(expect(fields, "s", 260), 32)
    named = expect(fields, "n", 265)
    assert invoice.payee_given == (named is not None)
    if named is not None:
        assert invoice.payee == in_bytes(named, 33)
    hashed = expect(fields, "h", 260)
    assert invoice.description_hash == (None if hashed is None else in_bytes(hashed, 32))
    plain = [bits for letter, bits in fields if letter == "d"]
    assert [invoice.description] == [in_bytes(b, len(b) // 8).decode() for b in plain] or (
        plain == [] and invoice.description is None
    )
    for letter, value, default in (("x", invoice.expiry_s, 3600), ("c", invoice.min_final_cltv_delta, 18)):
        written = [bits for name, bits in fields if name == letter]
        assert [value] == ([int("0" + bits, 2) for bits in written] or [default])
    features = [bits for letter, bits in fields if letter == "9"]
    assert len(features) <= 1
    assert sum(1 << bit for bit in invoice.features) == (int("0" + features[0], 2) if features else 0)
    hops = sum(len(bits) // 8 // 51 for letter, bits in fields if letter == "r")
    assert sum(map(len, invoice.route_hints)) == hops
    fallbacks = [bits for letter, bits in fields if letter == "f" and int(bits[:5], 2) <= 18]
    assert [address.version for address in invoice.fallback_addresses] == [int(bits[:5], 2) for bits in fallbacks]
    metadata = [bits for letter, bits in fields if letter == "m"]
    assert invoice.metadata == (in_bytes(metadata[0], len(metadata[0]) // 8) if metadata else None)


@pytest.mark.parametrize("seed", SEEDS)
def test_changes_behind_the_checksum(vectors, slow_reader, writer, seed):
    chosen = random.Random(1000 + seed)
    originals = [decode_invoice(text) for text in texts(vectors)]
    unsigned = [UnsignedInvoice.of(invoice) for invoice in originals]
    read = 0
    for _ in range(CHANGES):
        at = chosen.randrange(len(originals))
        hrp, symbols = unsigned[at].hrp, unsigned[at].digits.decode()
        if chosen.random() < 0.05:
            hrp = chosen.choice(HRPS)
        for _ in range(chosen.choice([0, 1, 1, 2, 3])):
            way = chosen.choice([*WAYS[:-1], change_number, change_tag, move_field])
            symbols = way(chosen, symbols, DIGITS)
            if len(symbols) < 20:
                break
        changed = UnsignedInvoice(hrp=hrp, digits=symbols.encode())
        signature, recovery_id = originals[at].signature, originals[at].recovery_id
        resigned = chosen.random() < 0.4
        if resigned:
            outcome = outcome_of(changed.sign, writer.key)
        else:
            if chosen.random() < 0.2:
                signature = bytes(chosen.choice([0, 255, byte]) for byte in signature)
            if chosen.random() < 0.2:
                recovery_id = chosen.randrange(4)
            outcome = outcome_of(changed.with_signature, signature, recovery_id)
        if isinstance(outcome, InvoiceError):
            assert outcome.field is not None
            continue
        invoice = outcome
        read += 1
        assert_read_right(invoice, slow_reader(invoice.text))
        assert not resigned or invoice.payee.hex().startswith("03e7156ae33b0a20")
        assert invoice.timestamp == int(symbols[:7], 32)
        if invoice.text != originals[at].text:
            assert (invoice.payee, invoice.signature) != (originals[at].payee, originals[at].signature)
    assert CHANGES / 20 < read < CHANGES
