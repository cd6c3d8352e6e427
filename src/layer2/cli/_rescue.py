"""``layer2 rescue``: refund, claim and settle what the chain shows, when the store is lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from layer2 import ConfigurationError, Layer2Error, SignerError, SystemClock, ValidationError
from layer2.bob import BobClient
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode, code_for
from layer2.cli._text import btc, utc
from layer2.connect import (
    chain_preset,
    connect_chain,
    connect_node,
    fee_limits,
    load_signer,
    provider_store_url,
    registry_of,
    token_of,
)
from layer2.evm import HTLC_ADDRESS, LockPhase, MemoryTxJournal
from layer2.lightning import InvoiceState
from layer2.storage import SqlTxJournal, Store, swaps
from layer2.swaps import EvmSwapChain, FoundLock, Rescue, RescueAction, RescuePlan, whole_satoshi

if TYPE_CHECKING:
    from rich.table import Table

    from layer2.config import Layer2Config
    from layer2.evm import TxJournal
    from layer2.terms import DepthPolicy

__all__ = ["add_to", "depth_of_locks"]

_LONGEST_LOCK_S: Final = 61 * 86_400
"""The contract takes no lock of more than 60 days."""
_SHOWN: Final = 16
"""Digits of a lock id that are shown."""
_TEXT: Final = {
    RescueAction.NONE: "nothing to do",
    RescueAction.REFUND: "can be refunded now: --send",
    RescueAction.REFUND_LATER: "can be refunded from {timelock} on, unless the provider claims it before",
    RescueAction.CLAIM: "can be claimed now, by {not_after}: --send",
    RescueAction.CONFIRM: "can be claimed by {not_after}, if it is all that a transfer was to bring you: who made it takes the "
    "payment, however little it holds: --send --claim {lock}",
    RescueAction.NOT_AGREED: "is not what was agreed on, and claiming it would give your payment away: nothing to do",
    RescueAction.CLAIM_LATE: "late: the provider can refund from {timelock} on while the claim is on its way, and take the "
    "payment all the same. Safe only if your node says that the payment came back: --send --force, and --claim {lock} if no store "
    "knows it",
    RescueAction.NOT_DEEP: "not deep enough in the chain yet: run this again in a minute",
    RescueAction.NOT_LOOKED_AT: "could not be looked at: run this again",
    RescueAction.NO_PREIMAGE: "this key gives no preimage for it: a wrong clock (--search-s), or a provider's lock, whose "
    "preimage is with the payment at its Lightning node (--provider)",
    RescueAction.NOT_SEARCHED: "your node has not paid for it: nothing to do, unless it is of a transfer that you made yourself "
    "with this account (--search)",
    RescueAction.SETTLE: "was claimed, and your node holds the payment for it, which goes back if nobody takes it: --send",
    RescueAction.CLAIM_AGAIN: "your node has the payment for it, so it is claimed for the other side: --send",
    RescueAction.DRIVEN: "the store knows it: layer2 run",
}
_NOTHING_HELD: Final = {
    None: "was claimed, and your node knows no payment for it: nothing to do, if it is the node of that time",
    InvoiceState.OPEN: "was claimed, and no payment for it has arrived at your node",
    InvoiceState.CANCELED: "was claimed, and the payment for it went back",
}
_ASK_THE_NODE: Final = (
    "was claimed: nothing to do, but for a provider, whose node may hold the payment for it (--provider)"
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "rescue")(rescue)


async def rescue(
    cli: Cli,
    from_block: Annotated[
        int | None, typer.Option(help="First block to look at; by default that of 61 days ago.", min=0)
    ] = None,
    send: Annotated[bool, typer.Option("--send", help="Refund, claim and settle; without it nothing is done.")] = False,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            metavar="LOCK",
            help="With --send: claim this lock, of which no store knows what was agreed on. As shown, or its whole id; repeatable.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --send: also claims that are late.")] = False,
    search_s: Annotated[
        int, typer.Option(help="Seconds by which your clock may have been wrong when a transfer was made.", min=0)
    ] = 0,
    provider: Annotated[
        bool,
        typer.Option(
            "--provider",
            help="For a provider: its store, and its node's preimages and held payments.",
        ),
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="With --provider: also search for the preimages of transfers that you made yourself with this account. Up to half "
            "a minute for each lock that names you as claimer, and anybody can make such locks.",
        ),
    ] = False,
) -> ExitCode:
    """Find your locks on the chain from your key alone, and refund or claim them. For when the store is lost.

    Needs the settings of bob and of the signer; neither the store nor, but for a provider, a Lightning node: it takes the payments
    that it holds for locks that were claimed. What the store still knows is left to layer2 run.
    """
    _check_options(send=send, claim=claim or [], force=force, provider=provider, search=search)
    if cli.config.is_embedded:
        raise ConfigurationError(
            "the embedded network is made anew each time: there is nothing to rescue", key="network"
        )
    async with _opened(cli, send=send, search_s=search_s, provider=provider) as (work, bob, store):
        first = await _first_block(bob, from_block)
        with cli.working("scanning the chain"):
            found = await work.find(
                from_block=first, progress=lambda at, end: cli.step(f"looked at blocks {first} to {at} of {end}")
            )
        confirmed = _named(found, claim or [])
        planning = _Planning(cli, work, store, found, search=search or not provider)
        acts = _Acts(cli, work, force=force, confirmed=confirmed)
        with cli.working("looking at your locks"):
            plans = await planning.all(acts.begin if send else _leave)
        form = token_of(cli.config)
        decimals = {form.contract: form.decimals}
        if not send:
            cli.emit([_json(plan) for plan in plans], lambda: _table(plans, decimals))
            if not plans:
                cli.say(f"no lock of {bob.account} since block {first}")
            return min((code_for(plan.error) for plan in plans if plan.error is not None), default=ExitCode.OK)
        cli.emit_people(lambda: _table(plans, decimals))
        results = [await acts.finish(plan) for plan in plans]
    cli.emit([result for result, _ in results])
    codes = [code for _, code in results if code is not ExitCode.OK]
    return min(codes, default=ExitCode.OK)


@asynccontextmanager
async def _opened(
    cli: Cli, *, send: bool, search_s: int, provider: bool
) -> AsyncIterator[tuple[Rescue, BobClient, Store | None]]:
    """To send, the store is opened for writing: no service may run, and what is signed goes on after a crash."""
    config, clock = cli.config, SystemClock()
    signer = await load_signer(config)
    if signer is None:
        raise SignerError("a rescue begins with your key: there is no [signer]", hint="configure it as it was")
    preset = chain_preset(config)
    contract = (config.bob.htlc_contract if config.bob is not None else None) or HTLC_ADDRESS
    transport = connect_chain(config, preset, clock)
    node = await connect_node(config) if provider else None
    token = token_of(config).contract
    if token is None:
        raise ConfigurationError("BTC is no token on this chain, and only tokens are locked", key="assets.BTC")
    url = provider_store_url(config) if provider else config.store_url
    store = await (Store.open(url, clock=clock) if send else _readable(cli, url))
    journal: TxJournal = SqlTxJournal(store) if send and store is not None else MemoryTxJournal()
    bob = BobClient(
        transport=transport,
        signer=signer,
        registry=registry_of(config),
        journal=journal,
        preset=preset,
        clock=clock,
        limits=fee_limits(config),
        htlc_contract=contract,
        bind_chain=store.bind_chain if send and store is not None else None,
    )
    try:
        await bob.initialize_async()
        timing = config.chain_timing()
        chain = EvmSwapChain(
            client=bob.rpc, sender=bob.sender, journal=journal, clock=clock, block_time_s=float(timing.evm_block_s)
        )
        work = Rescue(
            client=bob.rpc,
            chain=chain,
            journal=journal,
            signer=signer,
            contract=contract,
            token=token,
            chain_id=preset.chain_id,
            timing=timing,
            policy_for=depth_of_locks(config),
            clock=clock,
            extra_search_s=search_s,
            node=node,
            agreed=None if store is None else partial(_agreed, store),
        )
        yield work, bob, store
    finally:
        await bob.close_async()
        if node is not None:
            await node.close()
        if store is not None:
            await store.close()


def depth_of_locks(config: Layer2Config) -> Callable[[int], DepthPolicy]:
    """How deep a lock must be, by what it holds in the token's base unit: the settings count in satoshi."""
    token = token_of(config)
    return lambda units: config.depth_policy(whole_satoshi(units, token, up=True))


async def _readable(cli: Cli, url: str) -> Store | None:
    try:
        return await Store.open(url, clock=SystemClock(), read_only=True)
    except Layer2Error as error:
        cli.step(f"the store cannot be read, so every lock is looked at: {error}")
        return None


def _check_options(*, send: bool, claim: list[str], force: bool, provider: bool, search: bool) -> None:
    """Refuse what would do nothing: whoever gives it believes that it does."""
    for given, option, needed, there in (
        (bool(claim), "--claim", "--send", send),
        (force, "--force", "--send", send),
        (search, "--search", "--provider", provider),
    ):
        if given and not there:
            raise ValidationError(f"{option} does nothing without {needed}", field=option, hint=f"give {needed} too")
    for text in claim:
        if not re.fullmatch(rf"(0x)?[0-9a-fA-F]{{{_SHOWN},64}}", text):
            raise ValidationError(
                f"{text!r:.80} is not the id of a lock",
                field="--claim",
                hint=f"at least the {_SHOWN} digits that are shown",
            )


async def _first_block(bob: BobClient, wanted: int | None) -> int:
    head = await bob.rpc.block_number()
    if wanted is not None and wanted > head:
        raise ValidationError(f"the chain's last block is {head}, before {wanted}", field="--from-block")
    if wanted is not None:
        return wanted
    return max(0, head - _LONGEST_LOCK_S // bob.preset.block_time_s)


class _Planning:
    """What can be done with each lock, in the order in which it presses.

    Held payments go back by themselves, and anybody can make locks for us whose preimage is searched for in vain.
    """

    def __init__(self, cli: Cli, work: Rescue, store: Store | None, found: list[FoundLock], *, search: bool) -> None:
        self._cli = cli
        self._work = work
        self._store = store
        self._found = found
        self._search = search

    async def all(self, begin: Callable[[RescuePlan], Awaitable[None]]) -> list[RescuePlan]:
        """The plans, in the order in which the locks were found. Each is given to ``begin`` as soon as its turn has come."""
        mine = [found for found in self._found if found.lock.refunder == self._work.account]
        refunds = [await self._plan(found) for found in mine]
        for plan in sorted(refunds, key=lambda each: each.action is not RescueAction.SETTLE):
            await begin(plan)
        claims, unsearched = [], []
        for found in self._found:
            if found.lock.refunder == self._work.account:
                continue
            plan = await self._plan(found)
            if plan.action is RescueAction.NOT_SEARCHED and self._search:
                unsearched.append(found)
                continue
            claims.append(plan)
            await begin(plan)
        for found in sorted(unsearched, key=lambda each: each.lock.amount, reverse=True):
            self._cli.step(f"{_name(found)}: its preimage is searched for")
            claims.append(plan := await self._plan(found, search=True))
            await begin(plan)
        plans = {plan.found.lock.lock_id: plan for plan in refunds + claims}
        return [plans[found.lock.lock_id] for found in self._found]

    async def _plan(self, found: FoundLock, *, search: bool = False) -> RescuePlan:
        try:
            plan = await self._work.plan(found, search=search)
        except Layer2Error as error:
            # Others can be rescued all the same, and may have less time.
            self._cli.note(f"{_name(found)}: it could not be looked at: {error}")
            return self._work.unplanned(found, error)
        if plan.action is not RescueAction.NONE and self._store is not None:
            known = await self._store.run(swaps.by_lock_id, found.lock.lock_id)
            if any(swap.active for swap in known):
                return plan.left_to_the_store()
        return plan


async def _agreed(store: Store, payment_hash: bytes) -> frozenset[bytes]:
    known = await store.run(swaps.by_payment_hash, payment_hash)
    return frozenset(swap.deal.terms.lock.lock_id for swap in known)


def _named(found: list[FoundLock], ids: list[str]) -> frozenset[bytes]:
    """The locks that a person named, each by its whole id or a beginning of at least the 16 digits that are shown."""
    named = set()
    for text in ids:
        start = text.removeprefix("0x").lower()
        fits = [each.lock.lock_id for each in found if each.lock.lock_id.hex().startswith(start)]
        if len(fits) != 1:
            raise ValidationError(
                f"no lock of yours is called {text!r}", field="--claim", hint="name it as the table shows it"
            )
        named.add(fits[0])
    return frozenset(named)


async def _leave(_plan: RescuePlan) -> None:
    """Without --send, nothing is done."""


class _Acts:
    """Carries plans out: all are begun before one is waited for."""

    def __init__(self, cli: Cli, work: Rescue, *, force: bool, confirmed: frozenset[bytes]) -> None:
        self._cli = cli
        self._work = work
        self._force = force
        self._confirmed = confirmed
        self._sent: dict[bytes, bool | Layer2Error] = {}

    async def begin(self, plan: RescuePlan) -> None:
        """Do what the plan says, if it is something that can be done now."""
        lock_id = plan.found.lock.lock_id
        try:
            self._sent[lock_id] = await self._work.send(plan, late=self._force, confirmed=lock_id in self._confirmed)
        except Layer2Error as error:
            self._cli.note(f"{_name(plan.found)}: {error}")
            self._sent[lock_id] = error

    async def finish(self, plan: RescuePlan) -> tuple[dict[str, Any], ExitCode]:
        """Wait for what was begun."""
        cli, begun = self._cli, plan.error or self._sent[plan.found.lock.lock_id]
        if isinstance(begun, Layer2Error):
            return {**_json(plan), "sent": False, "error": str(begun)}, code_for(begun)
        if not begun:
            return {**_json(plan), "sent": False}, ExitCode.OK
        if plan.action is RescueAction.SETTLE:
            plan = replace(plan, invoice=InvoiceState.SETTLED)
            cli.step(f"{_name(plan.found)}: the payment was taken; waiting until the claim is deep enough")
        else:
            cli.step(f"{_name(plan.found)}: sent; waiting until it is deep enough")
        try:
            with cli.working("waiting"):
                status = await self._work.wait(plan)
        except Layer2Error as error:
            cli.note(f"{_name(plan.found)}: {error}")
            return {**_json(plan), "sent": True, "error": str(error)}, code_for(error)
        cli.say(f"{_name(plan.found)}: {status.value}")
        return {**_json(plan), "sent": True, "status": status.value}, ExitCode.OK


def _name(found: FoundLock) -> str:
    return f"lock {found.lock.lock_id.hex()[:_SHOWN]}"


def _words(plan: RescuePlan) -> str:
    if plan.action is RescueAction.NOTHING_HELD:
        return _NOTHING_HELD[plan.invoice]
    if (
        plan.action is RescueAction.NONE
        and plan.refunder
        and plan.found.phase is LockPhase.CLAIMED
        and not plan.invoice
    ):
        return _ASK_THE_NODE
    by, lock = plan.not_after, plan.found.lock
    return _TEXT[plan.action].format(
        timelock=utc(lock.timelock),
        not_after="any time" if by is None else utc(by),
        lock=lock.lock_id.hex()[:_SHOWN],
    )


def _json(plan: RescuePlan) -> dict[str, Any]:
    lock = plan.found.lock
    return {
        "lock_id": f"0x{lock.lock_id.hex()}",
        "payment_hash": lock.preimage_hash.hex(),
        "role": "refunder" if plan.refunder else "claimer",
        "phase": plan.found.phase.value,
        "amount": str(lock.amount),
        "token": str(lock.token),
        "block": plan.found.block_number,
        "timelock": lock.timelock,
        "action": plan.action.value,
        "agreed": plan.agreed,
        "claim_by": plan.not_after,
        "preimage_time_ms": plan.time_ms,
        "invoice": None if plan.invoice is None else plan.invoice.value,
        **({} if plan.error is None else {"error": str(plan.error)}),
    }


def _table(plans: list[RescuePlan], decimals: dict[Any, int]) -> Table:
    shown = table("Your locks", "lock", "block", "you are", "amount", "state", "what can be done", right=("amount",))
    for plan in plans:
        lock = plan.found.lock
        places = decimals.get(lock.token)
        amount = f"{lock.amount} of {lock.token}" if places is None else btc(lock.amount, places)
        role = "refunder" if plan.refunder else "claimer"
        number = str(plan.found.block_number)
        shown.add_row(lock.lock_id.hex()[:_SHOWN], number, role, amount, plan.found.phase.value, _words(plan))
    return shown
