"""Transfers through the whole public API: how many a second, on the embedded network and on real nodes.

On real nodes each round also makes as many plain lnd payments, straight at the REST interface of lnd, over the same route (client,
router, provider) and as many at once; the ratio of the two medians says what the safety of a transfer costs on top of a payment.
A transfer waits for blocks by design: two on BOB at least, one second each here. CPU time is taken from the accounts of the
system: ours is this process, which is client and provider at once; that of the nodes is btcd, three lnd and anvil.

    python benchmarks/transfers.py [--rounds N] [--at-once N] [--real] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import sys
import time
from pathlib import Path

import aiohttp

from layer2 import BTC, Layer2Config, Layer2Manager
from layer2 import Layer2ProtocolType as P
from layer2.devnet import RealNetwork

AMOUNT = 20_000
DIRECTIONS = {"submarine": (P.BOB, P.LIGHTNING), "reverse": (P.LIGHTNING, P.BOB)}
NODES = ("btcd", "anvil", "client", "router", "provider")


async def seconds_of(call, times):
    """Wall seconds of ``times`` calls at once."""
    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(times)))
    return time.perf_counter() - begun


def transferring(manager, direction):
    source, destination = DIRECTIONS[direction]
    return lambda: manager.cross_layer_transfer_async(BTC, AMOUNT, source, destination)


def spread(values, digits=3):
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


async def embedded(rounds, at_once):
    """Rounds of both directions, after one that is not counted."""
    taken = {name: [] for name in DIRECTIONS}
    cpu = []
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        for number in range(rounds + 1):
            for name in DIRECTIONS:
                own = time.process_time()
                seconds = await seconds_of(transferring(manager, name), at_once)
                if number:
                    taken[name].append(seconds)
                    cpu.append((time.process_time() - own) / at_once)
        fails = [item for item in await manager.list_transfers_async(limit=1000) if item.state != "settled"]
        if fails:
            raise SystemExit(f"{len(fails)} transfers did not settle")
    return {
        "benchmark": "embedded_transfers",
        "rounds": rounds,
        "at_once": at_once,
        "transfers_per_second": {name: spread([at_once / value for value in values]) for name, values in taken.items()},
        "cpu_s_per_transfer_both_sides_and_chain": spread(cpu),
    }


class Lnd:
    """lnd's REST interface with nothing in between."""

    def __init__(self, endpoint):
        self._url = endpoint.rest_url
        self._tls = ssl.create_default_context(cafile=endpoint.tls_cert_path)
        self._headers = {"Grpc-Metadata-macaroon": endpoint.macaroon_path.read_bytes().hex()}

    async def __aenter__(self):
        self._session = aiohttp.ClientSession(
            headers=self._headers, connector=aiohttp.TCPConnector(ssl=self._tls, limit=100)
        )
        return self

    async def __aexit__(self, *exc_info):
        await self._session.close()

    async def invoice(self):
        async with self._session.post(f"{self._url}/v1/invoices", json={"value": str(AMOUNT)}) as reply:
            return (await reply.json())["payment_request"]

    async def pay(self, invoice):
        body = {"payment_request": invoice, "timeout_seconds": 30, "fee_limit_sat": "100", "no_inflight_updates": True}
        async with self._session.post(f"{self._url}/v2/router/send", json=body) as reply:
            status = None
            async for line in reply.content:
                status = json.loads(line)["result"]["status"]
        if status != "SUCCEEDED":
            raise SystemExit(f"a plain payment ended as {status}")


def nodes_cpu_s(network):
    """CPU seconds that the nodes have used so far."""
    ticks = 0
    for name in NODES:
        text = Path(f"/proc/{network.nodes.process(name).pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def real(rounds, at_once):
    """In each round: plain payments, then each direction's transfers; one round before is not counted."""
    taken = {name: [] for name in ("payment", *DIRECTIONS)}
    own_s, nodes_s, wall_s = [], [], []
    async with RealNetwork() as network:
        idle = await idle_rate(network)
        async with (
            Lnd(network.nodes.lnd("client")) as client,
            Lnd(network.nodes.lnd("provider")) as provider,
            Layer2Manager(await network.client_config()) as manager,
        ):
            await manager.initialize_all_async()
            for number in range(rounds + 1):
                invoices = iter([await provider.invoice() for _ in range(at_once)])
                seconds = {"payment": await seconds_of(lambda pending=invoices: client.pay(next(pending)), at_once)}
                for name in DIRECTIONS:
                    own, nodes = time.process_time(), nodes_cpu_s(network)
                    seconds[name] = await seconds_of(transferring(manager, name), at_once)
                    if number:
                        wall_s.append(seconds[name])
                        own_s.append(time.process_time() - own)
                        nodes_s.append(nodes_cpu_s(network) - nodes - idle * seconds[name])
                if number:
                    for name, value in seconds.items():
                        taken[name].append(value)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "benchmark": "real_transfers",
        "rounds": rounds,
        "at_once": at_once,
        "per_second": {name: spread([at_once / value for value in values]) for name, values in taken.items()},
        "seconds_of_a_round": {name: spread(values) for name, values in taken.items()},
        "times_a_plain_payment": {name: round(medians[name] / medians["payment"], 1) for name in DIRECTIONS},
        "own_cpu_s_per_transfer": spread([value / at_once for value in own_s], 4),
        "nodes_cpu_s_per_transfer_above_idle": spread([value / at_once for value in nodes_s], 4),
        "own_cpu_share_of_wall": round(sum(own_s) / sum(wall_s), 3),
        "own_cpu_share_of_all_cpu": round(sum(own_s) / (sum(own_s) + sum(nodes_s)), 3),
    }


async def idle_rate(network, seconds=5.0):
    """CPU seconds a second of the nodes when nothing is asked of them but to make blocks."""
    before = nodes_cpu_s(network)
    await asyncio.sleep(seconds)
    return (nodes_cpu_s(network) - before) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--real", action="store_true", help="on real nodes instead of the embedded network")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    result = asyncio.run((real if options.real else embedded)(options.rounds, options.at_once))
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
