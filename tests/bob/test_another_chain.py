"""A chain that was started anew has the id of the old one. What is stored for the old one must not be sent to it."""

import logging

import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.assets import ETH, AssetForm, AssetRegistry
from layer2.bob import DEVNET, BobClient
from layer2.devnet._embedded_evm import EmbeddedEvm
from layer2.errors import ConfigurationError, NodeConnectionError, NodeError
from layer2.evm import RpcError
from layer2.signers import LocalSigner
from layer2.storage import SqlTxJournal, Store

FRIEND = EvmAddress(raw=b"\x0b" * 20)
SIGNER = LocalSigner(b"\x05" * 32)


class Endpoint:
    """A chain as a transport that may answer otherwise for block 0, and remembers what was asked."""

    def __init__(self, chain, first=None):
        self._chain = chain
        self._first = first
        self.asked = []

    async def call(self, method, params):
        self.asked.append(method)
        if self._first is not None and method == "eth_getBlockByNumber" and params[0] == "0x0":
            return self._first()
        return await self._chain.call(method, params)

    async def close(self):
        pass


@pytest.fixture
async def store():
    async with await Store.open("sqlite://", clock=SystemClock()) as store:
        yield store


def client_of(endpoint, store):
    return BobClient(
        transport=endpoint,
        signer=SIGNER,
        registry=AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)]),
        journal=SqlTxJournal(store),
        preset=DEVNET,
        bind_chain=store.bind_chain,
    )


def chain_with(wei):
    return EmbeddedEvm(clock=SystemClock(), block_time_s=0.1, balances={SIGNER.address: wei})


async def test_what_was_signed_for_one_chain_is_not_taken_to_another(store):
    async with chain_with(10**18) as old, chain_with(2 * 10**18) as new:
        client = client_of(Endpoint(old), store)
        await client.initialize_async()
        await client.wait_for_transaction_async(await client.transfer_asset_async(ETH, 7, FRIEND))
        await client.close_async()

        endpoint = Endpoint(new)
        client = client_of(endpoint, store)
        with pytest.raises(ConfigurationError, match="another chain with the id 60808") as caught:
            await client.initialize_async()
        assert "new store" in caught.value.hint
        assert set(endpoint.asked) == {"eth_chainId", "eth_getBlockByNumber"}
        await client.close_async()

        client = client_of(Endpoint(old), store)
        await client.initialize_async()
        assert await client.balance_async(ETH, FRIEND) == 7
        await client.close_async()


def refuse():
    raise RpcError(4444, "pruned history unavailable")


@pytest.mark.parametrize("first", [refuse, lambda: None], ids=["refused", "null"])
async def test_an_endpoint_without_the_first_block_is_used_with_a_warning(store, caplog, first):
    async with chain_with(10**18) as chain:
        client = client_of(Endpoint(chain, first), store)
        with caplog.at_level(logging.WARNING, "layer2.bob"):
            await client.initialize_async()
        assert [record.event_code for record in caplog.records] == ["bob.first_block_unknown"]
        await client.close_async()


async def test_an_endpoint_that_does_not_answer_is_no_reason_to_go_on_unchecked(store):
    def silent():
        raise NodeConnectionError("no answer")

    async with chain_with(10**18) as chain:
        client = client_of(Endpoint(chain, silent), store)
        with pytest.raises(NodeError):
            await client.initialize_async()
        await client.close_async()
