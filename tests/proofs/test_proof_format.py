"""The JSON of proofs: one spelling, one version, and nothing but ProofError for everything else."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import layer2.proofs
from layer2.errors import ProofError
from layer2.proofs import Fee, LightningPaymentProof, TransferProof, parse_proof, transfer_proof_schema
from layer2.proofs._format import MAX_PROOF_JSON_BYTES, checksum_of
from layer2.transactions import Depth


def refuse(text, cls=TransferProof):
    with pytest.raises(ProofError) as refused:
        cls.from_json(text)
    return refused.value


@pytest.fixture(scope="module")
def proof(made):
    return made.make_proof()


def test_every_kind_comes_back_from_its_json(proof):
    for value in (proof, proof.storage, proof.receipt, proof.lightning):
        assert parse_proof(value.to_json()) == value
        assert parse_proof(value.to_json().encode()) == value
        pretty = json.dumps(dict(reversed(json.loads(value.to_json()).items())), indent=2)
        assert parse_proof(pretty) == value
        assert value.to_json() == type(value).from_json(pretty).to_json()


def test_a_text_that_is_too_long_is_not_looked_at(proof):
    text = proof.lightning.to_json()
    assert LightningPaymentProof.from_json(text.ljust(MAX_PROOF_JSON_BYTES)) == proof.lightning
    assert "is more than" in refuse(text.ljust(MAX_PROOF_JSON_BYTES + 1), LightningPaymentProof).message


def test_unknown_kinds_and_versions_say_so(proof):
    for value in (proof, proof.storage, proof.receipt, proof.lightning):
        given = json.loads(value.to_json())
        for version in (0, 2, 99, "1", True, 1.0, None):
            error = refuse(json.dumps(given | {"version": version}), type(value))
            assert error.check == error.field == "version"
            assert repr(version) in str(error)
            assert "later release" in str(error)
        del given["version"]
        assert refuse(json.dumps(given), type(value)).check == "version"
        for kind in ("other", 7, None, ["transfer"]):
            text = json.dumps(json.loads(value.to_json()) | {"kind": kind})
            assert refuse(text, type(value)).check == "kind"
            with pytest.raises(ProofError, match="not known here") as refused:
                parse_proof(text)
            assert refused.value.check == "kind"
    assert refuse(proof.to_json(), LightningPaymentProof).check == "kind"


def test_a_nested_proof_of_another_version_is_refused(proof):
    given = json.loads(proof.to_json())
    given["storage"]["version"] = 2
    given["checksum"] = checksum_of(given).hex()
    assert refuse(json.dumps(given)).field == "storage.version"


def test_truncated_json_is_refused_at_every_length(proof):
    text = proof.lightning.to_json()
    for length in range(len(text)):
        refuse(text[:length], LightningPaymentProof)
    text = proof.to_json()
    for length in range(0, len(text), 97):
        refuse(text[:length])


def test_one_bit_changed_anywhere_is_refused(proof):
    text = proof.to_json().encode()
    chance = random.Random(5)
    sample = set(range(200)) | set(range(len(text) - 200, len(text))) | set(chance.sample(range(len(text)), 500))
    for at in sample:
        changed = bytearray(text)
        changed[at] ^= 1 << chance.randrange(8)
        refuse(bytes(changed))


def test_one_bit_changed_and_the_checksum_made_again_does_not_verify(made, proof):
    """A forger can make the checksum; the rest must notice, except in what is only said: fees and depth."""
    chance = random.Random(6)
    plain = json.loads(proof.to_json())
    blocks = {proof.storage.block_hash: Depth.SAFE}
    parts = [json.dumps(plain[name]) for name in ("signed_terms", "preimage", "storage", "receipt")]
    for _ in range(300):
        index = chance.randrange(4)
        raw = bytearray(parts[index].encode())
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        name = ("signed_terms", "preimage", "storage", "receipt")[index]
        try:
            given = plain | {name: json.loads(raw)}
            given["checksum"] = checksum_of(given).hex()
            report = made.verify(json.dumps(given), trusted_blocks=blocks)
        except (ProofError, ValueError):
            continue
        assert report.failed, raw


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000_000,
        '{"a":' * 2_000_000,
        "[" * 5_000_000,
        '{"kind":"transfer","version":1,"signed_terms":' + "[" * 100_000,
        '{"kind":"transfer","version":1,"signed_terms":' + "[" * 300 + "]" * 300 + "}",
        '{"kind":"transfer","version":1,"signed_terms":' + "[" * 150 + "]" * 150 + "}",
        " " * (MAX_PROOF_JSON_BYTES + 1),
    ],
    ids=["10MB of lists", "10MB of objects", "5MB", "100kB", "closed, deep", "closed, less deep", "too long"],
)
def test_nesting_and_size_are_bounded(text):
    assert refuse(text).check in ("format", "checksum")
    with pytest.raises(ProofError):
        parse_proof(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "7", '"text"', "{", "{}", "NaN", '{"kind":NaN}', "\ud800", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}",
        '{"version":' + "1" * 5000 + "}", '{"version":1e999}', "{'kind':1}", '{"kind":"\\ud800"}', None, 7, {}, bytearray(b"{}"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(text):
    refuse(text)
    with pytest.raises(ProofError):
        parse_proof(text)


def test_a_key_that_stands_twice_is_refused(proof):
    text = proof.lightning.to_json()
    assert "twice" in refuse(text[:-1] + ',"version":1}', LightningPaymentProof).message


def test_another_spelling_of_the_same_value_is_refused(proof):
    storage, lightning = json.loads(proof.storage.to_json()), json.loads(proof.lightning.to_json())
    cls = type(proof.storage)
    for changed in (
        storage | {"chain_id": "60808"},
        storage | {"chain_id": 60808.0},
        storage | {"header": storage["header"].upper()},
        storage | {"header": "0x" + storage["header"]},
        storage | {"address": storage["address"].lower()},
        storage | {"value": int(storage["value"])},
        storage | {"value": "0" + storage["value"]},
        storage | {"slot": storage["slot"] + "\n"},
        storage | {"more": 1},
        {key: value for key, value in storage.items() if key != "storage_proof"},
    ):
        refuse(json.dumps(changed), cls)
    assert cls.from_json(json.dumps(storage)) == proof.storage
    refuse(json.dumps(lightning | {"invoice": None}), LightningPaymentProof)
    without_default = json.loads(proof.to_json())
    del without_default["receipt"]
    without_default["checksum"] = checksum_of(without_default).hex()
    refuse(json.dumps(without_default))
    assert "spelled otherwise" in refuse(json.dumps(storage | {"chain_id": "60808"}), cls).message


def test_every_field_of_the_wrong_type_is_refused(proof):
    given = json.loads(proof.to_json())

    def wrong_in(value):
        """Every place in ``value``, one at a time, replaced by something of another type."""
        for junk in (None, True, [], {}, "zz", 1.5, -1, 2**300):
            if junk is not value and type(junk) is not type(value):
                yield junk
        if isinstance(value, dict):
            for key, part in value.items():
                for changed in wrong_in(part):
                    yield value | {key: changed}
        elif isinstance(value, list) and value:
            for changed in wrong_in(value[0]):
                yield [changed, *value[1:]]

    count = 0
    for name in set(given) - {"checksum"}:
        for value in wrong_in(given[name]):
            if name in ("storage", "receipt") and value is None:
                continue
            changed = given | {name: value}
            changed["checksum"] = checksum_of(changed).hex()
            refuse(json.dumps(changed))
            count += 1
    assert count > 300
    for junk in (None, 7, "zz", "00" * 32):
        assert refuse(json.dumps(given | {"checksum": junk})).check == "checksum"


def test_a_proof_of_wrong_types_cannot_be_made_in_python(made):
    for change in (
        {"signed_terms": None},
        {"signed_terms": replace(made.sign(made.make_terms()), signature=7)},
        {"preimage": "00" * 32},
        {"preimage": b"short"},
        {"storage": "storage"},
        {"fees": [1]},
        {"fees": "fees"},
        {"depth": "deep"},
        {"version": 2},
        {"kind": "other"},
        {"checksum": None},
        {"checksum": b"\x00" * 32},
    ):
        with pytest.raises(ProofError):
            made.make_proof(**change)
            pytest.fail(str(change))
    with pytest.raises(ProofError, match="checksum"):
        replace(made.make_proof(), fees=(Fee(name="gas", coin="ETH", amount=1),))


def test_an_error_does_not_show_the_preimage(made, proof):
    given = json.loads(proof.to_json())
    given["preimage"] += "00"
    given["checksum"] = checksum_of(given).hex()
    error = refuse(json.dumps(given))
    assert error.__cause__ is None
    assert made.PREIMAGE.hex() not in str(error)


def test_the_published_schema_is_the_one_of_the_code(proof):
    published = Path(layer2.proofs.__file__).with_name("transfer_proof.v1.schema.json")
    schema = transfer_proof_schema()
    assert json.loads(published.read_text()) == schema, (
        "the format of released proofs must stay readable: a change of it is another version, with a reader for this one"
    )
    assert set(schema["properties"]) == set(json.loads(proof.to_json()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_package_lists_what_it_has():
    assert set(layer2.proofs.__all__) <= set(dir(layer2.proofs))
    for name in layer2.proofs.__all__:
        assert getattr(layer2.proofs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = layer2.proofs.nothing


def test_the_verifier_loads_no_network_and_no_store():
    program = (
        "import sys\n"
        "from layer2.proofs import TransferExpectations, TransferProof, parse_proof, verify_transfer_proof\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} | set(sys.modules)\n"
        "found = loaded & {'aiohttp', 'asyncio', 'http', 'socket', 'sqlalchemy', 'ssl', 'urllib.request', 'yarl',\n"
        "                  'layer2.proofs._collect', 'layer2.storage', 'layer2.evm._rpc'}\n"
        "sys.exit(f'loaded: {sorted(found)}' if found else 0)\n"
    )
    paths = [str(Path(layer2.proofs.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
