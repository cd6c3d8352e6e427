"""What ``import layer2`` offers, and what it costs."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import layer2

SOURCE = Path(layer2.__file__).parent
PACKAGES = sorted(
    f"layer2.{path.parent.name}" for path in SOURCE.glob("*/__init__.py") if "__all__" in path.read_text()
)
HEAVY = {"aiohttp", "alembic", "anyio", "asyncio", "pydantic", "rich", "sqlalchemy", "ssl", "typer", "web3"}


def loaded_by(code: str) -> set[str]:
    """The modules that ``code`` loads in a fresh interpreter."""
    script = f"import sys; before = set(sys.modules); {code}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_but_itself():
    assert {name for name in loaded_by("import layer2") if name.startswith("layer2")} == {"layer2"}
    assert loaded_by("import importlib, typing; import layer2") <= loaded_by("import importlib, typing") | {
        "layer2"
    } | {"__future__"}


@pytest.mark.parametrize(
    "code",
    [
        "from layer2 import BTC, ETH, AssetId, AmountError, AsyncTimeout",
        "from layer2 import EvmAddress, parse_address; parse_address('0x' + '11' * 20)",
        "from layer2 import TxId, TxStatus, Depth, Outcome, EvmCall",
        "from layer2 import Layer2Config; Layer2Config.embedded()",
        "import layer2.testing, layer2.proofs, layer2.lightning",
    ],
)
def test_values_errors_and_settings_load_no_heavy_library(code):
    heavy = HEAVY - {"asyncio", "ssl"} if "Config" in code else HEAVY - {"asyncio"}
    assert not {name.partition(".")[0] for name in loaded_by(code)} & heavy


def test_all_names_exist_and_come_from_where_they_are_said_to():
    assert sorted(layer2.__all__) == sorted(layer2._HOME)
    for name in layer2.__all__:
        value = getattr(layer2, name)
        assert value is getattr(importlib.import_module(f"layer2.{layer2._HOME[name]}"), name)
        assert name in dir(layer2)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = layer2.nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert seen == {name: f"layer2.{home}" for name, home in layer2._HOME.items()}


def test_every_error_is_public():
    errors = importlib.import_module("layer2.errors")
    assert set(errors.__all__) <= set(layer2.__all__)


def test_the_names_of_the_contract_are_there():
    contract = """
        Layer2Manager Layer2ManagerSync Layer2Config ConnectionPoolConfig Layer2ProtocolType Layer2ProtocolAsync BTC ETH
        AssetId AssetRegistry Address EvmAddress TxId TxStatus Depth Outcome Transaction Transfer TransferQuote
        TransferProof Proof Signer AsyncTimeout AsyncRuntimeError TaskCancelled Health
    """
    assert set(contract.split()) <= set(layer2.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_package_keeps_its_table_of_contents(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
