"""`claim`, `refund` and `refundCooperative`: who is paid, when, and against what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer2._crypto import CURVE_ORDER, keccak256, sha256
from layer2.addresses import EvmAddress
from layer2.errors import ValidationError
from layer2.evm import (
    HTLC_ADDRESS,
    LOCKED,
    NEVER,
    REFUNDED,
    ClaimEvent,
    LockPhase,
    RefundEvent,
    cooperative_refund_digest,
    decode_bytes32,
    encode_call,
    encode_claim,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
    parse_htlc_log,
    verify_cooperative_refund,
)

LOCK_TYPES = "bytes32,uint256,address,address,address,uint256"


def raw_claim(lock, preimage):
    """Without the binding's check of the preimage."""
    return encode_call(f"claim({LOCK_TYPES})", preimage, *_rest(lock))


def raw_cooperative(lock, v, r, s):
    """Without the binding's check of the signature."""
    arguments = (lock.preimage_hash, *_rest(lock), v, r, s)
    return encode_call(f"refundCooperative({LOCK_TYPES},uint8,bytes32,bytes32)", *arguments)


def _rest(lock):
    return (lock.amount, lock.token, lock.claimer, lock.refunder, lock.timelock)


def our_events(receipt):
    logs = [log for log in receipt["logs"] if log["address"] == str(HTLC_ADDRESS).lower()]
    return [parse_htlc_log(log, chain_id=60808, contract=HTLC_ADDRESS) for log in logs]


class TestClaim:
    def test_anybody_can_claim_and_the_claimer_is_paid(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage, amount=777)
        before = bench.balance(lock.claimer)
        receipt = bench.send(bench.stranger, encode_claim(lock, preimage))
        assert bench.balance(lock.claimer) == before + 777
        assert bench.status(lock).phase is LockPhase.CLAIMED
        assert bench.status(lock).preimage == preimage
        assert our_events(receipt) == [
            ClaimEvent(lock_id=lock.lock_id, preimage_hash=lock.preimage_hash, preimage=preimage)
        ]

    @pytest.mark.parametrize(
        "wrong", [bytes(32), bytes(31) + b"\x01", bytes(31) + b"\x02", bytes(31) + b"\x03", b"\xff" * 32]
    )
    def test_another_preimage_does_not_claim(self, bench, wrong):
        lock = bench.locked()
        expected = "BadPreimage" if int.from_bytes(wrong) <= 2 else "NotLocked"
        assert bench.refusal(bench.claimer, raw_claim(lock, wrong)) == expected
        assert bench.status(lock) == LOCKED

    @pytest.mark.parametrize("value", [0, 1, 2])
    def test_a_preimage_that_would_read_as_another_state_never_claims(self, bench, value):
        preimage = value.to_bytes(32)
        lock = bench.locked(preimage)
        assert bench.refusal(bench.claimer, raw_claim(lock, preimage)) == "BadPreimage"
        with pytest.raises(ValidationError):
            encode_claim(lock, preimage)

    def test_the_lowest_preimage_that_is_a_preimage_claims(self, bench):
        preimage = (3).to_bytes(32)
        lock = bench.locked(preimage)
        assert bench.succeeds(bench.stranger, encode_claim(lock, preimage))
        assert bench.status(lock).preimage == preimage

    def test_the_binding_refuses_to_encode_a_wrong_preimage(self, bench):
        with pytest.raises(ValidationError):
            encode_claim(bench.lock(), bench.fresh_preimage())

    def test_a_claim_works_once(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage)
        assert bench.succeeds(bench.claimer, encode_claim(lock, preimage))
        assert bench.refusal(bench.claimer, encode_claim(lock, preimage)) == "NotLocked"

    def test_what_was_never_locked_is_not_claimed(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.lock(preimage)
        assert bench.refusal(bench.claimer, encode_claim(lock, preimage)) == "NotLocked"
        assert bench.status(lock) == NEVER

    def test_a_claim_works_after_the_timelock_until_the_refund(self, bench):
        first, second = bench.fresh_preimage(), bench.fresh_preimage()
        lock = bench.locked(first, timelock=bench.next_timestamp + 5)
        refunded = bench.locked(second, timelock=lock.timelock)
        bench.clock.now_s = lock.timelock + 100
        assert bench.succeeds(bench.stranger, encode_claim(lock, first))
        assert bench.succeeds(bench.stranger, encode_refund(refunded))
        assert bench.refusal(bench.claimer, encode_claim(refunded, second)) == "NotLocked"

    def test_locks_that_share_a_hash_are_claimed_one_by_one(self, bench):
        preimage = bench.fresh_preimage()
        locks = [bench.locked(preimage, amount=amount) for amount in (10, 20)]
        assert bench.succeeds(bench.stranger, encode_claim(locks[0], preimage))
        assert [bench.status(lock).phase for lock in locks] == [LockPhase.CLAIMED, LockPhase.LOCKED]

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": 1001},
            {"token": EvmAddress(raw=b"\x21" * 20)},
            {"claimer": EvmAddress(raw=b"\x22" * 20)},
            {"refunder": EvmAddress(raw=b"\x23" * 20)},
            {"timelock": 2**63},
        ],
    )
    def test_no_parameter_can_be_another_than_what_was_locked(self, bench, changes):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage)
        other = replace(lock, **changes)
        assert bench.refusal(bench.stranger, encode_claim(other, preimage)) == "NotLocked"
        signature = bench.claimer.sign(cooperative_refund_digest(other))
        bench_data = raw_cooperative(other, signature[64], signature[:32], signature[32:64])
        expected = "BadSignature" if "claimer" in changes else "NotLocked"
        assert bench.refusal(bench.stranger, bench_data) == expected


class TestRefund:
    def test_the_timelock_is_the_first_timestamp_that_refunds(self, bench):
        lock = bench.locked(amount=55)
        before = bench.balance(lock.refunder)
        bench.clock.now_s = lock.timelock - 1
        assert bench.refusal(bench.refunder, encode_refund(lock)) == "TimelockNotPassed"
        assert not bench.succeeds(bench.refunder, encode_refund(lock))
        bench.clock.now_s = lock.timelock
        assert bench.next_timestamp == lock.timelock
        receipt = bench.send(bench.stranger, encode_refund(lock))
        assert bench.status(lock) == REFUNDED
        assert bench.balance(lock.refunder) == before + 55
        assert our_events(receipt) == [RefundEvent(lock_id=lock.lock_id, preimage_hash=lock.preimage_hash)]

    def test_a_refund_works_once_and_never_after_a_claim(self, bench):
        preimage = bench.fresh_preimage()
        claimed = bench.locked(preimage, timelock=bench.next_timestamp + 10)
        refunded = bench.locked(timelock=claimed.timelock)
        assert bench.succeeds(bench.stranger, encode_claim(claimed, preimage))
        bench.clock.now_s = claimed.timelock
        assert bench.refusal(bench.refunder, encode_refund(claimed)) == "NotLocked"
        assert bench.succeeds(bench.refunder, encode_refund(refunded))
        assert bench.refusal(bench.refunder, encode_refund(refunded)) == "NotLocked"

    def test_what_was_never_locked_is_not_refunded(self, bench):
        lock = bench.lock(timelock=bench.next_timestamp - 1)
        assert bench.refusal(bench.refunder, encode_refund(lock)) == "NotLocked"

    def test_a_lock_that_was_not_seen_in_time_dies_by_itself(self, bench):
        lock = bench.lock(timelock=bench.next_timestamp + 3)
        bench.clock.now_s = lock.timelock
        assert bench.refusal(bench.payer, encode_lock(lock)) == "TimelockPassed"


class TestCooperativeRefund:
    def test_the_claimers_consent_pays_back_before_the_timelock(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage, amount=66)
        before = bench.balance(lock.refunder)
        consent = bench.claimer.sign(cooperative_refund_digest(lock))
        receipt = bench.send(bench.stranger, encode_refund_cooperative(lock, consent))
        assert bench.status(lock) == REFUNDED
        assert bench.balance(lock.refunder) == before + 66
        assert our_events(receipt) == [RefundEvent(lock_id=lock.lock_id, preimage_hash=lock.preimage_hash)]
        assert bench.refusal(bench.stranger, encode_refund_cooperative(lock, consent)) == "NotLocked"
        assert bench.refusal(bench.claimer, encode_claim(lock, preimage)) == "NotLocked"

    def test_the_contract_signs_what_the_binding_signs(self, bench):
        lock = bench.lock()
        data = encode_call("refundDigest(bytes32)", lock.lock_id)
        assert decode_bytes32(bench.simulate(bench.stranger, data)) == cooperative_refund_digest(lock)

    def test_consent_is_for_one_lock_one_contract_and_one_chain(self, bench):
        lock = bench.locked()
        for other in (
            bench.locked(),
            replace(lock, chain_id=1),
            replace(lock, contract=EvmAddress(raw=b"\x44" * 20)),
        ):
            signature = bench.claimer.sign(cooperative_refund_digest(other))
            assert not verify_cooperative_refund(lock, signature)
            data = raw_cooperative(lock, signature[64], signature[:32], signature[32:64])
            assert bench.refusal(bench.stranger, data) == "BadSignature"

    def test_a_signature_of_the_bare_lock_id_is_no_consent(self, bench):
        lock = bench.locked()
        for digest in (lock.lock_id, keccak256(b"\x19Ethereum Signed Message:\n32" + lock.lock_id)):
            signature = bench.claimer.sign(digest)
            data = raw_cooperative(lock, signature[64], signature[:32], signature[32:64])
            assert bench.refusal(bench.stranger, data) == "BadSignature"

    def test_only_the_claimer_consents(self, bench):
        lock = bench.locked()
        for other in (bench.refunder, bench.payer, bench.stranger):
            signature = other.sign(cooperative_refund_digest(lock))
            with pytest.raises(ValidationError):
                encode_refund_cooperative(lock, signature)
            data = raw_cooperative(lock, signature[64], signature[:32], signature[32:64])
            assert bench.refusal(other, data) == "BadSignature"

    def test_the_mirrored_signature_is_refused(self, bench):
        lock = bench.locked()
        signature = bench.claimer.sign(cooperative_refund_digest(lock))
        high = (CURVE_ORDER - int.from_bytes(signature[32:64])).to_bytes(32)
        mirrored = signature[:32] + high + bytes([55 - signature[64]])
        assert not verify_cooperative_refund(lock, mirrored)
        data = raw_cooperative(lock, mirrored[64], mirrored[:32], mirrored[32:64])
        assert bench.refusal(bench.stranger, data) == "BadSignature"

    @pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
    def test_v_is_27_or_28(self, bench, v):
        lock = bench.locked()
        signature = bench.claimer.sign(cooperative_refund_digest(lock))
        assert not verify_cooperative_refund(lock, signature[:64] + bytes([v]))
        assert (
            bench.refusal(bench.stranger, raw_cooperative(lock, v, signature[:32], signature[32:64])) == "BadSignature"
        )

    @pytest.mark.parametrize(
        ("r", "s"), [(0, 0), (0, 1), (1, 0), (CURVE_ORDER, 1), (CURVE_ORDER - 1, 1), (2**256 - 1, 2**256 - 1), (5, 1)]
    )
    def test_signatures_of_nobody_are_refused(self, bench, r, s):
        lock = bench.locked()
        for v in (27, 28):
            data = raw_cooperative(lock, v, r.to_bytes(32), s.to_bytes(32))
            assert bench.refusal(bench.stranger, data) == "BadSignature"
            assert not verify_cooperative_refund(lock, r.to_bytes(32) + s.to_bytes(32) + bytes([v]))

    @settings(max_examples=25, deadline=None)
    @given(bit=st.integers(0, 8 * 65 - 1))
    def test_binding_and_contract_agree_on_damaged_signatures(self, bench, bit):
        lock = bench.lock(bytes(31) + b"\x09", timelock=2_000_000_000)
        signature = bytearray(bench.claimer.sign(cooperative_refund_digest(lock)))
        signature[bit // 8] ^= 1 << (bit % 8)
        data = raw_cooperative(lock, signature[64], bytes(signature[:32]), bytes(signature[32:64]))
        assert not verify_cooperative_refund(lock, bytes(signature))
        assert bench.refusal(bench.stranger, data) == "BadSignature"

    def test_consent_does_not_make_a_lock_that_never_was(self, bench):
        lock = bench.lock(sha256(b"nobody locks this"))
        consent = bench.claimer.sign(cooperative_refund_digest(lock))
        assert bench.refusal(bench.stranger, encode_refund_cooperative(lock, consent)) == "NotLocked"
