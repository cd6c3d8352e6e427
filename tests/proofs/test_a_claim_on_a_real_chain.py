"""A lock made and claimed on anvil: its proofs are collected, and verify with the chain gone from view."""

import asyncio
import secrets

import pytest

from layer2._crypto import eth_address, public_key, sha256
from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.errors import UnexpectedReply
from layer2.evm._artifacts import (
    CREATE2_PROXY,
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    encode_create2,
    load_artifact,
)
from layer2.evm._erc20 import encode_approve, encode_mint
from layer2.evm._htlc import encode_claim, encode_lock
from layer2.proofs import collect_header, collect_lock_proof, collect_receipt_proof, verify_transfer_proof
from layer2.terms import SwapDirection
from layer2.transactions import Depth

pytestmark = pytest.mark.real


@pytest.fixture
def call(regtest):
    """The shared chain as the collector wants it."""

    async def ask(method, params):
        return await regtest.evm_rpc(method, *params)

    return ask


@pytest.fixture(scope="module")
def codes(made):
    """What is read from files and imported on first use, before a loop runs."""
    made.verify(made.make_proof())
    return {
        HTLC_ADDRESS: load_artifact("htlc").bytecode,
        TEST_TOKEN_ADDRESS: load_artifact("test_token").bytecode,
    }


async def send(call, to, data):
    """Send from an account that anvil signs for, and wait until it is in a block."""
    sender = (await call("eth_accounts", []))[-1]
    transaction = {"from": sender, "to": str(to), "data": "0x" + data.hex(), "gas": hex(3_000_000)}
    tx_hash = await call("eth_sendTransaction", [transaction])
    while (receipt := await call("eth_getTransactionReceipt", [tx_hash])) is None:
        await call("evm_mine", [])
    assert receipt["status"] == "0x1"
    return bytes.fromhex(tx_hash[2:])


async def lock_proof(call, lock, **options):
    """While anvil mines it answers for a block with the state after the next one: then it is to be asked again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await collect_lock_proof(call, lock, **options)
            except UnexpectedReply as error:
                if "does not hash to the root" not in str(error):
                    raise


async def test_both_proofs_of_a_real_claim_verify(made, call, codes):
    for address, code in codes.items():
        if await call("eth_getCode", [str(address), "latest"]) == "0x":
            await send(call, CREATE2_PROXY, encode_create2(code))
    sender = EvmAddress.parse((await call("eth_accounts", []))[-1])
    preimage = secrets.token_bytes(32)
    now = (await collect_header(call)).timestamp
    terms = made.make_terms(
        SwapDirection.SUBMARINE,
        invoice=made.make_invoice(100_000_000, preimage),
        lock_preimage_hash=sha256(preimage),
        lock_contract=HTLC_ADDRESS,
        lock_token=TEST_TOKEN_ADDRESS,
        lock_refunder=sender,
        lock_timelock=now + 86_400,
        lock_claimer=EvmAddress(raw=eth_address(public_key(made.PROVIDER_KEY))),
    )
    await send(call, TEST_TOKEN_ADDRESS, encode_mint(sender, terms.lock.amount))
    await send(call, TEST_TOKEN_ADDRESS, encode_approve(HTLC_ADDRESS, terms.lock.amount))
    assert (await lock_proof(call, terms.lock)).value == 0
    await send(call, HTLC_ADDRESS, encode_lock(terms.lock))
    assert (await lock_proof(call, terms.lock)).value == 1
    tx_hash = await send(call, HTLC_ADDRESS, encode_claim(terms.lock, preimage))

    receipt = await collect_receipt_proof(call, chain_id=60808, tx_hash=tx_hash)
    storage = await lock_proof(call, terms.lock, block=receipt.block_hash)
    assert storage.value.to_bytes(32) == preimage
    proof = made.make_proof(terms, preimage=preimage, storage=storage, receipt=receipt)
    report = verify_transfer_proof(
        proof.to_json(),
        trusted_blocks={storage.block_hash: Depth.INCLUDED},
        assets=AssetRegistry([AssetForm(asset=BTC, chain_id=60808, contract=TEST_TOKEN_ADDRESS, decimals=8)]),
        expected=terms,
        min_depth=Depth.INCLUDED,
    )
    assert report.raise_if_failed().verdict() is True
    assert not [check for check in report.checks if check.result.value != "passed"]
