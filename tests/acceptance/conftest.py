"""What the acceptance tests share: the real network, and a condition that is waited for without guessing at times."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from layer2.devnet import RealNetwork

POLL_S = 0.1

Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@pytest.fixture
async def network(regtest: Any) -> AsyncIterator[RealNetwork]:
    async with RealNetwork(regtest) as network:
        yield network


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, and give what it found. The bound is for what hangs: no test depends on it."""

    async def wait(condition: Callable[[], Awaitable[Any]], *, within_s: float = 120.0) -> Any:
        async with asyncio.timeout(within_s):
            while not (found := await condition()):
                await asyncio.sleep(POLL_S)
        return found

    return wait


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a figure that the run has found, also where the output of tests is captured."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return write
