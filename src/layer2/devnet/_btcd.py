"""btcd on regtest: the Bitcoin chain of a devnet, mined on command and on a schedule."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layer2._clock import Clock
from layer2.devnet._faucet import Coin, Faucet
from layer2.devnet._http import JsonHttp
from layer2.devnet._processes import LOOPBACK, ManagedProcess, wait_until
from layer2.errors import NodeError, UnexpectedReply

__all__ = ["Btcd", "BtcdEndpoint"]

_COINBASE_MATURITY = 100
_SUBSIDY_SAT = 50 * 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BtcdEndpoint:
    """Where and how to reach btcd's JSON-RPC."""

    rpc_url: str
    rpc_user: str
    rpc_password: str = field(repr=False)
    rpc_cert_path: Path
    rpc_host: str
    """``host:port``, as lnd wants it."""


class Btcd:
    """The process and its RPC."""

    def __init__(self, binary: Path, directory: Path, *, rpc_port: int, p2p_port: int, clock: Clock) -> None:
        self._clock = clock
        self._faucet = Faucet()
        self._coins: list[Coin] = []
        self._next_reward = 1
        self._mining = asyncio.Lock()
        self._pauses = 0
        self._paying = asyncio.Lock()
        self.endpoint = BtcdEndpoint(
            rpc_url=f"https://{LOOPBACK}:{rpc_port}",
            rpc_user="layer2",
            rpc_password=secrets.token_hex(16),
            rpc_cert_path=directory / "rpc.cert",
            rpc_host=f"{LOOPBACK}:{rpc_port}",
        )
        self._http = JsonHttp("btcd", self.endpoint.rpc_url, certificate=self.endpoint.rpc_cert_path)
        self._directory = directory
        config = directory / "btcd.conf"
        self._config_text = (
            f"[Application Options]\nrpcuser={self.endpoint.rpc_user}\nrpcpass={self.endpoint.rpc_password}\n"
        )
        self._config = config
        argv = [
            str(binary),
            "--regtest",
            f"--configfile={config}",
            f"--datadir={directory / 'data'}",
            f"--logdir={directory / 'logs'}",
            f"--rpclisten={self.endpoint.rpc_host}",
            f"--rpccert={self.endpoint.rpc_cert_path}",
            f"--rpckey={directory / 'rpc.key'}",
            f"--listen={LOOPBACK}:{p2p_port}",
            f"--miningaddr={self._faucet.address}",
            "--txindex",
            "--nodnsseed",
            "--nobanning",
            "--nostalldetect",
            "--trickleinterval=100ms",
            "--rejectnonstd",
            "--rpcmaxwebsockets=50",
            "--rpcmaxclients=50",
        ]
        self.process = ManagedProcess("btcd", argv, directory / "btcd.log")

    async def start(self) -> None:
        """Start it and wait until its RPC answers."""
        await asyncio.to_thread(self._write_config)
        await self.process.start()
        await wait_until(self._answers, "btcd answers", clock=self._clock, processes=[self.process], pause_s=0.05)

    def _write_config(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # The password stands in a file because every user of the machine can read a command line.
        self._config.touch(mode=0o600)
        self._config.write_text(self._config_text)

    async def _answers(self) -> bool:
        try:
            await self.rpc("getblockcount")
        except NodeError:
            return False
        return True

    async def close(self) -> None:
        """Close the RPC connections and end the process; its data is thrown away with the devnet."""
        await self._http.close()
        await self.process.kill()

    async def rpc(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC call.

        Raises:
            NodeConnectionError: btcd does not answer.
            NodeError: btcd refused the call; ``code`` is its error code.
        """
        credentials = f"{self.endpoint.rpc_user}:{self.endpoint.rpc_password}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
        body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": list(params)}
        _status, reply = await self._http.request("POST", "/", body=body, headers=headers)
        if not isinstance(reply, Mapping) or not {"result", "error"} <= reply.keys():
            raise UnexpectedReply(f"btcd answered {method} without a result", endpoint=self.endpoint.rpc_url)
        if reply["error"] is not None:
            error = reply["error"]
            raise NodeError(f"btcd refused {method}: {error.get('message')}", code=error.get("code"))
        return reply["result"]

    async def mine(self, count: int = 1) -> list[str]:
        """Mine ``count`` blocks now and return their hashes. What is in btcd's mempool goes into the first of them."""
        async with self._mining:
            hashes: list[str] = await self.rpc("generate", count)
            return hashes

    async def mine_for_ever(self, interval_s: float) -> None:
        """Mine one block every ``interval_s`` seconds, until cancelled."""
        while True:
            await self._clock.sleep(interval_s)
            if not self._pauses:
                await self.mine()

    @asynccontextmanager
    async def mining_paused(self) -> AsyncIterator[None]:
        """Inside, blocks come on command only. Pauses may overlap."""
        self._pauses += 1
        try:
            async with self._mining:  # a scheduled block that is under way comes before the pause
                pass
            yield
        finally:
            self._pauses -= 1

    async def height(self) -> int:
        """Height of the tip."""
        return int(await self.rpc("getblockcount"))

    async def pay(self, outputs: dict[str, int]) -> str:
        """Send the miner's coins to witness addresses (address -> satoshi) and return the transaction id; not yet mined.

        Raises:
            AmountError: more than one block reward (50 BTC, halved every 150 blocks) can pay at once.
            NodeError: btcd refused the transaction.
        """
        async with self._paying:
            coin = await self._take_coin(sum(outputs.values()))
            transaction, change = self._faucet.spend(coin, outputs)
            allow_high_fees = True
            txid = str(await self.rpc("sendrawtransaction", transaction.hex(), allow_high_fees))
            self._coins.append(change)
            return txid

    async def _take_coin(self, amount_sat: int) -> Coin:
        for coin in sorted(self._coins, key=lambda coin: coin.amount_sat):
            if coin.amount_sat > amount_sat + 100_000:
                self._coins.remove(coin)
                return coin
        missing = self._next_reward + _COINBASE_MATURITY - await self.height()
        if missing > 0:
            await self.mine(missing)
        block = await self.rpc("getblock", await self.rpc("getblockhash", self._next_reward), 1)
        coin = Coin(block["tx"][0], 0, _SUBSIDY_SAT >> self._next_reward // 150)
        self._next_reward += 1
        return coin
