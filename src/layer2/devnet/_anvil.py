"""anvil as the rollup of a devnet: BOB's chain id, OP-Stack transactions, a block about every second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layer2._clock import Clock
from layer2.addresses import EvmAddress
from layer2.devnet._http import JsonHttp
from layer2.devnet._processes import LOOPBACK, ManagedProcess, wait_until
from layer2.errors import NodeError, UnexpectedReply

__all__ = ["Anvil", "EvmAccount"]

CHAIN_ID = 60808


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmAccount:
    """An account with ETH on a devnet."""

    address: EvmAddress
    private_key: bytes = field(repr=False)


class Anvil:
    """The process and its JSON-RPC."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        port: int,
        clock: Clock,
        block_s: int = 1,
        safe_lag_blocks: int = 1,
        accounts: int = 20,
    ) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.chain_id = CHAIN_ID
        self.accounts: tuple[EvmAccount, ...] = ()
        self._clock = clock
        self._http = JsonHttp("anvil", self.url)
        self._directory = directory
        self._accounts_file = directory / "accounts.json"
        argv = [
            str(binary),
            "--optimism",
            f"--chain-id={CHAIN_ID}",
            f"--host={LOOPBACK}",
            f"--port={port}",
            f"--block-time={block_s}",
            f"--slots-in-an-epoch={safe_lag_blocks}",
            f"--accounts={accounts}",
            "--balance=10000",
            "--gas-limit=240000000",
            f"--config-out={self._accounts_file}",
            "--color=never",
        ]
        self.process = ManagedProcess("anvil", argv, directory / "anvil.log")

    async def start(self) -> None:
        """Start it and wait until it serves requests."""
        await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
        await self.process.start()
        await wait_until(self._answers, "anvil answers", clock=self._clock, processes=[self.process], pause_s=0.05)
        self.accounts = await asyncio.to_thread(self._read_accounts)

    async def _answers(self) -> bool:
        try:
            return bool(await self.rpc("eth_chainId") == hex(CHAIN_ID))
        except NodeError:
            return False

    def _read_accounts(self) -> tuple[EvmAccount, ...]:
        config = json.loads(self._accounts_file.read_text())
        pairs = zip(config["available_accounts"], config["private_keys"], strict=True)
        return tuple(
            EvmAccount(address=EvmAddress(raw=bytes.fromhex(address[2:])), private_key=bytes.fromhex(key[2:]))
            for address, key in pairs
        )

    async def close(self) -> None:
        """Close the RPC connections and end the process; its state is thrown away with the devnet."""
        await self._http.close()
        await self.process.kill()

    async def rpc(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC call.

        Raises:
            NodeConnectionError: anvil does not answer.
            NodeError: anvil refused the call; ``code`` is its error code.
        """
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        _status, reply = await self._http.request("POST", body=body)
        if isinstance(reply, Mapping) and "error" in reply:
            error = reply["error"]
            raise NodeError(f"anvil refused {method}: {error.get('message')}", code=error.get("code"))
        if not isinstance(reply, Mapping) or "result" not in reply:
            raise UnexpectedReply(f"anvil answered {method} without a result", endpoint=self.url)
        return reply["result"]
