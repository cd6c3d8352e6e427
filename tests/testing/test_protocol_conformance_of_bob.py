"""BOB's client on the embedded EVM, held to the rules of every layer."""

import itertools
from contextlib import asynccontextmanager
from dataclasses import replace

from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetRegistry
from layer2.bob import DEVNET, BobClient
from layer2.devnet import EmbeddedNetwork
from layer2.evm import MemoryTxJournal
from layer2.testing import ConformanceSubject, Layer2ProtocolConformance
from layer2.testing.pytest import layer2_network
from layer2.transactions import EvmCall

__all__ = ["layer2_network"]

payees = itertools.count(0x1000)


def new_payee():
    return EvmAddress(raw=next(payees).to_bytes(20))


class TestBob(Layer2ProtocolConformance):
    """The client, its sender and its journal; a block every 50 ms."""

    limit_s = 30

    @asynccontextmanager
    async def subject(self):
        async with EmbeddedNetwork(block_time_s=0.05, with_provider=False) as network:
            client = BobClient(
                transport=network.transport(),
                signer=network.client_signer,
                registry=AssetRegistry([network.token]),
                journal=MemoryTxJournal(),
                preset=replace(DEVNET, chain_id=network.evm.chain_id, poll_interval_s=0.02),
            )

            async def recipient():
                return new_payee()

            async def transaction():
                return EvmCall(to=new_payee(), value_wei=1)

            async def balance():
                account = network.client_signer.address
                owner = account.raw.rjust(32, b"\0").hex()
                call = {"to": str(network.token.contract), "data": f"0x70a08231{owner}"}
                return int(await network.transport().call("eth_call", [call, "latest"]), 16)

            yield ConformanceSubject(
                protocol=client,
                asset=BTC,
                amount=5,
                new_recipient=recipient,
                new_transaction=transaction,
                balance=balance,
            )
            await client.close_async()


async def test_the_plugin_s_network_is_the_embedded_one(layer2_network):
    async with layer2_network(block_time_s=0.05, with_provider=False) as network:
        assert network.merchant_node.node_id
