"""The demonstration from end to end, and its proofs with the network gone."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from layer2 import ConfigurationError
from layer2.cli._exit import ExitCode
from layer2.cli._proof_files import read_proof, write_proof

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the demonstration wrote: its result, and the folder with the proofs."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "layer2", "demo", "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


@pytest.fixture
def proofs(demo, environment):
    """Copies of the proofs, to be damaged at will."""
    for file in (demo[1] / "layer2-demo").iterdir():
        (environment / file.name).write_bytes(file.read_bytes())
    return environment


def test_both_directions_and_a_third_party_are_settled_and_every_satoshi_is_accounted_for(demo):
    result, _ = demo
    assert [(t["source"], t["destination"], t["amount"]) for t in result["transfers"]] == [
        ("bob", "lightning", "100000"),
        ("lightning", "bob", "100000"),
        ("bob", "lightning", "25001"),
    ]
    assert all(t["verified"] for t in result["transfers"])
    fees = [int(t["fee"]) for t in result["transfers"]]
    change = int(result["after"]["bob_btc"]) - int(result["before"]["bob_btc"])
    assert change == -(100_000 + fees[0]) + 100_000 - (25_001 + fees[2])
    lightning = int(result["after"]["lightning_msat"]) - int(result["before"]["lightning_msat"])
    routing_msat = -lightning - fees[1] * 1000
    assert 0 < routing_msat < 10_000


class Believing:
    """A manager that takes every proof for good."""

    async def check_cross_layer_proof_async(self, proof):
        return self

    def raise_if_failed(self):
        pass


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_a_proof_is_for_its_owners_eyes_and_replaces_an_older_one(proofs):
    was = contents(proofs)
    proof = read_proof(proofs / "1-bob-to-lightning.json")
    for _ in range(2):
        before = os.umask(0)
        try:
            files = asyncio.run(write_proof(Believing(), proof, proofs / "new" / "proof.json", decimals=8))
        finally:
            os.umask(before)
        for file in (files.proof, files.trusted):
            assert file.stat().st_mode & 0o777 == 0o600
        assert sorted(contents(proofs / "new")) == ["proof.json", "proof.trusted.json"]
    assert read_proof(files.proof) == proof
    assert {name: text for name, text in contents(proofs).items() if name in was} == was


@pytest.mark.parametrize("name", ["proof.json", "proof.trusted.json"])
@pytest.mark.parametrize("there", ["link", "dangling", "folder", "pipe"])
def test_a_proof_is_written_over_nothing_but_a_file(proofs, name, there):
    """Somebody else may have put a link into a folder that both may write."""
    folder = proofs / "shared"
    folder.mkdir()
    precious = proofs / "precious"
    precious.write_text("precious")
    match there:
        case "link":
            (folder / name).symlink_to(precious)
        case "dangling":
            (folder / name).symlink_to(proofs / "made by the link")
        case "folder":
            (folder / name).mkdir()
        case "pipe":
            os.mkfifo(folder / name)
    with pytest.raises(ConfigurationError, match=re.escape(name)):
        proof = read_proof(proofs / "1-bob-to-lightning.json")
        asyncio.run(write_proof(Believing(), proof, folder / "proof.json", decimals=8))
    assert precious.read_text() == "precious"
    assert not (proofs / "made by the link").exists()
    assert not [file for file in folder.iterdir() if file.name.endswith(".tmp")]


def test_it_says_what_is_simulated(demo):
    result, _ = demo
    assert any("Lightning" in line for line in result["simulated"])
    assert any("EVM" in line for line in result["real"])


@pytest.mark.slow
def test_every_printed_command_verifies_with_the_network_off(demo, tmp_path):
    """Opening any socket would fail the program."""
    result, folder = demo
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def no_network(event, args):\n"
        "    if event.startswith('socket.') and event != 'socket.gethostname':\n"
        "        raise RuntimeError('network: ' + event)\n"
        "sys.addaudithook(no_network)\n"
    )
    for transfer in result["transfers"]:
        for command in (transfer["verify"], transfer["verify_with_own_anchors"]):
            done = subprocess.run(
                shlex.split(command),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "VERIFIED, every check that applies holds" in done.stdout


def test_a_verified_proof_lists_every_check_and_what_was_trusted(run, proofs):
    done = run("proof", "verify", "1-bob-to-lightning.json", "--json")
    assert done.code == 0
    assert done.json["verified"] is True
    assert done.json["anchors_from"] == "1-bob-to-lightning.trusted.json"
    assert {"lock_state", "preimage", "terms_signature"} <= {check["name"] for check in done.json["checks"]}
    assert done.json["trusted"]
    assert done.json["notes"]
    shown = run("proof", "verify", "1-bob-to-lightning.json").out
    assert "come from 1-bob-to-lightning.trusted.json" in shown
    assert "Whoever wrote that file" in shown


def test_without_a_trusted_block_nothing_is_verified(run, proofs):
    (proofs / "1-bob-to-lightning.trusted.json").unlink()
    done = run("proof", "verify", "1-bob-to-lightning.json", "--json")
    assert done.code == ExitCode.NOT_VERIFIED
    assert done.json["verified"] is False


def test_a_block_that_is_not_the_proofs_does_not_anchor_it(run, proofs):
    done = run("proof", "verify", "1-bob-to-lightning.json", "--trust-block", "0x" + "11" * 32, "--json")
    assert done.code == ExitCode.NOT_VERIFIED


def test_named_anchors_stand_alone(run, proofs, demo):
    """With a block of the caller's own, the file beside the proof is not believed, not even for the token."""
    trusted = json.loads((proofs / "1-bob-to-lightning.trusted.json").read_text())
    block, token = trusted["blocks"][0]["hash"], trusted["tokens"][0]["contract"]
    base = ("proof", "verify", "1-bob-to-lightning.json", "--trust-block", block, "--json")
    alone = run(*base)
    assert alone.code == ExitCode.NOT_VERIFIED
    assert next(c["name"] for c in alone.json["checks"] if c["result"] == "failed") == "token"
    assert run(*base, "--token", token).code == 0
    assert run(*base, "--token", f"{token}:8", "--min-depth", "finalized").code == ExitCode.NOT_VERIFIED
    deep = ("proof", "verify", "1-bob-to-lightning.json", "--trust-block", f"{block}:finalized", "--token", token)
    assert run(*deep, "--min-depth", "safe").code == 0


def test_another_contract_than_named_does_not_verify(run, proofs):
    other = "0x" + "11" * 20
    assert run("proof", "verify", "1-bob-to-lightning.json", "--contract", other).code == ExitCode.NOT_VERIFIED


@pytest.mark.parametrize("damage", ["cut", "bit", "version", "nesting", "binary", "empty"])
def test_a_damaged_proof_does_not_verify(run, proofs, damage):
    file = proofs / "2-lightning-to-bob.json"
    text = file.read_text()
    match damage:
        case "cut":
            file.write_text(text[: len(text) // 2])
        case "bit":
            place = text.index('"preimage":"') + 20
            file.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])
        case "version":
            file.write_text(text.replace('"version":1', '"version":2'))
        case "nesting":
            file.write_text("[" * 1_000_000)
        case "binary":
            file.write_bytes(b"\xff\xfe" * 100)
        case "empty":
            file.write_text("")
    assert run("proof", "verify", file.name, "--json").code == ExitCode.NOT_VERIFIED


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "layer2.trusted_blocks", "version": 2}', '{"blocks": [1]}', "[" * 100_000]
)
def test_a_broken_file_of_trusted_blocks_is_refused(run, proofs, text):
    (proofs / "1-bob-to-lightning.trusted.json").write_text(text)
    done = run("proof", "verify", "1-bob-to-lightning.json")
    assert done.code == ExitCode.USAGE
    assert "--trust-block" in done.err


@pytest.mark.parametrize("command", ["verify", "show"])
def test_a_missing_proof_is_a_mistake_of_usage(run, command):
    done = run("proof", command, "nothing.json")
    assert done.code == ExitCode.USAGE
    assert "cannot read nothing.json" in done.err


def test_a_missing_file_of_trusted_blocks_is_a_mistake_of_usage(run, proofs):
    done = run("proof", "verify", "1-bob-to-lightning.json", "--trusted-blocks", "nothing.json")
    assert done.code == ExitCode.USAGE
    assert "cannot read nothing.json" in done.err


@pytest.mark.parametrize("text", ["11", "zz" * 32, "0x" + "11" * 32 + ":deep"])
def test_a_malformed_block_is_a_mistake_of_usage(run, proofs, text):
    assert run("proof", "verify", "1-bob-to-lightning.json", "--trust-block", text).code == ExitCode.USAGE


def test_a_proof_is_shown_without_its_secrets_and_without_belief(run, proofs):
    done = run("proof", "show", "3-invoice-of-a-third-party.json", "--json")
    assert done.json["invoice_amount_msat"] == "25000500"
    preimage = json.loads((proofs / "3-invoice-of-a-third-party.json").read_text())["preimage"]
    people = run("proof", "show", "3-invoice-of-a-third-party.json").out
    assert preimage not in done.out + people
    assert "Nothing was checked" in people


def test_an_invoice_is_decoded_offline(run, proofs):
    invoice = json.loads((proofs / "3-invoice-of-a-third-party.json").read_text())["signed_terms"]["terms"]["invoice"]
    done = run("invoice", "decode", invoice, "--json")
    assert done.code == 0
    assert (done.json["amount_msat"], done.json["network"], done.json["expired"]) == ("25000500", "regtest", False)
    assert "25,000.500 sat" in run("invoice", "decode", invoice.upper()).out
