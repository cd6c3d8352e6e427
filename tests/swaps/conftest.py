"""One deal of each role and direction."""

from __future__ import annotations

import pytest
from swap_worlds import make_deal

from layer2.swaps import Deal, Role
from layer2.terms import SwapDirection


@pytest.fixture
def submarine_client() -> Deal:
    return make_deal(Role.CLIENT, SwapDirection.SUBMARINE)


@pytest.fixture
def submarine_provider() -> Deal:
    return make_deal(Role.PROVIDER, SwapDirection.SUBMARINE)


@pytest.fixture
def reverse_client() -> Deal:
    return make_deal(Role.CLIENT, SwapDirection.REVERSE, preimage_time_ms=1)


@pytest.fixture
def reverse_provider() -> Deal:
    return make_deal(Role.PROVIDER, SwapDirection.REVERSE)
