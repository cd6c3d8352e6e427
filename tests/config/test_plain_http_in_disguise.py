"""A URL is read as whoever connects to it reads it: no spelling of plain HTTP gets past its refusal."""

import pytest

from layer2._config_secret import is_plain_http_elsewhere
from layer2.config import BobConfig, LightningConfig, Secret, SwapConfig
from layer2.errors import ConfigurationError
from layer2.lightning import LndNode

SPELLINGS = [
    "HTTP://{}",
    "Http://{}",
    " http://{}",
    "http://{} ",
    "\thttp://{}",
    "\nhttp://{}",
    "ht\ttp://{}",
    "http:\n//{}",
    "\x00http://{}",
    "\u00a0http://{}",
    " HTTP://{}",
]
AFAR, NEAR = "10.1.2.3:8080", "127.0.0.1:8080"

spelt = pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)


@spelt
def test_lnd_on_another_machine(spelling):
    with pytest.raises(ConfigurationError) as caught:
        LndNode.connect(spelling.format(AFAR), macaroon=b"\x01")
    assert caught.value.key == "lightning.rest_url"


@spelt
@pytest.mark.parametrize(
    "make",
    [
        lambda url: BobConfig(rpc_url=url),
        lambda url: LightningConfig(rest_url=url, macaroon=Secret("00")),
        lambda url: SwapConfig(provider_url=url),
    ],
    ids=["bob", "lightning", "swap"],
)
def test_in_the_settings(make, spelling):
    with pytest.raises(ConfigurationError):
        make(spelling.format(AFAR))


@pytest.mark.parametrize(
    "url", ["https://10.1.2.3", "HTTPS://10.1.2.3", "http://localhost", "HTTP://[::1]:1", "sqlite://"]
)
def test_what_is_no_plain_http_to_another_machine(url):
    assert not is_plain_http_elsewhere(url)


@pytest.mark.parametrize("url", [*(each.format(AFAR) for each in SPELLINGS if "\u00a0" not in each), "http://[::2"])
def test_what_is(url):
    assert is_plain_http_elsewhere(url)


async def test_lnd_on_this_machine_in_capitals_is_reached_without_tls():
    node = LndNode.connect(f"HTTP://{NEAR}", macaroon=b"\x01", fingerprint="00" * 32)
    await node.close()


@pytest.mark.parametrize(
    "url", [" https://10.1.2.3:8080", "https://10.1.2.3:8080\n", "https://10.1.2.3 :8080", "https://[::2"]
)
def test_white_space_and_what_is_no_url_are_refused(url):
    with pytest.raises(ConfigurationError, match="https://host:port"):
        LndNode.connect(url, macaroon=b"\x01")
