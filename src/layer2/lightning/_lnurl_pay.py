"""LNURL-pay and Lightning addresses (LUD-06, LUD-16): from a recipient and an amount to an invoice.

The addresses come from strangers. So: HTTPS only, every host resolved once and connected by what it resolved to, nothing
that is not on the public Internet, 3 redirects, 64 KiB, 10 seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from layer2._crypto import sha256
from layer2.addresses import LightningAddress, LnurlPay
from layer2.errors import (
    AddressError,
    AmountError,
    InvoiceError,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    RateLimited,
    UnexpectedReply,
)
from layer2.lightning._bolt11 import decode_invoice
from layer2.lightning._invoice import Invoice

__all__ = ["LnurlClient"]

MAX_REDIRECTS = 3
MAX_REPLY_BYTES = 64 * 1024
TIME_LIMIT_S = 10.0
MAX_REASON = 200
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class _PayRequest:
    callback: str
    min_msat: int
    max_msat: int
    metadata: str


class LnurlClient:
    """Fetches invoices. ``allow_local`` is for tests: it admits private addresses, and plain HTTP to loopback."""

    def __init__(self, *, allow_local: bool = False) -> None:
        self._allow_local = allow_local

    async def fetch_invoice(self, recipient: LightningAddress | LnurlPay, amount_msat: int) -> Invoice:
        """An invoice for exactly this amount, bound to the metadata that the service showed.

        Raises:
            AddressError: the address leads where nothing may be fetched, or to no LNURL-pay service.
            AmountError: the service takes no such amount.
            InvoiceError: the invoice is not for this amount or not bound to the metadata.
            NodeError: the service refused, cannot be reached, or breaks the rules.
        """
        host = urlsplit(self._url_of(recipient)).hostname
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                request = self._pay_request(await self._get(self._url_of(recipient)))
                if not request.min_msat <= amount_msat <= request.max_msat:
                    raise AmountError(
                        f"the recipient takes {request.min_msat} to {request.max_msat} msat, not {amount_msat}",
                        field="amount",
                    )
                separator = "&" if urlsplit(request.callback).query else "?"
                reply = await self._get(request.callback + separator + urlencode({"amount": amount_msat}))
        except TimeoutError as exc:
            if isinstance(exc, Layer2Error):
                raise
            raise NodeConnectionError(
                f"the recipient's service at {host} did not answer in time", endpoint=host, request_sent=True
            ) from exc
        except NodeError as exc:
            exc.endpoint = exc.endpoint or host
            raise
        return _checked_invoice(reply, request.metadata, amount_msat)

    def _url_of(self, recipient: LightningAddress | LnurlPay) -> str:
        if isinstance(recipient, LnurlPay):
            return recipient.url
        url = f"https://{recipient.domain}/.well-known/lnurlp/{recipient.user}"
        local = self._allow_local and _is_loopback_name(urlsplit(url).hostname or "")
        return url.replace("https:", "http:", 1) if local else url

    def _pay_request(self, reply: Mapping[str, Any]) -> _PayRequest:
        if reply.get("tag") != "payRequest":
            raise AddressError("the address does not lead to an LNURL-pay service", field="recipient")
        callback, metadata = reply.get("callback"), reply.get("metadata")
        least, most = reply.get("minSendable"), reply.get("maxSendable")
        if (
            not isinstance(callback, str)
            or not isinstance(metadata, str)
            or type(least) is not int
            or type(most) is not int
            or not 0 < least <= most
        ):
            raise UnexpectedReply("the LNURL-pay service leaves out what LUD-06 asks for, or gives it a wrong type")
        return _PayRequest(callback, least, most, metadata)

    async def _get(self, url: str) -> dict[str, Any]:
        connector = aiohttp.TCPConnector(
            resolver=_PublicResolver(allow_local=self._allow_local), use_dns_cache=False, force_close=True
        )
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for _ in range(MAX_REDIRECTS + 1):
                self._check_url(urlsplit(url))
                try:
                    async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
                        if response.status not in (301, 302, 303, 307, 308):
                            return await _read(response)
                        url = urljoin(url, response.headers.get("Location", ""))
                except Layer2Error:
                    raise
                except (aiohttp.ClientError, OSError, ValueError) as exc:
                    host = urlsplit(url).hostname
                    raise _address_refusal(exc) or NodeConnectionError(
                        f"the recipient's service at {host} cannot be reached", endpoint=host
                    ) from exc
        raise UnexpectedReply(f"the recipient's service redirects more than {MAX_REDIRECTS} times")

    def _check_url(self, parts: SplitResult) -> None:
        host = parts.hostname or ""
        if parts.scheme == "http" and self._allow_local and _is_loopback_name(host):
            return
        if parts.scheme != "https" or not host or parts.username or parts.password:
            raise AddressError("the recipient's service is not reached by HTTPS", field="recipient")
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return
        if not self._allow_local:
            _require_public(literal)


class _PublicResolver(AbstractResolver):
    """Resolves a host once and refuses it if any of its addresses is not public; the connection goes to what it returns."""

    def __init__(self, *, allow_local: bool) -> None:
        self._allow_local = allow_local

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses, in the order of the system."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            if not self._allow_local:
                try:
                    _require_public(ipaddress.ip_address(str(address[0]).partition("%")[0]))
                except AddressError as refusal:
                    raise OSError(None, "refused") from refusal
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing to free."""


def _require_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inner: ipaddress.IPv4Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if not address.is_global or address.is_multicast or (inner is not None and not inner.is_global):
        raise AddressError(
            "the recipient's service has an address that is not on the public Internet", field="recipient"
        )


def _address_refusal(error: BaseException | None) -> AddressError | None:
    """The refusal of the resolver that lies under an error of the HTTP library, if one does."""
    while error is not None and not isinstance(error, AddressError):
        error = error.__cause__
    return error


def _is_loopback_name(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_REPLY_BYTES:
            raise UnexpectedReply(f"the recipient's service sends more than {MAX_REPLY_BYTES} bytes")
    if response.status == 429:
        raise RateLimited("the recipient's service answers 429: asked too often")
    # Its nesting is bounded; the standard parser's is only by a limit that others in the process may raise past the stack's end.
    from pydantic_core import from_json

    try:
        reply = from_json(bytes(data))
    except ValueError as exc:
        raise UnexpectedReply(f"the recipient's service answers HTTP {response.status} without JSON") from exc
    if not isinstance(reply, dict):
        raise UnexpectedReply("the recipient's service answers with something else than a JSON object")
    if str(reply.get("status", "")).upper() == "ERROR":
        reason = "".join(c for c in str(reply.get("reason", "")) if c.isprintable())[:MAX_REASON]
        raise NodeError(f"the recipient's service refused: {reason}")
    if response.status != 200:
        raise UnexpectedReply(f"the recipient's service answers HTTP {response.status}")
    return reply


def _checked_invoice(reply: Mapping[str, Any], metadata: str, amount_msat: int) -> Invoice:
    text = reply.get("pr")
    if not isinstance(text, str):
        raise UnexpectedReply("the recipient's service gave no invoice")
    invoice = decode_invoice(text)
    if invoice.amount_msat != amount_msat:
        raise InvoiceError(
            f"the recipient's service gave an invoice of {invoice.amount_msat} msat for {amount_msat}", field="invoice"
        )
    if invoice.description_hash != sha256(metadata.encode()):
        raise InvoiceError("the invoice is not bound to the metadata that the service showed (LUD-06)", field="invoice")
    return invoice
