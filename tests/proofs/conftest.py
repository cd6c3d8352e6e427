"""Where the real chain data lies, and what happens when it does not."""

import json
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "proofs"


@cache
def _load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Loader of the files of real chain data, which are used where they lie beside the clone."""
    if not VECTORS.is_dir():
        message = f"NO REAL CHAIN DATA: {VECTORS} is missing, the proof core is not tested against real chains"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    return _load


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.fixture(scope="session", name="unhex")
def _unhex() -> Callable[[str], bytes]:
    return unhex
