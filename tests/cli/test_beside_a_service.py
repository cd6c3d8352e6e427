"""Commands beside a process that has the store: readers work, a second writer is told who has it. And how long runs end."""

import asyncio
import json
import re
import signal
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from swap_worlds import make_deal

from layer2 import NodeConnectionError, StoreInUse, SystemClock
from layer2.bob import BobClient
from layer2.cli._exit import ExitCode
from layer2.storage import Store, SwapJournal
from layer2.swaps import Locked, Role
from layer2.terms import SwapDirection

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(environment):
    file = environment / "layer2.toml"
    file.write_text('network = "embedded"\n[store]\nurl = "sqlite:///journal.sqlite3"\n')
    return file


@pytest.fixture
def service(start, settings):
    """``layer2 run`` in a process of its own, ready."""
    process = start("run", "--json")
    first = process.stdout.readline()
    assert first, process.stderr.read()
    assert json.loads(first) == {"event": "ready", "unfinished": 0}
    return process


def test_readers_work_beside_a_running_service_and_a_second_writer_is_refused(service, run):
    assert run("transfers", "list", "--json").json == []
    assert run("status", "--json").json["unfinished"] == []
    assert run("transfers", "show", "00" * 16).code == ExitCode.NOT_FOUND
    refused = run("transfers", "resume", "--json")
    assert refused.code == ExitCode.STORE_IN_USE
    error = refused.json["error"]
    assert str(service.pid) in error["message"]
    assert "read-only" in error["hint"]
    # A second store with the same account would have two senders take each other's nonces, and pay a key's order again.
    assert "a store and an account of its own" in error["hint"]
    assert "within one store only" in error["hint"]
    assert run("transfer", "bob", "lightning", "20000", "--yes").code == ExitCode.STORE_IN_USE


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_a_signal_ends_a_service_in_order(service, run, number, code):
    service.send_signal(number)
    _, err = service.communicate(timeout=30)
    assert service.returncode == code
    assert "Traceback" not in err
    assert run("transfers", "resume", "--json").json == []


async def store_a_lock(url):
    deal = make_deal(Role.CLIENT, SwapDirection.SUBMARINE)
    async with await Store.open(url, clock=SystemClock()) as store:
        journal = SwapJournal(store, Role.CLIENT)
        await journal.insert(deal, Locked(), idempotency_key=None, request_digest=None, bind_hash=False)
    return deal.id


@pytest.mark.parametrize("command", [("run",), ("transfers", "resume")])
@pytest.mark.parametrize(
    ("bob", "code"),
    [
        ('[bob]\nchain = "devnet"\nrpc_url = "http://127.0.0.1:1"\n', ExitCode.CONNECTION),
        ("", ExitCode.CONFIGURATION),
    ],
)
def test_what_cannot_be_driven_is_named_and_when_it_must_be(run, environment, command, bob, code):
    """An endpoint that is down, and settings without one: either way a lock of ours goes on towards its timelock."""
    (environment / "layer2.toml").write_text(
        f'network = "devnet"\n{bob}[assets.BTC]\ncontract = "0x{"44" * 20}"\ncontract_decimals = 8\n'
        '[store]\nurl = "sqlite:///journal.sqlite3"\n'
    )
    transfer_id = asyncio.run(store_a_lock(f"sqlite:///{environment / 'journal.sqlite3'}"))
    done = run(*command)
    assert done.code == code
    assert f"layer2 transfers resume {transfer_id} --until-done" in done.err


def test_a_transfer_is_quoted_made_kept_and_shown(run, settings, environment):
    quoted = run("transfer", "bob", "lightning", "20000", "--quote", "--json")
    assert quoted.code == 0
    assert quoted.json["amount"] == "20000"
    assert quoted.json["token"].startswith("0x")
    for way, arguments, routing in (
        (("bob", "lightning"), (), "the provider pays it"),
        (("lightning", "bob"), (), "at most"),
        (("lightning", "bob"), ("--anyone",), "whoever pays the invoice"),
    ):
        shown = run("transfer", *way, "20000", "--quote", *arguments).out
        assert "HTLC contract" in shown
        assert routing in next(line for line in shown.splitlines() if "fee: routing" in line)

    unasked = run("transfer", "bob", "lightning", "20000", "--json")
    assert unasked.code == ExitCode.USAGE
    assert "--yes" in unasked.err
    assert run("transfers", "list", "--json").json == []

    done = run("transfer", "bob", "lightning", "20000", "--yes", "--json", "--proof", "proof.json")
    assert done.code == 0
    begun, *steps, end = done.lines
    assert "begun" in begun
    assert [line["event"]["state"] for line in steps][-1] == "settled"
    transfer_id = end["transfer"]["id"]
    assert end["proof_file"] == "proof.json"
    assert run("proof", "verify", "proof.json").code == 0

    listed = run("transfers", "list", "--json").json
    assert [(t["id"], t["state"], t["amount"]) for t in listed] == [(transfer_id, "settled", "20000")]
    assert run("transfers", "list", "--state", "refunded", "--json").json == []
    shown = run("transfers", "show", transfer_id, "--json").json
    assert shown["final"] is True
    assert [event["state"] for event in shown["events"]][-1] == "settled"
    assert transfer_id in run("transfers", "list").out
    shown = run("transfers", "show", transfer_id).out
    assert "settled" in shown
    assert "settled: settled" not in shown


@pytest.mark.parametrize("keyed", [(), ("--key", "order-1")])
def test_a_wait_that_ends_on_a_network_that_ends_with_it_promises_nothing(run, settings, keyed):
    ended = run("transfer", "bob", "lightning", "20000", "--yes", "--timeout", "0", "--json", *keyed)
    error = ended.lines[-1]["error"]
    assert (ended.code, error["type"]) == (ExitCode.UNFINISHED, "AsyncTimeout")
    assert (error["money_may_have_moved"], error["retry_safe"]) == (True, False)
    assert "the same command again begins another transfer" in error["hint"]
    for said in (error["hint"], ended.err):
        assert "the embedded network ends with this command" in said
        assert "resume" not in said


@pytest.mark.parametrize("key", [None, "order-1"])
def test_a_payment_whose_outcome_cannot_be_asked_for_is_safe_to_repeat_with_a_key_only(run, settings, monkeypatch, key):
    async def unreachable(*_, **__):
        raise NodeConnectionError("the endpoint is gone")

    monkeypatch.setattr(BobClient, "wait_for_transaction_async", unreachable)
    keyed = () if key is None else ("--key", key)
    error = run("pay", "0x" + "11" * 20, "--amount", "1500", "--yes", "--json", *keyed).json["error"]
    assert (error["type"], error["money_may_have_moved"]) == ("NodeConnectionError", True)
    assert error["retry_safe"] is (key is not None)
    assert ("pays a second time" in (error["hint"] or "")) is (key is None)


def test_a_price_above_the_bound_is_refused_before_anything_is_sent(run, settings):
    done = run("transfer", "bob", "lightning", "20000", "--yes", "--max-fee", "1", "--json")
    assert done.code == ExitCode.REFUSED
    error = done.lines[-1]["error"]
    assert error["type"] == "FeeLimitExceeded"
    assert error["money_may_have_moved"] is False
    assert run("transfers", "list", "--json").json == []


def test_balances_invoices_payments_and_the_contract(run, settings):
    held = run("balance", "--json").json
    assert held["bob"]["btc"] == "100000000000"
    assert int(held["lightning"]["spendable_msat"]) > 0
    assert held["bob"]["token"] in run("balance").out

    made = run("invoice", "create", "250", "--memo", "tea \x1b[31m", "--json")
    assert made.code == 0
    decoded = run("invoice", "decode", made.json["invoice"])
    assert "250 sat" in decoded.out
    assert "\x1b" not in decoded.out

    unasked = run("pay", made.json["invoice"])
    assert unasked.code == ExitCode.USAGE
    assert run("pay", made.json["invoice"], "--amount", "251", "--yes").code == ExitCode.USAGE
    account = "0x" + "11" * 20
    assert run("pay", account, "--amount", str(10**14), "--yes").code == ExitCode.REFUSED

    assert run("contract", "check", "--json").json["chain_id"] == 60808
    assert run("contract", "check", account).code == ExitCode.NOT_FOUND
    assert run("contract", "deploy", "--json").json["transaction"] is None
    paid = run("pay", account, "--amount", "1500", "--yes", "--json")
    assert (paid.code, paid.json["outcome"]) == (0, "succeeded")
    # The store is now one of a chain that ended with its process.
    again = run("pay", account, "--amount", "1500", "--yes", "--json")
    assert again.code == ExitCode.CONFIGURATION
    assert "another chain" in again.json["error"]["message"]


def test_the_doctor_finds_a_healthy_network(run, settings):
    done = run("doctor", "--json")
    assert done.code == 0
    assert {"settings", "store", "bob", "HTLC contract", "account", "lightning"} <= {
        c["name"] for c in done.json["checks"]
    }
    assert done.json["ok"] is True


def test_the_doctor_names_each_fault_and_what_to_do(run, environment):
    (environment / "layer2.toml").write_text(
        'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "http://127.0.0.1:1"\n'
        '[lightning]\nrest_url = "https://127.0.0.1:1"\nmacaroon = "00ff"\n[store]\nurl = "sqlite:///broken.sqlite3"\n'
    )
    (environment / "layer2.toml").chmod(0o600)
    (environment / "broken.sqlite3").write_text("this is no database" * 100)
    done = run("doctor", "--json")
    assert done.code != 0
    faults = {check["name"]: check for check in done.json["checks"] if not check["ok"]}
    assert set(faults) == {"bob", "lightning", "store"}
    assert run("balance").code == ExitCode.CONNECTION


def test_after_init_the_doctor_leads_on_to_an_account(run, environment):
    begun = run("init", "--rpc-url", "http://127.0.0.1:9")
    assert "layer2 keystore new" in begun.out
    assert "layer2 doctor" in begun.out
    done = run("doctor", "--json")
    assert done.code == ExitCode.CONFIGURATION
    checks = {check["name"]: check for check in done.json["checks"]}
    assert {name: check["state"] for name, check in checks.items()} == {
        "settings": "ok",
        "store": "ok",
        "bob": "fault",
        "account": "fault",
        "lightning": "not set",
        "provider": "not set",
    }
    assert all(check["hint"] for check in checks.values() if check["state"] != "ok")
    assert all(check["ok"] == (check["state"] != "fault") for check in checks.values())
    assert "layer2 keystore new" in checks["account"]["hint"]
    assert done.json["next"] == checks["bob"]["hint"]
    shown = run("doctor")
    assert shown.code == ExitCode.CONFIGURATION
    assert f"next: {done.json['next']}" in shown.out
    assert "layer2 doctor" in run("status").out


@pytest.mark.parametrize(
    ("signer", "needle"),
    [
        ('keystore = "none.json"\npassword = "x"', "layer2 keystore new"),
        ('keystore = "none.json"\npassword = { env = "NONE_OF_OURS" }', "set it"),
    ],
)
def test_the_doctor_says_what_to_do_about_the_signer(run, environment, signer, needle):
    file = environment / "layer2.toml"
    file.write_text(f'network = "devnet"\n[bob]\nrpc_url = "http://127.0.0.1:9"\nchain = "devnet"\n[signer]\n{signer}')
    file.chmod(0o600)
    done = run("doctor", "--json")
    assert done.code == ExitCode.CONFIGURATION
    assert needle in done.json["next"]


def test_settings_without_any_layer_are_a_fault(run, environment):
    (environment / "layer2.toml").write_text('network = "devnet"\n')
    done = run("doctor", "--json")
    assert done.code == ExitCode.CONFIGURATION
    assert "[bob]" in done.json["next"]


def test_a_proof_that_was_not_made_yet_is_not_written(run, environment):
    (environment / "layer2.toml").write_text(
        'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "http://127.0.0.1:1"\n'
        f'[assets.BTC]\ncontract = "0x{"44" * 20}"\ncontract_decimals = 8\n[store]\nurl = "sqlite:///journal.sqlite3"\n'
    )
    transfer_id = asyncio.run(store_a_lock(f"sqlite:///{environment / 'journal.sqlite3'}"))
    done = run("transfers", "show", transfer_id, "--json", "--proof", "proof.json")
    assert done.code == ExitCode.NOT_FOUND
    assert f"layer2 transfers resume {transfer_id}" in done.json["error"]["hint"]
    assert run("transfers", "show", transfer_id, "--proof", ".").code == ExitCode.USAGE
    assert not (environment / "proof.json").exists()


def test_transfers_alone_lists_them(run, settings):
    assert run("transfers", "--json").json == []
    assert "no transfers" in run("transfers").out
    assert run("transfers", "--state", "lost").code == ExitCode.USAGE
    assert run("transfers", "--json", "list").code == ExitCode.USAGE
    assert "resume" in run("transfers", "--help").out


@pytest.mark.parametrize("form", [("--json",), ()])
def test_a_transfer_that_nobody_reads_any_more_goes_on_and_says_so(start, settings, form):
    process = start("transfer", "bob", "lightning", "20000", "--yes", *form)
    assert process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert "nobody reads standard output any more" in err
    assert re.search("transfer [0-9a-f]{32} goes on", err)


def test_a_payment_whose_result_nobody_reads_says_so(start, settings):
    process = start("pay", "0x" + "11" * 20, "--amount", "5", "--yes", "--json")
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK
    assert "nobody reads standard output any more" in err


class Overtaken:
    """A manager whose store another process takes over as soon as it runs."""

    def on_event(self, callback):
        asyncio.get_running_loop().call_later(
            0.05, callback, SimpleNamespace(code="swap.store_lost", message="it is lost")
        )
        return lambda: None

    def health(self):
        return SimpleNamespace(unfinished_transfers=0)

    async def wait_idle_async(self):
        raise StoreInUse.by("process 7 on another host", "postgresql://somewhere")


def test_a_service_whose_store_was_taken_over_ends(run, settings, monkeypatch):
    """A supervisor starts it again, to wait until the store is free."""

    @asynccontextmanager
    async def driver(_cli):
        yield Overtaken()

    monkeypatch.setattr("layer2.cli._transfers.driver", driver)
    done = run("run", "--json")
    assert done.code == ExitCode.STORE_IN_USE
    assert [line.get("event") for line in done.lines][:2] == ["ready", "swap.store_lost"]
