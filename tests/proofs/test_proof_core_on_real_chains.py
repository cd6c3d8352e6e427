"""The proof core against real blocks, receipts, headers and proofs, and the traps found in them."""

from itertools import pairwise

import pytest

from layer2._crypto import keccak256
from layer2._rlp import RlpError, decode, encode
from layer2.errors import ProofError
from layer2.proofs._headers import BlockHeader
from layer2.proofs._receipts import Receipt, logs_bloom, receipt_key, receipts_trie_entries
from layer2.proofs._trie import EMPTY_ROOT, Trie, verify_trie_proof

BLOCKS = [
    *(f"eth_{n}" for n in (1000000, 4369999, 8982502, 14764013, 15537393, 17034870, 18000000, 18663292, 19426587)),
    *("eth_21925176", "eth_22431084", "eth_22869878", "base_goerli_9650", "hive_devnet_1", "hive_devnet_54"),
    *("op_154497277", "unichain_sepolia_35535698"),
]


def as_item(value, unhex):
    return [as_item(part, unhex) for part in value] if isinstance(value, list) else unhex(value)


def test_rlp_round_trips_every_canonical_value(vectors, unhex):
    cases = vectors("rlp_tests.json")["valid"]
    assert len(cases) == 29
    for case in cases:
        raw = unhex(case["rlp"])
        assert encode(as_item(case["value"], unhex)) == raw, case["id"]
        assert decode(raw) == as_item(case["value"], unhex), case["id"]


def test_rlp_refuses_every_invalid_encoding(vectors, unhex):
    cases = vectors("rlp_tests.json")["invalid"]
    assert len(cases) == 26
    for case in cases:
        with pytest.raises(RlpError):
            decode(unhex(case["rlp"]))
            pytest.fail(case["id"])


def test_tries_have_the_published_roots_and_prove_every_key(vectors, unhex):
    cases = vectors("trie_tests.json")["cases"]
    assert len(cases) == 25
    for case in cases:
        hashed = keccak256 if case["secure"] else bytes
        final: dict[bytes, bytes] = {}
        for key, value in case["in"]:
            final.pop(unhex(key), None)
            if value is not None:
                final[unhex(key)] = unhex(value)
        trie = Trie({hashed(key): value for key, value in final.items()})
        assert trie.root == unhex(case["root"]), case["id"]
        for key, value in [*final.items(), (b"not there", None), (b"", None)]:
            assert verify_trie_proof(trie.root, hashed(key), trie.prove(hashed(key))) == value


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_rebuilds_from_its_parts(vectors, unhex, name):
    block = vectors(f"block_{name}.json")
    header = BlockHeader.from_json_rpc({**block["header"], "hash": block["hash"]})
    assert header.rlp == unhex(block["header_rlp"])
    assert header == BlockHeader.decode(header.rlp)
    assert header.hash == unhex(block["hash"])
    if "receipts" in block:
        receipts = [Receipt.from_json_rpc(answer) for answer in block["receipts"]]
    else:
        receipts = [Receipt.decode(unhex(raw)) for raw in block["receipts_rlp"]]
    trie = Trie(receipts_trie_entries(receipts))
    assert trie.root == header.receipts_root
    blooms = 0
    for index, receipt in enumerate(receipts):
        proof = trie.prove(receipt_key(index))
        assert verify_trie_proof(header.receipts_root, receipt_key(index), proof) == receipt.encode()
        assert Receipt.decode(receipt.encode()) == receipt
        assert logs_bloom(receipt.logs) == receipt.bloom
        blooms |= int.from_bytes(receipt.bloom)
    assert blooms.to_bytes(256) == header.fields["logsBloom"]
    assert receipts[-1].cumulative_gas_used == header.fields["gasUsed"]
    absent = receipt_key(len(receipts))
    assert verify_trie_proof(header.receipts_root, absent, trie.prove(absent)) is None
    if "receipts_rlp" in block:
        assert [receipt.encode() for receipt in receipts] == [unhex(raw) for raw in block["receipts_rlp"]]
    if transactions := block.get("transactions_rlp"):
        entries = {encode(index): unhex(raw) for index, raw in enumerate(transactions)}
        assert Trie(entries).root == header.fields["transactionsRoot"]


def test_receipts_without_header_rebuild_their_root(vectors, unhex):
    cases = vectors("receipts_roots.json")["cases"]
    assert len(cases) == 2
    for case in cases:
        receipts = [Receipt.from_json_rpc(answer) for answer in case["receipts"]]
        assert Trie(receipts_trie_entries(receipts)).root == unhex(case["receipts_root"])


def test_a_regolith_deposit_keeps_its_nonce_out_of_the_trie(vectors):
    regolith = vectors("receipts_roots.json")["cases"][1]["receipts"]
    deposits = [Receipt.from_json_rpc(answer) for answer in regolith if answer["type"] == "0x7e"]
    assert deposits
    assert all(answer.get("depositNonce") for answer in regolith if answer["type"] == "0x7e")
    assert all(deposit.deposit_nonce is None for deposit in deposits)


def test_headers_of_all_forks_hash_to_their_hash(vectors, unhex):
    cases = vectors("headers.json")["headers"]
    assert len(cases) == 36
    by_number = {}
    for case in cases:
        header = BlockHeader.from_json_rpc({**case["header"], "hash": case["hash"]})
        assert header.rlp == unhex(case["header_rlp"]), case["id"]
        assert header.hash == unhex(case["hash"])
        assert len(header.fields) == case["fields"]
        assert BlockHeader.decode(header.rlp) == header
        by_number[case["chain"], header.number] = header
    runs = [(a, b) for a, b in pairwise(sorted(by_number)) if a[0] == b[0] and a[1] + 1 == b[1]]
    assert len(runs) >= 5
    for parent, child in runs:
        assert by_number[child].parent_hash == by_number[parent].hash
        assert by_number[child].timestamp >= by_number[parent].timestamp


def test_a_header_with_a_replaced_root_has_another_hash(vectors, unhex):
    cases = vectors("headers.json")["invalid"]
    assert len(cases) == 6
    for case in cases:
        if "header_rlp" in case:
            header = BlockHeader.decode(unhex(case["header_rlp"]))
            assert header.hash == unhex(case["computed_hash"]) != unhex(case["claimed_hash"])
            continue
        with pytest.raises(ProofError, match="do not hash"):
            BlockHeader.from_json_rpc({**case["header"], "hash": case["claimed_hash"]})
        header = BlockHeader.from_json_rpc({**case["header"], "hash": case["computed_hash"]})
        assert header.hash != unhex(case["claimed_hash"])


def test_receipt_proofs(vectors, unhex):
    cases = vectors("receipt_proofs.json")["cases"]
    assert len(cases) == 30
    for case in cases:
        header = BlockHeader.from_json_rpc({**case["header"], "hash": case["block"]["hash"]})
        key = receipt_key(case["index"])
        assert key == unhex(case["key"])
        raw = verify_trie_proof(header.receipts_root, key, [unhex(node) for node in case["proof"]])
        if not case["expect"]["present"]:
            assert raw is None
            continue
        assert raw == unhex(case["expect"]["receipt_rlp"])
        receipt = Receipt.decode(raw)
        assert receipt.encode() == raw
        assert hex(receipt.type) == case["expect"]["type"]
        assert len(receipt.logs) == case["expect"]["logs"]
        assert receipt.status == case["expect"]["status_or_root"] or receipt.post_state is not None


def test_trie_level_proofs(vectors, unhex):
    cases = vectors("trie_proofs.json")["trie"]
    assert len(cases) == 7
    for case in cases:
        root, key, proof = unhex(case["root"]), unhex(case["key"]), [unhex(node) for node in case["proof"]]
        if case["expect"]["valid"] == "policy":
            with pytest.raises(ProofError, match="1 nodes after the end"):
                verify_trie_proof(root, key, proof)
            continue
        value = case["expect"]["value"]
        assert verify_trie_proof(root, key, proof) == (None if value is None else unhex(value)), case["id"]


def test_an_empty_proof_proves_absence_under_the_empty_root_only():
    assert verify_trie_proof(EMPTY_ROOT, b"key", []) is None
    assert verify_trie_proof(EMPTY_ROOT, b"key", [b"\x80"]) is None
    with pytest.raises(ProofError, match="ends after 0 nodes"):
        verify_trie_proof(keccak256(b"another"), b"key", [])
