"""The programs of ``examples/`` do what they say, on the embedded network."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
import uvicorn

from layer2 import BTC, Layer2Config, Layer2Manager
from layer2 import Layer2ProtocolType as P
from layer2.lightning import InvoiceState

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
on_the_shared_loop = pytest.mark.asyncio(loop_scope="package")


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@on_the_shared_loop
async def test_an_invoice_is_paid_from_bob_once(shared_manager: Layer2Manager) -> None:
    merchant = shared_manager.embedded_network.merchant_node
    invoice = await merchant.create_invoice(amount_msat=4_200_500, expiry_s=120)
    pay = program("pay_invoice_from_bob").pay
    first = await pay(shared_manager, invoice.text)
    assert (await merchant.lookup_invoice(invoice.payment_hash)).state is InvoiceState.SETTLED
    assert (await pay(shared_manager, invoice.text)).terms == first.terms


@on_the_shared_loop
async def test_anyone_pays_onto_bob(shared_manager: Layer2Manager) -> None:
    example = program("receive_onto_bob")
    bob = await shared_manager.get_protocol_async(P.BOB)
    payee = "0x00000000000000000000000000000000000000aa"
    transfer = await example.request(shared_manager, 4_000, payee)
    payment = asyncio.create_task(
        shared_manager.embedded_network.merchant_node.pay(
            transfer.invoice, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=20
        )
    )
    assert await example.wait_until_paid(transfer)
    await payment
    assert await bob.balance_async(BTC, type(bob.account).parse(payee)) == 4_000


@on_the_shared_loop
async def test_a_proof_is_verified_offline(shared_manager: Layer2Manager, tmp_path: Path, capsys: Any) -> None:
    proof = await shared_manager.cross_layer_transfer_async(BTC, 3_000, P.BOB, P.LIGHTNING)
    file = tmp_path / "proof.json"
    file.write_text(proof.to_json())
    lock = proof.terms.lock
    hashes = [block.hash.hex() for block in proof.blocks]
    main = program("verify_proof").main
    assert main([str(file), str(lock.chain_id), str(lock.token), *hashes]) == 0
    assert "passed" in capsys.readouterr().out
    assert main([str(file), str(lock.chain_id), str(lock.token), "00" * 32]) == 1
    damaged = json.loads(file.read_text())
    damaged["preimage"] = "11" * 32
    file.write_text(json.dumps(damaged))
    assert main([str(file), str(lock.chain_id), str(lock.token), *hashes]) == 1


@on_the_shared_loop
async def test_the_service_pays_and_receives(shared_manager: Layer2Manager) -> None:
    app = program("payment_service").create_app(Layer2Config.embedded())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), serving.result()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await _use(client, app.state.layer2.embedded_network.merchant_node)
    finally:
        server.should_exit = True
        await serving


async def _use(client: aiohttp.ClientSession, merchant: Any) -> None:
    invoice = await merchant.create_invoice(amount_msat=6_000_000, expiry_s=120)
    order = {"invoice": invoice.text, "amount": 6_000}
    first = await (await client.put("/payments/1", json=order)).json()
    again = await (await client.put("/payments/1", json=order)).json()
    assert first["id"] == again["id"]
    while not (now := await (await client.get(f"/transfers/{first['id']}")).json())["done"]:
        await asyncio.sleep(0.05)
    assert now["state"] == "settled"
    assert (await merchant.lookup_invoice(invoice.payment_hash)).state is InvoiceState.SETTLED

    shown = await (await client.put("/receipts/1", json={"amount": 5_000})).json()
    assert shown["invoice"].startswith("lnbcrt")
    refused = await client.put("/payments/2", json={"invoice": "lnbc1nonsense", "amount": 1})
    assert (refused.status, (await refused.json())["money_may_have_moved"]) == (422, False)
    assert (await client.get("/transfers/" + "0" * 32)).status == 404
    assert (await client.get("/health")).status == 200


@on_the_shared_loop
async def test_threads_share_a_manager(capsys: Any) -> None:
    await asyncio.to_thread(program("sync_in_threads").main, ["--embedded"])
    assert len(re.findall(r"satoshi moved in transfer [0-9a-f]{32}", capsys.readouterr().out)) == 3


@pytest.mark.parametrize("path", [path for path in PROGRAMS if path.stem not in ("payment_service", "sync_in_threads")])
def test_a_program_without_arguments_says_how_to_use_it(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"python examples/{path.name}" in done.stderr


def test_the_list_names_every_program() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    assert {path.name for path in PROGRAMS} == set(re.findall(r"`(\w+\.py)`", text))
