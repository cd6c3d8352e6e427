"""An embedded chain over HTTP: for another process, and for settings that name an endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from layer2.devnet import EmbeddedNetwork
from layer2.evm import RpcError


@asynccontextmanager
async def served(network: EmbeddedNetwork) -> AsyncIterator[str]:
    """Serve the network's chain, and give the URL."""

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            result = {"result": await network.evm.call(asked["method"], asked["params"])}
        except RpcError as error:
            result = {"error": {"code": error.code, "message": error.message, "data": error.data}}
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **result})

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
