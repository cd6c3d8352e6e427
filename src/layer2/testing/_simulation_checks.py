"""What must hold in every simulated run, looked at whenever something happens and once more at the end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layer2.lightning import PaymentState
from layer2.swaps import (
    Cancelling,
    ChainView,
    Claim,
    Claiming,
    Closed,
    Deal,
    Effect,
    LockStatus,
    NeedsAttention,
    Observation,
    Refunded,
    Revealed,
    Role,
    Settled,
    State,
    StoredSwap,
    claim_room_s,
)
from layer2.terms import SwapDirection
from layer2.testing._simulation_blocks import NEVER, LockCall, Transaction, consent
from layer2.testing._simulation_chain import GAS_WEI, SimulatedChain
from layer2.testing._simulation_lightning import SimulatedLightning
from layer2.testing._simulation_loop import EPOCH_S, SimulationLoop

if TYPE_CHECKING:
    from layer2.evm import SignedTransaction
    from layer2.testing._simulation_process import SimulatedProcess

__all__ = ["Violated", "Violation", "Watchman"]

_MOST_STEPS = 300
_WHO_REVEALS = (Role.CLIENT, SwapDirection.REVERSE)
"""By whose claim the preimage leaves for the first time."""
_TO_SETTLE = frozenset({"Settling", "Claiming", "Paid"})
_TO_REFUND = frozenset({"Cancelling", "Failed"})
_PURSUES = (Revealed, Claiming, Settled, NeedsAttention)
"""Where a party may stand whose claim was shown, until one outcome is final."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, by whose program and when."""

    rule: str
    who: str
    what: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.rule} ({self.who}, {self.at_s:.2f} s): {self.what}"


class Violated(BaseException):
    """Ends a run."""


@dataclass(slots=True)
class _Party:
    """What is remembered of one process."""

    knows: set[bytes] = field(default_factory=set)
    signed: dict[str, list[str]] = field(default_factory=dict)
    decided: dict[str, str] = field(default_factory=dict)
    settled: set[bytes] = field(default_factory=set)
    cancelled: set[bytes] = field(default_factory=set)
    alarms: list[tuple[str, str]] = field(default_factory=list)


def _locks(deal: Deal) -> bool:
    """Whether the lock is its owner's."""
    return (deal.role is Role.CLIENT) == (deal.direction is SwapDirection.SUBMARINE)


class Watchman:
    """Sees everything. ``protected`` tells whether the assumptions still hold for a process."""

    def __init__(
        self,
        loop: SimulationLoop,
        chain: SimulatedChain,
        lightning: SimulatedLightning,
        *,
        longest_s: float,
        protected: Callable[[Role], bool],
        found: Callable[[Violation], None],
    ) -> None:
        self._loop = loop
        self._chain = chain
        self._lightning = lightning
        self.longest_s = longest_s
        """From the beginning to the latest timelock."""
        self._protected = protected
        self._found = found
        self.deals: dict[str, Deal] = {}
        self._parties: dict[Role, _Party] = {role: _Party() for role in Role}
        self.consents: dict[bytes, float] = {}
        """Lock ids for which an early refund was signed, with the time."""
        self._requests = 0
        self.states: dict[tuple[Role, str], State] = {}
        """Where each swap stands, once it has moved."""
        self._holders: dict[bytes, str] = {}
        self._payloads: dict[tuple[bytes, int], tuple[object, ...]] = {}
        self.secret: bytes | None = None
        """The client's preimage, before it is shown in a claim."""

    def alarms(self, role: Role) -> list[tuple[str, str]]:
        """Codes and reasons of the alarms that a process raised."""
        return self._parties[role].alarms

    def violate(self, rule: str, who: str, what: str) -> None:
        """Something that must never happen did."""
        self._found(Violation(rule, who, what, self._loop.now))

    # -- while it runs -------------------------------------------------------------------------------------------------

    def learned(self, process: SimulatedProcess, payment_hash: bytes) -> None:
        """A process was told a preimage."""
        self._parties[process.role].knows.add(payment_hash)

    def died(self, role: Role) -> None:
        """A process lost its memory."""
        self._parties[role].knows.clear()

    def alarm(self, role: Role, deal: Deal, code: str, reason: str) -> None:
        """A process raised an alarm."""
        self._parties[role].alarms.append((code, reason))
        if code == "swap.driver_failed":
            self.violate("unforeseen error", role.value, f"{reason} while driving {deal.id}")

    def decides(self, process: SimulatedProcess, swap_id: str, seen: Observation, effects: tuple[Effect, ...]) -> None:
        """A decision is about to be written: to reveal is one for which the view that led to it leaves the room."""
        reveals = any(isinstance(effect, Claim) and effect.preimage is None for effect in effects)
        if not reveals or not isinstance(seen, ChainView):
            return
        deal = next(d for d in self.deals.values() if d.role is process.role and d.id == swap_id)
        terms = deal.terms
        latest = terms.lock.timelock - claim_room_s(terms.timing, terms.depth_policy) - terms.timing.evm_clock_skew_s
        if max(seen.now_s, seen.head_timestamp) > latest:
            self.violate("no late reveal", process.name, "the chain's clock may run ahead by more")

    def stored(self, process: SimulatedProcess, swap: StoredSwap) -> None:
        """A state was committed."""
        self.states[process.role, swap.deal.id] = swap.state
        if swap.version > _MOST_STEPS:
            self.violate("it comes to rest", process.name, f"{swap.version} steps of one swap")
        name = type(swap.state).__name__
        process.tell(f"{swap.deal.id[:4]} is {name}")
        decided = self._parties[process.role].decided
        side = "settle" if name in _TO_SETTLE else "refund" if name in _TO_REFUND else None
        if side is not None and decided.setdefault(swap.deal.id, side) != side:
            self.violate(
                "one decision per hash", process.name, f"{name} after it was decided to {decided[swap.deal.id]}"
            )
        self._told(process, swap.deal, swap.state)
        if side == "settle" and process.role is Role.PROVIDER:
            holder = self._holders.setdefault(swap.deal.terms.lock.preimage_hash, swap.deal.id)
            if holder != swap.deal.id:
                self.violate("one swap per hash", process.name, f"{swap.deal.id} takes what {holder} paid for")

    def _told(self, process: SimulatedProcess, deal: Deal, state: State) -> None:
        """What a state tells its owner of the lock has to be so at the depth that it stands for, and no exit ends before."""
        chain, now, lock_id = self._chain, self._loop.now, deal.terms.lock.lock_id
        final = chain.finalized(chain.head, now).locks.get(lock_id, NEVER).status
        deep = chain.deep(chain.head, now, deal.terms.depth_policy).locks.get(lock_id, NEVER).status
        name, outcome = type(state).__name__, getattr(state, "outcome", None)
        locks = _locks(deal)
        over = final in (LockStatus.CLAIMED, LockStatus.REFUNDED)
        gone = locks and final is LockStatus.NEVER and not self._may_be_claimed(deal)
        if isinstance(state, Settled) and not (locks and deal.role is Role.PROVIDER):
            holds = deep is LockStatus.CLAIMED
        elif isinstance(state, Refunded):
            holds = deep is LockStatus.REFUNDED
        elif isinstance(state, Closed) and outcome == "settled":
            # A refund that was signed before the claim was seen may take its place: then both legs are the provider's.
            # Or there is no lock for which it was paid, and there will be none.
            holds = over or gone if locks and deal.role is Role.PROVIDER else final is LockStatus.CLAIMED
        elif outcome == "refunded":
            paid = getattr(state, "preimage", None) is not None
            holds = final is LockStatus.REFUNDED or (paid and gone)
        else:
            holds = True
        if not holds:
            self.violate("what is told is as deep as was agreed", process.name, f"{name}, but it is {deep} and {final}")
        if locks and (state.final or isinstance(state, Cancelling)) and not over and self._may_be_claimed(deal):
            self.violate("no lock is left that may be claimed", process.name, name)
        if not locks and not isinstance(state, _PURSUES) and not over and self._showed_its_claim(deal):
            self.violate("a claim is pursued to its end", process.name, name)

    def _showed_its_claim(self, deal: Deal) -> bool:
        claim = self._chain.signed.get(f"swap:{deal.id}:claim")
        return claim is not None and claim.sent

    def _may_be_claimed(self, deal: Deal) -> bool:
        """Whether the lock that its owner signed is not refunded for good, and may be there or still take effect."""
        chain = self._chain
        tx = chain.signed.get(f"swap:{deal.id}:lock")
        if tx is None:
            return False
        final = chain.finalized(chain.head, self._loop.now)
        status = final.locks.get(deal.terms.lock.lock_id, NEVER).status
        forms = [form for key, form in chain.signed.items() if key == tx.key or key.startswith(f"{tx.key}#")]
        dead = all(final.found(form) is False or final.used_up(form) for form in forms)
        impossible = status is LockStatus.NEVER and (dead or final.timestamp >= deal.terms.lock.timelock)
        return status is not LockStatus.REFUNDED and not impossible

    def signs(self, process: SimulatedProcess, tx: Transaction) -> None:
        """A process signs a transaction for the first time."""
        lock = tx.lock
        if lock is None:
            return
        party = self._parties[process.role]
        signed = party.signed.setdefault(tx.key.split(":")[1], [])
        if tx.call is LockCall.LOCK and LockCall.LOCK in signed:
            self.violate("no lock twice", process.name, tx.key)
        if tx.call in (LockCall.REFUND, LockCall.REFUND_EARLY) and lock.preimage_hash in party.knows:
            self.violate("no refund of a lock whose preimage is known", process.name, tx.key)
        if tx.call is LockCall.REFUND and max(head.timestamp for _, head in self._chain.heads) < lock.timelock:
            self.violate("no refund before the chain's time", process.name, tx.key)
        if tx.call is LockCall.REFUND_EARLY and tx.signature != consent(lock):
            self.violate("an early refund needs the claimer's consent", process.name, tx.key)
        signed.append(tx.call)
        deal = next((d for d in self.deals.values() if d.role is process.role and d.terms.lock == lock), None)
        if tx.call is LockCall.CLAIM and deal is not None and (deal.role, deal.direction) == _WHO_REVEALS:
            self._reveals(process, deal)
        if tx.call is LockCall.LOCK and deal is not None and EPOCH_S + self._loop.now > deal.terms.lock_by + 2:
            slack = deal.terms.timing.clock_skew_s + 1
            if EPOCH_S + self._loop.now > deal.terms.lock_by + slack:
                self.violate("no lock after lock_by", process.name, tx.key)

    def shows(self, process: SimulatedProcess, what: str) -> None:
        """A process shows something to its endpoint that is not a signed transaction."""
        sent = any(tx.sent for tx in self._chain.signed.values() if tx.call is LockCall.CLAIM)
        if self.secret is not None and not sent and self.secret.hex() in what:
            self.violate("no early reveal", process.name, f"the preimage stands in {what[:60]}")

    def shown(self, process: SimulatedProcess, signed: SignedTransaction, stored: Transaction | None) -> None:
        """A process hands a signed transaction to its endpoint."""
        tx = signed.transaction
        if stored is None:
            self.violate("a transaction is stored before it is sent", process.name, f"nonce {tx.nonce}")
        payload = (tx.to, tx.value, tx.data)
        known = self._payloads.setdefault((signed.sender.raw, tx.nonce), payload)
        fills = (signed.sender, 0, b"")
        if known != payload and fills not in (known, payload):
            self.violate("no nonce for two payloads", process.name, f"nonce {tx.nonce}")
        if known == fills:
            self._payloads[signed.sender.raw, tx.nonce] = payload

    def _reveals(self, process: SimulatedProcess, deal: Deal) -> None:
        """The preimage is about to leave for the first time."""
        chain, terms = self._chain, deal.terms
        now = self._loop.now
        lock_id = terms.lock.lock_id
        if chain.head.locks.get(lock_id, NEVER).status is LockStatus.CLAIMED or self._showed_its_claim(deal):
            return
        deep = chain.deep(chain.head, now, terms.depth_policy)
        if deep.locks.get(lock_id, NEVER).status is not LockStatus.LOCKED:
            self.violate("no early reveal", process.name, "the lock is not as deep as was agreed")
        room = terms.lock.timelock - EPOCH_S - now
        slack = terms.timing.clock_skew_s + 0.2 * terms.timing.grace_s + 2
        if room + slack < claim_room_s(terms.timing, terms.depth_policy):
            self.violate("no late reveal", process.name, f"{room:.1f} s before the timelock")

    def pays(self, process: SimulatedProcess, invoice: str, fee_limit_msat: int) -> None:
        """A process decides to ask its node to pay."""
        self._requests += 1
        if self._requests > 10 * _MOST_STEPS:
            self.violate("it comes to rest", process.name, f"{self._requests} requests to pay")
        deal = next((d for d in self.deals.values() if d.role is process.role and d.terms.invoice == invoice), None)
        if deal is None:
            self.violate("pays only what was agreed", process.name, "another invoice")
            return
        terms, now = deal.terms, self._loop.now
        allowed = deal.routing_fee_limit_msat if process.role is Role.CLIENT else terms.routing_fee_limit_msat
        if fee_limit_msat > allowed:
            self.violate("the routing fee is bounded", process.name, f"{fee_limit_msat} msat")
        if process.role is Role.CLIENT:
            return
        ids = [
            d.terms.lock.lock_id for d in self.deals.values() if d.role is Role.PROVIDER and d.terms.invoice == invoice
        ]
        deep = self._chain.deep(self._chain.head, now, terms.depth_policy)
        if not any(deep.locks.get(lock_id, NEVER).status is LockStatus.LOCKED for lock_id in ids):
            self.violate("pays only against a lock at depth", process.name, "there is none")

    def began(self, payer: str, payment_hash: bytes) -> None:
        """A payment begins at a node."""
        for deal in self.deals.values():
            lock = deal.terms.lock
            consented = lock.lock_id in self.consents and lock.preimage_hash == payment_hash
            if payer == Role.PROVIDER and consented and self._protected(Role.PROVIDER):
                others = [d for d in self.deals.values() if d.terms.lock.preimage_hash == payment_hash]
                if all(d.terms.lock.lock_id in self.consents for d in others):
                    self.violate("nothing is paid after an early refund was signed", payer, deal.id)

    def consented(self, deal: Deal, signature: bytes) -> None:
        """The honest provider gave its signature for an early refund."""
        if signature != consent(deal.terms.lock):
            return
        self.consents.setdefault(deal.terms.lock.lock_id, self._loop.now)
        payment = self._lightning.payments.get((Role.PROVIDER.value, deal.terms.lock.preimage_hash))
        twins = [d for d in self.deals.values() if d.role is Role.PROVIDER and d.terms.invoice == deal.terms.invoice]
        moving = payment is not None and payment.state is not PaymentState.FAILED
        if moving and all(d.terms.lock.lock_id in self.consents for d in twins):
            self.violate("no early refund while a payment may succeed", Role.PROVIDER.value, deal.id)

    def settles(self, process: SimulatedProcess, preimage: bytes) -> None:
        """A process takes a held payment."""
        payment_hash = hashlib.sha256(preimage).digest()
        party = self._parties[process.role]
        party.settled.add(payment_hash)
        if payment_hash in party.cancelled:
            self.violate("one decision per hash", process.name, "it settles what it gave up")

    def cancels(self, process: SimulatedProcess, payment_hash: bytes) -> None:
        """A process gives an invoice up."""
        party = self._parties[process.role]
        party.cancelled.add(payment_hash)
        if payment_hash in party.settled:
            self.violate("one decision per hash", process.name, "it gives up what it settles")
        for deal in self.deals.values():
            if deal.role is not process.role or deal.terms.lock.preimage_hash != payment_hash:
                continue
            if _locks(deal) and self._may_be_claimed(deal):
                self.violate("no invoice is given up while its lock may be claimed", process.name, deal.id)

    def gives_back(self, payee: str, payment_hash: bytes) -> None:
        """A node gives a held payment back by itself, because it expires soon."""
        for deal in self.deals.values():
            holds = deal.role == payee and deal.terms.lock.preimage_hash == payment_hash and self._protected(deal.role)
            if holds and _locks(deal) and self._may_be_claimed(deal):
                self.violate("a payment is held until its lock is refunded for good", payee, deal.id)

    def balanced(self) -> None:
        """Every satoshi and wei is somewhere."""
        wrong = self._chain.imbalance()
        if wrong is None and sum(self._lightning.balances_msat.values()) != self._lightning.total_msat:
            wrong = "the channels do not add up"
        if wrong is not None:
            self.violate("conservation", "world", wrong)
        for payment_hash, times in self._lightning.paid.items():
            if times > 1:
                self.violate("no invoice is paid twice", "world", payment_hash.hex()[:8])

    # -- at the end ----------------------------------------------------------------------------------------------------

    def ended(self, role: Role, swaps: list[StoredSwap], account: bytes) -> None:
        """How it ended for a party whose assumptions hold."""
        head = self._chain.head
        for swap in swaps:
            deal, state = swap.deal, swap.state
            status = head.locks.get(deal.terms.lock.lock_id, NEVER).status
            # A refund that was signed before the claim was seen may take its place in a reorganisation: then both legs are ours.
            ours = deal.direction is SwapDirection.REVERSE and role is Role.PROVIDER and status is LockStatus.REFUNDED
            if not state.final:
                rule = "it ends" if not isinstance(state, NeedsAttention) else "no loss"
                self.violate(rule, role.value, f"{type(state).__name__} at the end {getattr(state, 'reason', '')}")
            if getattr(state, "outcome", None) == "settled" and status is not LockStatus.CLAIMED and not ours:
                self.violate("what is said to be settled is", role.value, deal.id)
        for payment_hash in {swap.deal.terms.lock.preimage_hash for swap in swaps}:
            self._no_loss(
                role, payment_hash, [s.deal for s in swaps if s.deal.terms.lock.preimage_hash == payment_hash]
            )
        spent = 10**18 - head.wei[account]
        sent = sum(1 for tx in self._chain.signed.values() if tx.account == account)
        if spent > GAS_WEI * (sent + 1):
            self.violate("gas is bounded", role.value, f"{spent} wei for {sent} transactions")

    def paid(self, process: SimulatedProcess, accepted: set[str]) -> None:
        """What became of the payments that users of a real sender made from its account."""
        times: Counter[str] = Counter()
        for form in self._chain.forms.values():
            if form.account == process.account.raw and form.key.startswith("user:"):
                times[form.key.split("#")[0]] += self._chain.head.found(form) is True
        for key in times.keys() | accepted:
            if times[key] > 1:
                self.violate("no payment is made twice", process.name, f"{key} {times[key]} times")
            if key in accepted and not times[key] and not self._chain.pooled(process.account.raw):
                self.violate("no payment is lost", process.name, key)

    def _no_loss(self, role: Role, payment_hash: bytes, deals: list[Deal]) -> None:
        head = self._chain.head
        direction = deals[0].direction
        payer = Role.PROVIDER if direction is SwapDirection.SUBMARINE else Role.CLIENT
        payments = [
            payment
            for (name, known), payment in self._lightning.payments.items()
            if known == payment_hash and (name == payer.value or direction is SwapDirection.REVERSE)
        ]
        paid = any(payment.state is PaymentState.SUCCEEDED for payment in payments)
        claimed = [d for d in deals if head.locks.get(d.terms.lock.lock_id, NEVER).status is LockStatus.CLAIMED]
        locks = (role is Role.CLIENT) == (direction is SwapDirection.SUBMARINE)
        if locks and claimed and not paid:
            self.violate("no loss", role.value, "its lock was claimed and the payment never came through")
        left = [d for d in deals if head.locks.get(d.terms.lock.lock_id, NEVER).status is LockStatus.LOCKED]
        if locks and left:
            self.violate("no loss", role.value, "its lock is left in the contract")
        if locks and len(claimed) > 1:
            self.violate("no loss", role.value, "two locks were claimed for one payment")
        if not locks and paid and not claimed:
            self.violate("no loss", role.value, "it paid and the lock is not claimed")
