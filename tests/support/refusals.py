"""What a provider's refusal looks like, and that nothing is left of what was asked."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from layer2.errors import SwapRefused


async def refused(asked: Awaitable[Any], rule: str) -> SwapRefused:
    """The refusal that ``asked`` ends in, by this rule."""
    with pytest.raises(SwapRefused) as caught:
        await asked
    assert caught.value.rule == rule
    assert not caught.value.money_may_have_moved
    return caught.value


def nothing_left(world: Any) -> bool:
    """Whether the provider has neither made nor reserved anything."""
    return bool(world.inventory.active == 0 and world.inventory.token_bound() == 0)
