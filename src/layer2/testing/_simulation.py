"""The simulator: two parties with the real engine and the real store, in a world that is made up from a seed."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from layer2.errors import Layer2Error, NodeConnectionError, SwapRefused
from layer2.lightning import PaymentState
from layer2.swaps import (
    BOB_TIMING,
    DEVNET_TIMING,
    Deal,
    NoCounterparty,
    PreimageSource,
    Role,
    StoredSwap,
    SwapEngine,
    first_state,
)
from layer2.terms import DepthPolicy, SwapDirection
from layer2.testing._simulation_bare import BareEngine, BareJournal
from layer2.testing._simulation_blocks import Block
from layer2.testing._simulation_chain import SimulatedChain
from layer2.testing._simulation_checks import Violation, Watchman
from layer2.testing._simulation_deals import Parties, make_deals
from layer2.testing._simulation_disk import SimulatedDisk
from layer2.testing._simulation_keys import SimulatedSigner
from layer2.testing._simulation_lightning import SimulatedLightning
from layer2.testing._simulation_log import quiet
from layer2.testing._simulation_loop import EPOCH_S, ProcessClock, SimulationLoop, run_simulation
from layer2.testing._simulation_plan import HONEST, SimulationPlan, draw_plan, stream
from layer2.testing._simulation_ports import ChainPort, CounterpartyPort, NodePort
from layer2.testing._simulation_process import FaultyJournal, Life, SimulatedProcess, Troubles
from layer2.testing._simulation_report import SimulationReport
from layer2.testing._simulation_store import journal_for, service_of, wrong_in_history
from layer2.testing._simulation_strategies import Attacker, refund_as_stranger
from layer2.transactions import Depth

if TYPE_CHECKING:
    from layer2.provider import Inventory, ProviderService
    from layer2.storage import SwapJournal
    from layer2.swaps import SwapChain

__all__ = ["Simulation", "simulate"]

RETRY_S: Final = 1.0
STRANGER: Final = b"\x99" * 20


def simulate(seed: int, *, plan: SimulationPlan | None = None, bare: bool = False) -> SimulationReport:
    """One run. The same seed and plan give the same report, on every machine.

    Args:
        seed: of all that is random.
        plan: what happens, instead of what the seed would choose.
        bare: without store and driver: the decisions alone, several times as fast, and answers that come at once or not at all.
    """
    return Simulation(seed, plan=plan, bare=bare).run()


class Simulation:
    """One run. Make it, ``run`` it, once."""

    def __init__(self, seed: int, *, plan: SimulationPlan | None = None, bare: bool = False) -> None:
        self.seed = seed
        self.plan = plan or draw_plan(seed)
        self._bare = bare
        if bare:
            self.plan = replace(self.plan, delays=False)
        if bare or self.plan.timing == "bob":
            self.plan = replace(self.plan, real_sender=False)
        if self.plan.real_sender:
            # It raises its prices, and sends one after the other: a claim that must wait would hold up what comes after it.
            self.plan = replace(self.plan, claims_late=False, claim_reverts=False)
        self.timing = BOB_TIMING if self.plan.timing == "bob" else DEVNET_TIMING
        self._story: list[str] = []
        self._violations: list[Violation] = []
        self._processes: dict[Role, SimulatedProcess] = {}
        self._attackers: dict[Role, Attacker] = {}
        self._inventory: Inventory | None = None
        self._service: ProviderService | None = None
        self._outcomes: list[tuple[str, str]] = []
        self._idle_s = 450.0 if self.plan.timing == "bob" else 2.0 * self.timing.evm_block_s

    def run(self) -> SimulationReport:
        """Run it to its end."""
        with quiet(self._story):
            seconds = run_simulation(self._main)
        alarms = tuple((role.value, code) for role in Role for code, _ in self._watchman.alarms(role))
        return SimulationReport(
            seed=self.seed,
            plan=self.plan,
            bare=self._bare,
            violations=tuple(self._violations),
            outcomes=tuple(self._outcomes),
            alarms=alarms,
            simulated_s=seconds,
            story=tuple(self._story),
        )

    def _tell(self, text: str) -> None:
        self._story.append(f"{self._loop.now:9.2f}  {text}")

    def _found(self, violation: Violation) -> None:
        self._violations.append(violation)
        self._tell(f"VIOLATION {violation.rule} ({violation.who}): {violation.what}")
        self._stop.set()

    # -- making the world ----------------------------------------------------------------------------------------------

    async def _main(self, loop: SimulationLoop) -> float:
        plan, seed = self.plan, self.seed
        self._loop = loop
        self._stop = asyncio.Event()
        loop.set_exception_handler(self._unforeseen)
        self._parties = Parties(policy=DepthPolicy(depth=plan.depth, confirmations=plan.confirmations))
        self._chain = SimulatedChain(
            loop,
            stream(seed, "chain"),
            self.timing,
            idle_s=self._idle_s,
            tokens=dict.fromkeys((*self._parties.accounts, STRANGER), 10**9),
            stranger=STRANGER if plan.stranger else None,
            reorg_percent=plan.reorg_percent,
            drop_percent=plan.drop_percent,
            forgets_undone=plan.forgets_undone or plan.stranger_refunds,
            claim_reverts=plan.claim_reverts,
            undoes_claim=plan.shown_and_gone,
            may_undo=self._may_undo,
            alive=self._is_alive,
            honest=self._parties.honest(plan.client, plan.provider),
            ahead=plan.skew,
            story=self._tell,
        )
        self._lightning = SimulatedLightning(
            loop,
            stream(seed, "lightning"),
            self.timing,
            rate=plan.bitcoin_rate,
            payment=plan.payment,
            balances_msat=dict.fromkeys(("client", "provider", "payee", "payer", "router"), 10**12),
            story=self._tell,
        )
        clocks = {role: self._clock(role) for role in Role}
        made = await make_deals(self, clocks, stream(seed, "deals"))
        self.deals, self._preimage = made.deals, made.preimage
        timelock = max(deal.terms.lock.timelock for deal in self.deals) - EPOCH_S
        if plan.claims_late:
            self._chain.claims_from = timelock + stream(seed, "late claims").uniform(0, self.timing.evm_inclusion_s)
        self._watchman = Watchman(
            loop,
            self._chain,
            self._lightning,
            longest_s=timelock,
            protected=self._protected,
            found=self._found,
        )
        self._watchman.secret = made.preimage
        self._watchman.deals = {f"{deal.role}:{deal.id}": deal for deal in self.deals}
        self._chain.published = self._watchman.balanced
        if plan.dear_gas:
            self._chain.make_dear(stream(seed, "dear gas"), timelock)
        if plan.stays_dear:
            self._chain.stays_dear_from = stream(seed, "stays dear").uniform(0, timelock)
        self._lightning.began_hook = self._watchman.began
        self._lightning.gives_back_hook = self._watchman.gives_back
        for role in Role:
            await self._people(role, clocks[role])
        self._weather()
        await self._until_the_end(timelock)
        await self._check_the_end()
        for process in self._processes.values():
            process.end()
            if process.disk is not None:
                await process.disk.remove()
        return loop.now

    @property
    def lightning(self) -> SimulatedLightning:
        """The Lightning network."""
        return self._lightning

    @property
    def parties(self) -> Parties:
        """Who takes part."""
        return self._parties

    def _clock(self, role: Role) -> ProcessClock:
        if not self.plan.skew:
            return ProcessClock(self._loop)
        rng = stream(self.seed, f"clock {role}")
        drift_ppm = rng.uniform(-30, 30) if self.plan.timing == "devnet" else 0.0
        skew_s = rng.uniform(-0.35, 0.35) * self.timing.clock_skew_s
        return ProcessClock(self._loop, skew_s=skew_s, drift_ppm=drift_ppm)

    def _may_undo(self, head: Block, block: Block) -> bool:
        """Whether a reorganisation of the configured depth may undo ``block``."""
        now = self._loop.now
        lagging = self._chain.finalized if self.plan.depth is Depth.FINALIZED else self._chain.safe
        border = lagging(head, now)
        if block.number <= border.number:
            return False
        return self.plan.depth is not Depth.INCLUDED or head.number - block.number + 1 < self.plan.confirmations

    def _is_alive(self, account: bytes) -> bool:
        role = Role.CLIENT if account == self._parties.client.raw else Role.PROVIDER
        process = self._processes.get(role)
        return process is None or process.alive

    def _protected(self, role: Role) -> bool:
        process = self._processes.get(role)
        return process is not None and not process.gone

    # -- people --------------------------------------------------------------------------------------------------------

    async def _people(self, role: Role, clock: ProcessClock) -> None:
        plan = self.plan
        strategy = plan.client if role is Role.CLIENT else plan.provider
        deals = [deal for deal in self.deals if deal.role is role]
        if strategy != HONEST:
            attacker = Attacker(
                role=role,
                strategy=strategy,
                deals=deals,
                preimage=self._preimage,
                loop=self._loop,
                rng=stream(self.seed, f"attacker {role}"),
                chain=self._chain,
                lightning=self._lightning,
                ask_refund=self._ask_refund,
                story=self._tell,
            )
            self._attackers[role] = attacker
            self._own(self._loop.create_task(attacker.run()))
            return
        process = await self._process(role, clock)
        for deal in deals:
            await process.journal.insert(
                deal,
                first_state(deal.role, deal.direction),
                idempotency_key=None,
                request_digest=None,
                bind_hash=False,
            )
        self._processes[role] = process
        late_s = stream(self.seed, "begin").random() ** 3 * self.timing.lock_window_s * 1.1
        self._loop.call_later(late_s if role is Role.CLIENT else 0.0, process.start)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._scripts = [*getattr(self, "_scripts", []), task]

    async def _process(self, role: Role, clock: ProcessClock) -> SimulatedProcess:
        plan = self.plan
        client = role is Role.CLIENT
        torn_write = plan.client_torn_write if client else plan.provider_torn_write
        journal, disk = await self._journal(role, clock, on_disk=torn_write > 0)
        return SimulatedProcess(
            role=role,
            loop=self._loop,
            rng=stream(self.seed, f"process {role}"),
            troubles=Troubles(
                error=plan.error_percent,
                lost_reply=plan.lost_reply_percent,
                late_request=plan.late_request_percent,
                disk_error=plan.disk_error_percent,
                disk_full_at=plan.client_disk_full_at if client else plan.provider_disk_full_at,
                refusal=max(plan.refusal_percent, 50 if plan.claim_reverts else 0),
                fails_at_preimage=plan.shown_and_gone,
                delays=plan.delays,
                lag=plan.lag,
                crashes=plan.client_crashes if client else plan.provider_crashes,
                crash_at=plan.client_crash_at if client else plan.provider_crash_at,
                torn_write=torn_write,
                stops=plan.client_stops if client else plan.provider_stops,
            ),
            account=self._parties.client if client else self._parties.provider,
            clock=clock,
            journal=journal,
            disk=disk,
            chain=self._chain,
            lightning=self._lightning,
            watchman=self._watchman,
            poll_s=self._idle_s,
            downtime=self._downtime,
            make_engine=self._engine,
            story=self._tell,
        )

    async def _journal(
        self, role: Role, clock: ProcessClock, *, on_disk: bool
    ) -> tuple[SwapJournal | BareJournal, SimulatedDisk | None]:
        if self._bare:
            return BareJournal(), None
        if not on_disk:
            return await journal_for(role, clock), None
        disk = SimulatedDisk(role, clock, stream(self.seed, f"disk {role}"))
        return await disk.open(), disk

    def _engine(self, process: SimulatedProcess, life: Life) -> SwapEngine | BareEngine:
        client = process.role is Role.CLIENT
        self._watchman.died(process.role)
        if not client:
            # What is reserved is counted anew by each life, from what its store holds and from what changes.
            self._inventory = None
        ports: dict[str, Any] = {
            "store": FaultyJournal(process, life, process.journal),
            "chain": self._port(process, life),
            "node": NodePort(process, life),
            "counterparty": CounterpartyPort(process, life, self._ask_refund) if client else NoCounterparty(),
            "preimages": PreimageSource(SimulatedSigner(process.account)) if client else None,
            "on_change": lambda swap: self._changed(process, swap),
            "on_alarm": lambda deal, code, reason: self._watchman.alarm(process.role, deal, code, reason),
        }
        if self._bare:
            return BareEngine(process, life, **ports)
        return SwapEngine(clock=process.clock, poll_s=process.poll_s, **ports)

    def _port(self, process: SimulatedProcess, life: Life) -> SwapChain:
        if not self.plan.real_sender:
            return ChainPort(process, life, replace_lock=self.plan.replace_lock)
        # Loaded only here: the bare decisions need no store.
        from layer2.testing._simulation_sender import SenderPort, UserPayments

        if process.payments is None:
            rng = stream(self.seed, f"users {process.role}")
            process.payments = UserPayments(process, self.plan.user_payments, rng, self._watchman.longest_s)
        port: Any = SenderPort(process, life)
        life.sender = port.sender
        chain: SwapChain = port
        return chain

    def _changed(self, process: SimulatedProcess, swap: StoredSwap) -> None:
        if process.role is Role.PROVIDER:
            self._tally().changed(swap)

    def _tally(self) -> Inventory:
        from layer2.provider import Inventory

        if self._inventory is None:
            self._inventory = Inventory(self._parties.token_form, self._processes[Role.PROVIDER].clock)
        return self._inventory

    async def _ask_refund(self, deal: Deal) -> bytes | None:
        """The client asks the provider, whoever that is."""
        attacker = self._attackers.get(Role.PROVIDER)
        if attacker is not None:
            return attacker.signs_refund(deal)
        process = self._processes[Role.PROVIDER]
        if not process.alive:
            raise NodeConnectionError("the provider does not answer")
        try:
            if self._service is None:
                self._service = service_of(process)
            signature = await self._service.sign_refund(deal.terms.swap_id)
        except SwapRefused:
            return None
        self._watchman.consented(deal, signature)
        return signature

    # -- weather -------------------------------------------------------------------------------------------------------

    def _weather(self) -> None:
        plan = self.plan
        client = self._processes.get(Role.CLIENT)
        if plan.cancel_at is not None and client is not None:
            self._loop.call_later(plan.cancel_at, self._cancel, client)
        if plan.withdraw_at is not None:
            self._loop.call_later(plan.withdraw_at, self._withdraw)
        if plan.stranger_refunds:
            for lock in dict.fromkeys(deal.terms.lock for deal in self.deals):
                self._loop.call_later(lock.timelock - EPOCH_S, refund_as_stranger, self._chain, lock, STRANGER)
        if plan.skew:
            rng = stream(self.seed, "jumps")
            for process in self._processes.values():
                at = rng.uniform(0, self._watchman.longest_s)
                self._loop.call_later(at, process.clock.jump, rng.uniform(-0.1, 0.1) * self.timing.clock_skew_s)
        reverse = self.deals[0].direction is SwapDirection.REVERSE
        if reverse and not plan.pays_itself and plan.client == HONEST:
            rng = stream(self.seed, "payer")
            self._loop.call_later(rng.uniform(0, 1.1 * self.timing.invoice_expiry_s), self._somebody_pays)

    def _cancel(self, client: SimulatedProcess) -> None:
        if client.engine is not None:
            self._tell("the user cancels")
            client.engine.cancel(next(deal.id for deal in self.deals if deal.role is Role.CLIENT))

    def _withdraw(self) -> None:
        """The invoice is cancelled at its node. Once a lock is decided against it, that would be the provider's own loss."""
        payment_hash = self.deals[0].terms.lock.preimage_hash
        decided = any(role is Role.PROVIDER for role, _ in self._watchman.states)
        if self.deals[0].direction is SwapDirection.SUBMARINE or not decided:
            with suppress(Layer2Error):
                self._lightning.cancel(self._lightning.invoices[payment_hash].payee, payment_hash)

    def _give_back(self, deal: Deal) -> None:
        """What is held goes back, as long as nothing is locked for it, which a provider looks at before it signs."""
        if deal.direction is SwapDirection.REVERSE and f"swap:{deal.id}:lock" not in self._chain.signed:
            with suppress(Layer2Error):
                self._lightning.cancel(Role.PROVIDER.value, deal.terms.lock.preimage_hash)

    def _somebody_pays(self) -> None:
        terms = self.deals[0].terms
        limit = self.timing.route_cltv_blocks + self.deals[0].invoice_final_cltv
        try:
            self._lightning.pay("payer", terms.invoice, fee_limit_msat=1000, cltv_limit=limit, time_limit_s=10)
        except Exception as error:  # noqa: BLE001 - a stranger's trouble
            self._tell(f"payer: {error}")

    def _downtime(self, process: SimulatedProcess) -> float:
        """How long a process stays away: a moment, or as long as the assumptions allow it where it stands."""
        self._watchman.died(process.role)
        rng = stream(self.seed, f"downtime {process.role} {process.deaths}")
        short_s = rng.uniform(0.05, 0.25) * self.timing.grace_s / min(3, process.deaths)
        deal = next(deal for deal in self.deals if deal.role is process.role)
        if self.plan.gives_back_away and process.role is Role.PROVIDER:
            self._give_back(deal)
        now, timelock = self._loop.now, deal.terms.lock.timelock - EPOCH_S
        if not self.plan.long_downtime:
            return short_s
        if deal.direction is SwapDirection.SUBMARINE:
            latest = timelock * 1.1 if process.role is Role.CLIENT else deal.invoice_expires_at - EPOCH_S
        elif process.role is Role.PROVIDER:
            latest = timelock - self.timing.grace_s
        else:
            claim = self._chain.signed.get(f"swap:{deal.id}:claim")
            latest = timelock * 1.1 if claim is None else 0.0
        return max(short_s, rng.random() * (latest - now))

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        if error is not None:
            self._story.append("".join(traceback.format_exception(error)))
        self._found(Violation("unforeseen error", "loop", f"{context['message']}: {error!r}", self._loop.now))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _until_the_end(self, timelock: float) -> None:
        timing = self.timing
        margin = 4 * timing.evm_inclusion_s + 2 * timing.finality_s + 4 * timing.grace_s + 4 * self._idle_s + 60
        end = timelock + margin
        last = 4 * end
        while self._loop.now < min(end, last) and not self._stop.is_set():
            await asyncio.sleep(2 * self._idle_s)
            moving = [p for p in self._lightning.began if p.state is PaymentState.IN_FLIGHT]
            for payment in moving:
                end = max(end, self._lightning.heights.time_of(payment.last_height) + margin)
            away = any(not process.alive and not process.gone for process in self._processes.values())
            if away:
                # Whoever is away is given the same time once it is back.
                end = max(end, self._loop.now + margin)
            elif not moving and self._all_over():
                # What was committed a moment ago has still to be told, after a write that failed only with the next look.
                late_s = (10 if self.plan.disk_error_percent else 3) * RETRY_S
                await asyncio.sleep(max(late_s, 2 * self._idle_s) if self._bare else late_s)
                return

    async def _swaps(self, role: Role) -> list[StoredSwap]:
        process = self._processes[role]
        return [await process.journal.load(deal.id) for deal in self.deals if deal.role is role]

    def _all_over(self) -> bool:
        """Whether nothing can happen any more that concerns an honest party, so that the rest of the time is not waited for."""
        states = self._watchman.states
        honest = [deal for deal in self.deals if deal.role in self._processes]
        ended = all((state := states.get((d.role, d.id))) is not None and state.final for d in honest)
        return ended and self._chain.at_rest and not self._lightning.requests_on_their_way

    async def _check_the_end(self) -> None:
        for role, process in self._processes.items():
            swaps = await self._swaps(role)
            for swap in swaps:
                name = type(swap.state).__name__
                self._outcomes.append((role.value, f"{name} {getattr(swap.state, 'outcome', '')}".strip()))
                if (
                    not self._bare
                    and (wrong := await wrong_in_history(process.journal.store, swap.deal.id)) is not None
                ):
                    self._watchman.violate("the history is intact", role.value, wrong)
            if self._stop.is_set() or process.gone:
                continue
            if self.plan.claims_late and (role is Role.PROVIDER) == (self.plan.direction is SwapDirection.SUBMARINE):
                continue
            self._watchman.ended(role, swaps, process.account.raw)
            if process.payments is not None:
                self._watchman.paid(process, process.payments.accepted)
            if role is Role.PROVIDER and self._inventory is not None and process.alive:
                left = (self._inventory.active, self._inventory.token_bound(), self._inventory.lightning_bound_msat())
                if any(left):
                    self._watchman.violate("reservations return to zero", role.value, str(left))
