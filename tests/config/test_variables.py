"""Settings from environment variables, and variables that were meant to be settings."""

import pytest
from settings_files import refused, write

from layer2.config import Layer2Config
from layer2.errors import ConfigurationError


def test_wrong_variables_are_refused(home):
    refused("bob.rpc_ulr", "did you mean rpc_url", environ={**home, "LAYER2_BOB__RPC_ULR": "http://x"})
    refused("max_concurency", "LAYER2_MAX_CONCURRENCY", environ={**home, "LAYER2_MAX_CONCURENCY": "5"})
    refused("max_concurrency", "whole number", environ={**home, "LAYER2_MAX_CONCURRENCY": "many"})
    refused("bob.chain", "contradicts", environ={**home, "LAYER2_BOB": "x", "LAYER2_BOB__CHAIN": "bob"}).key.split()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LAYER2_BOB_RPC_URL", "LAYER2_BOB__RPC_URL"),
        ("LAYER2__BOB__RPC_URL", "LAYER2_BOB__RPC_URL"),
        ("LAYER2_BOB_RPC_ULR", "LAYER2_BOB__RPC_URL"),
        ("LAYER2_BOB_ENDPOINT_OF_MINE", "LAYER2_BOB__KEY"),
        ("LAYER2_RPC_URL", "LAYER2_BOB__RPC_URL"),
        ("LAYER2_CHAIN", "LAYER2_BOB__CHAIN"),
        ("LAYER2_PRIVATE_KEY", "LAYER2_SIGNER__PRIVATE_KEY"),
        ("LAYER2_LIGHTNING_MACAROON_FILE", "LAYER2_LIGHTNING__MACAROON__FILE"),
        ("LAYER2_MACAROON_FILE", "LAYER2_LIGHTNING__MACAROON__FILE"),
        ("LAYER2_CONNECTION_POOL_IDLE_TIMEOUT", "LAYER2_CONNECTION_POOL__IDLE_TIMEOUT_MS"),
        ("LAYER2_MAX_AMOUNT", "LAYER2_SWAP__MAX_AMOUNT or LAYER2_PROVIDER__MAX_AMOUNT"),
        ("LAYER2_ASSETS_BTC_CONTRACT", "LAYER2_ASSETS__NAME__KEY"),
        ("LAYER2_NETWORKS", "LAYER2_NETWORK"),
        ("LAYER2_CONFG", "LAYER2_CONFIG"),
        ("LAYER2_PROVIDER_PORT", "LAYER2_PROVIDER__"),
    ],
)
def test_a_variable_that_looks_like_a_setting_and_is_none_is_refused(home, tmp_path, name, meant):
    write(tmp_path / "layer2.toml", 'network = "devnet"')
    error = refused(name.removeprefix("LAYER2_").lower(), name, meant, environ={**home, name: "7"})
    assert error.variable == name
    assert error.path is None
    assert "layer2.toml" not in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAYER2_ANVIL", "/opt/anvil"),
        ("LAYER2_BENCH_PEERS", "/opt/python"),
        ("LAYER2_BTCD", "/opt/btcd"),
        ("LAYER2_CACHE", "/var/cache"),
        ("LAYER2_LND", "/opt/lnd"),
        ("LAYER2_PASSWORD", "secret"),
        ("_LAYER2_COMPLETE", "complete_bash"),
        ("LAYER2_PROVIDER_SERVICE_HOST", "10.0.0.1"),
        ("LAYER2_PROVIDER_SERVICE_PORT_HTTP", "8787"),
        ("LAYER2_PROVIDER_PORT", "tcp://10.0.0.1:8787"),
        ("LAYER2_PROVIDER_PORT_8787_TCP_ADDR", "10.0.0.1"),
        ("LAYER2_ROLE_IN_OUR_SHOP", "till"),
    ],
)
def test_other_variables_are_let_alone(home, tmp_path, name, value):
    write(tmp_path / "layer2.toml", 'network = "devnet"')
    assert Layer2Config.load(environ={**home, name: value}).network == "devnet"


def test_a_variable_that_a_setting_names_may_be_called_anything(home, tmp_path):
    write(tmp_path / "layer2.toml", '[signer]\nprivate_key = { env = "LAYER2_SIGNER_KEY" }')
    assert Layer2Config.load(environ={**home, "LAYER2_SIGNER_KEY": "11" * 32}).signer is not None
    write(tmp_path / "layer2.toml", 'network = "devnet"')
    refused("signer_key", "LAYER2_SIGNER_KEY", environ={**home, "LAYER2_SIGNER_KEY": "11" * 32})


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("LAYER2_BOB__RPC_URL", "ftp://x", "bob.rpc_url"),
        ("LAYER2_BOB__RPC_ULR", "http://x", "bob.rpc_ulr"),
        ("LAYER2_BOBB__CHAIN", "bob", "bobb"),
        ("LAYER2_MAX_CONCURRENCY", "0", "max_concurrency"),
        ("LAYER2_NETWORK", "moon", "network"),
        ("LAYER2_SWAP__DEPTH", '[{ depth = "deep" }]', "swap.depth.0.depth"),
        ("LAYER2_SWAP__DEPTH", "[", "swap.depth"),
        ("LAYER2_ASSETS__X__CONTRACT", "0x12", "assets.X.contract"),
        ("LAYER2_LIGHTNING__MACAROON__FILE", "/none", "lightning.macaroon"),
        ("LAYER2_LIGHTNING__MACAROON__ENV", "NONE", "lightning.macaroon"),
        ("LAYER2_PROVIDER__MIN_AMOUNT", "30000", "provider.min_amount"),
    ],
)
def test_a_wrong_variable_is_named_instead_of_the_file(home, tmp_path, name, value, key):
    file = write(
        tmp_path / "layer2.toml", '[lightning]\nrest_url = "https://x"\nmacaroon = "00"\n[provider]\nmax_amount = 20000'
    )
    error = refused(key, name, environ={**home, name: value})
    assert "EnvText" not in str(error)
    assert error.variable == name
    assert error.path == ("/none" if value == "/none" else None)
    assert str(file) not in str(error)


def test_where_file_and_variable_contradict_each_other_both_are_named(home, tmp_path):
    file = write(tmp_path / "layer2.toml", '[provider]\nmin_amount = 9000\n[signer]\nkeystore = "k"\npassword = "x"')
    error = refused("provider.min_amount", str(file), environ={**home, "LAYER2_PROVIDER__MAX_AMOUNT": "8000"})
    assert (error.variable, error.path) == ("LAYER2_PROVIDER__MAX_AMOUNT", str(file))
    key = {**home, "LAYER2_SIGNER__PRIVATE_KEY": "11" * 32}
    error = refused("signer", str(file), "LAYER2_SIGNER__PRIVATE_KEY", environ=key)
    assert error.variable == "LAYER2_SIGNER__PRIVATE_KEY"
    assert "1111" not in str(error)
    section = {**home, "LAYER2_LIGHTNING__REST_URL": "https://x"}
    assert refused("lightning.macaroon", "is missing", environ=section).variable == "LAYER2_LIGHTNING__REST_URL"


def test_what_an_argument_replaces_is_not_the_variable_s_fault(home):
    environ = {**home, "LAYER2_BOB__RPC_URL": "http://x"}
    with pytest.raises(ConfigurationError) as caught:
        Layer2Config.load(environ=environ, bob={"rpc_url": "ftp://x"})
    assert caught.value.variable is None
