"""Type checkers see the API as it is documented, lazy imports and sync twins included."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """
import asyncio
import threading
from typing import assert_type

from layer2 import BTC, Layer2Config, Layer2Manager, Layer2ManagerSync, Transfer, TransferProof, TxId, TxStatus
from layer2 import Layer2ProtocolAsync
from layer2 import Layer2ProtocolType as P
from layer2.bob import BobClient
from layer2.lightning import InvoiceRecord, LightningNetwork
from layer2.sync import BobClientSync, Layer2ProtocolSync, LightningNetworkSync, TransferSync
from layer2.testing import ANY, MockLayer2Protocol
from layer2.transfers import TransferEvent


async def use(manager: Layer2Manager, cancel: asyncio.Event) -> None:
    assert_type(await manager.get_protocol_async(P.BOB), BobClient)
    assert_type(await manager.get_protocol_async("lightning"), LightningNetwork)
    assert_type(await manager.get_protocol_async(str()), Layer2ProtocolAsync)
    proof = await manager.cross_layer_transfer_async(BTC, 1, P.BOB, P.LIGHTNING, cancel=cancel, timeout=None)
    assert_type(proof, TransferProof)
    assert_type(await manager.list_transfers_async(), list[Transfer])
    protocol: Layer2ProtocolAsync = MockLayer2Protocol()
    assert_type(await protocol.transfer_asset_async(BTC, 1, "x"), TxId)


def use_sync(manager: Layer2ManagerSync, cancel: threading.Event) -> None:
    bob = manager.get_protocol_sync("bob")
    assert_type(bob, BobClientSync)
    assert_type(bob.transfer_asset_sync(BTC, 1, "x", cancel=cancel), TxId)
    assert_type(bob.wait_for_transaction_sync("x"), TxStatus)
    lightning = manager.get_protocol_sync(P.LIGHTNING)
    assert_type(lightning, LightningNetworkSync)
    assert_type(next(lightning.watch_invoice_sync(b"")), InvoiceRecord)
    assert_type(manager.get_protocol_sync(str()), Layer2ProtocolSync)
    transfer = manager.start_cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING, payer="self")
    assert_type(transfer, TransferSync)
    assert_type(next(transfer.events()), TransferEvent)
    assert_type(transfer.result_sync(), TransferProof)
    assert_type(manager.list_transfers_sync(), list[TransferSync])
    assert_type(Layer2Config.embedded().max_concurrency, int)
"""
BAD = """
import asyncio
from layer2 import BTC, Layer2ManagerSync
from layer2 import Layer2ProtocolType as P

def use(manager: Layer2ManagerSync) -> None:
    manager.cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING, cancel=asyncio.Event())
    manager.cross_layer_transfer_sync("BTC", 1, P.BOB, P.LIGHTNING)
    manager.start_cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING, payer="nobody")
    manager.no_such_thing_sync()
"""


def mypy(tmp_path, text):
    file = tmp_path / "example.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.slow
def test_the_documented_types_are_seen(tmp_path):
    done = mypy(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_wrong_use_is_seen(tmp_path):
    done = mypy(tmp_path, BAD)
    wrong = [line for line in done.stdout.splitlines() if "example.py" in line and " error: " in line]
    assert [int(line.split(":")[1]) for line in wrong] == [7, 8, 9, 10], done.stdout
