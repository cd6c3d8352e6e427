"""Receipts: what is refused on the way in from a trie and from JSON."""

import pytest

from layer2._rlp import encode
from layer2.errors import ProofError
from layer2.proofs import Log, Receipt
from layer2.proofs._receipts import logs_bloom

LOG = Log(address=b"a" * 20, topics=(b"t" * 32,), data=b"data")
RECEIPT = Receipt(type=2, status=1, cumulative_gas_used=21_000, bloom=logs_bloom([LOG]), logs=(LOG,))
PLAIN_LOG = [LOG.address, [LOG.topics[0]], LOG.data]
ITEMS = [b"\x01", b"\x09", bytes(256), [PLAIN_LOG]]


def test_round_trip_of_every_type():
    for kind in (0, 1, 2, 3, 4, 0x7E):
        for status in (0, 1):
            receipt = Receipt(type=kind, status=status, cumulative_gas_used=9, bloom=bytes(256), logs=(LOG,))
            assert Receipt.decode(receipt.encode()) == receipt
            assert receipt.succeeded == (status == 1)
    old = Receipt(type=0, status=None, post_state=b"s" * 32, cumulative_gas_used=9, bloom=bytes(256), logs=())
    assert Receipt.decode(old.encode()) == old
    assert not old.succeeded
    deposit = Receipt(
        type=0x7E, status=1, cumulative_gas_used=9, bloom=bytes(256), logs=(), deposit_nonce=0, deposit_version=1
    )
    assert Receipt.decode(deposit.encode()) == deposit


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" + encode(ITEMS),
        b"\x05" + encode(ITEMS),
        b"\x7f" + encode(ITEMS),
        b"\xb9" + encode(ITEMS),
        b"\x02",
        b"\x02" + encode(b"text"),
        b"\x02" + encode(ITEMS)[:-1],
        b"\x02" + encode(ITEMS) + b"\0",
        b"\x02" + encode([*ITEMS, b"\x01", b"\x01"]),
        b"\x7e" + encode([*ITEMS, b"\x01"]),
        b"\x7e" + encode([*ITEMS, [], b"\x01"]),
        b"\x02" + encode([b"s" * 32, *ITEMS[1:]]),
        encode([b"\x02", *ITEMS[1:]]),
        encode([[], *ITEMS[1:]]),
        encode([b"\x00", *ITEMS[1:]]),
        encode([ITEMS[0], b"\x00\x01", *ITEMS[2:]]),
        encode([*ITEMS[:2], bytes(255), ITEMS[3]]),
        encode([*ITEMS[:2], [], ITEMS[3]]),
        encode([*ITEMS[:3], b"logs"]),
        encode([*ITEMS[:3], [b"log"]]),
        encode([*ITEMS[:3], [PLAIN_LOG[:2]]]),
        encode([*ITEMS[:3], [[b"short", *PLAIN_LOG[1:]]]]),
        encode([*ITEMS[:3], [[LOG.address, b"topic", LOG.data]]]),
        encode([*ITEMS[:3], [[LOG.address, [b"short"], LOG.data]]]),
        encode([*ITEMS[:3], [[LOG.address, [LOG.topics[0]] * 5, LOG.data]]]),
        encode([*ITEMS[:3], [[LOG.address, [], [b"data"]]]]),
    ],
)
def test_what_is_no_receipt_is_refused(raw):
    with pytest.raises(ProofError) as refused:
        Receipt.decode(raw)
    assert refused.value.check == "receipt"


JSON = {
    "type": "0x2",
    "status": "0x1",
    "cumulativeGasUsed": "0x5208",
    "logsBloom": "0x" + RECEIPT.bloom.hex(),
    "logs": [
        {"address": "0x" + LOG.address.hex(), "topics": ["0x" + LOG.topics[0].hex()], "data": "0x" + LOG.data.hex()}
    ],
}


def test_json_without_type_or_with_null_root():
    assert Receipt.from_json_rpc(JSON) == RECEIPT
    untyped = {key: value for key, value in JSON.items() if key != "type"} | {"root": None}
    assert Receipt.from_json_rpc(untyped).type == 0
    old = {**untyped, "status": None, "root": "0x" + "11" * 32}
    assert Receipt.from_json_rpc(old).post_state == b"\x11" * 32


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": 2}, "type"),
        ({"type": "0x80"}, "type"),
        ({"status": "1"}, "status"),
        ({"status": None}, "root"),
        ({"cumulativeGasUsed": "0x"}, "cumulativeGasUsed"),
        ({"logsBloom": "0x00"}, "logsBloom"),
        ({"logs": None}, "logs"),
        ({"logs": ["0x"]}, "logs"),
        ({"logs": [{"address": JSON["logs"][0]["address"], "topics": None, "data": "0x"}]}, "logs"),
        ({"logs": [{**JSON["logs"][0], "address": "0x00"}]}, "address"),
        ({"logs": [{**JSON["logs"][0], "topics": ["0x00"]}]}, "topics"),
        ({"logs": [{**JSON["logs"][0], "data": "0x0"}]}, "data"),
        ({"depositReceiptVersion": "0x1"}, "depositNonce"),
    ],
)
def test_json_that_is_no_receipt_is_refused(change, field):
    with pytest.raises(ProofError) as refused:
        Receipt.from_json_rpc({**JSON, **change})
    assert refused.value.field == field
