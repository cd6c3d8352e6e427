"""Account, storage and receipt proofs against real answers and those of a chain that is made up, and what they refuse."""

import contextlib
from dataclasses import replace

import pytest

from layer2._crypto import keccak256
from layer2._rlp import decode, encode, encode_int
from layer2.addresses import EvmAddress
from layer2.errors import ProofError
from layer2.proofs import Account, BlockHeader, EvmReceiptProof, EvmStorageProof
from layer2.proofs._evm import EMPTY_CODE_HASH, encode_account, read_proof_answer, verify_account, verify_slot
from layer2.proofs._receipts import receipt_key
from layer2.proofs._trie import EMPTY_ROOT, Trie, verify_trie_proof


def test_every_real_get_proof_answer_proves_what_it_says(vectors, unhex):
    cases = vectors("eth_getproof.json")["cases"]
    assert len(cases) == 38
    absent_accounts = absent_slots = 0
    for case in cases:
        root, answer, expect = unhex(case["state_root"]), case["proof"], case["expect"]
        if "header" in case:
            header = BlockHeader.from_json_rpc({**case["header"], "hash": case["block"]["hash"]})
            assert header.state_root == root
        proven = read_proof_answer(answer, root, unhex(answer["address"]))
        assert (proven.account is None) == (expect["account"] == "absent"), case["id"]
        absent_accounts += proven.account is None
        assert len(answer["storageProof"]) == len(expect["slots"])
        for expected in expect["slots"]:
            slot = proven.slots[int(expected["key"], 16).to_bytes(32)]
            assert slot.value == int(expected["value"], 16), case["id"]
            assert (slot.value != 0) == expected["present"]
            absent_slots += proven.account is not None and not slot.value
    assert (absent_accounts, absent_slots) == (9, 15)


def test_an_absent_account_is_not_one_whose_fields_are_all_zero(vectors, unhex):
    cases = {case["id"]: case for case in vectors("eth_getproof.json")["cases"]}
    holesky = cases["holesky-0-deposit-contract"]
    proven = read_proof_answer(holesky["proof"], unhex(holesky["state_root"]), unhex(holesky["proof"]["address"]))
    assert proven.account is not None
    assert (proven.account.nonce, proven.account.balance_wei) == (0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("nonce", "0x7"), ("balance", "0x123456789"), ("storageHash", "0x" + "11" * 32), ("codeHash", "0x" + "11" * 32)],
)
def test_an_answer_that_adds_to_its_nodes_is_refused(vectors, unhex, field, value):
    for case in vectors("eth_getproof.json")["cases"]:
        answer = {**case["proof"], field: value}
        with pytest.raises(ProofError, match="not what its nodes prove"):
            read_proof_answer(answer, unhex(case["state_root"]), unhex(answer["address"]))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"address": "0x" + "00" * 20}, "another account"),
        ({"accountProof": None}, "accountProof is not a list"),
        ({"accountProof": ["0xzz"]}, "not hexadecimal data"),
        ({"accountProof": []}, "ends after 0 nodes"),
        ({"storageProof": {}}, "storageProof is not a list"),
        ({"storageProof": ["0x"]}, "something other than objects"),
        ({"storageProof": [{"key": "0x", "value": "0x0", "proof": []}]}, "key has 0 bytes"),
        ({"storageProof": [{"key": "0x" + "0" * 65, "value": "0x0", "proof": []}]}, "key is not hex"),
        ({"storageProof": [{"key": "0x1", "value": "0x0", "proof": None}]}, "proof is not a list"),
        ({"nonce": "0x01"}, "nonce is not a hexadecimal quantity"),
        ({"balance": None}, "balance is not a hexadecimal quantity"),
        ({"codeHash": "0x00"}, "codeHash has 1 bytes"),
    ],
)
def test_malformed_answers_are_refused(made, change, match):
    chain = made.Chain({bytes(32): 7}, ())
    answer = chain.proof_answer(bytes(32))
    assert read_proof_answer(answer, chain.state.root, made.CONTRACT.raw).slots[bytes(32)].value == 7
    with pytest.raises(ProofError, match=match):
        read_proof_answer({**answer, **change}, chain.state.root, made.CONTRACT.raw)


def test_another_value_than_the_proven_one_is_refused(made):
    chain = made.Chain({bytes(32): 7}, ())
    answer = chain.proof_answer(bytes(32))
    for value in ("0x0", "0x8"):
        entry = {**answer["storageProof"][0], "value": value}
        with pytest.raises(ProofError, match="another value than the answer says"):
            read_proof_answer({**answer, "storageProof": [entry]}, chain.state.root, made.CONTRACT.raw)


def test_an_account_that_is_not_there_may_be_described_in_two_ways_and_no_other(made):
    chain = made.Chain({}, ())
    absent = made.account(0xEE)
    answer = chain.proof_answer(bytes(32), address=absent)
    zeros = {"storageHash": "0x" + "00" * 32, "codeHash": "0x" + "00" * 32}
    for change in ({}, zeros):
        proven = read_proof_answer({**answer, **change}, chain.state.root, absent.raw)
        assert proven.account is None
        assert proven.slots == {bytes(32): (0, ())}
    for change in ({"nonce": "0x1"}, {"balance": "0x1"}, {"codeHash": "0x" + "00" * 32}):
        with pytest.raises(ProofError, match="not what its nodes prove"):
            read_proof_answer({**answer, **change}, chain.state.root, absent.raw)
    # Nor is an account that is there described as one that is not.
    with pytest.raises(ProofError, match="not what its nodes prove"):
        present = chain.proof_answer(bytes(32))
        read_proof_answer({**present, "nonce": "0x0", **zeros}, chain.state.root, made.CONTRACT.raw)


def test_a_receipt_is_proven_for_its_own_index_of_a_trusted_block(made):
    terms = made.make_terms()
    chain = made.claimed_chain(terms)
    proof = chain.receipt_proof()
    proven = proof.verify([chain.header.hash])
    assert proven.header == chain.header
    assert proven.receipt == chain.receipts[chain.index]
    with pytest.raises(ProofError, match="is not among the 1 trusted") as refused:
        proof.verify([chain.header.parent_hash])
    assert refused.value.check == "block"
    last = len(chain.receipts)
    with pytest.raises(ProofError, match=f"no transaction of index {last}") as refused:
        replace(proof, index=last, proof=chain.receipts_trie.prove(receipt_key(last))).verify([chain.header.hash])
    assert refused.value.check == "receipt"


def test_storage_keys_of_any_form_and_both_forms_of_an_empty_storage():
    address = b"\x01" * 20
    account = Account(0, 0, EMPTY_ROOT, EMPTY_CODE_HASH)
    trie = Trie({keccak256(address): encode_account(account)})
    entries = [
        {"key": key, "value": "0x0", "proof": proof}
        for key in ("0x5", "0x05", "0x" + "05".zfill(64))
        for proof in ([], ["0x80"])
    ]
    for entry in entries:
        answer = {
            "address": "0x" + address.hex(),
            "nonce": "0x0",
            "balance": "0x0",
            "storageHash": "0x" + EMPTY_ROOT.hex(),
            "codeHash": "0x" + EMPTY_CODE_HASH.hex(),
            "accountProof": ["0x" + node.hex() for node in trie.prove(keccak256(address))],
            "storageProof": [entry],
        }
        proven = read_proof_answer(answer, trie.root, address)
        assert proven.account == account
        assert proven.slots == {(5).to_bytes(32): (0, ())}


def test_two_level_goerli_proofs(vectors, unhex):
    cases = vectors("trie_proofs.json")["account_storage"]
    assert len(cases) == 6
    for case in cases:
        header = BlockHeader.decode(unhex(case["header_rlp"]))
        assert header.hash == unhex(case["block"]["hash"])

        def claim_holds(case=case, header=header):
            raw = verify_trie_proof(
                header.state_root, keccak256(unhex(case["address"])), [unhex(node) for node in case["account_proof"]]
            )
            if raw != unhex(case["claimed_account_rlp"]):
                return False
            account = verify_account(header.state_root, unhex(case["address"]), [*map(unhex, case["account_proof"])])
            value = verify_trie_proof(
                account.storage_root, unhex(case["storage_path"]), [unhex(node) for node in case["storage_proof"]]
            )
            return (value or b"") == unhex(case["claimed_storage_rlp"] or "")

        if case["expect"]["valid"]:
            assert claim_holds(), case["id"]
        else:
            with contextlib.suppress(ProofError):
                assert not claim_holds(), case["id"]


def test_l1_anchors_down_to_their_storage(vectors, unhex):
    """The account and storage parts of the output root anchors; the anchors themselves are not part of this core."""
    cases = vectors("op_anchor.json")["anchors"]
    assert len(cases) == 9

    def slot(state_root, case, contract, account_proof, slot_name, storage_proof):
        account = verify_account(state_root, unhex(case[contract]), [*map(unhex, case[account_proof])])
        return verify_slot(
            account.storage_root, unhex(case[slot_name]).rjust(32, b"\0"), [*map(unhex, case[storage_proof])]
        )

    for case in cases:
        l1_root = unhex(case["l1"]["state_root"])
        if "header_rlp" in case["l1"]:
            header = BlockHeader.decode(unhex(case["l1"]["header_rlp"]))
            assert (header.state_root, header.hash) == (l1_root, unhex(case["l1"]["block_hash"]))
        holds = True
        if "l1_slot" in case:
            value = slot(l1_root, case, "l1_contract", "l1_account_proof", "l1_slot", "l1_storage_proof")
            holds &= value == int(case["l1_value"], 16)
            output_root = unhex(case["l1_value"])
        else:
            game = slot(l1_root, case, "factory", "factory_account_proof", "game_id_slot", "game_id_storage_proof")
            assert game == int(case["game_id"], 16)
            claim = slot(l1_root, case, "game", "game_account_proof", "root_claim_slot", "root_claim_storage_proof")
            assert claim == int(case["root_claim"], 16)
            status = slot(l1_root, case, "game", "game_account_proof", "status_slot", "status_storage_proof")
            assert status == int(case["status_word"], 16)
            output_root = unhex(case["root_claim"])
        l2 = case["l2"]
        if "header_rlp" in l2:
            header = BlockHeader.decode(unhex(l2["header_rlp"]))
            preimage = bytes(32) + header.state_root + unhex(l2["message_passer_storage_root"]) + header.hash
            holds &= keccak256(preimage) == output_root
        if "l2_slot" in case:
            value = slot(unhex(l2["state_root"]), case, "l2_account", "l2_account_proof", "l2_slot", "l2_storage_proof")
            holds &= value == int(case["l2_value"], 16)
        assert holds == case["expect"]["valid"], case["id"]


def test_real_answers_as_proof_values(vectors, unhex):
    case = vectors("eth_getproof.json")["cases"][0]
    answer = case["proof"]
    header = BlockHeader.from_json_rpc({**case["header"], "hash": case["block"]["hash"]})
    proof = EvmStorageProof(
        chain_id=1,
        header=header.rlp,
        address=EvmAddress.parse(answer["address"]),
        slot=unhex(answer["storageProof"][0]["key"]),
        value=int(answer["storageProof"][0]["value"], 16),
        account_proof=tuple(map(unhex, answer["accountProof"])),
        storage_proof=tuple(map(unhex, answer["storageProof"][0]["proof"])),
    )
    assert proof.verify([header.hash]).value == proof.value
    assert EvmStorageProof.from_json(proof.to_json()) == proof
    with pytest.raises(ProofError, match="is not among the 1 trusted"):
        proof.verify([header.parent_hash])
    with pytest.raises(ProofError, match="another value than the proof claims"):
        replace(proof, value=proof.value + 1).evaluate()


def test_real_receipts_as_proof_values(vectors, unhex):
    for case in vectors("receipt_proofs.json")["cases"]:
        header = BlockHeader.from_json_rpc({**case["header"], "hash": case["block"]["hash"]})
        proof = EvmReceiptProof(
            chain_id=case["chain_id"],
            header=header.rlp,
            index=case["index"],
            proof=tuple(map(unhex, case["proof"])),
        )
        assert proof.block_hash == unhex(case["block"]["hash"])
        assert EvmReceiptProof.from_json(proof.to_json()) == proof
        if not case["expect"]["present"]:
            with pytest.raises(ProofError, match="no transaction of index"):
                proof.verify({header.hash})
            continue
        receipt = proof.verify({header.hash}).receipt
        assert receipt.encode() == unhex(case["expect"]["receipt_rlp"])
        assert receipt.succeeded == (case["expect"]["status_or_root"] == 1)
        with pytest.raises(ProofError):
            replace(proof, index=proof.index + 1).verify({header.hash})
        with pytest.raises(ProofError, match="trusted"):
            proof.verify([])


def test_slots_of_a_contract_that_is_not_there_are_zero(made):
    chain = made.Chain({}, ())
    address = made.account(0xEE)
    proof = replace(chain.storage_proof(bytes(32), 0, address=address), storage_proof=())
    proven = proof.verify([chain.header.hash])
    assert (proven.account, proven.value) == (None, 0)
    with pytest.raises(ProofError, match="storage trie that is empty"):
        replace(proof, storage_proof=(b"\x80",)).evaluate()
    with pytest.raises(ProofError, match="another value"):
        replace(proof, value=1).evaluate()


@pytest.mark.parametrize(
    "value",
    [
        b"\x00",  # zero never stands in a trie
        b"\x80",
        b"\x82\x00\x01",  # leading zero
        b"\xc0",  # a list
        b"\xa1" + b"\x01" * 33,  # more than 256 bits
        b"\x81\x01",  # not canonical
    ],
)
def test_a_slot_with_a_value_that_none_can_have_is_refused(value):
    slot = bytes(32)
    trie = Trie({keccak256(slot): value})
    with pytest.raises(ProofError) as refused:
        verify_slot(trie.root, slot, trie.prove(keccak256(slot)))
    assert refused.value.check == "storage"


@pytest.mark.parametrize(
    "value",
    [
        b"\x01",
        b"\xc0",
        b"\xc1",
        encode([b"", b"", bytes(32), []]),
        encode([b"", b"", bytes(31), bytes(32)]),
        encode([b"", b"", bytes(32), bytes(32), b""]),
        encode([b"\0", b"", bytes(32), bytes(32)]),
    ],
)
def test_an_account_that_is_none_is_refused(value):
    trie = Trie({keccak256(bytes(20)): value})
    with pytest.raises(ProofError) as refused:
        verify_account(trie.root, bytes(20), trie.prove(keccak256(bytes(20))))
    assert refused.value.check == "account"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": True}, "chain_id"),
        ({"chain_id": 2**64}, "chain_id"),
        ({"header": "f9"}, "header"),
        ({"address": b"\x01" * 20}, "address"),
        ({"slot": b""}, "slot"),
        ({"slot": 7}, "slot"),
        ({"value": -1}, "value"),
        ({"value": 2**256}, "value"),
        ({"value": "1"}, "value"),
        ({"account_proof": b"\x80"}, "account_proof"),
        ({"storage_proof": ("80",)}, "storage_proof"),
    ],
)
def test_a_storage_proof_of_the_wrong_types_cannot_be_made(made, change, field):
    proof = made.make_proof().storage
    with pytest.raises(ProofError) as refused:
        replace(proof, **change)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chain_id": None}, "chain_id"),
        ({"index": -1}, "index"),
        ({"index": 2**32}, "index"),
        ({"header": None}, "header"),
        ({"proof": [b""]}, "proof"),
        ({"version": 2}, "version"),
        ({"kind": "evm_storage"}, "kind"),
    ],
)
def test_a_receipt_proof_of_the_wrong_types_cannot_be_made(made, change, field):
    with pytest.raises(ProofError) as refused:
        replace(made.make_proof().receipt, **change)
    assert refused.value.field == field


def test_a_header_that_is_none_is_refused(made):
    proof = made.make_proof().storage
    items = decode(proof.header)
    bad = [
        b"",
        b"\xc0",
        b"\x80",
        encode(items[:14]),
        encode(items[:18]),
        encode([*items[:20], []]),
        encode([b"\x01" * 31, *items[1:]]),
        encode([*items[:8], b"\x00\x01", *items[9:]]),
        encode([*items[:8], b"\x01" * 33, *items[9:]]),
        proof.header + b"\x00",
        encode([*items[:12], bytes(20_000), *items[13:]]),
    ]
    for header in bad:
        with pytest.raises(ProofError) as refused:
            replace(proof, header=header).evaluate()
        assert refused.value.check == "header"


def test_fields_that_a_later_fork_appends_are_covered_by_the_hash_and_read_by_nobody(made):
    header = made.Chain({}, ()).header
    later = BlockHeader.decode(encode([*decode(header.rlp), bytes(32), encode_int(9)]))
    assert later.hash != header.hash
    assert later.fields == header.fields


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"number": "77"}, "number is not a hexadecimal quantity"),
        ({"number": "0x" + "f" * 65}, "number is not a hexadecimal quantity"),
        ({"stateRoot": "0x00"}, "stateRoot has 1 bytes"),
        ({"stateRoot": None}, "has transactionsRoot but not stateRoot"),
        ({"hash": None}, "hash is not hexadecimal data"),
        ({"hash": "0x" + "00" * 32}, "do not hash to its hash"),
        ({"requestsHash": None}, "do not hash to its hash"),
        ({"parentBeaconBlockRoot": None, "requestsHash": None}, "list of 15, 16"),
    ],
)
def test_a_block_answer_that_is_not_its_hash_is_refused(made, change, match):
    chain = made.Chain({}, ())
    block = chain.block_answer()
    assert BlockHeader.from_json_rpc(block) == chain.header
    with pytest.raises(ProofError, match=match):
        BlockHeader.from_json_rpc({**block, **change})
