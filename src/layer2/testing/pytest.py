"""pytest plugin, loaded only where asked for: ``pytest_plugins = ["layer2.testing.pytest"]``.

All fixtures are plain functions, so they work under pytest-asyncio and under anyio alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from layer2.testing._canary import Canaries
from layer2.testing._mock import MockLayer2Protocol
from layer2.testing._virtual_clock import VirtualClock

__all__ = ["layer2_canaries", "layer2_clock", "layer2_make_mock", "layer2_mock", "layer2_network"]


@pytest.fixture
def layer2_clock() -> VirtualClock:
    """A clock that stands still until the test advances it."""
    return VirtualClock()


@pytest.fixture
def layer2_make_mock() -> Iterator[Callable[..., MockLayer2Protocol]]:
    """Makes mocks of layers (arguments of ``MockLayer2Protocol``); all are verified when the test ends."""
    made: list[MockLayer2Protocol] = []

    def make(*args: Any, **kwargs: Any) -> MockLayer2Protocol:
        made.append(MockLayer2Protocol(*args, **kwargs))
        return made[-1]

    yield make
    for mock in made:
        mock.verify()


@pytest.fixture
def layer2_mock(layer2_make_mock: Callable[..., MockLayer2Protocol]) -> MockLayer2Protocol:
    """A mock of a layer, verified when the test ends even if the application swallowed an error."""
    return layer2_make_mock()


@pytest.fixture
def layer2_canaries() -> Iterator[Canaries]:
    """Made-up secrets; the test fails if one of them is logged."""
    with Canaries() as canaries:
        yield canaries


@pytest.fixture
def layer2_network() -> Callable[..., AbstractAsyncContextManager[Any]]:
    """What makes embedded networks, each an async context manager. Needs the ``devnet`` extra."""
    from layer2 import devnet

    make: Callable[..., AbstractAsyncContextManager[Any]] = devnet.EmbeddedNetwork
    return make
