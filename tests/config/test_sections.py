"""Sections that are built in Python: what is of another type is made right where that is plain, and else refused by its key."""

from pathlib import Path
from typing import Any

import pytest

from layer2 import Layer2Manager, Layer2ManagerSync
from layer2.config import (
    AssetConfig,
    BobConfig,
    DepthRule,
    Layer2Config,
    LightningConfig,
    ProviderConfig,
    Secret,
    SignerConfig,
    StoreConfig,
    SwapConfig,
)
from layer2.errors import ConfigurationError
from layer2.provider import ProviderDaemon
from layer2.transfers import read_transfers

KEY = "11" * 32


@pytest.mark.parametrize("given", ["0201deadbeef", b"0201deadbeef", Secret("0201deadbeef")])
def test_text_in_the_place_of_a_secret_is_one_and_is_not_shown(given: Any) -> None:
    lightning = LightningConfig(rest_url="https://127.0.0.1:1", macaroon=given)
    signer = SignerConfig(keystore=Path("a"), password=given)
    config = Layer2Config(network="devnet", lightning=lightning, signer=signer)
    assert lightning.macaroon == signer.password == Secret("0201deadbeef")
    assert lightning.macaroon_hex == "0201deadbeef"
    for shown in (repr(config), str(config), repr(lightning), repr(signer), config.to_toml()):
        assert "deadbeef" not in shown


def test_text_is_a_key_and_a_path_as_in_a_file() -> None:
    key: Any = KEY
    assert SignerConfig(private_key=key) == SignerConfig(private_key=Secret(KEY))
    path: Any = "~/tls.cert"
    section = LightningConfig(rest_url="https://x", macaroon=Secret("00"), tls_cert=path)
    assert section.tls_cert == Path.home() / "tls.cert"
    rules: Any = [DepthRule(depth="safe")]
    assert SwapConfig(depth=rules).depth == (DepthRule(depth="safe"),)


@pytest.mark.parametrize(
    ("make", "key", "needles"),
    [
        (lambda: Layer2Config(bob={"rpc_url": "https://x"}), "bob", ["BobConfig, not dict", "BobConfig(...)"]),
        (lambda: Layer2Config(swap=BobConfig()), "swap", ["a SwapConfig, not BobConfig"]),
        (lambda: Layer2Config(store=None), "store", ["a StoreConfig, not NoneType"]),
        (lambda: Layer2Config(network="bitcoin"), "network", ["'bob' or 'bob-sepolia'"]),
        (lambda: Layer2Config(network=["bob"]), "network", ["not list"]),
        (lambda: Layer2Config(max_concurrency=True), "max_concurrency", ["a whole number, not bool"]),
        (lambda: Layer2Config(allow_readable_secrets=1), "allow_readable_secrets", ["true or false, not int 1"]),
        (lambda: Layer2Config(assets={"X": {"contract": "0x"}}), "assets.X", ["AssetConfig(...)"]),
        (lambda: Layer2Config(assets=[]), "assets", ["a section, not list"]),
        (lambda: BobConfig(rpc_url=5), "bob.rpc_url", ["text, not int"]),
        (lambda: BobConfig(chain=True), "bob.chain", ["text or a whole number, not bool"]),
        (lambda: BobConfig(poll_interval_ms=1.5), "bob.poll_interval_ms", ["a whole number, not float 1.5"]),
        (lambda: BobConfig(allow_plain_http="yes"), "bob.allow_plain_http", ["true or false"]),
        (lambda: AssetConfig(contract="0x00"), "assets.contract", ["an EVM address"]),
        (lambda: StoreConfig(url=Path("x")), "store.url", ["text"]),
        (lambda: SwapConfig(depth=DepthRule(depth="safe")), "swap.depth", ["a list, not DepthRule"]),
        (lambda: SwapConfig(depth=[{"depth": "safe"}]), "swap.depth.0", ["DepthRule(...)"]),
        (lambda: DepthRule(depth="deep"), "swap.depth.depth", ["'included' or"]),
        (lambda: LightningConfig(rest_url="https://x", macaroon=5), "lightning.macaroon", ["not int"]),
        (lambda: LightningConfig(rest_url="https://x", macaroon=None), "lightning.macaroon", ["not NoneType"]),
        (lambda: SignerConfig(private_key=int(KEY, 16)), "signer.private_key", ["not int"]),
        (lambda: ProviderConfig(timing={"grace_s": "9"}), "provider.timing.grace_s", ["a whole number"]),
    ],
)
def test_another_type_is_refused_by_its_key(make: Any, key: str, needles: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.key == key
    for needle in needles:
        assert needle in str(caught.value)
    assert str(int(KEY, 16)) not in str(caught.value)


@pytest.mark.parametrize("manager", [Layer2Manager, Layer2ManagerSync, ProviderDaemon, read_transfers])
@pytest.mark.parametrize("given", ["layer2.toml", Path("layer2.toml"), {"network": "devnet"}])
def test_what_takes_settings_takes_no_name_of_a_file(manager: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="Layer2Config") as caught:
        manager(given)
    assert "Layer2Config.load(" in caught.value.hint
