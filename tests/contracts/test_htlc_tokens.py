"""Tokens that misbehave: the contract refuses them or handles them, and never hands out what another lock put in."""

from __future__ import annotations

import pytest

from layer2._crypto import sha256
from layer2.addresses import EvmAddress
from layer2.evm import (
    HTLC_ADDRESS,
    LOCKED,
    NEVER,
    LockPhase,
    cooperative_refund_digest,
    decode_uint,
    encode_call,
    encode_claim,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
    encode_word,
    selector,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def silent(bench, token_bytecode) -> EvmAddress:
    token = bench.deploy(token_bytecode["SilentToken"])
    bench.mint(token, bench.payer.address, 10**12)
    return token


@pytest.fixture
def odd(bench, token_bytecode) -> EvmAddress:
    token = bench.deploy(token_bytecode["ConfigurableToken"])
    bench.mint(token, bench.payer.address, 10**12)
    return token


def configure(bench, token, *, answer=1, extra=0, short=0):
    assert bench.succeeds(
        bench.stranger, encode_call("configure(uint256,uint256,uint256)", answer, extra, short), to=token
    )


def arm(bench, token, data, target=HTLC_ADDRESS):
    padded = data + bytes(-len(data) % 32)
    call = selector("arm(address,bytes)") + encode_word(target) + encode_word(64) + encode_word(len(data)) + padded
    assert bench.succeeds(bench.stranger, call, to=token)


def read(bench, token, name):
    return decode_uint(bench.simulate(bench.stranger, encode_call(f"{name}()"), to=token))


class TestAnswers:
    def test_a_token_without_answers_goes_all_the_way(self, bench, silent):
        preimage = bench.fresh_preimage()
        claimed = bench.locked(preimage, token=silent)
        refunded = bench.locked(token=silent, timelock=bench.next_timestamp + 10)
        assert bench.succeeds(bench.stranger, encode_claim(claimed, preimage))
        bench.clock.now_s = refunded.timelock
        assert bench.succeeds(bench.stranger, encode_refund(refunded))
        assert bench.balance(claimed.claimer, silent) == claimed.amount
        assert bench.balance(refunded.refunder, silent) == refunded.amount
        assert bench.balance(HTLC_ADDRESS, silent) == 0

    @pytest.mark.parametrize(("answer", "name"), [(0, "TransferFailed"), (2, None), (2**256 - 1, None)])
    def test_an_answer_other_than_true_is_a_refusal(self, bench, odd, answer, name):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage, token=odd, timelock=bench.next_timestamp + 10)
        configure(bench, odd, answer=answer)
        assert bench.refusal(bench.payer, encode_lock(bench.lock(token=odd))) == name
        assert bench.refusal(bench.stranger, encode_claim(lock, preimage)) == name
        consent = bench.claimer.sign(cooperative_refund_digest(lock))
        assert bench.refusal(bench.stranger, encode_refund_cooperative(lock, consent)) == name
        bench.clock.now_s = lock.timelock
        assert bench.refusal(bench.stranger, encode_refund(lock)) == name
        assert not bench.succeeds(bench.stranger, encode_refund(lock))
        assert bench.status(lock) == LOCKED
        configure(bench, odd)
        assert bench.succeeds(bench.stranger, encode_claim(lock, preimage))


class TestAmounts:
    @pytest.mark.parametrize("change", [{"short": 1}, {"short": 1000}, {"extra": 1}])
    def test_anything_but_the_exact_amount_is_refused(self, bench, odd, change):
        configure(bench, odd, **change)
        lock = bench.lock(token=odd)
        assert bench.refusal(bench.payer, encode_lock(lock)) == "WrongAmountPulled"
        assert not bench.succeeds(bench.payer, encode_lock(lock))
        assert bench.status(lock) == NEVER
        assert bench.balance(HTLC_ADDRESS, odd) == 0

    def test_a_token_that_takes_from_the_contract_instead_is_refused(self, bench, odd):
        bench.locked(token=odd, amount=5000)
        configure(bench, odd, short=1001)
        assert bench.refusal(bench.payer, encode_lock(bench.lock(token=odd))) == "WrongAmountPulled"

    def test_one_tokens_locks_do_not_pay_for_anothers(self, bench, odd, silent):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage, token=odd)
        before = bench.balance(HTLC_ADDRESS, silent), bench.balance(HTLC_ADDRESS)
        assert bench.succeeds(bench.stranger, encode_claim(lock, preimage))
        assert (bench.balance(HTLC_ADDRESS, silent), bench.balance(HTLC_ADDRESS)) == before


class TestReentrance:
    def test_no_function_can_be_entered_from_a_transfer(self, bench, odd):
        inner_preimage, outer_preimage = bench.fresh_preimage(), bench.fresh_preimage()
        inner = bench.locked(inner_preimage, token=odd, amount=7)
        consent = bench.claimer.sign(cooperative_refund_digest(inner))
        due = bench.locked(token=odd, amount=8, timelock=bench.next_timestamp + 5)
        bench.clock.now_s = due.timelock
        attacks = {
            "claim": encode_claim(inner, inner_preimage),
            "lock": encode_lock(bench.lock(token=odd, amount=7)),
            "refund": encode_refund(due),
            "refundCooperative": encode_refund_cooperative(inner, consent),
        }
        for name, attack in attacks.items():
            arm(bench, odd, attack)
            outer = bench.lock(outer_preimage, token=odd, amount=7 + len(name))
            assert bench.succeeds(bench.payer, encode_lock(outer)), name
            assert bench.succeeds(bench.stranger, encode_claim(outer, outer_preimage)), name
            assert (read(bench, odd, "attempts"), read(bench, odd, "successes")) == (2, 0), name
        assert bench.status(inner) == LOCKED
        assert bench.status(due) == LOCKED
        assert bench.balance(HTLC_ADDRESS, odd) == 15

    def test_the_guard_is_lifted_afterwards_and_the_attacks_would_work_alone(self, bench, odd):
        # Proof that the refusals above come from the guard and not from a mistake in the attack.
        preimage = bench.fresh_preimage()
        inner = bench.locked(preimage, token=odd, amount=7)
        arm(bench, odd, b"", target=bench.stranger.address)
        assert bench.succeeds(bench.stranger, encode_claim(inner, preimage))
        assert read(bench, odd, "successes") == 1

    def test_views_in_the_middle_of_a_transfer_show_the_state_after(self, bench, odd):
        preimage = sha256(b"seen from inside")
        lock = bench.locked(preimage, token=odd)
        arm(bench, odd, encode_call("status(bytes32)", lock.lock_id))
        assert bench.succeeds(bench.stranger, encode_claim(lock, preimage))
        assert read(bench, odd, "successes") == 1
        assert bench.status(lock).phase is LockPhase.CLAIMED
