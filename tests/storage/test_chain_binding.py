"""A store belongs to one chain of an id: one that is started anew must not be carried on with what was signed for another."""

import pytest

from layer2.errors import ConfigurationError
from layer2.storage import Store, swaps

FIRST, OTHER = b"\x0a" * 32, b"\x0b" * 32


async def test_a_store_with_a_swap_refuses_another_chain_of_the_same_id(url, clock, make_swap):
    async with await Store.open(url, clock=clock) as store:
        await store.bind_chain(60808, FIRST)
        await store.run(swaps.insert_swap, make_swap(), at_ms=clock.now_ms())
        await store.bind_chain(60808, FIRST)
        await store.bind_chain(808813, OTHER)
    async with await Store.open(url, clock=clock) as store:
        for _ in range(2):
            with pytest.raises(ConfigurationError) as caught:
                await store.bind_chain(60808, OTHER)
        assert FIRST.hex() in caught.value.message
        assert OTHER.hex() in caught.value.message
        assert caught.value.key == "store.url"
        assert "new store" in caught.value.hint
        await store.bind_chain(60808, FIRST)


async def test_a_store_in_which_nothing_stands_goes_over_to_another_chain(store, make_swap, clock):
    await store.bind_chain(60808, FIRST)
    await store.bind_chain(60808, OTHER)
    await store.run(swaps.insert_swap, make_swap(), at_ms=clock.now_ms())
    with pytest.raises(ConfigurationError):
        await store.bind_chain(60808, FIRST)
