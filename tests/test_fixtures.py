"""The suite's own fixtures: what they promise the tests that use them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent
USES_REAL_NODES = """
import pytest

def test_uses_real_nodes(regtest):
    pass
"""


def _run_suite(tmp_path, **environment):
    """pytest on a suite of one test that needs real nodes, where there are none and none can be built."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(USES_REAL_NODES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    real: real\n")
    kept = {
        name: value for name, value in os.environ.items() if name != "CI" and not name.startswith(("LAYER2_", "PYTEST"))
    }
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS / "support"), os.environ.get("PYTHONPATH", "")])
    nowhere = {
        "PATH": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "LAYER2_CACHE": str(tmp_path / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**kept, **nowhere, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_missing_nodes_fail_the_tests_that_need_them_in_ci(tmp_path):
    done = _run_suite(tmp_path, CI="true")
    assert done.returncode == 1, done.stdout
    assert "1 error" in done.stdout
    assert "CI runs the tests on real nodes, but" in done.stdout


def test_missing_nodes_are_skipped_loudly_elsewhere(tmp_path):
    done = _run_suite(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "REAL NODES ARE MISSING" in done.stdout
    assert "make nodes" in done.stdout


def test_tests_that_use_real_nodes_can_be_left_out(request, node_binaries):
    assert request.node.get_closest_marker("real")


async def test_a_blocking_call_of_the_package_on_a_loop_is_found(tmp_path):
    import layer2.errors

    path = str(Path(layer2.errors.__file__).with_name("_planted.py"))
    planted = {"time": time}
    exec(compile("def wait():\n    time.sleep(0.001)\n", path, "exec"), planted)
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        planted["wait"]()


async def test_blocking_calls_of_tests_are_their_own_business():
    time.sleep(0.001)  # noqa: ASYNC251


def test_each_test_has_a_database_of_its_own(postgres_url):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_url) as connection:
        (version,) = connection.execute("SHOW server_version_num").fetchone()
        assert int(version) >= 180_000
        tables = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        assert tables.fetchone() == (0,)
