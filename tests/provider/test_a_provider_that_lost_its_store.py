"""A standby has taken the store of a provider over: the provider ends, and says why."""

import asyncio

import aiohttp
import psycopg
import pytest

from layer2 import Layer2Config, ProviderConfig, StoreInUse, SystemClock
from layer2.config import StoreConfig
from layer2.devnet import EmbeddedNetwork
from layer2.provider import ProviderDaemon
from layer2.storage import Store


def end_sessions(server, url):
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s", (name,))


async def test_it_ends_when_it_learns_of_it(postgres_url, postgres_server):
    config = Layer2Config(
        network="devnet",
        store=StoreConfig(url=postgres_url),
        provider=ProviderConfig(listen_port=0, shutdown_grace_s=2),
    )
    async with EmbeddedNetwork(block_time_s=0.05, with_provider=False) as network:
        parts = {"signer": network.provider_signer, "node": network.provider_node, "transport": network.transport()}
        async with ProviderDaemon(config, **parts) as daemon:
            serving = asyncio.create_task(daemon.serve())
            await asyncio.to_thread(end_sessions, postgres_server, postgres_url)
            async with await Store.open(postgres_url, clock=SystemClock()), aiohttp.ClientSession() as session:
                async with session.get(f"{daemon.url}/v1/health/ready") as answer:
                    assert answer.status == 503
                    assert (await answer.json())["problems"]["store"] == "another process has it"
                with pytest.raises(StoreInUse, match="in use by"):
                    await serving
