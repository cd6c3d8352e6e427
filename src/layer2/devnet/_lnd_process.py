"""One lnd of a devnet: its process, its files and the few REST calls that set the network up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from layer2._clock import Clock
from layer2.devnet._btcd import BtcdEndpoint
from layer2.devnet._http import JsonHttp
from layer2.devnet._processes import LOOPBACK, ManagedProcess, wait_until
from layer2.errors import NodeConnectionError, NodeError, NodeNotReady, UnexpectedReply

__all__ = ["LndEndpoint", "LndProcess"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LndEndpoint:
    """Where and how to reach one lnd. All of it stays the same when the node is stopped and started again."""

    name: str
    rest_url: str
    tls_cert_path: Path
    macaroon_path: Path
    """The admin macaroon."""
    node_id: str
    """Its identity key: 33 bytes in hex."""
    p2p_address: str
    """``host:port`` for other nodes."""


class LndProcess:
    """The process and its REST interface."""

    def __init__(
        self, name: str, binary: Path, directory: Path, *, ports: list[int], btcd: BtcdEndpoint, clock: Clock
    ) -> None:
        rest_port, rpc_port, p2p_port = ports
        self.name = name
        self.rest_url = f"https://{LOOPBACK}:{rest_port}"
        self.p2p_address = f"{LOOPBACK}:{p2p_port}"
        self.tls_cert_path = directory / "tls.cert"
        self.macaroon_path = directory / "data/chain/bitcoin/regtest/admin.macaroon"
        self._clock = clock
        self._directory = directory
        self._macaroon: str | None = None
        self._node_id = ""
        self._http = JsonHttp(f"lnd {name!r}", self.rest_url, certificate=self.tls_cert_path)
        self._config_text = f"[Btcd]\nbtcd.rpcuser={btcd.rpc_user}\nbtcd.rpcpass={btcd.rpc_password}\n"
        argv = [
            str(binary),
            f"--lnddir={directory}",
            f"--configfile={directory / 'lnd.conf'}",
            f"--alias={name}",
            "--bitcoin.regtest",
            "--bitcoin.node=btcd",
            f"--btcd.rpchost={btcd.rpc_host}",
            f"--btcd.rpccert={btcd.rpc_cert_path}",
            "--noseedbackup",
            "--nobootstrap",
            "--debuglevel=info",
            f"--rpclisten={LOOPBACK}:{rpc_port}",
            f"--restlisten={LOOPBACK}:{rest_port}",
            f"--listen={self.p2p_address}",
            f"--externalip={self.p2p_address}",
            "--bitcoin.defaultchanconfs=1",
            "--bitcoin.defaultremotedelay=4",
            "--protocol.wumbo-channels",
            "--accept-keysend",
            "--accept-amp",
            "--bitcoin.timelockdelta=24",
            "--trickledelay=50",
            "--gossip.sub-batch-delay=5ms",
            "--caches.rpc-graph-cache-duration=100ms",
            "--db.batch-commit-interval=10ms",
            "--keep-failed-payment-attempts",
            "--store-final-htlc-resolutions",
            "--maxpendingchannels=10",
        ]
        self.process = ManagedProcess(f"lnd {name!r}", argv, directory / "lnd.log")

    @property
    def endpoint(self) -> LndEndpoint:
        """Known after the first start."""
        return LndEndpoint(
            name=self.name,
            rest_url=self.rest_url,
            tls_cert_path=self.tls_cert_path,
            macaroon_path=self.macaroon_path,
            node_id=self._node_id,
            p2p_address=self.p2p_address,
        )

    async def start(self) -> None:
        """Start it and wait until it serves requests (``SERVER_ACTIVE``). It may not be synchronised yet."""
        await asyncio.to_thread(self._write_config)
        await self.process.start()
        await wait_until(self._active, f"lnd {self.name!r} is active", clock=self._clock, processes=[self.process])
        self._node_id = str((await self.call("GET", "/v1/getinfo"))["identity_pubkey"])

    def _write_config(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "lnd.conf"
        path.touch(mode=0o600)
        path.write_text(self._config_text)

    async def _active(self) -> bool:
        try:
            _status, reply = await self._http.request("GET", "/v1/state", timeout_s=5)
            if not isinstance(reply, Mapping) or reply.get("state") != "SERVER_ACTIVE":
                return False
            self._macaroon = (await asyncio.to_thread(self.macaroon_path.read_bytes)).hex()
        except (NodeError, FileNotFoundError):
            return False
        return True

    async def stop(self, *, kill: bool = False) -> None:
        """End the process in order, or at once as a crash would."""
        await self._http.close()
        await (self.process.kill() if kill else self.process.stop())

    async def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = 30.0) -> Any:
        """One REST call with the admin macaroon; the decoded answer.

        Raises:
            NodeNotReady: the node was never started.
            NodeConnectionError: it does not answer.
            NodeError: it refused; ``code`` is the gRPC code.
        """
        if self._macaroon is None:
            raise NodeNotReady(f"lnd {self.name!r} was not started")
        headers = {"Grpc-Metadata-macaroon": self._macaroon}
        status, reply = await self._http.request(method, path, body=body, headers=headers, timeout_s=timeout_s)
        if status != 200:
            fields = reply if isinstance(reply, Mapping) else {}
            raise NodeError(
                f"lnd {self.name!r} refused {path}: {fields.get('message', status)}", code=fields.get("code")
            )
        if not isinstance(reply, Mapping):
            raise UnexpectedReply(f"lnd {self.name!r} answered {path} without an object", endpoint=self.rest_url)
        return reply

    async def synced(self, height: int = 0) -> bool:
        """Whether it has seen the chain up to ``height`` and says that it is synchronised."""
        try:
            info = await self.call("GET", "/v1/getinfo")
        except NodeConnectionError:
            return False
        return bool(info["synced_to_chain"]) and int(info["block_height"]) >= height

    async def new_address(self) -> str:
        """A new P2WPKH address of its wallet."""
        return str((await self.call("GET", "/v1/newaddress?type=WITNESS_PUBKEY_HASH"))["address"])

    async def wallet_sat(self) -> int:
        """Confirmed on-chain balance."""
        return int((await self.call("GET", "/v1/balance/blockchain"))["confirmed_balance"])

    async def connect(self, peer: LndEndpoint) -> None:
        """Connect to ``peer``; nothing if it is connected."""
        body = {"addr": {"pubkey": peer.node_id, "host": peer.p2p_address}}
        try:
            await self.call("POST", "/v1/peers", body)
        except NodeError as error:
            if "already connected" not in str(error):
                raise

    async def connected_to(self, peer: LndEndpoint) -> bool:
        """Whether its list of peers has ``peer``."""
        peers = (await self.call("GET", "/v1/peers"))["peers"]
        return any(known["pub_key"] == peer.node_id for known in peers)

    async def open_channel(self, peer: LndEndpoint, capacity_sat: int, push_sat: int) -> str:
        """Open an announced channel; returns the id of the funding transaction, which is not mined yet."""
        body = {
            "node_pubkey": base64.b64encode(bytes.fromhex(peer.node_id)).decode(),
            "local_funding_amount": str(capacity_sat),
            "push_sat": str(push_sat),
        }
        reply = await self.call("POST", "/v1/channels", body)
        return base64.b64decode(reply["funding_txid_bytes"])[::-1].hex()

    async def active_channels(self) -> int:
        """How many of its channels can be used now."""
        return int((await self.call("GET", "/v1/getinfo"))["num_active_channels"])

    async def can_route_to(self, node_id: str, amount_sat: int) -> bool:
        """Whether its graph knows a way to ``node_id`` for that amount."""
        try:
            reply = await self.call("GET", f"/v1/graph/routes/{quote(node_id)}/{amount_sat}")
        except NodeConnectionError:
            raise
        except NodeError:
            return False
        return bool(reply.get("routes"))
