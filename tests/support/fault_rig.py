"""Swaps of which one process stops itself at a chosen point, so that something can happen to the world just then; and their books."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from books import Balances, balances, changes, nothing_in_flight, spent
from crash_child import ClientJob
from crash_rig import Child, different
from fault_child import run_client, run_provider
from fault_wire import Wire
from mixed_run import expected_changes

from layer2 import TransferProof
from layer2.devnet import DevnetAccount, RealNetwork
from layer2.lightning import LndNode, PaymentState
from layer2.terms import SwapDirection

AMOUNT = 20_000
TOKENS = 10_000_000
OUT, BACK = ("bob", "lightning"), ("lightning", "bob")
HELD_WITHIN_S, ENDED_WITHIN_S = 120, 500
_OFFER = "[provider]\nlisten_port = 0\nrequests_per_minute = 100000\nmin_amount = 1000\n"
EFFECTS = ("create_", "refund_signature", "pay", "send_raw", "settle_invoice", "cancel_invoice")
"""How the names of points begin at which something leaves the process."""

Who = Literal["client", "provider"]


@dataclass(frozen=True)
class Places:
    """Where a process finds its nodes; empty: the network's own."""

    evm: str = ""
    lnd: str = ""
    provider: str = ""
    store: str = ""


class FaultChild(Child):
    """A child that may stop itself."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.held: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.held_after = 0
        """How many points it had passed."""
        self.refusals = 0
        self.is_client = target is run_client
        super().__init__(target, *args)

    def _heard(self, message: tuple[str, ...]) -> None:
        if message[0] == "held":
            self.held_after = len(self.run.points)
            self.held.set_result(message[1])
        elif message[0] == "refused":
            self.refusals += 1
        else:
            super()._heard(message)

    async def stopped(self, client: FaultChild) -> bool:
        """Wait until it has stopped itself, or the transfer of ``client`` is over. Whether it has stopped."""
        while not self.held.done():
            if client.run.ended is not None or not self.running:
                return False
            await asyncio.sleep(0.05)
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            await asyncio.sleep(0.01)
        return True

    def go_on(self) -> None:
        """Let it go on."""
        if self.process.pid is not None and self.running:
            os.kill(self.process.pid, signal.SIGCONT)

    @property
    def sent_since(self) -> list[str]:
        """What has left it since it was stopped."""
        later = self.run.points[self.held_after :]
        return [name for name in later if name.startswith(EFFECTS) and ": before" in name]

    async def outcome(self) -> str:
        """Wait for the end of its transfer."""
        while self.run.ended is None:
            if not self.running:
                return "died"
            await asyncio.sleep(0.05)
        return self.run.ended[0]


@dataclass(frozen=True)
class Plan:
    """One swap: which way, whose process stops, and where."""

    way: tuple[str, str]
    who: Who
    at: str | None
    """The name of a point; None: nowhere."""
    invoice: Callable[[], Awaitable[str]] | None = None

    @property
    def name(self) -> str:
        return f"{self.who}, {'submarine' if self.way == OUT else 'reverse'}: {self.at}"


@dataclass
class Swap:
    """One swap under way."""

    plan: Plan
    user: DevnetAccount
    lender: DevnetAccount
    provider: FaultChild
    provider_path: str
    client_path: str
    key: str
    store: str
    """URL of the store of the process that stops; empty: a file."""
    door: Wire
    """The client's way to the provider."""
    client: FaultChild | None = None
    extra: list[FaultChild] = field(default_factory=list)
    """Processes that were started besides."""
    held_at: str | None = None
    ends: str = ""
    proof: TransferProof | None = None

    @property
    def last_client(self) -> FaultChild:
        """The one that counts: a client may have been replaced."""
        assert self.client is not None
        return [self.client, *(child for child in self.extra if child.is_client)][-1]

    @property
    def subject(self) -> FaultChild:
        """The process that stops."""
        assert self.client is not None
        return self.client if self.plan.who == "client" else self.provider

    def job(self, hold_at: str | None = None) -> ClientJob:
        return ClientJob(self.client_path, *self.plan.way, AMOUNT, None, self.key, hold_at)

    @property
    def children(self) -> list[FaultChild]:
        return [*([] if self.client is None else [self.client]), self.provider, *self.extra]


@dataclass
class Scene:
    """Where swaps happen, and how their processes reach the nodes."""

    network: RealNetwork
    nodes: Any
    folder: Path
    lnds: dict[str, LndNode]
    client: Places = field(default_factory=Places)
    provider: Places = field(default_factory=Places)
    new_store: Callable[[Who], str] = lambda _: ""
    toml: str = ""
    """Further lines for all settings."""
    may_lose: str = ""
    """Whose lnd may end with less, and the others' with more: one side was away for longer than it may be. Nobody else loses."""

    async def prepare(self, plan: Plan) -> Swap:
        """Accounts, settings and a provider that serves."""
        user, lender = [await self.network.new_account(tokens=TOKENS) for _ in range(2)]
        store = self.new_store(plan.who)
        stores = {plan.who: store}
        path = self._settings(lender, "provider", self.provider, stores.get("provider", ""), _OFFER + self.toml)
        at = plan.at if plan.who == "provider" else None
        child = FaultChild(run_provider, path, at)
        await child.ready
        door = Wire(child.ready.result())
        await door.__aenter__()
        more = f'[swap]\nprovider_url = "{door.url}"\n' + self.toml
        own = self._settings(user, "client", self.client, stores.get("client", ""), more)
        return Swap(plan, user, lender, child, path, own, f"faults {secrets.token_hex(8)}", store, door)

    def _settings(self, account: DevnetAccount, lnd: str, places: Places, store: str, more: str) -> str:
        node = self.nodes.lnd(lnd)
        store = store or f"sqlite:///{self.folder / account.key_file.stem}.sqlite3"
        path: Path = self.folder / f"{account.key_file.stem}.toml"
        path.write_text(
            f'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "{places.evm or self.nodes.evm_url}"\n'
            f'[lightning]\nrest_url = "{places.lnd or node.rest_url}"\ntls_cert = "{node.tls_cert_path}"\n'
            f'network = "regtest"\nmacaroon = {{ file = "{node.macaroon_path}" }}\n'
            f'[signer]\nprivate_key = {{ file = "{account.key_file}" }}\n[store]\nurl = "{store}"\n{more}'
        )
        path.chmod(0o600)
        return str(path)


Fault = Callable[[Sequence[Swap]], AbstractAsyncContextManager[None]]
"""What happens while the processes of these swaps stand still; they go on within the context, which mends at its end."""


@dataclass
class Told:
    """What a run of swaps came to."""

    ends: Counter[str]
    held: Counter[str]
    swaps: list[Swap]

    def __str__(self) -> str:
        where = ", ".join(f"{count} x {name}" for name, count in sorted(self.held.items()))
        return f"{len(self.swaps)} swaps, {self.held.total()} held ({where}); they ended {dict(self.ends)}"


async def run_swaps(scene: Scene, plans: Sequence[Plan], fault: Fault) -> Told:
    """Make these swaps, all at a time; once all are held (or over), let the fault happen, then see how they end, and the books."""
    swaps: list[Swap] = []
    try:
        async with asyncio.timeout(HELD_WITHIN_S + ENDED_WITHIN_S):
            swaps += await asyncio.gather(*(scene.prepare(plan) for plan in plans))
            async with books_of(scene, swaps):
                await _run(swaps, fault)
    finally:
        await asyncio.gather(*(child.stop() for swap in swaps for child in swap.children))
        await asyncio.gather(*(swap.door.__aexit__() for swap in swaps))
    held = Counter(swap.plan.name for swap in swaps if swap.held_at is not None)
    return Told(Counter(swap.ends for swap in swaps), held, swaps)


async def _run(swaps: Sequence[Swap], fault: Fault) -> None:
    for swap in swaps:
        swap.client = FaultChild(run_client, swap.job(swap.plan.at if swap.plan.who == "client" else None))
    held = await asyncio.gather(*(swap.subject.stopped(swap.client) for swap in swaps if swap.client is not None))
    stopped = [swap for swap, stands in zip(swaps, held, strict=True) if stands]
    for swap in stopped:
        swap.held_at = swap.plan.at
    async with fault(stopped):
        pass
    await asyncio.gather(*(_end(swap) for swap in swaps))


async def _end(swap: Swap) -> None:
    swap.ends = await swap.last_client.outcome()
    ended = swap.last_client.run.ended
    if ended is not None and ended[1] is not None:
        swap.proof = TransferProof.from_json(ended[1])


def go_on(swaps: Sequence[Swap]) -> None:
    """Let all go on that stand still."""
    for swap in swaps:
        swap.subject.go_on()


@asynccontextmanager
async def books_of(scene: Scene, swaps: Sequence[Swap]) -> AsyncIterator[None]:
    """Afterwards everybody must have just what the terms of the settled swaps say, and ether must be gone for gas alone."""
    nodes, token = scene.nodes, scene.network.token.contract
    holders = {"contract": scene.network.contract}
    for number, swap in enumerate(swaps):
        holders[f"client {number}"], holders[f"provider {number}"] = swap.user.address, swap.lender.address
    await _until(lambda: nothing_in_flight(nodes))
    before = await balances(nodes, token, holders)
    began_s = time.time()
    yield
    differences: list[str] = ["not looked yet"]
    try:
        async with asyncio.timeout(180):
            while differences:
                await asyncio.sleep(0.5)
                if await nothing_in_flight(nodes):
                    after = await balances(nodes, token, holders)
                    differences = await _differences(scene, swaps, before, after)
    except TimeoutError:
        raise AssertionError(f"after {time.time() - began_s:.0f} s: {differences}") from None
    costs = await spent(nodes, scene.network.contract, holders, before.block + 1, after.block)
    wei = changes(before.wei, after.wei)
    assert {name: -change for name, change in wei.items() if change} == {
        n: fee for n, fee in costs.fees_wei.items() if fee
    }


async def _differences(scene: Scene, swaps: Sequence[Swap], before: Balances, after: Balances) -> list[str]:
    proofs = [swap.proof for swap in swaps if swap.proof is not None]
    if scene.may_lose:
        proofs = [proof for proof in proofs if not await _went_back(scene, proof)]
    try:
        expected = await expected_changes(SimpleNamespace(proofs=proofs, lnds=scene.lnds))  # type: ignore[arg-type]
    except AssertionError:
        return ["a payment of a settled swap is not over"]
    msat, tokens = changes(before.msat, after.msat), changes(before.tokens, after.tokens)
    wanted: Counter[str] = Counter()
    for number, swap in enumerate(swaps):
        if swap.proof is not None:
            moved = swap.proof.terms.lock.amount * (-1 if swap.plan.way == OUT else 1)
            wanted[f"client {number}"], wanted[f"provider {number}"] = moved, -moved
    off = {name: msat[name] - expected.msat[name] for name in msat}
    if scene.may_lose and off[scene.may_lose] < 0:
        off = {name: min(0, more) for name, more in off.items() if name != scene.may_lose}
    found = [f"{n}: {msat[n]} msat, not {expected.msat[n]}" for n, more in off.items() if more]
    for name, moved in tokens.items():
        if moved != wanted[name]:
            number = int(name.rpartition(" ")[2]) if " " in name else -1
            about = swaps[number] if number >= 0 else None
            what = "" if about is None else f" ({about.plan}, held at {about.held_at}, {about.ends})"
            found.append(f"{name}: {moved} tokens, not {wanted[name]}{what}")
    return found


async def _went_back(scene: Scene, proof: TransferProof) -> bool:
    """Whether the payment for a lock that was claimed came back to the client: the provider did not take it in time."""
    if proof.terms.direction is SwapDirection.SUBMARINE:
        return False
    record = await scene.lnds["client"].lookup_payment(proof.terms.lock.preimage_hash)
    return record.state is PaymentState.FAILED


async def _until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(180):
        while not await condition():
            await asyncio.sleep(0.1)


async def standby(swap: Swap) -> FaultChild:
    """A second process on the store of the one that stands still, as on another machine."""
    again = (run_client, swap.job()) if swap.plan.who == "client" else (run_provider, swap.provider_path, None)
    child = FaultChild(*again)
    swap.extra.append(child)
    await child.ready
    if swap.plan.who == "provider":
        swap.door.lead_to(child.ready.result())
    return child


async def passed_points(scene: Scene) -> dict[tuple[tuple[str, str], Who], list[str]]:
    """What the processes of two swaps pass, one each way, that nobody disturbs."""

    @asynccontextmanager
    async def nothing(_: Sequence[Swap]) -> AsyncIterator[None]:
        yield

    told = await run_swaps(scene, [Plan(OUT, "client", None), Plan(BACK, "client", None)], nothing)
    assert told.ends == {"settled": 2}, told
    points: dict[tuple[tuple[str, str], Who], list[str]] = {}
    for swap in told.swaps:
        assert swap.client is not None
        points[swap.plan.way, "client"] = different(swap.client.run.points)
        points[swap.plan.way, "provider"] = different(swap.provider.run.points)
    return points
