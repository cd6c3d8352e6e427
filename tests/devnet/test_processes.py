"""Child processes, ports and the miner's coins, without any node."""

import asyncio
import signal
import sys

import pytest

from layer2._clock import SystemClock
from layer2.devnet._faucet import Coin, Faucet, script_for_address
from layer2.devnet._processes import ManagedProcess, free_ports, log_tail, wait_until
from layer2.errors import AddressError, AmountError, NodeConnectionError, NodeNotReady

CLOCK = SystemClock()
WAITS = "import sys, time; print('up', flush=True); time.sleep(3600)"
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
)


def _process(tmp_path, code):
    return ManagedProcess("thing", [sys.executable, "-c", code], tmp_path / "thing.log")


async def _until_up(process):
    async def up():
        return "up" in await asyncio.to_thread(log_tail, process.log_path)

    await wait_until(up, "it is up", clock=CLOCK, processes=[process], pause_s=0.01)


async def test_a_process_is_started_stopped_and_started_again(tmp_path):
    process = _process(tmp_path, WAITS)
    await process.start()
    await _until_up(process)
    first = process.pid
    await process.start()
    assert process.pid == first
    await process.stop()
    assert process.pid is None
    await process.start()
    assert process.pid not in {None, first}
    await process.kill()
    assert not process.running
    await process.stop()


async def test_a_process_that_does_not_listen_is_killed(tmp_path):
    process = _process(tmp_path, IGNORES)
    await process.start()
    await _until_up(process)
    await process.stop(grace_s=0.05)
    assert not process.running


async def test_a_frozen_process_can_be_killed(tmp_path):
    process = _process(tmp_path, WAITS)
    await process.start()
    await _until_up(process)
    process.send_signal(signal.SIGSTOP)
    await process.kill()
    assert not process.running


async def test_a_process_that_dies_is_reported_with_the_end_of_its_log(tmp_path):
    process = _process(tmp_path, "import sys; print('no such port'); sys.exit(3)")
    await process.start()

    async def never():
        return False

    with pytest.raises(NodeConnectionError, match=r"status 3(.|\n)*no such port"):
        await wait_until(never, "it is up", clock=CLOCK, processes=[process], pause_s=0.01)


async def test_a_program_that_is_not_there_is_reported(tmp_path):
    process = ManagedProcess("thing", [str(tmp_path / "missing")], tmp_path / "thing.log")
    await process.start()

    async def never():
        return False

    with pytest.raises(NodeConnectionError, match="thing has ended"):
        await wait_until(never, "it is up", clock=CLOCK, processes=[process], pause_s=0.01)


async def test_waiting_ends():
    async def never():
        return False

    with pytest.raises(NodeNotReady, match="in vain: the moon is blue"):
        await wait_until(never, "the moon is blue", clock=CLOCK, timeout_s=0.02, pause_s=0.01)


def test_ports_are_different_and_not_those_of_outgoing_connections():
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(10_000 <= port < 32_768 for port in ports)


def test_the_tail_of_a_log_is_its_end(tmp_path):
    path = tmp_path / "log"
    assert log_tail(path) == ""
    path.write_text("".join(f"line {number} {'x' * 100}\n" for number in range(5000)))
    assert log_tail(path, 2).splitlines()[-1].startswith("line 4999 ")
    assert len(log_tail(path, 2).splitlines()) == 2


# BIP 173 and BIP 350, with the prefix of regtest.
@pytest.mark.parametrize(
    ("address", "script"),
    [
        ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
        (
            "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
            "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        ),
    ],
)
def test_scripts_of_witness_addresses(address, script):
    assert script_for_address(address).hex() == script


@pytest.mark.parametrize(
    "address", ["", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bcrt1", "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8"]
)
def test_other_addresses_are_refused(address):
    with pytest.raises(AddressError):
        script_for_address(address)


def test_the_miners_address_is_its_script():
    faucet = Faucet()
    assert script_for_address(faucet.address) == faucet.script


def test_a_coin_that_is_too_small_is_refused():
    faucet = Faucet()
    with pytest.raises(AmountError, match="cannot pay"):
        faucet.spend(Coin("00" * 32, 0, 10_000), {faucet.address: 9_000})
