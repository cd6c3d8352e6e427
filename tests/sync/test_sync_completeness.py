"""Every public async name has its typed sync twin, and the twins are what the generator writes."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from layer2 import sync
from layer2.bob import BobClient
from layer2.lightning import LightningNetwork
from layer2.manager import Layer2Manager
from layer2.protocol import Layer2ProtocolAsync
from layer2.transfers import Transfer

ROOT = Path(__file__).parents[2]
PAIRS = [
    (Layer2ProtocolAsync, sync.Layer2ProtocolSync),
    (BobClient, sync.BobClientSync),
    (LightningNetwork, sync.LightningNetworkSync),
    (Transfer, sync.TransferSync),
    (Layer2Manager, sync.Layer2ManagerSync),
]


@pytest.mark.parametrize(("original", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_every_async_method_has_a_twin_with_the_same_parameters(original, twin):
    methods = [name for name in dir(original) if name.endswith("_async") and not name.startswith("_")]
    assert methods
    for name in methods:
        made = getattr(twin, name.removesuffix("_async") + "_sync")
        assert not inspect.iscoroutinefunction(made)
        if name == "close_async":
            continue
        wanted, given = inspect.signature(getattr(original, name)), inspect.signature(made)
        assert list(wanted.parameters) == list(given.parameters), name
        for parameter in wanted.parameters.values():
            other = given.parameters[parameter.name]
            assert (parameter.kind, parameter.default) == (other.kind, other.default)
            if parameter.name == "cancel":
                assert other.annotation == "threading.Event | None"
        assert given.return_annotation is not inspect.Signature.empty
        assert "Any" not in str(given.return_annotation).replace("AnyStr", "")


def test_the_twins_are_what_the_generator_writes():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/generate_sync.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
