"""The terms of simulated swaps: by the same formulas as the provider's offers, without the ceremony."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm
from layer2.swaps import (
    Deal,
    PreimageSource,
    Role,
    min_invoice_life_s,
    reverse_final_cltv,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.testing._simulation_keys import CLIENT, PROVIDER, SimulatedSigner
from layer2.testing._simulation_lightning import SimulatedInvoice
from layer2.testing._simulation_loop import EPOCH_S, ProcessClock
from layer2.testing._simulation_plan import HONEST

if TYPE_CHECKING:
    from layer2.testing._simulation import Simulation

__all__ = ["Deals", "Parties", "make_deals"]

CHAIN_ID = 60808
AMOUNT_SAT = 100_000
FEE_SAT = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Accounts and contracts."""

    policy: DepthPolicy
    client: EvmAddress = CLIENT
    provider: EvmAddress = PROVIDER
    contract: EvmAddress = field(default=EvmAddress(raw=b"\x33" * 20))
    token: EvmAddress = field(default=EvmAddress(raw=b"\x44" * 20))

    @property
    def accounts(self) -> tuple[bytes, bytes]:
        """Who has tokens."""
        return self.client.raw, self.provider.raw

    def honest(self, client: str, provider: str) -> frozenset[bytes]:
        """Whose accounts are an honest party's, given what each does."""
        both = ((self.client, client), (self.provider, provider))
        return frozenset(account.raw for account, strategy in both if strategy == HONEST)

    @property
    def token_form(self) -> AssetForm:
        """The token as an asset."""
        return AssetForm(asset=BTC, chain_id=CHAIN_ID, contract=self.token, decimals=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deals:
    """What was agreed on."""

    deals: list[Deal]
    """Of both sides."""
    preimage: bytes | None
    """Reverse: the client's."""


async def make_deals(world: Simulation, clocks: dict[Role, ProcessClock], rng: random.Random) -> Deals:
    """Agree on a swap; on two of one hash, where the client replays one."""
    created_at = clocks[Role.PROVIDER].now_ms() // 1000
    if world.plan.direction is SwapDirection.SUBMARINE:
        deals = _submarine(world, created_at, rng)
        if world.plan.client == "replay_hash":
            deals += _twin(deals, rng)
        return Deals(deals=deals, preimage=None)
    return await _reverse(world, created_at, rng)


def _terms(
    world: Simulation, lock: Lock, invoice: str, msat: int, lock_by: int, created_at: int, name: str
) -> SignedTerms:
    submarine = world.plan.direction is SwapDirection.SUBMARINE
    terms = SwapTerms(
        swap_id=hashlib.sha256(name.encode()).hexdigest()[:32],
        direction=world.plan.direction,
        lock=lock,
        invoice=invoice,
        invoice_amount_msat=msat,
        provider_fee=FEE_SAT,
        routing_fee_limit_msat=FEE_SAT * 800 if submarine else 0,
        lock_by=lock_by,
        depth_policy=world.parties.policy,
        timing=world.timing,
        created_at=created_at,
    )
    return SignedTerms(terms=terms, signature=bytes(64) + b"\x1b")


def _submarine(world: Simulation, created_at: int, rng: random.Random) -> list[Deal]:
    timing, policy, parties = world.timing, world.parties.policy, world.parties
    preimage = rng.randbytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    life = timing.lock_window_s + min_invoice_life_s(timing, policy)
    own = world.plan.own_invoice
    expires_at = created_at + life + (timing.grace_s + 2 * timing.clock_skew_s if own else rng.randint(0, 60))
    final_cltv = rng.choice((9, 18, 40, 80))
    invoice = SimulatedInvoice(
        payee="client" if own else "payee",
        payment_hash=payment_hash,
        text=f"invoice {payment_hash.hex()}",
        amount_msat=AMOUNT_SAT * 1000,
        expires_at=expires_at - EPOCH_S,
        final_cltv=final_cltv,
        preimage=preimage,
    )
    world.lightning.add_invoice(invoice)
    lock = Lock(
        chain_id=CHAIN_ID,
        contract=parties.contract,
        preimage_hash=payment_hash,
        amount=AMOUNT_SAT + FEE_SAT,
        token=parties.token,
        claimer=parties.provider,
        refunder=parties.client,
        timelock=submarine_timelock(timing, expires_at, final_cltv),
    )
    lock_by = submarine_lock_by(timing, created_at)
    signed = _terms(world, lock, invoice.text, invoice.amount_msat, lock_by, created_at, "swap")
    client = Deal(
        id="c0" * 16,
        role=Role.CLIENT,
        signed=signed,
        invoice_expires_at=expires_at,
        invoice_final_cltv=final_cltv,
        own_invoice=own,
    )
    return [client, replace(client, id=signed.terms.swap_id, role=Role.PROVIDER, own_invoice=False)]


def _twin(deals: list[Deal], rng: random.Random) -> list[Deal]:
    """The same invoice, offered and locked for a second time."""
    first = deals[0].signed
    lock = replace(first.terms.lock, timelock=first.terms.lock.timelock + rng.randint(1, 30))
    swap_id = hashlib.sha256(b"twin").hexdigest()[:32]
    signed = replace(first, terms=replace(first.terms, lock=lock, swap_id=swap_id))
    return [
        replace(deals[0], id="c1" * 16, signed=signed),
        replace(deals[1], id=swap_id, signed=signed),
    ]


async def _reverse(world: Simulation, created_at: int, rng: random.Random) -> Deals:
    timing, policy, parties = world.timing, world.parties.policy, world.parties
    time_ms = rng.randrange(10**12)
    source = PreimageSource(SimulatedSigner(parties.client))
    preimage = await source.preimage_for(CHAIN_ID, parties.contract.raw, time_ms)
    payment_hash = source.hash_of(preimage)
    expires_at = created_at + timing.invoice_expiry_s
    invoice = SimulatedInvoice(
        payee="provider",
        payment_hash=payment_hash,
        text=f"invoice {payment_hash.hex()}",
        amount_msat=(AMOUNT_SAT + FEE_SAT) * 1000,
        expires_at=expires_at - EPOCH_S,
        final_cltv=reverse_final_cltv(timing, policy),
        preimage=None,
    )
    world.lightning.add_invoice(invoice)
    lock = Lock(
        chain_id=CHAIN_ID,
        contract=parties.contract,
        preimage_hash=payment_hash,
        amount=AMOUNT_SAT,
        token=parties.token,
        claimer=parties.client,
        refunder=parties.provider,
        timelock=reverse_timelock(timing, policy, created_at),
    )
    lock_by = reverse_lock_by(timing, created_at)
    signed = _terms(world, lock, invoice.text, invoice.amount_msat, lock_by, created_at, "swap")
    client = Deal(
        id="c0" * 16,
        role=Role.CLIENT,
        signed=signed,
        invoice_expires_at=expires_at,
        invoice_final_cltv=invoice.final_cltv,
        pays_itself=world.plan.pays_itself or world.plan.client != HONEST,
        preimage_time_ms=time_ms,
        routing_fee_limit_msat=FEE_SAT * 1000,
    )
    provider = replace(client, id=signed.terms.swap_id, role=Role.PROVIDER, preimage_time_ms=None, pays_itself=True)
    return Deals(deals=[client, provider], preimage=preimage)
