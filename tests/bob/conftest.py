"""The fixtures of the EVM tests, which live beside them."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "evm_fixtures", Path(__file__).resolve().parent.parent / "evm" / "conftest.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

start_anvil = _module.start_anvil
