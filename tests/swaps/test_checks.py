"""A provider that lies in one field of properly signed terms: the client refuses, and says by which rule."""

import random
from dataclasses import fields, replace

import pytest

from layer2 import EvmAddress
from layer2.errors import InvoiceError, SwapRefused
from layer2.lightning import MemoryLightning, encode_invoice
from layer2.signers import LocalSigner
from layer2.swaps import (
    BOB_TIMING,
    DEVNET_TIMING,
    FORBIDDEN_HASHES,
    TIMELOCK_SPREAD_S,
    Expected,
    check_reverse_terms,
    check_submarine_terms,
    reverse_final_cltv,
    reverse_lock_by,
    reverse_timelock,
    submarine_lock_by,
    submarine_timelock,
)
from layer2.terms import DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.testing import VirtualClock
from layer2.transactions import Depth

TIMING = DEVNET_TIMING
TIMING.to_json()  # pydantic looks for plugins, on the disk, when it is first used: not on a loop that is watched for that
POLICY = DepthPolicy(depth=Depth.INCLUDED, confirmations=2)
CLIENT = EvmAddress(raw=b"\x11" * 20)
TOKEN = EvmAddress(raw=b"\x44" * 20)
CONTRACT = EvmAddress(raw=b"\x33" * 20)
STRANGER = EvmAddress(raw=b"\x55" * 20)
AMOUNT = 100_000
FEE = 700
ROOM = 35
"""What a reverse timelock must leave after the invoice's expiry, under ``TIMING`` and ``POLICY``."""


class Setting:
    """A provider, a client and one honest offer in each direction."""

    def __init__(self):
        self.clock = VirtualClock()
        self.timing = TIMING
        self.now = self.clock.now_ms() // 1000
        self.network = MemoryLightning(clock=self.clock, random_bytes=random.Random(3).randbytes)
        self.provider = self.network.add_node("provider")
        self.merchant = self.network.add_node("merchant")
        self.signer = LocalSigner.from_hex("09" * 32)

    async def hold_invoice(self, payment_hash=b"\x07" * 32, **changes):
        options = {
            "amount_msat": (AMOUNT + FEE) * 1000,
            "memo": "",
            "expiry_s": TIMING.invoice_expiry_s,
            "cltv_delta": reverse_final_cltv(TIMING, POLICY),
        }
        return (await self.provider.create_hold_invoice(payment_hash=payment_hash, **options | changes)).text

    async def offer(self, direction):
        submarine = direction is SwapDirection.SUBMARINE
        if submarine:
            record = await self.merchant.create_invoice(amount_msat=AMOUNT * 1000, memo="", expiry_s=600)
            text, payment_hash = record.text, record.payment_hash
            timelock = submarine_timelock(self.timing, record.expires_at, 80)
        else:
            payment_hash = b"\x07" * 32
            text = await self.hold_invoice()
            timelock = reverse_timelock(self.timing, POLICY, self.now)
        lock = Lock(
            chain_id=60808,
            contract=CONTRACT,
            preimage_hash=payment_hash,
            amount=AMOUNT + FEE if submarine else AMOUNT,
            token=TOKEN,
            claimer=self.signer.address if submarine else CLIENT,
            refunder=CLIENT if submarine else self.signer.address,
            timelock=timelock,
        )
        terms = SwapTerms(
            swap_id="ab" * 16,
            direction=direction,
            lock=lock,
            invoice=text,
            invoice_amount_msat=(AMOUNT if submarine else AMOUNT + FEE) * 1000,
            provider_fee=FEE,
            routing_fee_limit_msat=400_000 if submarine else 0,
            lock_by=submarine_lock_by(self.timing, self.now) if submarine else reverse_lock_by(self.timing, self.now),
            depth_policy=POLICY,
            timing=self.timing,
            created_at=self.now,
        )
        expected = Expected(
            chain_id=60808,
            contract=CONTRACT,
            token=TOKEN,
            token_amount=AMOUNT,
            invoice_msat=AMOUNT * 1000,
            provider=self.signer.address,
            own_account=CLIENT,
            max_fee=1_000,
            max_fee_msat=1_000_000,
            payment_hash=payment_hash,
            invoice=text if submarine else None,
            timing=self.timing,
            min_depth=POLICY,
            lightning_network="regtest",
            now_s=self.now,
        )
        return terms, expected

    async def sign(self, terms):
        return SignedTerms(terms=terms, signature=await self.signer.sign_digest(terms.digest))


@pytest.fixture
def setting():
    return Setting()


async def refusal(setting, check, terms, expected):
    with pytest.raises(SwapRefused) as caught:
        check(await setting.sign(terms), expected)
    assert not caught.value.money_may_have_moved
    return caught.value.rule


def in_lock(**changes):
    return lambda terms: replace(terms, lock=replace(terms.lock, **changes))


def plus(name, delta):
    """The field of the terms, or of their lock, moved by ``delta``."""

    def lie(terms):
        if "." not in name:
            return replace(terms, **{name: getattr(terms, name) + delta})
        field = name.partition(".")[2]
        return replace(terms, lock=replace(terms.lock, **{field: getattr(terms.lock, field) + delta}))

    return lie


COMMON_LIES = [
    ("lock.chain_id", in_lock(chain_id=1), "chain"),
    ("lock.contract", in_lock(contract=STRANGER), "contract"),
    ("lock.token", in_lock(token=STRANGER), "token"),
    ("lock.preimage_hash", in_lock(preimage_hash=b"\x08" * 32), "hash"),
    ("lock.amount", plus("lock.amount", 1), "amount"),
    ("lock.amount", plus("lock.amount", -1), "amount"),
    ("lock.timelock", in_lock(timelock=2**62), "timelock"),
    ("timing", lambda t: replace(t, timing=replace(t.timing, grace_s=t.timing.grace_s - 1)), "timing"),
    ("timing", lambda t: replace(t, timing=replace(t.timing, name="bob-1")), "timing"),
    (
        "depth_policy",
        lambda t: replace(t, depth_policy=DepthPolicy(depth=Depth.INCLUDED, confirmations=1)),
        "depth",
    ),
    ("depth_policy", lambda t: replace(t, depth_policy=DepthPolicy(depth=Depth.FINALIZED)), "depth"),
    ("created_at", plus("created_at", TIMING.clock_skew_s + 61), "clock"),
    ("created_at", plus("created_at", -TIMING.clock_skew_s - 61), "clock"),
]
SUBMARINE_LIES = [
    ("direction", lambda t: replace(t, direction=SwapDirection.REVERSE), "direction"),
    ("lock.refunder", in_lock(refunder=STRANGER), "refunder"),
    ("lock.claimer", in_lock(claimer=STRANGER), "provider"),
    ("lock.claimer", in_lock(claimer=EvmAddress(raw=bytes(20))), "provider"),
    ("lock.claimer", in_lock(claimer=CLIENT), "provider"),
    ("invoice", lambda t: replace(t, invoice=t.invoice[:-1] + "q"), "invoice"),
    ("invoice", lambda t: replace(t, invoice=t.invoice.upper()), "invoice"),
    ("invoice_amount_msat", plus("invoice_amount_msat", 1), "amount"),
    ("provider_fee", plus("provider_fee", 1), "amount"),
    ("lock_by", lambda t: replace(t, lock_by=t.created_at), "lock_by"),
    ("lock_by", plus("lock_by", 1), "lock_by"),
    ("lock.timelock", lambda t: in_lock(timelock=t.lock_by + TIMING.evm_inclusion_s)(t), "timelock"),
]
REVERSE_LIES = [
    ("direction", lambda t: replace(t, direction=SwapDirection.SUBMARINE), "direction"),
    ("lock.claimer", in_lock(claimer=STRANGER), "claimer"),
    ("lock.refunder", in_lock(refunder=STRANGER), "provider"),
    ("lock.refunder", in_lock(refunder=EvmAddress(raw=bytes(20))), "provider"),
    ("lock.refunder", in_lock(refunder=CLIENT), "provider"),
    ("invoice_amount_msat", plus("invoice_amount_msat", 1), "amount"),
    ("invoice_amount_msat", plus("invoice_amount_msat", -1), "amount"),
    ("provider_fee", plus("provider_fee", 1), "fee"),
    ("provider_fee", plus("provider_fee", -1), "fee"),
    (
        "lock.timelock",
        lambda t: in_lock(timelock=t.created_at + TIMING.invoice_expiry_s + ROOM - 1)(t),
        "timelock",
    ),
]
# What a provider may say as it likes: a name; what only it spends; and by when it locks, which is bounded by the rest.
FREE = {"swap_id", "routing_fee_limit_msat"}
FREE_REVERSE = FREE | {"lock_by"}
# The reverse invoice is the provider's own: what may stand in it has a table below.


def names(lies):
    return [f"{name}-{rule}-{number}" for number, (name, _, rule) in enumerate(lies)]


async def test_honest_terms_pass(setting):
    terms, expected = await setting.offer(SwapDirection.SUBMARINE)
    assert check_submarine_terms(await setting.sign(terms), expected).payment_hash == terms.lock.preimage_hash
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    assert check_reverse_terms(await setting.sign(terms), expected).payment_hash == terms.lock.preimage_hash


@pytest.mark.parametrize(
    ("lie", "rule"),
    [(lie, rule) for _, lie, rule in COMMON_LIES + SUBMARINE_LIES],
    ids=names(COMMON_LIES + SUBMARINE_LIES),
)
async def test_a_lie_about_a_submarine_swap_is_refused(setting, lie, rule):
    terms, expected = await setting.offer(SwapDirection.SUBMARINE)
    assert await refusal(setting, check_submarine_terms, lie(terms), expected) == rule


@pytest.mark.parametrize(
    ("lie", "rule"),
    [(lie, rule) for _, lie, rule in COMMON_LIES + REVERSE_LIES],
    ids=names(COMMON_LIES + REVERSE_LIES),
)
async def test_a_lie_about_a_reverse_swap_is_refused(setting, lie, rule):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    assert await refusal(setting, check_reverse_terms, lie(terms), expected) == rule


def test_every_field_of_the_terms_is_lied_about():
    every = {field.name for field in fields(SwapTerms)} - {"lock"}
    every |= {f"lock.{field.name}" for field in fields(Lock)}
    assert {name for name, *_ in COMMON_LIES + SUBMARINE_LIES} == every - FREE
    assert {name for name, *_ in COMMON_LIES + REVERSE_LIES} | {"invoice"} == every - FREE_REVERSE


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"payment_hash": b"\x0a" * 32}, "hash"),
        ({"amount_msat": (AMOUNT + FEE) * 1000 + 1}, "amount"),
        ({"amount_msat": 0}, "amount"),
        ({"expiry_s": TIMING.invoice_expiry_s + TIMING.clock_skew_s + 1}, "expiry"),
        ({"cltv_delta": reverse_final_cltv(TIMING, POLICY) + TIMING.slack_blocks + 1}, "cltv"),
    ],
    ids=["hash", "amount", "no amount", "long life", "long hold"],
)
async def test_a_hold_invoice_that_does_not_fit_is_refused(setting, changes, rule):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    # Another node of the provider's, since one node has one invoice for a hash.
    setting.provider = setting.network.add_node("provider's other node")
    terms = replace(terms, invoice=await setting.hold_invoice(**changes))
    assert await refusal(setting, check_reverse_terms, terms, expected) == rule


async def test_a_hold_invoice_of_another_network_is_refused(setting):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    setting.provider = MemoryLightning(clock=setting.clock, network="mainnet").add_node("far away")
    terms = replace(terms, invoice=await setting.hold_invoice())
    assert await refusal(setting, check_reverse_terms, terms, expected) == "network"


async def test_a_hold_invoice_that_has_expired_is_refused(setting):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    later = replace(expected, now_s=expected.now_s + TIMING.invoice_expiry_s)
    assert await refusal(setting, check_reverse_terms, terms, later) == "expiry"


async def test_a_malformed_hold_invoice_is_refused(setting):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    with pytest.raises(InvoiceError):
        check_reverse_terms(await setting.sign(replace(terms, invoice="lnbcrt1nonsense")), expected)


async def test_the_fee_is_bounded_in_both_coins(setting):
    terms, expected = await setting.offer(SwapDirection.SUBMARINE)
    assert await refusal(setting, check_submarine_terms, terms, replace(expected, max_fee=FEE - 1)) == "fee"
    check_submarine_terms(await setting.sign(terms), replace(expected, max_fee=FEE))
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    assert await refusal(setting, check_reverse_terms, terms, replace(expected, max_fee=FEE - 1)) == "fee"
    assert await refusal(setting, check_reverse_terms, terms, replace(expected, max_fee_msat=FEE * 1000 - 1)) == "fee"
    check_reverse_terms(await setting.sign(terms), replace(expected, max_fee=FEE, max_fee_msat=FEE * 1000))


async def test_an_invoice_below_what_arrives_is_refused(setting):
    """Too good to be true: such terms were not made by the rules, whatever else is in them."""
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    more = replace(expected, invoice_msat=terms.invoice_amount_msat + 1)
    assert await refusal(setting, check_reverse_terms, terms, more) == "amount"


async def test_the_earliest_timelock_that_leaves_room_passes(setting):
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    earliest = in_lock(timelock=terms.created_at + TIMING.invoice_expiry_s + ROOM)(terms)
    check_reverse_terms(await setting.sign(earliest), expected)


async def test_money_is_not_locked_for_longer_than_the_invoice_needs(setting):
    """A provider that pays nothing would otherwise keep a client's lock for the longest time there is."""
    setting.timing = BOB_TIMING
    terms, expected = await setting.offer(SwapDirection.SUBMARINE)
    longest = terms.lock.timelock + TIMELOCK_SPREAD_S
    check_submarine_terms(await setting.sign(in_lock(timelock=longest)(terms)), expected)
    beyond = in_lock(timelock=longest + 7)(terms)
    assert beyond.lock.timelock - setting.now < BOB_TIMING.max_timelock_s
    with pytest.raises(SwapRefused, match=rf"{TIMELOCK_SPREAD_S + 7} s longer than the invoice needs") as caught:
        check_submarine_terms(await setting.sign(beyond), expected)
    assert caught.value.rule == "timelock"


@pytest.mark.parametrize("direction", list(SwapDirection))
@pytest.mark.parametrize("preimage_hash", sorted(FORBIDDEN_HASHES))
async def test_hashes_that_the_contract_cannot_serve_are_refused(setting, direction, preimage_hash):
    terms, expected = await setting.offer(direction)
    check = check_submarine_terms if direction is SwapDirection.SUBMARINE else check_reverse_terms
    terms = in_lock(preimage_hash=preimage_hash)(terms)
    assert await refusal(setting, check, terms, replace(expected, payment_hash=preimage_hash)) == "hash"


@pytest.mark.parametrize("direction", list(SwapDirection))
async def test_terms_that_somebody_else_signed_are_refused(setting, direction):
    terms, expected = await setting.offer(direction)
    check = check_submarine_terms if direction is SwapDirection.SUBMARINE else check_reverse_terms
    setting.signer = LocalSigner.from_hex("0a" * 32)
    assert await refusal(setting, check, terms, expected) == "signature"


@pytest.mark.parametrize("direction", list(SwapDirection))
async def test_a_change_after_the_signature_is_refused(setting, direction):
    terms, expected = await setting.offer(direction)
    check = check_submarine_terms if direction is SwapDirection.SUBMARINE else check_reverse_terms
    signed = await setting.sign(terms)
    changed = [
        replace(signed, terms=replace(terms, swap_id="cd" * 16)),
        replace(signed, terms=replace(terms, routing_fee_limit_msat=terms.routing_fee_limit_msat + 1)),
        replace(signed, terms=in_lock(timelock=terms.lock.timelock + 1)(terms)),
        replace(signed, signature=signed.signature[:-1]),
        replace(signed, signature=signed.signature[:64] + b"\x00"),
        replace(signed, signature=bytes([signed.signature[0] ^ 1]) + signed.signature[1:]),
        replace(signed, signature=b""),
    ]
    for wrong in changed:
        with pytest.raises(SwapRefused) as caught:
            check(wrong, expected)
        assert caught.value.rule == "signature"


@pytest.mark.parametrize("bit", [30, 31], ids=["required", "offered"])
async def test_an_amp_invoice_is_refused(setting, bit):
    """The payee of an AMP payment needs no preimage of ours to take it."""
    terms, expected = await setting.offer(SwapDirection.REVERSE)
    unsigned = encode_invoice(
        network="regtest",
        timestamp=setting.now,
        payment_hash=terms.lock.preimage_hash,
        payment_secret=bytes(32),
        amount_msat=terms.invoice_amount_msat,
        description="",
        expiry_s=TIMING.invoice_expiry_s,
        min_final_cltv_delta=80,
        features={8, 14, bit},
    )
    terms = replace(terms, invoice=unsigned.sign(b"\x0b" * 32).text)
    assert await refusal(setting, check_reverse_terms, terms, expected) == "features"
