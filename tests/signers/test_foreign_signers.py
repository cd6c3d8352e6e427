"""A signer is the caller's own: whatever it does comes out as SignerError, with nothing sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from layer2 import (
    BTC,
    ETH,
    AssetForm,
    AssetRegistry,
    EvmAddress,
    EvmCall,
    Layer2Config,
    Layer2Manager,
    SignerError,
    SwapError,
    TransferState,
)
from layer2 import Layer2ProtocolType as P
from layer2._clock import SystemClock
from layer2.bob import DEVNET, BobClient
from layer2.devnet import EmbeddedNetwork
from layer2.devnet._embedded_evm import EmbeddedEvm
from layer2.evm import MemoryTxJournal, RpcError
from layer2.signers import LocalSigner
from layer2.storage import copy_key
from layer2.swaps import PreimageSource, Role

FRIEND = EvmAddress(raw=b"\x0b" * 20)
SECRET_TEXT = "PIN 1234"


class Flaky:
    """A good signer until ``trouble`` is set; then that is what it does instead."""

    def __init__(self, good: LocalSigner) -> None:
        self.good = good
        self.trouble: Callable[[], Any] | None = None

    @property
    def address(self) -> EvmAddress:
        return self.good.address

    async def sign_digest(self, digest: bytes) -> bytes:
        return await self.good.sign_digest(digest) if self.trouble is None else await self._troubled()

    async def derive_secret(self, label: bytes) -> bytes:
        return await self.good.derive_secret(label) if self.trouble is None else await self._troubled()

    async def _troubled(self) -> Any:
        assert self.trouble is not None
        answer = self.trouble()
        return await answer if asyncio.iscoroutine(answer) else answer


def raising(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


TROUBLES = {
    "RuntimeError": raising(RuntimeError(SECRET_TEXT)),
    "OSError": raising(OSError(SECRET_TEXT)),
    "TimeoutError": raising(TimeoutError(SECRET_TEXT)),
    "its own": raising(SignerError("the device is locked")),
    "None": lambda: None,
    "text": lambda: "0x" + "11" * 65,
    "too short": lambda: bytes(31),
    "too long": lambda: bytes(66),
    "hangs": lambda: asyncio.sleep(3600),
}
troubles = pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layer2._signing.SIGNER_TIMEOUT_S", 0.3)


class Shared:
    """The chain as a transport that does not end with its client."""

    def __init__(self, chain: EmbeddedEvm) -> None:
        self.call = chain.call

    async def close(self) -> None:
        pass


@pytest.fixture
async def signer() -> Flaky:
    return Flaky(LocalSigner(b"\x05" * 32))


@pytest.fixture
async def bob(signer: Flaky) -> AsyncIterator[BobClient]:
    async with EmbeddedEvm(clock=SystemClock()) as chain:
        client = BobClient(
            transport=Shared(chain),
            signer=signer,
            registry=AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)]),
            journal=MemoryTxJournal(),
            preset=DEVNET,
        )
        await chain.fund(client.account, 10**18)
        await client.initialize_async()
        yield client
        await client.close_async()


def check(error: SignerError) -> None:
    assert type(error) is SignerError
    assert not error.money_may_have_moved
    assert error.retry_safe
    assert SECRET_TEXT not in str(error)


@troubles
async def test_what_cannot_be_signed_is_not_sent(bob: BobClient, signer: Flaky, trouble: Callable[[], Any]) -> None:
    signer.trouble = trouble
    for sending in (
        bob.transfer_asset_async(ETH, 7, FRIEND, idempotency_key="rent"),
        bob.submit_transaction_async(EvmCall(to=FRIEND, value_wei=7)),
    ):
        with pytest.raises(SignerError) as caught:
            await sending
        check(caught.value)
    assert await bob.rpc.nonce(bob.account) == 0
    signer.trouble = None
    tx_id = await bob.transfer_asset_async(ETH, 7, FRIEND, idempotency_key="rent")
    assert (await bob.wait_for_transaction_async(tx_id)).succeeded
    assert await bob.balance_async(ETH, FRIEND) == 7


@troubles
async def test_a_secret_that_cannot_be_derived_is_none(signer: Flaky, trouble: Callable[[], Any]) -> None:
    signer.trouble = trouble
    for deriving in (copy_key(signer, Role.CLIENT), PreimageSource(signer).preimage_for(1, bytes(20), 1)):
        with pytest.raises(SignerError) as caught:
            await deriving
        check(caught.value)


async def test_ones_own_cancellation_and_limit_go_through_a_signer_that_hangs(bob: BobClient, signer: Flaky) -> None:
    signer.trouble = lambda: asyncio.sleep(3600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await PreimageSource(signer).preimage_for(1, bytes(20), 1)


async def test_a_signer_that_does_not_tell_its_account_is_refused() -> None:
    class Mute(Flaky):
        @property
        def address(self) -> EvmAddress:
            raise OSError(SECRET_TEXT)

    async with EmbeddedEvm(clock=SystemClock()) as chain:
        with pytest.raises(SignerError) as caught:
            BobClient(
                transport=Shared(chain),
                signer=Mute(LocalSigner(b"\x05" * 32)),
                registry=AssetRegistry(),
                journal=MemoryTxJournal(),
                preset=DEVNET,
            )
        check(caught.value)


async def test_a_signer_that_fails_when_a_price_is_raised_does_not_say_that_nothing_was_sent(signer: Flaky) -> None:
    """The first signature is out by then: its bytes are sent again as they are."""
    async with EmbeddedEvm(clock=SystemClock()) as chain:
        sent: list[str] = []

        class Busy(Shared):
            async def call(self, method: str, params: Any) -> Any:
                if method == "eth_sendRawTransaction":
                    sent.append(params[0])
                    signer.trouble = TROUBLES["OSError"]
                    if len(sent) == 1:
                        raise RpcError(-32000, "transaction underpriced")
                return await chain.call(method, params)

            def __init__(self) -> None:
                pass

        client = BobClient(
            transport=Busy(),
            signer=signer,
            registry=AssetRegistry([AssetForm(asset=ETH, chain_id=60808, contract=None, decimals=18)]),
            journal=MemoryTxJournal(),
            preset=DEVNET,
        )
        await chain.fund(client.account, 10**18)
        await client.initialize_async()
        tx_id = await client.transfer_asset_async(ETH, 7, FRIEND)
        assert (await client.wait_for_transaction_async(tx_id)).succeeded
        assert len(sent) >= 2
        assert len(set(sent)) == 1
        await client.close_async()


@pytest.mark.parametrize("name", ["RuntimeError", "None", "hangs"])
async def test_a_transfer_that_cannot_sign_its_lock_ends_and_binds_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with EmbeddedNetwork() as network:
        signer = Flaky(network.client_signer)
        network.client_signer = signer  # type: ignore[assignment]

        class Again:
            async def __aenter__(self) -> EmbeddedNetwork:
                return network

            async def __aexit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr("layer2.devnet.EmbeddedNetwork", lambda **_: Again())
        async with Layer2Manager(Layer2Config.embedded()) as manager:
            await manager.initialize_all_async()
            before = await (await manager.get_protocol_async(P.BOB)).balance_async(BTC)
            invoice = await network.merchant_node.create_invoice(amount_msat=10_000_000)
            signer.trouble = TROUBLES[name]
            transfer = await manager.start_cross_layer_transfer_async(
                BTC, 10_000, P.BOB, P.LIGHTNING, recipient=invoice.text
            )
            async with asyncio.timeout(30):
                with pytest.raises(SwapError, match="signer"):
                    await transfer.result_async()
            assert (await manager.get_transfer_async(transfer.id)).state is TransferState.EXPIRED
            assert await (await manager.get_protocol_async(P.BOB)).balance_async(BTC) == before
