"""The simulator runs an event loop of its own on a store without a thread, which is what the detector would complain about."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _inline_store(no_blocking_calls) -> None:
    no_blocking_calls.deactivate()
