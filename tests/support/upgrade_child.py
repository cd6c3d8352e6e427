"""A client or a provider on whatever version of the package the path holds; it writes what happens to its output, a line each.

Run as a program, by public names alone, so that an old version can run it.
"""

from __future__ import annotations

import asyncio
import sys

import layer2
from layer2 import BTC, Layer2Config, Layer2Manager, SwapExpired, SwapRefunded


def say(*words: object) -> None:
    print(*words, flush=True)


async def client(config: Layer2Config, source: str, destination: str, amount: str, key: str) -> None:
    """Begin a transfer, or go on with the one that has the key, to its end."""
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        transfer = await manager.start_cross_layer_transfer_async(
            BTC, int(amount), source, destination, idempotency_key=key
        )
        async for event in transfer.events():
            say("state", event.state.value)
        try:
            proof = await transfer.result_async()
        except (SwapExpired, SwapRefunded) as error:
            say("ended", type(error).__name__)
        else:
            say("ended", "settled" if await manager.verify_cross_layer_proof_async(proof) else "unproven")


async def provider(config: Layer2Config) -> None:
    """Serve until killed."""
    from layer2.provider import ProviderDaemon

    async with ProviderDaemon(config):
        say("ready")
        await asyncio.Event().wait()


if __name__ == "__main__":
    say("package", layer2.__file__)
    role, path, *rest = sys.argv[1:]
    asyncio.run({"client": client, "provider": provider}[role](Layer2Config.load(path), *rest))
