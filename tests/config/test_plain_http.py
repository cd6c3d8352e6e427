"""Plain HTTP to another machine, where anybody on the way reads and answers."""

import pytest

from layer2.addresses import EvmAddress
from layer2.config import BobConfig, LightningConfig, Secret, SwapConfig
from layer2.errors import ConfigurationError

TOKEN = "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"


@pytest.mark.parametrize("url", ["http://swaps.example", "http://10.0.0.2:8787", "http://127.0.0.1.example"])
def test_a_provider_that_anybody_on_the_way_could_be_is_refused(url):
    with pytest.raises(ConfigurationError, match="plain HTTP") as caught:
        SwapConfig(provider_url=url)
    assert caught.value.key == "swap.provider_url"
    address = EvmAddress.parse(TOKEN)
    assert SwapConfig(provider_url=url, provider_address=address).provider_address == address


@pytest.mark.parametrize(
    "url", ["https://swaps.example", "http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost:1"]
)
def test_a_provider_over_tls_or_on_this_machine_needs_no_address(url):
    assert SwapConfig(provider_url=url).provider_address is None


@pytest.mark.parametrize("url", ["http://node.example:8080", "http://10.1.2.3:8080", "http://127.0.0.1@10.1.2.3"])
@pytest.mark.parametrize(
    ("make", "key", "opt_out"),
    [
        (lambda **changes: BobConfig(rpc_url=changes.pop("url"), **changes), "bob.rpc_url", "bob.allow_plain_http"),
        (
            lambda **changes: LightningConfig(rest_url=changes.pop("url"), macaroon=Secret("00"), **changes),
            "lightning.rest_url",
            "lightning.allow_plain_http",
        ),
    ],
    ids=["bob", "lightning"],
)
def test_a_node_on_another_machine_over_plain_http_is_refused_unless_allowed(url, make, key, opt_out):
    with pytest.raises(ConfigurationError, match="plain HTTP to another machine") as caught:
        make(url=url)
    assert caught.value.key == key
    assert f"{opt_out} = true" in caught.value.hint
    assert make(url=url, allow_plain_http=True).allow_plain_http
    for near in (
        "https://node.example",
        "http://127.0.0.1:1",
        "http://127.8.8.8:1",
        "http://[::1]:1",
        "http://localhost",
    ):
        assert make(url=near).allow_plain_http is False


@pytest.mark.parametrize("url", ["https://[::2", "https://", "https://node.example:0", "https://node.example:99999"])
def test_a_url_that_names_no_place_is_refused_with_the_settings(url):
    for make, key in (
        (lambda: BobConfig(rpc_url=url), "bob.rpc_url"),
        (lambda: LightningConfig(rest_url=url, macaroon=Secret("00")), "lightning.rest_url"),
        (lambda: SwapConfig(provider_url=url), "swap.provider_url"),
    ):
        with pytest.raises(ConfigurationError, match="must name a host") as caught:
            make()
        assert caught.value.key == key
