"""LNURL-pay links in their text forms."""

import pytest

from layer2.addresses import LnurlPay, parse_address
from layer2.errors import AddressError
from layer2.lightning import decode_lnurl

# The example of LUD-01.
TEXT = (
    "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNX"
    "SCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS"
)
URL = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df"


@pytest.fixture
def lnurl(writer):
    def make(url, hrp="lnurl"):
        raw = url if isinstance(url, bytes) else url.encode()
        return writer.bech32(hrp, raw)

    return make


@pytest.mark.parametrize("text", [TEXT, TEXT.lower(), "lightning:" + TEXT, "LIGHTNING:" + TEXT])
def test_the_example_of_the_specification(text):
    assert decode_lnurl(text) == URL


def test_addresses_read_it():
    assert parse_address("lightning:" + TEXT) == LnurlPay(url=URL)
    assert parse_address("lnurlp://pay.example/a") == LnurlPay(url="https://pay.example/a")


@pytest.mark.parametrize(
    "text",
    [
        "lightning:" + TEXT,
        "0x" + "11" * 20,
        "a@pay.example",
        "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ],
)
def test_white_space_around_an_address_is_dropped(text):
    assert parse_address(f" {text}\r\n") == parse_address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("lnurlp://domain.com/path?a=1", "https://domain.com/path?a=1"),
        ("LNURLP://domain.com:8443/path", "https://domain.com:8443/path"),
    ],
)
def test_links_with_a_scheme_of_their_own(text, url):
    assert decode_lnurl(text) == url


@pytest.mark.parametrize("scheme", ["lnurlw", "lnurlc", "keyauth", "https", "http", "file", "", "\u212aeyauth"])
def test_links_for_something_else(scheme):
    with pytest.raises(AddressError):
        decode_lnurl(scheme + "://domain.com/path")


@pytest.mark.parametrize(
    "url",
    [
        "http://service.com/pay",
        "http://service.onion/pay",
        "https://service.onion/pay",
        "ftp://service.com",
        "file:///etc/passwd",
        "https://",
        "https:///pay",
        "https://user:password@service.com/pay",
        "https://service.com@other.com/pay",
        "https://service.com\\@other.com/pay",
        "https://service.com:0/pay",
        "https://service.com:99999/pay",
        "https://service.com:x/pay",
        "https://[::1/pay",
        "https://service.com/a b",
        "https://service.com/a\nb",
        "https://s\u00e9rvice.com/",
        "service.com",
        "",
        b"https://service.com/\xff",
    ],
)
def test_urls_that_are_not_plain_https(lnurl, url):
    with pytest.raises(AddressError) as caught:
        decode_lnurl(lnurl(url))
    assert "password" not in str(caught.value)


def test_texts_that_are_no_lnurl(lnurl):
    for text in (TEXT[:-1], TEXT[:-1] + "q", "", lnurl(URL, hrp="lnbc"), lnurl(URL) + "q", None, "lnurl1" + "q" * 5000):
        with pytest.raises(AddressError):
            decode_lnurl(text)


def test_a_wrong_character_is_located():
    for at in range(6, len(TEXT)):
        wrong = TEXT[:at] + ("P" if TEXT[at] != "P" else "Q") + TEXT[at + 1 :]
        with pytest.raises(AddressError) as caught:
            decode_lnurl(wrong)
        assert caught.value.position == at
