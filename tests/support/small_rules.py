"""Which steps are possible in a small world, and which promises each of them has to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from small_parties import AT_THE_NODE, NO_TASK, ON_ITS_WAY, REFUSED, Command, Outcome, Party, Steps
from small_world import (
    CLAIMED,
    LOCKED,
    NEVER,
    REFUNDED,
    SMALL_TIMING,
    Case,
    Chain,
    Invoice,
    Lightning,
    Payment,
    Phase,
    Slot,
    Tx,
    begin_payment,
    cancel,
    payment_moves,
    settle,
)
from swap_worlds import NOW

from layer2.swaps import Role, Watch, act_by, claim_room_s
from layer2.testing._simulation_bare import BareEffect

_FOLLOWS = {(one, one) for one in (NEVER, LOCKED, CLAIMED, REFUNDED)} | {
    (NEVER, LOCKED),
    (NEVER, CLAIMED),
    (NEVER, REFUNDED),
    (LOCKED, CLAIMED),
    (LOCKED, REFUNDED),
}
"""What a lock can be at one block and at the next. A block may hold its claim or its refund as well as the lock."""
NEW = Tx(Phase.POOL, SMALL_TIMING.evm_inclusion_s)
HOSTILE = Tx(Phase.POOL)


class Left(NamedTuple):
    """What may still go wrong, and whether an early refund was signed."""

    reorgs: int
    crashes: int
    breaks: int
    signed: bool = False


class World(NamedTuple):
    """One state of everything; a party that is hostile, or does not matter for a step, is None."""

    at: int
    chain: Chain
    lightning: Lightning
    client: Party | None
    provider: Party | None
    left: Left

    def party(self, role: Role) -> Party:
        return self.client if role is Role.CLIENT else self.provider  # type: ignore[return-value]

    def having(self, role: Role, party: Party) -> World:
        return self._replace(client=party) if role is Role.CLIENT else self._replace(provider=party)


class BrokenError(Exception):
    """A promise is broken by a step, or in a state."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")


Step = tuple[str, World]


class Rules:
    """Which steps are possible, and which promises each has to keep."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.steps = {role: Steps(case, role) for role in Role if role is not case.hostile}
        self._memory: dict[tuple[object, ...], Any] = {}
        self._deal = case.deals[Role.CLIENT]

    def beginning(self) -> World:
        case = self.case
        parties = {role: steps.begins_in for role, steps in self.steps.items()}
        return World(
            at=0,
            chain=Chain(),
            lightning=Lightning(),
            client=parties.get(Role.CLIENT),
            provider=parties.get(Role.PROVIDER),
            left=Left(case.reorgs, case.crashes, case.breaks),
        )

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        found = self._memory.get(key)
        if found is None:
            found = self._memory[key] = make()
        return found

    # -- what a process does -------------------------------------------------------------------------------------------

    def own(self, world: World, role: Role) -> Iterator[tuple[str, Outcome]]:
        """The steps that a running process takes sooner or later."""
        steps, party = self.steps[role], world.party(role)
        if party.state.final:
            return
        at, chain, lightning, signed = world.at, world.chain, world.lightning, world.left.signed
        # Each of them is one object for one value, as long as a search lasts.
        who = role, id(party), at
        for watch in sorted(party.state.watches):
            if watch is Watch.REFUND_OFFER and not signed:
                continue
            sight = id(lightning if watch in (Watch.PAYMENT, Watch.INVOICE) else chain)
            outcome = self._once(
                (*who, watch, sight),
                lambda watch=watch: steps.look(party, Watch(watch), at, chain, lightning, signed),
            )
            yield f"{role} looks at its {watch}", outcome
        for wanted in party.effects:
            yield f"{role} acts: {wanted.effect.name}", self._acting(world, role, wanted)
        ended = lightning.payment in (Payment.SUCCEEDED, Payment.FAILED)
        if party.task == REFUSED or (party.task == AT_THE_NODE and ended):
            outcome = self._once((*who, "answer", id(lightning)), lambda: steps.answered(party, at, lightning))
            yield f"{role} is answered about its payment", outcome

    def _acting(self, world: World, role: Role, wanted: BareEffect) -> Outcome:
        party, chain, lightning = world.party(role), world.chain, world.lightning
        key = role, id(party), world.at, wanted.effect.name, id(chain), id(lightning)
        outcome: Outcome = self._once(key, lambda: self.steps[role].act(party, wanted, world.at, chain, lightning))
        return outcome

    def _unanswered(self, world: World, role: Role) -> Iterator[tuple[str, Outcome]]:
        """The same acts, where the reply to what they do is lost."""
        steps, party, at = self.steps[role], world.party(role), world.at
        for wanted in () if party.state.final else party.effects:
            outcome = self._once(
                (role, id(party), at, wanted.effect.name, "lost", id(world.chain), id(world.lightning)),
                lambda w=wanted: steps.act(party, w, at, world.chain, world.lightning, lost=True),
            )
            if outcome != self._acting(world, role, wanted):
                yield f"{role} acts without an answer: {wanted.effect.name}", outcome

    def _optional(self, world: World, role: Role) -> Iterator[tuple[str, Outcome]]:
        """The steps that a process may take, or that its user or a stranger asks for."""
        steps, party = self.steps[role], world.party(role)
        if party.state.final:
            return
        at, chain, lightning = world.at, world.chain, world.lightning
        if role is Role.CLIENT:
            yield "the user cancels", self._once((id(party), "cancel"), lambda: steps.cancelled(party))
        elif not party.state.committed and not party.state.exit:
            outcome = self._once(
                (id(party), "withdraw", at, id(chain), id(lightning)),
                lambda: steps.withdrawn(party, at, chain, lightning),
            )
            yield "the provider takes its offer back", outcome

    def apply(self, world: World, role: Role, outcome: Outcome) -> World:
        """The world after a step of an honest process."""
        party, commands = outcome
        world = world.having(role, party)
        for command in commands:
            world = self._do(world, role, command)
        return world

    def _do(self, world: World, role: Role, command: Command) -> World:
        chain, lightning, at = world.chain, world.lightning, world.at
        match command:
            case ("broken", rule, what):
                raise BrokenError(rule, f"{role}: {what}")
            case ("wanted", "lock"):
                self._must(chain.txs[Slot.LOCK].phase is Phase.NONE, "no lock twice", role)
            case ("wanted", "pay"):
                begun = lightning.payment is not Payment.NONE or lightning.orphans
                self._must(not begun, "no payment twice", role)
            case ("sign", slot, not_after):
                self._check_signing(world, role, slot)
                return world._replace(chain=chain.put(slot, Tx(Phase.SIGNED, not_after=not_after)))
            case ("send", slot):
                return world._replace(chain=chain.put(slot, NEW))
            case ("settle",):
                self._must(lightning.invoice is not Invoice.CANCELED, "one decision", role)
                return world._replace(lightning=settle(lightning, at))
            case ("cancel",):
                self._check_giving_up(world, role)
                return world._replace(lightning=cancel(self.case, lightning, at))
            case ("request",):
                deep = role is Role.CLIENT or chain.before == LOCKED
                self._must(deep, "pays only against a lock at depth", role)
            case _:
                raise AssertionError(command)
        return world

    @staticmethod
    def _must(holds: object, rule: str, role: Role | None) -> None:
        if not holds:
            raise BrokenError(rule, str(role))

    def _check_signing(self, world: World, role: Role, slot: Slot) -> None:
        terms = self._deal.terms
        if slot is Slot.LOCK:
            self._must(NOW + world.at <= terms.lock_by, "no lock after lock_by", role)
        if slot is Slot.CLAIM and not self.case.submarine and world.chain.head != CLAIMED:
            self._must(world.chain.before == LOCKED, "no early reveal", role)
            room = self.case.timelock - world.at >= claim_room_s(terms.timing, terms.depth_policy)
            self._must(room or world.lightning.payment is Payment.SUCCEEDED, "no late reveal", role)

    def _check_giving_up(self, world: World, role: Role) -> None:
        chain = world.chain
        lock = chain.txs[Slot.LOCK].phase
        if role is not self.case.locker or lock is Phase.NONE:
            return
        dead = lock is Phase.REVERTED or world.at - 2 >= self.case.timelock
        impossible = chain.final == NEVER and dead
        rule = "no invoice is given up while its lock may be claimed"
        self._must(chain.final == REFUNDED or impossible, rule, role)

    def is_quiet(self, world: World, role: Role) -> bool:
        """Whether a process has nothing to do until something happens."""
        return all(self._changes_nothing(world, role, outcome) for _, outcome in self.own(world, role))

    def _changes_nothing(self, world: World, role: Role, outcome: Outcome) -> bool:
        return outcome[0] == world.party(role) and (not outcome[1] or self.apply(world, role, outcome) == world)

    def honest_steps(self, world: World, role: Role) -> Iterator[Step]:
        """Whatever an honest process may do, or suffer."""
        case, left = self.case, world.left
        party = world.party(role)
        for what, outcome in self.own(world, role):
            if self._changes_nothing(world, role, outcome):
                continue
            yield what, self.apply(world, role, outcome)
            if left.crashes:
                yield from self._dying_within(world, role, what, outcome)
        for what, outcome in (*self._unanswered(world, role), *self._optional(world, role)):
            if not self._changes_nothing(world, role, outcome):
                yield what, self.apply(world, role, outcome)
        if left.crashes and party.crashed() != party:
            yield f"{role} dies and is started again", self._dead(world, role, party)
        if left.breaks and party.task != NO_TASK and role is case.payer:
            broke = self._once(
                (id(party), "broke", id(world.lightning)),
                lambda: self.steps[role].answered(party, world.at, world.lightning, broke=True),
            )
            after = self.apply(world, role, broke)
            orphans = world.lightning.orphans + (party.task == ON_ITS_WAY)
            after = after._replace(left=left._replace(breaks=left.breaks - 1))
            yield (
                f"the connection of {role} breaks",
                after._replace(lightning=after.lightning._replace(orphans=orphans)),
            )

    def _dead(self, world: World, role: Role, party: Party) -> World:
        orphans = world.lightning.orphans + (party.task == ON_ITS_WAY)
        left = world.left._replace(crashes=world.left.crashes - 1)
        world = world._replace(lightning=world.lightning._replace(orphans=orphans), left=left)
        return world.having(role, party.crashed())

    def _dying_within(self, world: World, role: Role, what: str, outcome: Outcome) -> Iterator[Step]:
        """The process dies between the first and the last of what a step does."""
        party, commands = outcome
        if ("request",) in commands:
            yield f"{what}, and dies before the request", self._dead(world, role, party._replace(task=NO_TASK))
        signing = [command for command in commands if command[0] in ("sign", "send")]
        if len(signing) == 2:
            after = self.apply(world, role, (party, commands[: commands.index(signing[1])]))
            yield f"{what}, and dies before it is sent", self._dead(after, role, party)

    # -- what happens between them -------------------------------------------------------------------------------------

    def signing(self, world: World) -> Iterator[Step]:
        """An honest provider is asked for its consent to an early refund."""
        case, left = self.case, world.left
        if not case.submarine or left.signed or case.hostile is Role.PROVIDER:
            return
        steps, party = self.steps[Role.PROVIDER], world.party(Role.PROVIDER)
        sight = id(party), world.chain.before, world.lightning.payment
        if self._once(("consents", *sight), lambda: (steps.consents(party, world.chain, world.lightning),))[0]:
            dead = world.lightning.payment in (Payment.NONE, Payment.FAILED)
            self._must(dead, "no early refund while a payment may succeed", Role.PROVIDER)
            yield "the provider signs an early refund", world._replace(left=left._replace(signed=True))

    def paying(self, world: World) -> Iterator[Step]:
        """Requests to pay reach the node, and the payment moves."""
        case, lightning, at = self.case, world.lightning, world.at
        for what, after in payment_moves(case, lightning, at):
            yield what, world._replace(lightning=after)
        if lightning.orphans:
            fewer = lightning._replace(orphans=lightning.orphans - 1)
            yield "a request to pay is lost", world._replace(lightning=fewer)
            for begun in begin_payment(case, fewer, at):
                if begun not in (None, fewer):
                    yield "a late request to pay arrives", self._begun(world, begun)
        if case.hostile is case.payer or (not case.submarine and not case.pays_itself):
            if world.at <= case.hostile_until:
                for begun in begin_payment(case, lightning, at):
                    if begun not in (None, lightning):
                        yield (
                            "somebody pays" if case.hostile is None else "the hostile party pays",
                            self._begun(world, begun),
                        )
            return
        party = world.party(case.payer)
        if party.task == ON_ITS_WAY:
            for begun in begin_payment(case, lightning, at):
                if begun is None:
                    refused = world.having(case.payer, party._replace(task=REFUSED))
                    yield "the node refuses to pay", refused
                else:
                    after = self._begun(world, begun) if begun != lightning else world
                    yield "the node is asked to pay", after.having(case.payer, party._replace(task=AT_THE_NODE))

    def _begun(self, world: World, begun: Lightning) -> World:
        protected = self.case.submarine and self.case.hostile is not Role.PROVIDER
        self._must(not (protected and world.left.signed), "nothing is paid after an early refund was signed", None)
        return world._replace(lightning=begun)

    def strangers(self, world: World) -> Iterator[Step]:
        """Anyone may take a lock back for who made it, once its timelock has passed."""
        case, chain = self.case, world.chain
        if not case.strangers:
            return
        locked = LOCKED in (chain.before, chain.head)
        unsent = chain.txs[Slot.REFUND_FOR].phase is Phase.NONE
        if locked and unsent and case.timelock - 1 <= world.at <= case.hostile_until:
            yield "a stranger sends: refund", world._replace(chain=chain.put(Slot.REFUND_FOR, HOSTILE))

    def hostile_steps(self, world: World) -> Iterator[Step]:
        """Whatever a hostile party can do, at any time."""
        case, chain, at = self.case, world.chain, world.at
        if case.hostile is None or at > case.hostile_until:
            return
        for slot in self._hostile_slots(world):
            if chain.txs[slot].phase in (Phase.NONE, Phase.REVERTED):
                yield (
                    f"the hostile {case.hostile} sends: {slot.name.lower()}",
                    world._replace(chain=chain.put(slot, HOSTILE)),
                )
        yield from self._hostile_words(world)

    def _hostile_slots(self, world: World) -> Iterator[Slot]:
        case, chain, at = self.case, world.chain, world.at
        locked = LOCKED in (chain.before, chain.head)
        if case.hostile is case.locker:
            if chain.txs[Slot.LOCK].phase is Phase.NONE and at < case.timelock:
                yield Slot.LOCK
            if locked and at >= case.timelock - 1:
                yield Slot.REFUND
            if locked and world.left.signed:
                yield Slot.REFUND_EARLY
        elif locked:
            knows = not case.submarine or world.lightning.payment is Payment.SUCCEEDED or chain.shown
            if knows:
                yield Slot.CLAIM

    def _hostile_words(self, world: World) -> Iterator[Step]:
        """What a hostile party does at its node, or says."""
        case, lightning, at = self.case, world.lightning, world.at
        owner = Role.CLIENT if case.submarine else Role.PROVIDER
        if case.hostile is owner and (case.own_invoice or not case.submarine):
            after = cancel(case, lightning, at)
            if after != lightning:
                yield "the hostile party cancels its invoice", world._replace(lightning=after)
            shown = world.chain.shown or CLAIMED in (world.chain.head, world.chain.before)
            after = settle(lightning, at)
            if not case.submarine and shown and after != lightning:
                yield "the hostile provider settles", world._replace(lightning=after)
        if case.submarine and case.hostile is Role.PROVIDER and not world.left.signed:
            yield "the hostile provider signs an early refund", world._replace(left=world.left._replace(signed=True))

    # -- states --------------------------------------------------------------------------------------------------------

    def check(self, world: World) -> None:
        """What must hold in every state: no honest party has lost both legs."""
        case, chain, lightning = self.case, world.chain, world.lightning
        given_up = not lightning.moving and lightning.payment is not Payment.SUCCEEDED
        closed = lightning.invoice is Invoice.CANCELED
        paid = lightning.payment is Payment.SUCCEEDED
        if (chain.final, chain.before) not in _FOLLOWS or (chain.before, chain.head) not in _FOLLOWS:
            raise BrokenError("conservation", "what was locked went two ways, or nowhere")
        claimer = Role.PROVIDER if case.locker is Role.CLIENT else Role.CLIENT
        if case.hostile is not case.locker and chain.final == CLAIMED and closed and given_up:
            raise BrokenError("no loss", f"{case.locker}: its lock is claimed and the payment went back")
        if case.hostile is not claimer and chain.final == REFUNDED and paid:
            raise BrokenError("no loss", f"{claimer}: the invoice is paid and the lock went back")

    def check_end(self, world: World) -> None:
        """What must hold when nothing can happen any more."""
        case, chain = self.case, world.chain
        paid = world.lightning.payment is Payment.SUCCEEDED
        for role in self.steps:
            state = world.party(role).state
            self._must(state.final, f"it ends, not as {type(state).__name__}", role)
            outcome = getattr(state, "outcome", None)
            # A refund that was signed before the claim was seen may take its place: then both legs are the provider's.
            gift = not case.submarine and role is Role.PROVIDER and chain.final == REFUNDED
            self._must(outcome != "settled" or chain.final == CLAIMED or gift, "what is said to be settled is", role)
            if role is case.locker:
                self._must(chain.final != LOCKED, "no loss: its lock is left in the contract", role)
                self._must(chain.final != CLAIMED or paid, "no loss: claimed and never paid", role)
            else:
                self._must(not paid or chain.final == CLAIMED, "no loss: paid and not claimed", role)

    def at_rest(self, world: World) -> bool:
        """Whether nothing that could still happen would change anything for an honest party."""
        case, chain, lightning = self.case, world.chain, world.lightning
        if any(not world.party(role).state.final for role in self.steps):
            return False
        unsigned = chain.txs[Slot.LOCK].phase is Phase.NONE and case.hostile is not case.locker
        decided = chain.final in (CLAIMED, REFUNDED) or unsigned or world.at >= case.timelock
        pending = any(tx.phase is Phase.SIGNED for tx in chain.txs)
        requests = lightning.orphans or any(world.party(role).task == ON_ITS_WAY for role in self.steps)
        payable = requests and world.at <= case.expires
        return chain.at_rest and decided and not pending and not lightning.moving and not payable

    def may_be_away(self, party: Party, role: Role, at: int) -> bool:
        """Whether a process that is not back before ``at`` is still within the assumptions."""
        if at > self.case.timelock:
            return False
        by = act_by(self.case.deals[role], party.state)
        return by is None or NOW + at < by
