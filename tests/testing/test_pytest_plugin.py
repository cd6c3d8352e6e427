"""The pytest plugin in runs of its own, under pytest-asyncio and under anyio."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(importlib.util.find_spec("layer2").origin).parent.parent)

CONFTEST = 'pytest_plugins = ["layer2.testing.pytest"]\n'
TESTS = """
from layer2 import testing
from layer2.assets import BTC

import pytest
pytestmark = pytest.mark.{mark}

async def test_good(layer2_mock, layer2_clock, layer2_canaries):
    layer2_mock.expect("transfer_asset_async", BTC, 1, testing.ANY).returns("id")
    assert await layer2_mock.transfer_asset_async(BTC, 1, "x") == "id"
    await layer2_clock.advance(5)
    layer2_canaries.new_bytes()

async def test_swallowed(layer2_mock):
    try:
        await layer2_mock.transfer_asset_async(BTC, 1, "x")
    except AssertionError:
        pass

async def test_unmet(layer2_make_mock):
    layer2_make_mock("bob").expect("close_async")

async def test_leak(layer2_canaries):
    import logging
    logging.getLogger("layer2.x").info(layer2_canaries.new_bytes().hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["asyncio", "anyio"])
def test_fixtures_pass_and_fail_as_they_should(tmp_path, mark):
    extra = "\nimport pytest\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n" if mark == "anyio" else ""
    (tmp_path / "conftest.py").write_text(CONFTEST + extra)
    (tmp_path / "test_it.py").write_text(TESTS.format(mark=mark))
    plugins = ["-p", "no:asyncio"] if mark == "anyio" else ["-p", "no:anyio", "-o", "asyncio_mode=strict"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCE},
        check=False,
    )
    assert "4 passed, 3 errors" in done.stdout, done.stdout + done.stderr
    for text in ("unexpected: transfer_asset_async", "missing: close_async", "hold a secret"):
        assert text in done.stdout


def test_nothing_is_loaded_unless_asked_for():
    code = "import sys, layer2.testing; print([m for m in ('pytest', 'aiohttp', 'layer2.testing._mock') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        check=True,
    )
    assert done.stdout.strip() == "[]"
