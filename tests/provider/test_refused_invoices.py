"""Invoices that a provider does not take, with nothing made, reserved or left open."""

import pytest
from refusals import nothing_left, refused

from layer2.lightning import encode_invoice
from layer2.swaps import BOB_TIMING


async def test_a_malformed_invoice_is_refused(world):
    error = await refused(world.submarine(invoice="lnbcrt1nonsense"), "invoice")
    assert "malformed" in error.message


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False), (100, False)])
async def test_an_invoice_of_more_than_2048_characters_is_refused(world, clock, more, taken):
    """A stranger fills the disk with them, and pays for none."""

    def text(metadata):
        unsigned = encode_invoice(
            network="regtest",
            timestamp=clock.now_ms() // 1000,
            payment_hash=b"\x0d" * 32,
            payment_secret=bytes(32),
            amount_msat=50_000_000,
            description="x" * 639,
            expiry_s=600,
            metadata=bytes(metadata),
        )
        return unsigned.sign(b"\x0b" * 32).text

    longest = max(size for size in range(640) if len(text(size)) <= 2_048)
    asked = world.submarine(invoice=text(longest + more))
    if taken:
        await asked
    else:
        assert "2048" in (await refused(asked, "invoice")).message
        assert nothing_left(world)


async def test_an_invoice_of_another_network_is_refused(world, clock):
    from layer2.lightning import MemoryLightning

    foreign = MemoryLightning(clock=clock, network="mainnet").add_node("far away")
    record = await foreign.create_invoice(amount_msat=50_000_000, memo="", expiry_s=600)
    await refused(world.submarine(invoice=record.text), "network")


async def test_an_invoice_without_an_amount_is_refused(world):
    await refused(world.submarine(invoice=await world.invoice(0)), "amount")


async def test_an_expired_invoice_is_refused(world):
    text = await world.invoice(expiry_s=60)
    await world.clock.advance(61)
    await refused(world.submarine(invoice=text), "expiry")


async def test_an_invoice_that_expires_before_it_could_be_paid_is_refused(world):
    timing = world.place.timing
    needed = timing.lock_window_s + timing.evm_block_s + timing.evm_inclusion_s + timing.payment_time_limit_s
    await refused(world.submarine(invoice=await world.invoice(expiry_s=needed - 1)), "expiry")
    await world.submarine(invoice=await world.invoice(expiry_s=needed))


async def test_an_invoice_that_lives_too_long_is_refused(world):
    await refused(world.submarine(invoice=await world.invoice(expiry_s=7_200)), "timelock")


async def test_an_invoice_that_is_held_for_too_long_is_refused(world):
    record = await world.merchant.create_hold_invoice(
        payment_hash=bytes(range(32)), amount_msat=50_000_000, memo="", expiry_s=600, cltv_delta=2_000
    )
    # A block a second on this network; with an hour of life left 2000 blocks do not fit any more.
    assert (await world.submarine(invoice=record.text)).id
    long_lived = await world.merchant.create_hold_invoice(
        payment_hash=bytes(range(1, 33)), amount_msat=50_000_000, memo="", expiry_s=5_000, cltv_delta=2_000
    )
    await refused(world.submarine(invoice=long_lived.text), "timelock")


async def test_an_invoice_that_asks_for_an_absurd_cltv_delta_is_refused_at_once(make_world, clock):
    """Anybody can sign one: with Bitcoin's block times the provider would count for days, and settle nothing meanwhile."""
    world = await make_world(timing=BOB_TIMING)
    unsigned = encode_invoice(
        network="regtest",
        timestamp=clock.now_ms() // 1000,
        payment_hash=bytes(range(32)),
        payment_secret=bytes(32),
        amount_msat=50_000_000,
        description="",
        expiry_s=86_400,
        min_final_cltv_delta=2**64 - 1,
    )
    await refused(world.submarine(invoice=unsigned.sign(b"\x05" * 32).text), "timelock")


async def test_an_invoice_of_the_provider_itself_is_refused(world):
    own = await world.node.create_invoice(amount_msat=50_000_000, memo="", expiry_s=600)
    await refused(world.submarine(invoice=own.text), "payee")


@pytest.mark.parametrize("bit", [30, 31], ids=["required", "offered"])
async def test_an_amp_invoice_is_refused(world, clock, bit):
    """A node that pays one learns a preimage that unlocks nothing: the client would have the payment and its lock back."""
    unsigned = encode_invoice(
        network="regtest",
        timestamp=clock.now_ms() // 1000,
        payment_hash=b"\x0c" * 32,
        payment_secret=bytes(32),
        amount_msat=50_000_000,
        description="",
        expiry_s=600,
        features={8, 14, bit},
    )
    await refused(world.submarine(invoice=unsigned.sign(b"\x0b" * 32).text), "features")
    assert nothing_left(world)
