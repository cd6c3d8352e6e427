"""The anchors beside a proof say how its token is counted: as the settings do, else its amounts do not add up for whoever verifies it."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from layer2 import AssetConfig, BobConfig, Depth, EvmAddress, Layer2Config
from layer2.cli import _transfer, _transfers
from layer2.cli._proof_files import read_anchors, write_proof

TOKEN = EvmAddress(raw=b"\x11" * 20)


class Believing:
    """A manager that takes every proof for good."""

    async def check_cross_layer_proof_async(self, proof):
        return self

    def raise_if_failed(self):
        pass

    async def get_transfer_async(self, transfer_id):
        return SimpleNamespace(quote=SimpleNamespace(amount=1, destination="bob"), state=None)

    async def __aenter__(self):
        return self, None

    async def __aexit__(self, *_):
        pass


@pytest.fixture
def proof():
    lock = SimpleNamespace(chain_id=60808, token=TOKEN)
    block = SimpleNamespace(hash=b"\x05" * 32, number=5)
    return SimpleNamespace(terms=SimpleNamespace(lock=lock), blocks=[block], depth=Depth.SAFE, to_json=lambda: "{}")


def settings(decimals):
    return Layer2Config(
        network="devnet",
        bob=BobConfig(rpc_url="http://127.0.0.1:1", chain=60808),
        assets={"BTC": AssetConfig(contract=TOKEN, contract_decimals=decimals)},
    )


@pytest.mark.parametrize("decimals", [6, 8, 18])
async def test_beside_a_proof_stand_those_of_its_token(tmp_path, proof, decimals):
    files = await write_proof(Believing(), proof, tmp_path / "proof.json", decimals=decimals)
    (token,) = (await asyncio.to_thread(read_anchors, files.trusted)).tokens
    assert (token.contract, token.decimals) == (TOKEN, decimals)


@pytest.mark.parametrize("decimals", [6, 18])
async def test_both_commands_that_write_a_proof_take_them_from_the_settings(tmp_path, proof, monkeypatch, decimals):
    cli = SimpleNamespace(
        config=settings(decimals), emit=lambda _: None, say=lambda *_, **__: None, working=lambda _: nullcontext()
    )
    moved = SimpleNamespace(id="1")
    monkeypatch.setattr(_transfer, "transfer_json", lambda _: {})
    await _transfer._finish(cli, Believing(), moved, proof, tmp_path / "moved.json")
    monkeypatch.setattr(_transfers, "reader", lambda *_: Believing())

    async def kept(transfer_id):
        return proof

    await _transfers._write_kept(cli, kept, moved, tmp_path / "kept.json")
    for name in ("moved", "kept"):
        (token,) = (await asyncio.to_thread(read_anchors, tmp_path / f"{name}.trusted.json")).tokens
        assert token.decimals == decimals
