"""The parties of a small world: the real decisions, looks and acts, one step at a time, each remembered by what it saw."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from small_world import READINGS, Case, Chain, Invoice, Lightning, Payment, Phase, Slot
from swap_worlds import NOW, PREIMAGE

from layer2.config import ProviderConfig
from layer2.errors import (
    Expired,
    Layer2Error,
    NodeConnectionError,
    NodeError,
    PaymentFailed,
    SwapRefused,
    UnknownOutcome,
)
from layer2.lightning import HeldHtlc, InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState
from layer2.provider import ProviderService
from layer2.swaps import (
    CancelRequested,
    ChainView,
    Decision,
    NeedsAttention,
    Observation,
    OwnTransaction,
    PayInvoice,
    Refund,
    RefundEarly,
    RefundOffer,
    Role,
    SendLock,
    State,
    Watch,
    decide,
    first_state,
)
from layer2.swaps._act import Actor
from layer2.swaps._look import Looker
from layer2.swaps._machine import withdraw
from layer2.swaps._ports import ExitAgainError
from layer2.testing._simulation_bare import BareEffect, BareSwap

T = TypeVar("T")
PAYMENT_HASH = hashlib.sha256(PREIMAGE).digest()
SIGNATURE = bytes(64) + b"\x1b"
_SETTINGS = ProviderConfig()
_INVOICES = {
    Invoice.OPEN: InvoiceState.OPEN,
    Invoice.ACCEPTED: InvoiceState.ACCEPTED,
    Invoice.SETTLED: InvoiceState.SETTLED,
    Invoice.CANCELED: InvoiceState.CANCELED,
}
_PAYMENTS = {
    Payment.NONE: PaymentState.NONE,
    Payment.IN_FLIGHT: PaymentState.IN_FLIGHT,
    Payment.HELD: PaymentState.IN_FLIGHT,
    Payment.SUCCEEDED: PaymentState.SUCCEEDED,
    Payment.FAILED: PaymentState.FAILED,
}
_TO_SETTLE = frozenset({"Settling", "Claiming", "Paid"})
_TO_REFUND = frozenset({"Cancelling", "Failed"})

NO_TASK, ON_ITS_WAY, AT_THE_NODE, REFUSED = range(4)
"""Where the request to pay is that a process waits for."""


class Party(NamedTuple):
    """A process: what its store holds, what its memory holds, and what was noted about it."""

    state: State
    effects: tuple[BareEffect, ...] = ()
    begun: bool | None = None
    """What its actor remembers of its request to pay."""
    refused: str | None = None
    task: int = NO_TASK
    first: bool = True
    """Of the task: whether no request of before may still be on its way."""
    knows: bool = False
    """Whether it was told the preimage since it was started."""
    side: str = ""
    """What it decided: to settle, or to give up."""

    def crashed(self) -> Party:
        return self._replace(begun=None, refused=None, task=NO_TASK, first=True, knows=False)


Command = tuple[Any, ...]
"""What a step does to the world, or a promise that it breaks: ``("broken", rule, what)``."""
Outcome = tuple[Party, tuple[Command, ...]]


class _Ports:
    """The chain, the node, the store and the clock, as one step of one party finds them."""

    def __init__(
        self, case: Case, role: Role, at: int, chain: Chain, lightning: Lightning, *, lost: bool = False
    ) -> None:
        self._lost = lost
        """Whether no answer comes back from what has an effect."""
        self._case = case
        self._role = role
        self._at = at
        self._chain = chain
        self._lightning = lightning
        self.commands: list[Command] = []
        self.told = False
        self.refuses: Layer2Error | None = None
        """What a request to pay is answered with."""
        self.begun: bool | None = None

    # -- clock, store, preimages ---------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return (NOW + self._at) * 1000

    async def mark_begun(self, swap_id: str, name: str, *, begun: bool) -> None:
        assert name == PayInvoice.name
        self.begun = begun

    async def preimage(self, lock: object, time_ms: int) -> bytes:
        return PREIMAGE

    # -- chain ---------------------------------------------------------------------------------------------------------

    async def view(self, lock: object, policy: object, *, lock_key: str | None) -> ChainView:
        chain = self._chain
        latest, at_depth, final = (READINGS[status] for status in (chain.head, chain.before, chain.final))
        self.told |= any(reading.preimage is not None for reading in (latest, at_depth, final))
        return ChainView(
            latest=latest,
            at_depth=at_depth,
            finalized=final,
            head_timestamp=NOW + self._at,
            finalized_timestamp=NOW + self._at - 2,
            now_s=NOW + self._at,
            own_lock=OwnTransaction.NONE if lock_key is None else chain.own_lock,
        )

    def _answers(self) -> None:
        if self._lost:
            raise NodeConnectionError("the reply is lost")

    def _submit(self, slot: Slot, *, not_after: int | None = None) -> None:
        self._sign_and_send(slot, not_after)
        self._answers()

    def _sign_and_send(self, slot: Slot, not_after: int | None) -> None:
        tx = self._chain.txs[slot]
        late = not_after is not None and NOW + self._at > not_after
        if tx.phase is Phase.NONE:
            if late:
                raise Expired("too late", expired_at=not_after or 0)
            self.commands += [("sign", slot, not_after), ("send", slot)]
        elif tx.phase is Phase.SIGNED:
            # Only a process that died leaves one; the sender of the next gives it up if its time has passed by then.
            if tx.not_after is None or NOW + self._at <= tx.not_after:
                self.commands.append(("send", slot))
            elif slot is Slot.LOCK:
                return
            elif late:
                raise Expired("too late", expired_at=not_after or 0)
            else:
                self.commands += [("sign", slot, None), ("send", slot)]
        elif tx.phase is Phase.REVERTED and slot is not Slot.LOCK:
            self.commands += [("sign", slot, None), ("send", slot)]
            raise ExitAgainError("the next attempt is on its way", failures=1, sent=True)

    async def send_lock(self, key: str, lock: object, *, not_after: int, max_gas_wei: int) -> None:
        self._submit(Slot.LOCK, not_after=not_after)

    async def send_claim(self, key: str, lock: object, preimage: bytes, *, not_after: int | None) -> None:
        assert preimage == PREIMAGE
        self._submit(Slot.CLAIM_FOR if self._role is self._case.locker else Slot.CLAIM, not_after=not_after)

    async def send_refund(self, key: str, lock: object, *, deadline: int | None) -> None:
        self._submit(Slot.REFUND)

    async def send_refund_early(self, key: str, lock: object, signature: bytes) -> None:
        self._submit(Slot.REFUND_EARLY)

    async def was_shown(self, key: str) -> bool:
        tx = self._chain.txs[Slot.CLAIM]
        unseen = tx.phase is Phase.SIGNED and tx.not_after is not None and NOW + self._at > tx.not_after
        return tx.phase is not Phase.NONE and not unseen

    # -- node ----------------------------------------------------------------------------------------------------------

    async def info(self) -> NodeInfo:
        return NodeInfo(
            node_id=bytes(33),
            alias="",
            network="regtest",
            block_height=self._at,
            synced_to_chain=True,
            version="small",
            spendable_msat=0,
            receivable_msat=0,
        )

    async def lookup_payment(self, payment_hash: bytes) -> PaymentRecord:
        succeeded = self._lightning.payment is Payment.SUCCEEDED
        self.told |= succeeded
        state = _PAYMENTS[self._lightning.payment]
        return PaymentRecord(payment_hash=payment_hash, state=state, preimage=PREIMAGE if succeeded else None)

    async def pay(self, invoice: str, **limits: object) -> PaymentRecord:
        if self.refuses is not None:
            raise self.refuses
        return await self.lookup_payment(PAYMENT_HASH)

    async def lookup_invoice(self, payment_hash: bytes) -> InvoiceRecord:
        case, lightning = self._case, self._lightning
        deal = case.deals[self._role]
        held = not case.submarine and lightning.invoice is Invoice.ACCEPTED
        msat = deal.terms.invoice_amount_msat
        part = HeldHtlc(amount_msat=msat, expiry_height=lightning.until, accept_height=0)
        return InvoiceRecord(
            payment_hash=payment_hash,
            text=deal.terms.invoice,
            state=_INVOICES[lightning.invoice],
            amount_msat=msat,
            received_msat=msat if held else 0,
            created_at=NOW,
            expires_at=deal.invoice_expires_at,
            is_hold=not case.submarine,
            htlcs=(part,) if held else (),
        )

    async def settle_invoice(self, preimage: bytes) -> None:
        assert preimage == PREIMAGE
        self.commands.append(("settle",))
        self._answers()

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        self.commands.append(("cancel",))
        self._answers()


class _Loop:
    """Stands for a running loop while a payment is begun: what would run by itself is a step of the search instead."""

    def __init__(self) -> None:
        self.began: list[object] = []

    def create_task(self, work: Coroutine[Any, Any, None], **_: object) -> Any:
        work.close()
        self.began.append(work)
        return SimpleNamespace(set_name=lambda _: None, cancel=lambda: None)


def _at_once(work: Coroutine[Any, Any, T], loop: _Loop | None = None) -> T:
    """The outcome of what never waits here."""
    running: Any = loop or _Loop()
    asyncio._set_running_loop(running)
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        asyncio._set_running_loop(None)
    work.close()
    raise AssertionError("a port waits")


class Steps:
    """What one party may do. The same step at the same sight is taken once and remembered."""

    def __init__(self, case: Case, role: Role) -> None:
        self._case = case
        self.role = role
        self.deal = case.deals[role]
        self._locks = role is case.locker
        self.begins_in = Party(state=first_state(role, case.direction))

    def _actor(self, ports: _Ports, party: Party) -> Actor:
        anything: Any = ports
        actor = Actor(store=anything, chain=anything, node=anything, preimages=anything, clock=anything)
        if party.begun is not None:
            actor._begun[self.deal.id] = party.begun
        if party.refused is not None:
            actor._refused[self.deal.id] = party.refused
        if party.task != NO_TASK:
            actor._payments[self.deal.id] = anything
        return actor

    def _swap(self, party: Party) -> BareSwap:
        return BareSwap(deal=self.deal, state=party.state, effects=party.effects)

    def look(self, party: Party, watch: Watch, at: int, chain: Chain, lightning: Lightning, signed: bool) -> Outcome:
        """Look at one thing, decide, persist."""
        ports = _Ports(self._case, self.role, at, chain, lightning)
        seen: Observation | None
        if watch is Watch.REFUND_OFFER:
            seen = RefundOffer(signature=SIGNATURE) if signed and self._locks and self.role is Role.CLIENT else None
        else:
            anything: Any = ports
            looker = Looker(
                chain=anything,
                node=anything,
                counterparty=anything,
                requests=self._actor(ports, party),
                clock=anything,
            )
            seen = _at_once(looker.look(watch, self._swap(party)))
        after, commands = self._decided(party, seen)
        return self._noting(after, ports), commands

    def cancelled(self, party: Party) -> Outcome:
        """The user wants to stop."""
        return self._decided(party, CancelRequested())

    def withdrawn(self, party: Party, at: int, chain: Chain, lightning: Lightning) -> Outcome:
        """The provider takes its offer back."""
        ports = _Ports(self._case, self.role, at, chain, lightning)
        anything: Any = ports
        looker = Looker(
            chain=anything, node=anything, counterparty=anything, requests=self._actor(ports, party), clock=anything
        )
        watch = Watch.CHAIN if self._case.submarine else Watch.INVOICE
        seen = _at_once(looker.look(watch, self._swap(party)))
        decision = None if seen is None else withdraw(self.deal, party.state, seen)
        return (party, ()) if decision is None else self._entered(party, decision)

    def _noting(self, party: Party, ports: _Ports) -> Party:
        return party._replace(knows=True) if ports.told and self._locks and not party.knows else party

    def _decided(self, party: Party, seen: Observation | None) -> Outcome:
        decision = None if seen is None else decide(self.deal, party.state, seen)
        return (party, ()) if decision is None else self._entered(party, decision)

    def _entered(self, party: Party, decision: Decision) -> Outcome:
        name = type(decision.state).__name__
        broken: list[Command] = []
        side = "settle" if name in _TO_SETTLE else "give up" if name in _TO_REFUND else ""
        if side and party.side and side != party.side:
            broken.append(("broken", "one decision", f"{name} after it was decided to {party.side}"))
        if isinstance(decision.state, NeedsAttention):
            broken.append(("broken", "within the assumptions nobody is needed", decision.state.reason))
        elif decision.alarm is not None:
            broken.append(("broken", "within the assumptions nothing is alarming", decision.alarm))
        broken += [("wanted", each.name) for each in decision.effects if isinstance(each, SendLock | PayInvoice)]
        effects = tuple(BareEffect(effect=effect) for effect in decision.effects)
        after = party._replace(state=decision.state, effects=effects, side=side or party.side)
        return after, tuple(broken)

    def act(
        self, party: Party, wanted: BareEffect, at: int, chain: Chain, lightning: Lightning, *, lost: bool = False
    ) -> Outcome:
        """Do what one row of the outbox asks for."""
        ports = _Ports(self._case, self.role, at, chain, lightning, lost=lost)
        actor, loop = self._actor(ports, party), _Loop()
        answer, first = None, not actor._pay_begun(self._swap(party))
        with suppress(NodeError):
            answer = _at_once(actor.act(self._swap(party), wanted, lambda: None), loop)
        after = self._remembering(party, actor, ports)
        commands = [*self._refunds_unknowing(after, wanted, ports), *ports.commands]
        if loop.began:
            after = after._replace(task=ON_ITS_WAY, first=first)
            commands.append(("request",))
        if answer is not None:
            after, more = self._decided(after, answer)
            commands += more
        return after, tuple(commands)

    def _refunds_unknowing(self, party: Party, wanted: BareEffect, ports: _Ports) -> list[Command]:
        signs = any(command[0] == "sign" for command in ports.commands)
        if isinstance(wanted.effect, Refund | RefundEarly) and signs and party.knows:
            return [("broken", "no refund of what is known to be claimed", wanted.effect.name)]
        return []

    def _remembering(self, party: Party, actor: Actor, ports: _Ports) -> Party:
        after = self._noting(party, ports)
        after = after._replace(begun=actor._begun.get(self.deal.id), refused=actor._refused.get(self.deal.id))
        if ports.begun is None:
            return after
        effects = tuple(replace(e, begun=ports.begun) if isinstance(e.effect, PayInvoice) else e for e in after.effects)
        return after._replace(effects=effects)

    def answered(self, party: Party, at: int, lightning: Lightning, *, broke: bool = False) -> Outcome:
        """A request to pay comes to its end: the node answers, or the connection breaks."""
        ports = _Ports(self._case, self.role, at, Chain(), lightning)
        if broke:
            ports.refuses = UnknownOutcome("the connection broke")
        elif party.task == REFUSED:
            ports.refuses = PaymentFailed("refused")
        actor = self._actor(ports, party)
        _at_once(actor._run_payment(self._swap(party), lambda: None, first=party.first))
        after = self._remembering(party, actor, ports)
        return after._replace(task=NO_TASK, first=True), ()

    def consents(self, party: Party, chain: Chain, lightning: Lightning) -> bool:
        """Whether the provider's service signs an early refund."""
        ports = _Ports(self._case, self.role, 0, chain, lightning)
        reads: Any = _Service(ports, self._swap(party))
        nothing: Any = None
        service = ProviderService(
            engine=reads,
            inventory=nothing,
            room=nothing,
            node=reads,
            signer=reads,
            place=nothing,
            settings=_SETTINGS,
            depth=(),
            clock=nothing,
            version="small",
            hashes=nothing,
            hash_owner=reads.hash_owner,
            swaps_on=reads.swaps_on,
            made_for=nothing,
            look=reads.look,
        )
        try:
            return _at_once(service.sign_refund(self.deal.id)) == SIGNATURE
        except SwapRefused:
            return False


class _Service:
    """What the provider's service reads when it is asked for its consent."""

    def __init__(self, ports: _Ports, swap: BareSwap) -> None:
        self._ports = ports
        self._swap = swap
        self.lookup_payment = ports.lookup_payment

    async def load(self, swap_id: str) -> BareSwap:
        return self._swap

    async def swaps_on(self, lock_id: bytes) -> tuple[BareSwap, ...]:
        return ()

    async def hash_owner(self, payment_hash: bytes) -> None:
        return None

    async def look(self, lock: object, policy: object) -> ChainView:
        return await self._ports.view(lock, policy, lock_key=None)

    async def sign_digest(self, digest: bytes) -> bytes:
        return SIGNATURE
