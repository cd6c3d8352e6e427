"""The few HTTP calls by which a devnet steers its own nodes: JSON in, JSON out, over loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, Self

import aiohttp

from layer2.errors import NodeConnectionError, UnexpectedReply

__all__ = ["JsonHttp"]


class JsonHttp:
    """A connection to one node, for its owner's event loop."""

    def __init__(self, name: str, base_url: str, *, certificate: Path | None = None) -> None:
        self.name = name
        self.base_url = base_url
        self._certificate = certificate
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str = "",
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[int, Any]:
        """The status and the decoded body.

        Raises:
            NodeConnectionError: no connection, or no answer in time.
            UnexpectedReply: the body is not JSON.
        """
        session = await self._opened()
        try:
            async with session.request(
                method,
                self.base_url + path,
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise NodeConnectionError(f"{self.name} does not answer: {exc!r}", endpoint=self.base_url) from exc
        try:
            return response.status, json.loads(text)
        except ValueError as exc:
            raise UnexpectedReply(
                f"{self.name} answered HTTP {response.status} without JSON: {text[:200]!r}", endpoint=self.base_url
            ) from exc

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            verify: ssl.SSLContext | bool = True
            if self._certificate is not None:
                try:
                    verify = await asyncio.to_thread(_trusting, self._certificate)
                except (OSError, ssl.SSLError) as exc:
                    raise NodeConnectionError(
                        f"{self.name} has not written its certificate {self._certificate} yet", request_sent=False
                    ) from exc
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=verify, force_close=False))
        return self._session

    async def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


def _trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    # Python 3.13 and later also ask for key identifiers, which the self-signed certificates of btcd and lnd lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
