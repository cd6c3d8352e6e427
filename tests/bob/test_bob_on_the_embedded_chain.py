import asyncio

import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.assets import ETH, AssetForm, AssetRegistry
from layer2.bob import DEVNET, BobClient
from layer2.devnet._embedded_evm import EmbeddedEvm
from layer2.errors import AsyncTimeout, TaskCancelled
from layer2.evm import MemoryTxJournal
from layer2.signers import LocalSigner
from layer2.transactions import Depth

FRIEND = EvmAddress(raw=b"\x0b" * 20)


class Shared:
    """The chain as a transport that does not end with its client."""

    def __init__(self, chain):
        self.call = chain.call

    async def close(self):
        pass


@pytest.fixture
async def bob():
    async with EmbeddedEvm(clock=SystemClock()) as chain:
        client = BobClient(
            transport=Shared(chain),
            signer=LocalSigner(b"\x05" * 32),
            registry=AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)]),
            journal=MemoryTxJournal(),
            preset=DEVNET,
        )
        await chain.fund(client.account, 10**18)
        await client.initialize_async()
        yield client
        await client.close_async()


async def test_transfers_settle_in_process_too(bob):
    ids = await asyncio.gather(*(bob.transfer_asset_async(ETH, 7, FRIEND) for _ in range(10)))
    assert len(set(ids)) == 10
    statuses = await asyncio.gather(*(bob.wait_for_transaction_async(tx_id) for tx_id in ids))
    assert all(status.succeeded for status in statuses)
    assert await bob.balance_async(ETH, FRIEND) == 70


async def test_whoever_only_reads_can_wait_too():
    async with EmbeddedEvm(clock=SystemClock()) as chain:
        parts = {
            "registry": AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)]),
            "preset": DEVNET,
        }
        writer = BobClient(
            transport=Shared(chain), signer=LocalSigner(b"\x05" * 32), journal=MemoryTxJournal(), **parts
        )
        reader = BobClient(transport=Shared(chain), signer=None, journal=MemoryTxJournal(), **parts)
        await chain.fund(writer.account, 10**18)
        for client in (writer, reader):
            await client.initialize_async()
        status = await reader.wait_for_transaction_async(await writer.transfer_asset_async(ETH, 5, FRIEND))
        assert status.succeeded
        assert status.at_least(Depth.INCLUDED)
        for client in (reader, writer):
            await client.close_async()


@pytest.mark.parametrize("end", ["timeout", "cancel"])
async def test_what_ended_before_anything_was_signed_does_not_advise_to_follow_it_up(bob, end):
    cancel = asyncio.Event()
    asyncio.get_running_loop().call_soon(cancel.set)
    with pytest.raises(AsyncTimeout if end == "timeout" else TaskCancelled) as caught:
        await bob.transfer_asset_async(ETH, 7, FRIEND, **({"timeout": 0} if end == "timeout" else {"cancel": cancel}))
    error = caught.value
    assert (error.money_may_have_moved, error.retry_safe, error.tx_id) == (False, True, None)
    assert "nothing was sent" in str(error)
    assert "twice" not in str(error)
    assert "follow" not in str(error)
    assert await bob.rpc.nonce(bob.account) == 0
