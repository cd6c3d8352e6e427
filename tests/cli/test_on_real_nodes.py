"""The command line on real nodes: interrupted and resumed transfers, the provider daemon, the devnet."""

import asyncio
import json
import signal
import subprocess
from dataclasses import replace

import pytest

from layer2.cli._exit import ExitCode
from layer2.devnet import RealNetwork


@pytest.fixture
async def network(regtest):
    async with RealNetwork(regtest) as network:
        yield network


@pytest.fixture
async def settings(network, environment):
    """Settings of an account of the test's own."""
    config = await network.client_config(account=await network.new_account(tokens=10_000_000))
    await asyncio.to_thread((environment / "layer2.toml").write_text, config.to_toml())
    return config


async def _line(process):
    text = await asyncio.to_thread(process.stdout.readline)
    assert text, await asyncio.to_thread(process.stderr.read)
    return json.loads(text)


async def test_an_interrupted_transfer_says_by_when_to_run_again_and_is_resumed(network, settings, start, program):
    process = await asyncio.to_thread(start, "transfer", "bob", "lightning", "30000", "--yes", "--json")
    transfer_id = (await _line(process))["begun"]["id"]
    while (await _line(process))["event"]["state"] != "locking":
        pass
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert f"layer2 transfers resume {transfer_id} --until-done" in err
    assert "Run it again by" in err
    assert "Traceback" not in err

    shown = (await asyncio.to_thread(program, "status", "--json")).json
    assert [(t["id"], t["final"]) for t in shown["unfinished"]] == [(transfer_id, False)]
    assert isinstance(shown["run_again_by"], int)

    resumed = await asyncio.to_thread(program, "transfers", "resume", transfer_id, "--until-done", "--json")
    assert (resumed.code, [t["state"] for t in resumed.json]) == (0, ["settled"])
    done = await asyncio.to_thread(program, "transfers", "resume", "--until-done", "--json")
    assert (done.code, done.json) == (0, [])


async def test_a_wait_that_ends_first_is_no_failure(network, settings, program):
    ended = await asyncio.to_thread(
        program, "transfer", "bob", "lightning", "30000", "--yes", "--json", "--timeout", "0.2"
    )
    assert ended.code == ExitCode.UNFINISHED
    error = ended.lines[-1]["error"]
    assert error["type"] == "AsyncTimeout"
    transfer_id = ended.lines[0]["begun"]["id"]
    assert error["fields"]["transfer_id"] == transfer_id
    assert error["retry_safe"] is False
    assert f"layer2 transfers resume {transfer_id} --until-done" in error["hint"]
    resumed = await asyncio.to_thread(program, "transfers", "resume", "--until-done", "--json")
    assert (resumed.code, [t["state"] for t in resumed.json]) == (0, ["settled"])


async def test_a_key_that_was_used_needs_no_provider_and_nobody_to_confirm(network, settings, environment, program):
    order = ("transfer", "bob", "lightning", "30000", "--json", "--key", "order-1")
    ended = await asyncio.to_thread(program, *order, "--yes", "--timeout", "0")
    assert (ended.code, ended.lines[-1]["error"]["retry_safe"]) == (ExitCode.UNFINISHED, True)
    first = await asyncio.to_thread(program, *order)
    assert first.code == 0, first.err
    assert first.lines[0]["begun"]["id"] == ended.lines[0]["begun"]["id"]
    without = replace(settings, swap=replace(settings.swap, provider_url="http://127.0.0.1:1"))
    await asyncio.to_thread((environment / "layer2.toml").write_text, without.to_toml())

    again = await asyncio.to_thread(program, *order, "--proof", "proof.json")
    assert again.code == 0, again.err
    assert again.lines[-1]["transfer"]["id"] == first.lines[-1]["transfer"]["id"]
    assert (environment / "proof.json").is_file()
    transfer_id = first.lines[0]["begun"]["id"]
    shown = await asyncio.to_thread(program, "transfers", "show", transfer_id, "--json", "--proof", "later/proof.json")
    assert (shown.code, shown.json["proof_file"]) == (0, "later/proof.json"), shown.err
    kept = [(environment / folder / "proof.json").read_text() for folder in (".", "later")]
    assert kept[0] == kept[1]
    verified = await asyncio.to_thread(program, "proof", "verify", "later/proof.json")
    assert verified.code == 0
    other = await asyncio.to_thread(program, *order[:3], "30001", *order[4:])
    assert (other.code, other.lines[-1]["error"]["type"]) == (ExitCode.REFUSED, "IdempotencyConflict")
    unknown = await asyncio.to_thread(program, *order[:-1], "order-2")
    assert unknown.code == ExitCode.CONNECTION


async def test_an_account_without_a_node_shows_an_invoice_that_anyone_may_pay(network, environment, start):
    account = await network.new_account(tokens=1_000)
    config = await network.client_config(account=account, lightning=None)
    await asyncio.to_thread((environment / "layer2.toml").write_text, config.to_toml())
    process = await asyncio.to_thread(start, "transfer", "lightning", "bob", "40000", "--anyone", "--yes", "--json")
    invoice = (await _line(process))["begun"]["invoice"]
    merchant = await network.connect("router")
    await merchant.pay(invoice, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=30)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["transfer"]["state"] == "settled"


async def test_invoices_are_made_paid_and_watched(network, settings, start, program):
    made = (await asyncio.to_thread(program, "invoice", "create", "1234", "--memo", "tea", "--json")).json
    watching = await asyncio.to_thread(start, "invoice", "watch", made["payment_hash"], "--json")
    assert (await _line(watching))["state"] == "open"
    merchant = await network.connect("router")
    await merchant.pay(made["invoice"], fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=30)
    assert (await _line(watching))["state"] == "settled"
    assert await asyncio.to_thread(watching.wait, 30) == 0
    looked_up = (await asyncio.to_thread(program, "invoice", "lookup", made["invoice"], "--json")).json
    assert (looked_up["state"], looked_up["received_msat"]) == ("settled", "1234000")

    bill = await merchant.create_invoice(amount_msat=7_000_000, memo="bread", expiry_s=120)
    paid = await asyncio.to_thread(program, "pay", bill.text, "--yes", "--json")
    assert (paid.code, paid.json["outcome"]) == (0, "succeeded")
    assert (await merchant.lookup_invoice(bill.payment_hash)).state == "settled"


async def test_the_doctor_is_content_and_names_the_providers_absence(network, settings, program):
    healthy = await asyncio.to_thread(program, "doctor", "--json")
    assert (healthy.code, healthy.json["ok"]) == (0, True)
    assert "asks" in next(c["found"] for c in healthy.json["checks"] if c["name"] == "provider")
    await network.provider.stop()
    ill = await asyncio.to_thread(program, "doctor", "--json")
    assert ill.code == ExitCode.CONNECTION
    assert [c["name"] for c in ill.json["checks"] if not c["ok"]] == ["provider"]


async def test_the_provider_daemon_serves_and_ends_in_order(network, environment, start, program):
    await network.provider.stop()
    config = network.provider.config
    taken = config.provider.listen_port
    free = config.with_changes(provider=replace(config.provider, listen_port=0))
    await asyncio.to_thread((environment / "layer2.toml").write_text, free.to_toml())
    daemon = await asyncio.to_thread(start, "provider", "serve", "--json")
    ready = await _line(daemon)
    assert (ready["event"], ready["open_swaps"]) == ("ready", 0)
    assert (await asyncio.to_thread(program, "provider", "serve", "--json")).code == ExitCode.STORE_IN_USE
    daemon.send_signal(signal.SIGTERM)
    out, err = await asyncio.to_thread(daemon.communicate, timeout=30)
    assert (daemon.returncode, json.loads(out)["event"]) == (0, "stopped"), err

    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", taken)
    async with server:
        await asyncio.to_thread((environment / "layer2.toml").write_text, config.to_toml())
        refused = await asyncio.to_thread(program, "provider", "serve", "--json")
    assert refused.code == ExitCode.CONFIGURATION
    assert str(taken) in refused.lines[-1]["error"]["message"]


@pytest.mark.slow
def test_a_devnet_comes_with_settings_that_work(node_binaries, start, run, monkeypatch):
    for name in ("btcd", "lnd", "anvil"):
        monkeypatch.setenv(f"LAYER2_{name.upper()}", str(getattr(node_binaries, name)))
    devnet = start("devnet", "up", "--json", "--directory", "net")
    first = devnet.stdout.readline()
    assert first, devnet.stderr.read()
    ready = json.loads(first)
    assert ready["event"] == "ready"
    held = run("balance", "--config", ready["config"], "--json")
    assert (held.code, held.json["bob"]["token"]) == (0, ready["token"])
    devnet.send_signal(signal.SIGTERM)
    try:
        devnet.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail("the devnet did not end")
    assert devnet.returncode == ExitCode.TERMINATED
