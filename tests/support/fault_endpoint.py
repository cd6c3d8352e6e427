"""An endpoint of an EVM chain that lies, or refuses to serve, for as long as it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Self

import aiohttp
from aiohttp import web

Answer = dict[str, Any]
BEHIND = 2
"""Blocks by which an old head is behind."""


class Lie(Enum):
    """What is wrong with the answers."""

    NONE = "true"
    OLD_HEAD = "is behind"
    """It has fallen behind: everything is answered as of some blocks ago."""
    NO_RECEIPTS = "shows no receipts"
    """It does not know a transaction that is included."""
    FAILED_RECEIPTS = "shows receipts of failure"
    """It gives the receipt of a transaction that failed."""
    NO_LOGS = "finds no events"
    """It finds no events."""
    TOO_OFTEN = "answers 429"
    HANGS = "hangs"


class LyingEndpoint:
    """An async context manager: a proxy in front of an endpoint. ``answered`` counts the answers that were no true ones."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._lie = Lie.NONE
        self._honest = asyncio.Event()
        self.answered: Counter[str] = Counter()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.tell(Lie.NONE)
        await self._runner.cleanup()
        await self._client.close()

    def tell(self, lie: Lie) -> None:
        """Answer so from now on. Requests that hang get their answers once it is honest again."""
        self._lie = lie
        (self._honest.set if lie is Lie.NONE else self._honest.clear)()

    @contextmanager
    def elsewhere(self, upstream: str) -> Iterator[None]:
        """Inside, everything is answered by another chain."""
        before, self._upstream = self._upstream, upstream
        try:
            yield
        finally:
            self._upstream = before

    async def _serve(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if self._lie is Lie.TOO_OFTEN:
            self.answered["429"] += 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        if self._lie is Lie.HANGS:
            self.answered["hangs"] += 1
            await self._honest.wait()
        if isinstance(asked, list):
            return web.json_response([await self._answer(one) for one in asked])
        return web.json_response(await self._answer(asked))

    async def _answer(self, asked: Answer) -> Answer:
        lie = self._lie
        if lie is Lie.OLD_HEAD:
            asked = await self._aged(asked)
        answer = await self._ask(asked)
        change = _CHANGES.get((lie, asked["method"]))
        if change is None or answer.get("result") is None:
            return answer
        self.answered[f"{lie.value}: {asked['method']}"] += 1
        return {**answer, "result": change(answer["result"])}

    async def _ask(self, asked: Answer) -> Answer:
        async with self._client.post(self._upstream, json=asked) as reply:
            result: Answer = await reply.json()
            return result

    async def _aged(self, asked: Answer) -> Answer:
        """The question as of some blocks ago. The block that a name means is older by as many."""
        params = [await self._older(part) for part in asked.get("params", [])]
        if params != asked.get("params", []):
            self.answered[f"{Lie.OLD_HEAD.value}: {asked['method']}"] += 1
        return {**asked, "params": params}

    async def _older(self, part: Any) -> Any:
        if part not in ("latest", "safe", "finalized", "pending"):
            return part
        named = {"jsonrpc": "2.0", "id": 0, "method": "eth_getBlockByNumber", "params": [part, False]}
        number = (await self._ask(named))["result"]["number"] or "0x0"
        return hex(max(0, int(number, 16) - BEHIND))


def _failed(receipt: Answer) -> Answer:
    return {**receipt, "status": "0x0", "logs": []}


def _older_number(number: str) -> str:
    return hex(max(0, int(number, 16) - BEHIND))


_CHANGES: dict[tuple[Lie, str], Callable[[Any], Any]] = {
    (Lie.OLD_HEAD, "eth_blockNumber"): _older_number,
    (Lie.NO_RECEIPTS, "eth_getTransactionReceipt"): lambda _: None,
    (Lie.NO_RECEIPTS, "eth_getTransactionByHash"): lambda _: None,
    (Lie.FAILED_RECEIPTS, "eth_getTransactionReceipt"): _failed,
    (Lie.NO_LOGS, "eth_getLogs"): lambda _: [],
}
