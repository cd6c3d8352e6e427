"""A client and a provider on one embedded network, as two processes would run: nothing in common but chain, channels and HTTP.

Each has its own store, account and node. What their journals record is told while it is recorded, so that a test can make either of
them fall silent just then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web
from gates import Gate

from layer2 import Event, Layer2Config, Layer2Manager, NodeConnectionError
from layer2.config import BobConfig, DepthRule, ProviderConfig, StoreConfig, SwapConfig
from layer2.devnet import EmbeddedEvm, EmbeddedNetwork
from layer2.evm import HTLC_ADDRESS, LockPhase, RpcError, encode_balance_of
from layer2.evm._htlc import decode_status, encode_status
from layer2.lightning import LightningNetwork, MemoryNode, PaymentRecord
from layer2.provider import ProviderDaemon, ProviderMetrics
from layer2.swaps import Role, StoredSwap
from layer2.terms import SwapTerms

if TYPE_CHECKING:
    from virtual_time import LoopClock

BLOCK_S = 2.0
"""Fewer blocks than the preset has in mind, well within what it allows: a test's time goes into making them."""
FINALITY_BLOCKS = 3
_DEPTH = (DepthRule(depth="included", confirmations=2),)
"""Below the head and above finality, so that seen, deep enough and final are three steps."""
_OFFER = ProviderConfig(listen_port=0, min_amount=1_000, shutdown_grace_s=2)
_CONFIG = Layer2Config(network="devnet", store=StoreConfig(url="sqlite://"))


@dataclass(frozen=True)
class Holdings:
    """What everybody has, and what the transactions of each account have cost so far."""

    token: Counter[str]
    msat: Counter[str]
    """What the nodes can spend: without what is held."""
    wei: Counter[str]
    fees_wei: Counter[str]


class TwoParties:
    """Made by ``two_parties``.

    ``on_record`` is called with each state that a journal records, ``on_effect`` when something that binds has left a process for
    its node, or for the contract. Who is in ``silent`` reaches neither chain nor node any more, at
    once; its process is ended by ``end``. ``cancelled`` lists in which phase the lock was at a finalized block when the provider
    gave its invoice up. ``intercept`` is called with what either asks of the chain: what it gives, unless None, is the answer.
    """

    network: EmbeddedNetwork
    daemon: ProviderDaemon
    client: Layer2Manager
    door: Gate

    def __init__(self) -> None:
        self.on_record: Callable[[Role, str], None] = lambda *_: None
        self.on_effect: Callable[[Role], None] = lambda _: None
        self.intercept: Callable[[Role, str, Sequence[Any]], Any] = lambda *_: None
        self.silent: set[Role] = set()
        self.history: list[tuple[Role, str]] = []
        self.alarms: list[tuple[Role, str]] = []
        self.cancelled: list[LockPhase] = []
        self.terms: SwapTerms | None = None

    def record(self, role: Role, state: str) -> None:
        """A journal has a new state."""
        self.history.append((role, state))
        self.on_record(role, state)

    def hear_client(self, event: Event) -> None:
        """What the manager tells."""
        if "detail" in event.data:
            self.record(Role.CLIENT, event.data["detail"])
        else:
            self.alarms.append((Role.CLIENT, event.code))

    async def end(self, role: Role) -> None:
        """End a process: nothing is driven, nothing answered. Its node goes on."""
        self.silent.add(role)
        if role is Role.CLIENT:
            await self.client.close_async()
        else:
            await self.daemon.runtime.close()
            await self.daemon.close()

    def check_heard(self, role: Role) -> None:
        """Raise unless ``role`` can reach anything."""
        if role in self.silent:
            raise NodeConnectionError("cut off")

    async def call_chain(self, role: Role, method: str, params: Sequence[Any]) -> Any:
        """What the chain answers to one of the two."""
        self.check_heard(role)
        if (answer := self.intercept(role, method, params)) is not None:
            return answer
        result = await self.network.evm.call(method, params)
        if method == "eth_sendRawTransaction" and await self.sends_to_the_contract():
            self.on_effect(role)
        self.check_heard(role)
        return result

    async def lock_phase(self, lock_id: bytes, block: str = "latest") -> LockPhase:
        """What the contract says of a lock."""
        call = {"to": str(HTLC_ADDRESS), "data": "0x" + encode_status(lock_id).hex()}
        return decode_status(bytes.fromhex((await self.network.evm.call("eth_call", [call, block]))[2:])).phase

    async def holdings(self) -> Holdings:
        """What everybody has now."""
        network = self.network
        accounts = {
            "client": network.client_signer.address,
            "provider": network.provider_signer.address,
            "contract": HTLC_ADDRESS,
        }
        token, wei = Counter[str](), Counter[str]()
        for name, address in accounts.items():
            call = {"to": str(network.token.contract), "data": "0x" + encode_balance_of(address).hex()}
            token[name] = int(await network.evm.call("eth_call", [call, "latest"]), 16)
            wei[name] = int(await network.evm.call("eth_getBalance", [str(address), "latest"]), 16)
        nodes = {
            "client": network.client_node,
            "router": network.router_node,
            "provider": network.provider_node,
            "merchant": network.merchant_node,
        }
        msat = Counter({name: (await node.info()).spendable_msat for name, node in nodes.items()})
        return Holdings(token=token, msat=msat, wei=wei, fees_wei=await self._fees_wei())

    async def held_msat(self) -> int:
        """What payments hold in all channels."""
        network = self.network
        nodes = (network.client_node, network.router_node, network.provider_node, network.merchant_node)
        return network.lightning.total_msat() - sum([(await node.info()).spendable_msat for node in nodes])

    async def sends_to_the_contract(self) -> bool:
        """Whether a transaction to the contract waits for its block."""
        pending = await self.network.evm.call("eth_getBlockByNumber", ["pending", True])
        return any(str(HTLC_ADDRESS).lower() == (sent["to"] or "").lower() for sent in pending["transactions"])

    async def _fees_wei(self) -> Counter[str]:
        names = {
            str(self.network.client_signer.address).lower(): "client",
            str(self.network.provider_signer.address).lower(): "provider",
        }
        fees = Counter[str]()
        for number in range(1, int(await self.network.evm.call("eth_blockNumber", []), 16) + 1):
            for receipt in await self.network.evm.call("eth_getBlockReceipts", [hex(number)]):
                fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
                fees[names.get(receipt["from"].lower(), "others")] += fee
        return fees


class _Told(ProviderMetrics):
    def __init__(self, parties: TwoParties) -> None:
        super().__init__()
        self._parties = parties

    def changed(self, swap: StoredSwap) -> None:
        super().changed(swap)
        self._parties.terms = swap.deal.terms
        self._parties.record(Role.PROVIDER, type(swap.state).__name__)

    def alarm(self, code: str) -> None:
        super().alarm(code)
        self._parties.alarms.append((Role.PROVIDER, code))


class _Node:
    """The node of one of the two."""

    def __init__(self, node: MemoryNode, parties: TwoParties, role: Role) -> None:
        self._node = node
        self._parties = parties
        self._role = role

    def __getattr__(self, name: str) -> Any:
        self._parties.check_heard(self._role)
        return getattr(self._node, name)

    async def pay(self, invoice: str, **limits: Any) -> PaymentRecord:
        self._parties.check_heard(self._role)
        paying = asyncio.ensure_future(self._node.pay(invoice, **limits))
        try:
            await asyncio.wait([paying], timeout=0)
            self._done()
            return await paying
        finally:
            paying.cancel()

    async def settle_invoice(self, preimage: bytes) -> None:
        self._parties.check_heard(self._role)
        await self._node.settle_invoice(preimage)
        self._done()

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        self._parties.check_heard(self._role)
        if self._role is Role.PROVIDER:
            assert self._parties.terms is not None
            lock_id = self._parties.terms.lock.lock_id
            self._parties.cancelled.append(await self._parties.lock_phase(lock_id, "finalized"))
        await self._node.cancel_invoice(payment_hash)
        self._done()

    def _done(self) -> None:
        self._parties.on_effect(self._role)
        self._parties.check_heard(self._role)


class _Chain:
    """The provider's way to the chain."""

    def __init__(self, parties: TwoParties) -> None:
        self._parties = parties

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        return await self._parties.call_chain(Role.PROVIDER, method, params)

    async def close(self) -> None:
        """Nothing."""


@asynccontextmanager
async def _endpoint(parties: TwoParties) -> AsyncIterator[str]:
    """The client's way to the chain: a URL."""

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        reply = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            reply["result"] = await parties.call_chain(Role.CLIENT, asked["method"], asked["params"])
        except RpcError as error:
            reply["error"] = {"code": error.code, "message": error.message, "data": error.data}
        except NodeConnectionError as error:
            raise web.HTTPServiceUnavailable from error
        return web.json_response(reply)

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def two_parties(clock: LoopClock, *, behind_door: bool) -> AsyncIterator[TwoParties]:
    """Both run, and know each other. ``behind_door``: the client reaches the provider through ``door`` only."""
    parties = TwoParties()
    async with AsyncExitStack() as stack:
        parties.network = network = EmbeddedNetwork(clock=clock, with_provider=False)
        network.evm = EmbeddedEvm(
            clock=clock,
            block_time_s=BLOCK_S,
            finalized_lag_blocks=FINALITY_BLOCKS,
            balances={signer.address: 10**20 for signer in (network.client_signer, network.provider_signer)},
        )
        await stack.enter_async_context(network)
        parties.daemon = await stack.enter_async_context(
            ProviderDaemon(
                _CONFIG.with_changes(provider=_OFFER, swap=SwapConfig(depth=_DEPTH)),
                signer=network.provider_signer,
                node=_Node(network.provider_node, parties, Role.PROVIDER),  # type: ignore[arg-type]
                transport=_Chain(parties),
                clock=clock,
                metrics=_Told(parties),
            )
        )
        parties.door = await stack.enter_async_context(Gate(parties.daemon.url))
        endpoint = await stack.enter_async_context(_endpoint(parties))
        node = _Node(network.client_node, parties, Role.CLIENT)
        lightning = LightningNetwork(node, network="regtest", clock=clock, owns_node=False)  # type: ignore[arg-type]
        stack.push_async_callback(lightning.close_async)
        url = parties.door.url if behind_door else parties.daemon.url
        parties.client = await stack.enter_async_context(
            Layer2Manager(
                _CONFIG.with_changes(
                    bob=BobConfig(chain="devnet", rpc_url=endpoint), swap=SwapConfig(provider_url=url, depth=_DEPTH)
                ),
                signer=network.client_signer,
                protocols={"lightning": lightning},
                clock=clock,
            )
        )
        await parties.client.initialize_all_async()
        parties.client.on_event(parties.hear_client)
        yield parties
