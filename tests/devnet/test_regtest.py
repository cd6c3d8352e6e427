"""The network of real nodes: what its users rely on."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp
import pytest

from layer2.devnet import NodeBinaries, RegtestNetwork
from layer2.errors import AsyncRuntimeError, NodeConnectionError, NodeNotReady, NotFound


def _session(endpoint):
    context = ssl.create_default_context(cafile=str(endpoint.tls_cert_path))
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    headers = {"Grpc-Metadata-macaroon": endpoint.macaroon_path.read_bytes().hex()}
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers)


async def _pay(payer, invoice):
    async with _session(payer) as session:
        body = {"payment_request": invoice, "fee_limit_sat": "1000", "timeout_seconds": 30, "no_inflight_updates": True}
        async with session.post(f"{payer.rest_url}/v2/router/send", json=body) as response:
            return json.loads(await response.text())["result"]


@pytest.mark.parametrize(("payer", "payee"), [("client", "provider"), ("provider", "client")])
async def test_payments_are_routed_both_ways_for_a_fee(regtest, payer, payee):
    invoice = await regtest.lnd_call(payee, "POST", "/v1/invoices", {"value": "100000000"})
    payment = await _pay(regtest.lnd(payer), invoice["payment_request"])
    assert payment["status"] == "SUCCEEDED", payment["failure_reason"]
    assert int(payment["fee_msat"]) > 0
    hops = payment["htlcs"][0]["route"]["hops"]
    assert [hop["pub_key"] for hop in hops] == [regtest.router.node_id, regtest.lnd(payee).node_id]


async def test_hold_invoices_are_compiled_in(regtest):
    body = {"hash": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "value": "1000"}
    assert (await regtest.lnd_call("provider", "POST", "/v2/invoices/hodl", body))["payment_request"]


async def test_bitcoin_blocks_come_on_schedule_and_on_command(regtest):
    before = await regtest.bitcoin_height()
    assert len(await regtest.mine(3)) == 3
    while await regtest.bitcoin_height() < before + 5:
        await asyncio.sleep(0.1)
    await regtest.wait_synced()


async def test_scheduled_mining_can_be_paused(regtest):
    async with regtest.mining_paused():
        height = await regtest.bitcoin_height()
        async with regtest.mining_paused():
            await regtest.mine(2)
        # Two blocks of the other chain, which has the same schedule: time enough for a Bitcoin block.
        evm_height = int(await regtest.evm_rpc("eth_blockNumber"), 16)
        while int(await regtest.evm_rpc("eth_blockNumber"), 16) < evm_height + 2:
            await asyncio.sleep(0.1)
        assert await regtest.bitcoin_height() == height + 2
    while await regtest.bitcoin_height() == height + 2:
        await asyncio.sleep(0.1)


async def test_the_evm_chain_is_bob_and_moves_safe_and_finalized(regtest, anvil):
    assert int(await regtest.evm_rpc("eth_chainId"), 16) == regtest.evm_chain_id == 60808
    account = regtest.evm_accounts[0]
    assert int(await regtest.evm_rpc("eth_getBalance", str(account.address), "latest"), 16) > 10**21
    assert account.private_key.hex() not in repr(account)
    while int((await regtest.evm_rpc("eth_getBlockByNumber", "finalized", False))["number"], 16) < 1:
        await asyncio.sleep(0.1)
    async with (
        aiohttp.ClientSession() as session,
        session.post(anvil, json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}) as reply,
    ):
        assert (await reply.json())["result"] == hex(60808)


async def test_coins_reach_any_witness_address(regtest):
    before = int((await regtest.lnd_call("router", "GET", "/v1/balance/blockchain"))["confirmed_balance"])
    address = (await regtest.lnd_call("router", "GET", "/v1/newaddress?type=TAPROOT_PUBKEY"))["address"]
    await regtest.send_bitcoin({address: 123_456})
    await regtest.mine()
    while (
        int((await regtest.lnd_call("router", "GET", "/v1/balance/blockchain"))["confirmed_balance"])
        != before + 123_456
    ):
        await asyncio.sleep(0.1)


async def test_an_lnd_that_was_killed_comes_back_where_it_was(regtest):
    before = regtest.provider
    pid = regtest.process("provider").pid
    await regtest.stop_lnd("provider", kill=True)
    with pytest.raises(NodeConnectionError):
        await regtest.lnd_call("provider", "GET", "/v1/getinfo")
    await regtest.start_lnd("provider")
    assert regtest.provider == before
    assert regtest.process("provider").pid != pid
    invoice = await regtest.lnd_call("provider", "POST", "/v1/invoices", {"value": "1000"})
    assert (await _pay(regtest.client, invoice["payment_request"]))["status"] == "SUCCEEDED"


async def test_no_password_stands_in_a_command_line(regtest):
    for name in ("btcd", "client"):
        command = Path(f"/proc/{regtest.process(name).pid}/cmdline").read_bytes().decode()
        assert regtest.btcd.rpc_password not in command
    assert regtest.btcd.rpc_password not in repr(regtest.btcd)


async def test_a_network_that_cannot_start_says_which_node_and_leaves_its_logs(node_binaries, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = tmp_path / "broken-lnd"
    broken.write_text("#!/bin/sh\necho wallet is on fire\nexit 7\n")
    broken.chmod(0o755)
    network = RegtestNetwork(binaries=NodeBinaries(btcd=node_binaries.btcd, lnd=broken, anvil=node_binaries.anvil))
    with pytest.raises(NodeConnectionError, match=r"lnd 'client' has ended with status 7(.|\n)*wallet is on fire"):
        await network.__aenter__()
    assert not network.process("btcd").running
    assert not network.process("anvil").running
    assert "wallet is on fire" in (network.directory / "client" / "lnd.log").read_text()
    with pytest.raises(AsyncRuntimeError, match="once"):
        await network.__aenter__()


def test_a_network_that_was_not_started_says_so():
    with pytest.raises(NodeNotReady, match="async with"):
        _ = RegtestNetwork().client


async def test_an_unknown_node_is_refused(regtest):
    with pytest.raises(NotFound, match="no node 'lnd7'"):
        regtest.process("lnd7")


_PARENT = """
import asyncio, sys
from pathlib import Path
from layer2._clock import SystemClock
from layer2.devnet._anvil import Anvil
from layer2.devnet._processes import free_ports

async def main():
    anvil = Anvil(Path(sys.argv[1]), Path(sys.argv[2]), port=free_ports(1)[0], clock=SystemClock())
    await anvil.start()
    print(anvil.process.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_nodes_die_with_a_parent_that_is_killed(node_binaries, tmp_path):
    argv = [sys.executable, "-c", _PARENT, str(node_binaries.anvil), str(tmp_path)]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with parent:
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        parent.send_signal(signal.SIGKILL)
    os.set_blocking(watch, False)
    import select

    assert select.select([watch], [], [], 30)[0], "the node outlived its parent"
    os.close(watch)
