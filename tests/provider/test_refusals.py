"""Every rule by which a provider refuses a swap, with nothing made, reserved or left open."""

import asyncio
import random

import pytest
from refusals import nothing_left, refused

from layer2 import EvmAddress
from layer2.config import DepthRule
from layer2.errors import InsufficientFunds, NodeConnectionError, NodeError, NotFound, SignerError, SwapRefused
from layer2.lightning import InvoiceState, PaymentState, decode_invoice
from layer2.swaps import BOB_TIMING, DEVNET_TIMING, FORBIDDEN_HASHES, Failed, Locking, LockStatus, Offered, Paying
from layer2.terms import DepthPolicy
from layer2.transactions import Depth

SAFE = DepthPolicy(depth=Depth.SAFE)


async def test_an_offer_is_signed_and_holds_what_was_asked(world, client_account):
    text = await world.invoice(50_000_001)
    response = await world.submarine(invoice=text)
    terms = response.signed_terms.verify().terms
    fee = world.settings.fee(50_001)
    assert terms.invoice == text
    assert terms.lock.amount == 50_001 + fee  # an amount between two satoshi is rounded up
    assert terms.provider_fee == fee
    assert 0 < terms.routing_fee_limit_msat < fee * 1000
    assert terms.lock.claimer == world.signer.address
    assert terms.lock.refunder == client_account
    assert terms.lock.preimage_hash == decode_invoice(text).payment_hash


async def test_a_reverse_offer_carries_a_hold_invoice_of_the_amount_and_fee(world, client_account):
    response = await world.reverse(onchain_amount=50_000)
    terms = response.signed_terms.verify().terms
    invoice = decode_invoice(terms.invoice)
    assert terms.lock.amount == 50_000
    assert terms.lock.claimer == client_account
    assert terms.lock.refunder == world.signer.address
    assert invoice.amount_msat == terms.invoice_amount_msat == (50_000 + world.settings.fee(50_000)) * 1000
    assert invoice.payment_hash == terms.lock.preimage_hash
    record = await world.node.lookup_invoice(invoice.payment_hash)
    assert record.is_hold


@pytest.mark.parametrize("timing", [DEVNET_TIMING, BOB_TIMING], ids=lambda timing: timing.name)
async def test_a_client_waits_for_no_longer_than_finality(make_world, timing):
    """It chooses the depth, and the provider's lock is bound for so much longer: nothing is deeper than what is final."""
    world = await make_world(timing=timing)
    most = timing.finality_s // timing.evm_block_s
    await refused(world.reverse(depth_policy=DepthPolicy(depth=Depth.INCLUDED, confirmations=most + 1)), "depth_policy")
    assert nothing_left(world)
    longest = await world.reverse(depth_policy=DepthPolicy(depth=Depth.FINALIZED))
    for policy in (DepthPolicy(depth=Depth.INCLUDED, confirmations=most), SAFE):
        terms = (await world.reverse(depth_policy=policy)).signed_terms.terms
        assert terms.depth_policy == policy
        assert terms.lock.timelock <= longest.signed_terms.terms.lock.timelock


async def test_swap_ids_are_not_guessable(world):
    ids = {(await world.submarine()).id for _ in range(3)}
    assert len(ids) == 3
    assert all(len(i) == 32 for i in ids)


@pytest.mark.parametrize("direction", ["submarine", "reverse"])
async def test_a_changed_pair_is_refused(world, direction):
    await refused(getattr(world, direction)(pair_hash="0" * 32), "pair_hash")
    assert nothing_left(world)


@pytest.mark.parametrize("direction", ["submarine", "reverse"])
async def test_no_new_swaps_while_the_switch_is_off(world, direction):
    world.service.accepting = False
    await refused(getattr(world, direction)(), "accept_new")
    assert (await world.service.info()).accepting is False
    world.service.accepting = True
    await getattr(world, direction)()


@pytest.mark.parametrize("whose", ["zero", "provider", "contract", "token"])
@pytest.mark.parametrize("direction", ["submarine", "reverse"])
async def test_accounts_that_cannot_be_a_client_are_refused(world, direction, whose):
    account = {
        "zero": EvmAddress(raw=bytes(20)),
        "provider": world.signer.address,
        "contract": world.place.contract,
        "token": world.place.token.contract,
    }[whose]
    field = "refund_address" if direction == "submarine" else "claim_address"
    await refused(getattr(world, direction)(**{field: account}), "address")


@pytest.mark.parametrize("amount_sat", [999, 1_000_001])
async def test_amounts_outside_the_limits_are_refused(world, amount_sat):
    await refused(world.submarine(invoice=await world.invoice(amount_sat * 1000)), "limits")
    await refused(world.reverse(onchain_amount=amount_sat), "limits")


@pytest.mark.parametrize("amount_sat", [1_000, 1_000_000])
async def test_the_limits_themselves_are_allowed(world, amount_sat):
    await world.submarine(invoice=await world.invoice(amount_sat * 1000))
    await world.reverse(onchain_amount=amount_sat)


@pytest.mark.parametrize("preimage_hash", sorted(FORBIDDEN_HASHES))
async def test_hashes_whose_preimage_the_contract_cannot_take_are_refused(world, preimage_hash):
    await refused(world.reverse(preimage_hash=preimage_hash), "hash")


@pytest.mark.parametrize("length", [0, 31, 33])
async def test_hashes_of_another_length_are_refused(world, length):
    await refused(world.reverse(preimage_hash=bytes([7]) * length), "hash")


async def test_a_hash_of_another_swap_is_refused(world):
    response = await world.reverse()
    await refused(world.reverse(preimage_hash=response.signed_terms.terms.lock.preimage_hash), "hash")
    assert world.inventory.active == 1


async def test_a_hash_that_the_node_has_an_invoice_for_is_refused(world):
    await world.node.create_hold_invoice(
        payment_hash=b"\x05" * 32, amount_msat=50_000_000, memo="", expiry_s=600, cltv_delta=80
    )
    await refused(world.reverse(preimage_hash=b"\x05" * 32), "hash")


async def test_a_hash_that_the_node_has_paid_is_refused(world):
    text = await world.invoice()
    await world.node.pay(text, fee_limit_msat=10**6, cltv_limit=1_000, time_limit_s=30)
    await refused(world.submarine(invoice=text), "hash")
    await refused(world.reverse(preimage_hash=decode_invoice(text).payment_hash), "hash")


async def test_an_invoice_is_paid_for_one_of_two_locks_only(world):
    text = await world.invoice()
    first, second = await world.submarine(invoice=text), await world.submarine(invoice=text)
    world.set_lock(first, LockStatus.LOCKED)
    await world.reach(first.id, Paying)
    await refused(world.submarine(invoice=text), "hash")
    world.set_lock(second, LockStatus.LOCKED)
    swap = await world.reach(second.id, Failed)
    assert "another swap" in swap.state.reason
    assert len(await world.service.sign_refund(second.id)) == 65


async def test_channels_that_do_not_hold_enough_refuse(make_world):
    world = await make_world(max_amount=10**10, max_unsafe_total=10**12)
    await refused(world.submarine(invoice=await world.invoice(100_000_000_001)), "liquidity")
    # Offers add up: two of sixty million each do not fit into a hundred.
    await world.submarine(invoice=await world.invoice(60_000_000_000))
    await refused(world.submarine(invoice=await world.invoice(60_000_000_000)), "liquidity")


async def holding(world, amount_msat):
    """A submarine swap whose payment the payee holds."""
    record = await world.merchant.create_hold_invoice(
        payment_hash=random.randbytes(32), amount_msat=amount_msat, memo="", expiry_s=600, cltv_delta=40
    )
    response = await world.submarine("192.0.2.1", invoice=record.text)
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Paying)
    async with asyncio.timeout(20):
        while (await world.merchant.lookup_invoice(record.payment_hash)).state is not InvoiceState.ACCEPTED:
            await asyncio.sleep(0.001)
    return response


async def test_a_payment_that_is_held_is_counted_once(make_world):
    """What it has taken is not in the channels any more: else a payee that holds half of them keeps the rest bound too."""
    world = await make_world(max_amount=10**8, max_unsafe_total=10**12)
    await holding(world, 55_000_000_000)
    # As long as new attempts are made, a part may come back and go out once more.
    await refused(world.submarine(invoice=await world.invoice(1_000_000)), "liquidity")
    await world.clock.advance(world.place.timing.payment_time_limit_s + 1)
    await world.submarine(invoice=await world.invoice(40_000_000_000))
    await refused(world.submarine(invoice=await world.invoice(6_000_000_000)), "liquidity")


async def test_a_payment_that_has_not_left_is_still_counted(make_world, monkeypatch):
    """However long it was decided: it may leave at any moment."""
    world = await make_world(max_amount=10**8, max_unsafe_total=10**12)

    async def silent(*_, **__):
        raise NodeConnectionError("no answer")

    monkeypatch.setattr(world.node, "pay", silent)
    response = await world.submarine("192.0.2.1", invoice=await world.invoice(55_000_000_000))
    world.set_lock(response, LockStatus.LOCKED)
    await world.reach(response.id, Paying)
    await world.clock.advance(world.place.timing.payment_time_limit_s + 1)
    await refused(world.submarine(invoice=await world.invoice(50_000_000_000)), "liquidity")


async def test_channels_that_cannot_receive_enough_refuse(make_world):
    world = await make_world(max_amount=10**10, max_locked_total=10**12)
    world.account.balance = 10**12
    await refused(world.reverse(onchain_amount=100_000_000), "liquidity")


async def test_an_account_that_does_not_hold_enough_refuses(make_world):
    world = await make_world(max_soft_hold_percent=100)
    world.account.balance = 120_000
    await world.reverse(onchain_amount=60_000)
    await world.reverse(onchain_amount=60_000)
    error = await refused(world.reverse(onchain_amount=60_000), "max_soft_hold")
    assert "120000" not in str(error)


async def test_promised_locks_bind_the_balance(make_world):
    world = await make_world(max_soft_hold_percent=100)
    world.account.balance = 100_000
    first = await world.reverse(onchain_amount=60_000)
    world.inventory.changed(await_state(await world.engine.load(first.id), Locking()))
    await refused(world.reverse(onchain_amount=60_000), "liquidity")


def await_state(swap, state):
    from dataclasses import replace

    return replace(swap, state=state)


async def test_gas_that_the_account_cannot_pay_refuses_without_a_swap(world):
    world.account.gas_short = True
    for asked in (world.submarine(), world.reverse()):
        with pytest.raises(InsufficientFunds):
            await asked
    assert nothing_left(world)


async def test_gas_per_hour_is_capped(make_world, clock):
    world = await make_world(max_gas_per_hour_wei=2 * 10**12)
    for _ in range(2):
        response = await world.reverse()
        world.inventory.changed(await_state(await world.engine.load(response.id), Locking()))
    await refused(world.reverse(), "max_gas_per_hour")
    await refused(world.submarine(), "max_gas_per_hour")
    await clock.advance(3_600)
    assert world.inventory.spending_swaps() == 0


async def test_unpaid_offers_cost_no_gas(make_world):
    world = await make_world(max_gas_per_hour_wei=10**12)
    for _ in range(3):
        await world.submarine()
    assert world.inventory.spending_swaps() == 0


async def test_value_that_is_not_safe_is_capped_over_all_swaps(make_world):
    rules = (DepthRule(up_to=100_000, depth="included"), DepthRule(depth="safe"))
    world = await make_world(depth=rules, max_unsafe_total=150_000)
    await world.submarine(invoice=await world.invoice(90_000_000))
    await refused(world.submarine(invoice=await world.invoice(90_000_000)), "max_unsafe")
    # What waits for safe does not count, however large.
    await world.submarine(invoice=await world.invoice(900_000_000))


@pytest.mark.parametrize("lag_s", [7_201, None])
async def test_nothing_is_accepted_before_safe_while_the_safe_head_lags(make_world, lag_s):
    rules = (DepthRule(up_to=100_000, depth="included"), DepthRule(depth="safe"))
    world = await make_world(depth=rules)
    world.account.lag_s = lag_s
    await refused(world.submarine(), "safe_lag")
    await refused(world.reverse(), "safe_lag")
    await world.submarine(invoice=await world.invoice(900_000_000))
    await world.reverse(depth_policy=SAFE)


async def test_a_lag_of_two_hours_is_allowed(world):
    world.account.lag_s = 7_200
    await world.submarine()


async def test_unpaid_invoices_keep_a_share_of_the_inventory_only(make_world):
    world = await make_world(max_soft_hold_percent=50)
    world.account.balance = 100_000
    await world.reverse(onchain_amount=50_000)
    await refused(world.reverse(onchain_amount=1_000), "max_soft_hold")


async def test_held_payments_are_capped(make_world):
    world = await make_world(max_held_per_channel=2)
    await world.reverse()
    await world.reverse()
    await refused(world.reverse(), "max_held")
    await world.submarine()


async def test_locked_value_is_capped(make_world):
    world = await make_world(max_locked_total=100_000)
    await world.reverse(onchain_amount=60_000)
    await refused(world.reverse(onchain_amount=60_000), "max_locked")
    await world.reverse(onchain_amount=40_000)


async def test_what_is_over_binds_nothing(world):
    response = await world.submarine()
    assert world.inventory.active == 1
    world.chain.head_offset_s = 10_000
    world.engine.wake(response.id)
    await world.reach(response.id, Failed)
    assert nothing_left(world)
    assert world.inventory.lightning_bound_msat() == 0


class TestSearchOfTheChain:
    """A search for claims asks for events of 60 days: strangers choose how many requests there are, so it comes last."""

    async def test_a_refused_submarine_request_costs_none(self, make_world):
        world = await make_world(max_unsafe_total=80_000)
        record = await world.merchant.create_hold_invoice(
            payment_hash=bytes(range(32)), amount_msat=50_000_000, memo="", expiry_s=5_000, cltv_delta=2_000
        )
        await refused(world.submarine(invoice=record.text), "timelock")
        await refused(world.submarine(invoice=await world.invoice(999_000)), "limits")
        await refused(world.submarine(invoice=await world.invoice(90_000_000)), "max_unsafe")
        assert world.searched == []

    async def test_a_refused_reverse_request_costs_none(self, make_world):
        world = await make_world(max_held_per_channel=1, max_amount=10**9, max_locked_total=10**12)
        await refused(world.reverse(onchain_amount=999), "limits")
        await refused(
            world.reverse(depth_policy=DepthPolicy(depth=Depth.INCLUDED, confirmations=10_000)), "depth_policy"
        )
        world.account.balance = 10**12
        await refused(world.reverse(onchain_amount=100_000_000), "liquidity")
        assert world.searched == []
        response = await world.reverse("192.0.2.1")
        await refused(world.reverse("192.0.2.2"), "max_held")
        await refused(world.reverse(preimage_hash=response.signed_terms.terms.lock.preimage_hash), "hash")
        assert world.searched == [response.signed_terms.terms.lock.preimage_hash]

    async def test_few_go_on_at_a_time(self, world):
        await asyncio.gather(*(world.reverse(f"192.0.2.{number}") for number in range(6)))
        assert len(world.searched) == 6
        assert world.most_searching <= 2


class TestEarlyRefund:
    async def test_no_signature_while_the_invoice_may_be_paid(self, world):
        response = await world.submarine()
        await refused(world.service.sign_refund(response.id), "not_failed")
        world.lightning.set_hanging(world.merchant.node_id, hanging=True)
        world.set_lock(response, LockStatus.LOCKED)
        await world.reach(response.id, Paying)
        await refused(world.service.sign_refund(response.id), "not_failed")

    async def test_a_signature_once_it_never_will_be(self, world):
        response = await world.submarine()
        world.chain.head_offset_s = 10_000
        world.set_lock(response, LockStatus.LOCKED)
        await world.reach(response.id, Failed)
        signature = await world.service.sign_refund(response.id)
        assert signature == await world.service.sign_refund(response.id)
        payment = await world.node.lookup_payment(response.signed_terms.terms.lock.preimage_hash)
        assert payment.state is PaymentState.NONE

    async def test_none_for_reverse_swaps_and_strangers(self, world):
        response = await world.reverse()
        for swap_id in (response.id, "0" * 32, "nonsense"):
            with pytest.raises(NotFound):
                await world.service.sign_refund(swap_id)


async def test_offers_asked_for_at_once_never_exceed_the_inventory(make_world):
    import asyncio

    world = await make_world(max_locked_total=100_000)
    asked = [world.reverse(onchain_amount=40_000) for _ in range(6)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, SwapRefused) for answer in done) == 4
    assert world.inventory.token_bound() == 80_000


async def test_an_unlocked_offer_stays_offered(world):
    response = await world.submarine()
    assert isinstance((await world.engine.load(response.id)).state, Offered)


@pytest.mark.parametrize("direction", ["submarine", "reverse"])
async def test_a_hash_that_was_claimed_on_the_contract_is_refused(world, direction):
    text = await world.invoice()
    payment_hash = decode_invoice(text).payment_hash
    world.claimed_at[payment_hash] = world.clock.now_ms() // 1000
    changes = {"invoice": text} if direction == "submarine" else {"preimage_hash": payment_hash}
    await refused(getattr(world, direction)(**changes), "hash")


async def test_an_endpoint_without_events_does_not_stop_the_business_but_is_told(world, caplog):
    """A preimage that is public costs a provider nothing; one that nobody knows of must not be hidden either."""
    world.claims_error = NodeError("no events")
    await world.submarine()
    await world.reverse()
    codes = [getattr(record, "event_code", None) for record in caplog.records]
    assert codes.count("provider.claims_unknown") == 2


@pytest.mark.parametrize("answer", [OSError("PIN 1234"), None, b"short"], ids=repr)
async def test_an_offer_that_cannot_be_signed_leaves_nothing_and_tells_no_secret(world, monkeypatch, answer):
    async def sign(_signer, _digest):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(type(world.signer), "sign_digest", sign)
    for asked in (world.submarine(invoice=await world.invoice(50_000_000)), world.reverse(onchain_amount=50_000)):
        with pytest.raises(SignerError) as caught:
            await asked
        assert "PIN" not in str(caught.value)
    assert nothing_left(world)
