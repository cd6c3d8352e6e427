"""What a strict trie verifier refuses: everything but the exact path, in order, with nothing left over."""

import random

import pytest

from layer2._crypto import keccak256
from layer2._rlp import decode, encode
from layer2.errors import ProofError
from layer2.proofs._receipts import receipt_key
from layer2.proofs._trie import EMPTY_ROOT, MAX_NODES, MAX_PROOF_BYTES, Trie, verify_trie_proof

KEYS = {keccak256(bytes([n])): bytes([n]) * 40 for n in range(1, 200)}
TRIE = Trie(KEYS)
KEY, VALUE = next(iter(KEYS.items()))
PROOF = TRIE.prove(KEY)


def refused(root, key, proof, match, check="trie"):
    with pytest.raises(ProofError, match=match) as error:
        verify_trie_proof(root, key, proof)
    assert error.value.check == check


def alone(node):
    """Root and proof of a trie that is one node."""
    raw = encode(node)
    return keccak256(raw), [raw]


def test_every_key_of_random_tries_is_proved_and_every_other_is_proved_absent():
    chance = random.Random(7)
    for size in (1, 2, 3, 17, 300):
        entries = {
            chance.randbytes(chance.choice((1, 2, 3, 32))): chance.randbytes(chance.randint(1, 40)) for _ in range(size)
        }
        trie = Trie(entries)
        for key, value in entries.items():
            assert verify_trie_proof(trie.root, key, trie.prove(key)) == value
        for _ in range(50):
            key = chance.randbytes(chance.choice((1, 2, 3, 32)))
            assert verify_trie_proof(trie.root, key, trie.prove(key)) == entries.get(key)


def test_the_order_in_which_entries_are_given_does_not_matter():
    items = list(KEYS.items())
    random.Random(1).shuffle(items)
    assert Trie(dict(items)).root == TRIE.root


def test_an_empty_trie_and_an_empty_value():
    assert Trie({}).root == EMPTY_ROOT
    assert Trie({}).prove(b"key") == ()
    with pytest.raises(ProofError, match="never empty"):
        Trie({b"key": b""})


def test_one_bit_changed_anywhere_is_refused():
    for index, node in enumerate(PROOF):
        for bit in range(len(node) * 8):
            changed = bytearray(node)
            changed[bit // 8] ^= 1 << bit % 8
            refused(TRIE.root, KEY, [*PROOF[:index], bytes(changed), *PROOF[index + 1 :]], "does not hash to")


def test_cut_short_prolonged_reordered_or_doubled_proofs_are_refused():
    for length in range(len(PROOF)):
        refused(TRIE.root, KEY, PROOF[:length], f"ends after {length} nodes")
    for node in (*PROOF, b"", b"\x80", b"\xc0"):
        refused(TRIE.root, KEY, [*PROOF, node], "1 nodes after the end")
    for index in range(len(PROOF)):
        refused(TRIE.root, KEY, [*PROOF[:index], PROOF[index], *PROOF[index:]], "does not hash to|after the end")
        refused(TRIE.root, KEY, [*PROOF[:index], *PROOF[index + 1 :]], "does not hash to|ends after")
    refused(TRIE.root, KEY, PROOF[::-1], "does not hash to the root")
    for index, node in enumerate(PROOF):
        for length in {0, 1, len(node) // 2, len(node) - 1}:
            refused(TRIE.root, KEY, [*PROOF[:index], node[:length], *PROOF[index + 1 :]], "does not hash to")


def test_a_proof_of_one_key_proves_no_other():
    for other in list(KEYS)[1:]:
        try:
            assert verify_trie_proof(TRIE.root, other, PROOF) is None
        except ProofError:
            continue
        pytest.fail("the path of one key was taken for the absence of another that is there")


def test_too_many_nodes_or_bytes_are_not_looked_at():
    refused(TRIE.root, KEY, [b""] * (MAX_NODES + 1), "at most 65 nodes")
    refused(TRIE.root, KEY, [bytes(MAX_PROOF_BYTES + 1)], "at most 65 nodes and")
    refused(b"short", KEY, PROOF, "32 bytes, not 5")


LEAF_VALUE = b"v" * 40
HASH = b"h" * 32
BRANCH = [HASH, HASH, *[b""] * 15]


@pytest.mark.parametrize(
    ("node", "match"),
    [
        (b"text", "a list of 2 or 17"),
        ([b"\x20"], "a list of 2 or 17"),
        ([b"", b"", b""], "a list of 2 or 17"),
        ([b"", LEAF_VALUE], "is a list or empty"),
        ([[b"\x20"], LEAF_VALUE], "is a list or empty"),
        ([b"\x40", LEAF_VALUE], "unknown prefix"),
        ([b"\x21", LEAF_VALUE], "unknown prefix"),
        ([b"\x01", HASH], "unknown prefix"),
        ([b"\x20", b""], "value of a leaf"),
        ([b"\x20", [b"v"]], "value of a leaf"),
        ([b"\x00", HASH], "extension without path"),
        ([b"\x11", b""], "extension without path"),
        ([b"\x11", b"h" * 31], "a reference of 31 bytes"),
        ([b"\x11", [b"\x20", LEAF_VALUE]], "embedded node of 32 bytes or more"),
        ([HASH, b"h" * 33, *[b""] * 15], "a reference of 33 bytes"),
        ([HASH, [b"\x20", LEAF_VALUE], *[b""] * 15], "embedded node of 32 bytes or more"),
        ([HASH, *[b""] * 16], "fewer than two entries"),
        ([b""] * 17, "fewer than two entries"),
        ([HASH, HASH, *[b""] * 14, [b"v"]], "value of a branch is a list"),
        ([b"\x11", [b"\x31", b"v"]], "something other than a branch"),
    ],
)
def test_a_node_that_no_trie_has_is_refused_even_under_its_own_root(node, match):
    root, proof = alone(node)
    refused(root, b"\x11", proof, match)


def test_rlp_that_is_not_canonical_is_refused_even_under_its_own_root():
    for raw in (b"\xb8\x01v", b"\xf8\x02" + encode(b"\x20") + b"v", b"\x81\x01", encode(BRANCH) + b"\0", b"\xc1", b""):
        refused(keccak256(raw), b"\x11", [raw], "not canonical RLP")


def test_a_short_node_must_be_embedded():
    short = encode([b"\x31", b"v"])
    root, proof = alone([b"", keccak256(short), HASH, *[b""] * 14])
    refused(root, b"\x11", [*proof, short], "would be embedded")


def test_an_embedded_node_is_read_where_it_stands_and_not_listed():
    leaf = [b"\x31", b"v"]
    root, proof = alone([b"", leaf, HASH, *[b""] * 14])
    assert verify_trie_proof(root, b"\x11", proof) == b"v"
    assert verify_trie_proof(root, b"\x12", proof) is None
    refused(root, b"\x11", [*proof, encode(leaf)], "1 nodes after the end")


def test_the_ways_in_which_a_path_ends_without_a_value():
    root, proof = alone([b"\x00\x11", HASH])
    assert verify_trie_proof(root, b"\x22", proof) is None
    assert verify_trie_proof(root, b"", proof) is None
    root, proof = alone(BRANCH)
    assert verify_trie_proof(root, b"\x22", proof) is None
    assert verify_trie_proof(root, b"", proof) is None
    root, proof = alone([b"\x20\x11", b"v"])
    assert verify_trie_proof(root, b"\x12", proof) is None
    assert verify_trie_proof(root, b"\x11", proof) == b"v"


def test_index_keys_do_not_sort_as_indexes_do():
    expected = {0: "80", 1: "01", 127: "7f", 128: "8180", 255: "81ff", 256: "820100"}
    assert {index: receipt_key(index).hex() for index in expected} == expected
    assert decode(receipt_key(256)) == b"\x01\x00"
