import pytest

from layer2.addresses import EvmAddress
from layer2.assets import BTC, ETH, AssetForm, AssetRegistry
from layer2.bob import DEVNET, BobClient
from layer2.evm import (
    HttpTransport,
    MemoryTxJournal,
    encode_mint,
    load_artifact,
)
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall, Outcome

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
TOKEN_CODE = load_artifact("test_token").bytecode
FRIEND = EvmAddress(raw=b"\x0b" * 20)


@pytest.fixture
async def bob(start_anvil):
    """A client on an anvil of its own, with a token that BTC is there, of which the account has 1,000,000."""
    anvil = await start_anvil()
    signer = LocalSigner.from_hex(KEY)
    registry = AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)])
    client = BobClient(
        transport=HttpTransport(anvil.url),
        signer=signer,
        registry=registry,
        journal=MemoryTxJournal(),
        preset=DEVNET,
    )
    await client.initialize_async()
    deploy = EvmCall(to=None, data=TOKEN_CODE)
    deployed = await client.submit_transaction_async(deploy)
    await client.wait_for_transaction_async(deployed.tx_id)
    token = (await client.rpc.receipt(deployed.tx_id.hash)).contract
    minted = await client.submit_transaction_async(EvmCall(to=token, data=encode_mint(signer.address, 1_000_000)))
    await client.wait_for_transaction_async(minted.tx_id)
    client.registry = registry.with_form(AssetForm(asset=BTC, chain_id=60808, contract=token, decimals=8))
    yield client
    await client.close_async()


async def test_a_transfer_of_the_token_arrives(bob):
    tx_id = await bob.transfer_asset_async(BTC, 100_000, str(FRIEND))
    status = await bob.wait_for_transaction_async(tx_id)
    assert status.outcome is Outcome.SUCCEEDED
    assert status.at_least(Depth.INCLUDED)
    assert await bob.balance_async(BTC, FRIEND) == 100_000
    assert await bob.balance_async(BTC) == 900_000
