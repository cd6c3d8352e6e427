"""`lock`: what it takes, what it refuses, and the id and the slot that follow from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer2._crypto import sha256
from layer2.addresses import EvmAddress
from layer2.evm import (
    HTLC_ADDRESS,
    LOCKED,
    LOCKS_SLOT,
    LOCKUP_TOPIC,
    MAX_TIMELOCK_S,
    NEVER,
    LockupEvent,
    RpcError,
    cooperative_refund_digest,
    decode_bytes32,
    encode_call,
    encode_claim,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
    htlc_topics,
    parse_htlc_log,
    storage_slot,
)
from layer2.terms import Lock

ZERO = EvmAddress(raw=bytes(20))
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: EvmAddress(raw=raw))
LOCK_TYPES = "bytes32,uint256,address,address,address,uint256"


def lock_id_call(lock: Lock) -> bytes:
    return encode_call(
        f"lockId({LOCK_TYPES})",
        *(lock.preimage_hash, lock.amount, lock.token, lock.claimer, lock.refunder, lock.timelock),
    )


class TestEffects:
    def test_it_pulls_exactly_the_amount_from_the_caller(self, bench):
        payer, contract = bench.balance(bench.payer.address), bench.balance(HTLC_ADDRESS)
        lock = bench.locked(amount=12_345)
        assert bench.balance(bench.payer.address) == payer - 12_345
        assert bench.balance(HTLC_ADDRESS) == contract + 12_345
        assert bench.status(lock) == LOCKED

    def test_it_leaves_one_event_that_tells_the_whole_lock(self, bench):
        lock = bench.lock()
        receipt = bench.send(bench.payer, encode_lock(lock))
        ours = [log for log in receipt["logs"] if log["address"] == str(HTLC_ADDRESS).lower()]
        assert [parse_htlc_log(log, chain_id=60808, contract=HTLC_ADDRESS) for log in ours] == [LockupEvent(lock=lock)]

    def test_its_event_is_found_by_claimer_by_hash_and_by_id(self, bench):
        lock = bench.locked(claimer=EvmAddress(raw=b"\x77" * 20))
        for wanted in (
            {"claimer": lock.claimer},
            {"preimage_hash": lock.preimage_hash},
            {"lock_id": lock.lock_id},
            {"event": LOCKUP_TOPIC, "lock_id": lock.lock_id, "claimer": lock.claimer},
        ):
            logs = bench.rpc(
                "eth_getLogs",
                {"fromBlock": "earliest", "address": str(HTLC_ADDRESS), "topics": htlc_topics(**wanted)},
            )
            assert [log["topics"][1] for log in logs] == ["0x" + lock.lock_id.hex()]

    def test_claimer_and_refunder_may_be_the_same_and_the_payer_neither(self, bench):
        both = bench.stranger.address
        assert bench.status(bench.locked(claimer=both, refunder=both)) == LOCKED


class TestIdentity:
    @settings(max_examples=40, deadline=None)
    @given(
        preimage_hash=st.binary(min_size=32, max_size=32),
        amount=st.integers(1, 2**256 - 1),
        timelock=st.integers(1, 2**64 - 1),
        token=ADDRESSES,
        claimer=ADDRESSES,
        refunder=ADDRESSES,
    )
    def test_the_id_is_the_one_that_the_terms_compute(self, bench, **fields):
        lock = Lock(chain_id=60808, contract=HTLC_ADDRESS, **fields)
        assert decode_bytes32(bench.simulate(bench.stranger, lock_id_call(lock))) == lock.lock_id

    def test_every_parameter_changes_the_id(self, bench):
        lock = bench.lock()
        other = EvmAddress(raw=b"\x31" * 20)
        changed = [
            replace(lock, **{name: value})
            for name, value in {
                "chain_id": 1,
                "contract": other,
                "preimage_hash": sha256(b"other"),
                "amount": lock.amount + 1,
                "token": other,
                "claimer": other,
                "refunder": other,
                "timelock": lock.timelock + 1,
            }.items()
        ]
        assert len({lock.lock_id, *(each.lock_id for each in changed)}) == 9

    def test_the_state_is_at_the_slot_that_proofs_read(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.lock(preimage)
        slot = "0x" + storage_slot(lock.lock_id).hex()
        seen = []
        for step in (None, encode_lock(lock), encode_claim(lock, preimage)):
            if step is not None:
                assert bench.succeeds(bench.payer, step)
            proof = bench.rpc("eth_getProof", str(HTLC_ADDRESS), [slot], "latest")
            stored = int(bench.rpc("eth_getStorageAt", str(HTLC_ADDRESS), slot, "latest"), 16)
            assert int(proof["storageProof"][0]["value"], 16) == stored
            seen.append(stored)
        assert seen == [0, 1, int.from_bytes(preimage)]

    def test_nothing_else_uses_the_contracts_storage(self, bench):
        # A non-reentrancy lock in storage would stand at slot 0, where the mapping's own slot must stay empty.
        bench.locked()
        assert LOCKS_SLOT == 0
        for slot in range(4):
            assert int(bench.rpc("eth_getStorageAt", str(HTLC_ADDRESS), hex(slot), "latest"), 16) == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"claimer": ZERO}, "BadClaimer"),
            ({"claimer": HTLC_ADDRESS}, "BadClaimer"),
            ({"refunder": ZERO}, "BadRefunder"),
            ({"refunder": HTLC_ADDRESS}, "BadRefunder"),
            ({"token": ZERO}, "TokenWithoutCode"),
            ({"token": EvmAddress(raw=b"\x99" * 20)}, "TokenWithoutCode"),
            ({"token": EvmAddress(raw=bytes(19) + b"\x04")}, "TokenWithoutCode"),
            ({"token": HTLC_ADDRESS}, None),
        ],
    )
    def test_parameters_that_would_strand_or_lose_the_money(self, bench, changes, name):
        assert bench.refusal(bench.payer, encode_lock(bench.lock(**changes))) == name

    def test_no_amount(self, bench):
        lock = bench.lock()
        data = encode_call(f"lock({LOCK_TYPES})", lock.preimage_hash, 0, *_rest(lock))
        assert bench.refusal(bench.payer, data) == "ZeroAmount"

    @pytest.mark.parametrize(
        ("ahead", "name"),
        [
            (-1, "TimelockPassed"),
            (0, "TimelockPassed"),
            (MAX_TIMELOCK_S + 1, "TimelockTooFar"),
            (2**63, "TimelockTooFar"),
        ],
    )
    def test_timelocks_outside_of_the_window(self, bench, ahead, name):
        lock = bench.lock(timelock=bench.next_timestamp + ahead)
        assert bench.refusal(bench.payer, encode_lock(lock)) == name
        assert not bench.succeeds(bench.payer, encode_lock(lock))
        assert bench.status(lock) == NEVER

    def test_the_highest_timelock_that_fits_a_word_does_not_wrap(self, bench):
        lock = bench.lock()
        data = encode_call(f"lock({LOCK_TYPES})", lock.preimage_hash, lock.amount, *_rest(lock)[:3], 2**256 - 1)
        assert bench.refusal(bench.payer, data) == "TimelockTooFar"

    @pytest.mark.parametrize("ahead", [1, MAX_TIMELOCK_S])
    def test_both_ends_of_the_window_are_inside(self, bench, ahead):
        assert bench.status(bench.locked(timelock=bench.next_timestamp + ahead)) == LOCKED

    def test_an_id_is_locked_once_for_ever(self, bench):
        preimage = bench.fresh_preimage()
        lock = bench.locked(preimage)
        assert bench.refusal(bench.payer, encode_lock(lock)) == "AlreadyUsed"
        assert bench.succeeds(bench.stranger, encode_claim(lock, preimage))
        assert bench.refusal(bench.payer, encode_lock(lock)) == "AlreadyUsed"

    def test_a_refunded_id_is_not_locked_again(self, bench):
        signed = bench.locked()
        data = encode_refund_cooperative(signed, bench.claimer.sign(cooperative_refund_digest(signed)))
        assert bench.succeeds(bench.stranger, data)
        assert bench.refusal(bench.payer, encode_lock(signed)) == "AlreadyUsed"
        assert bench.refusal(bench.stranger, encode_refund(signed)) == "TimelockNotPassed"

    def test_a_caller_without_allowance_or_balance_hears_the_tokens_own_words(self, bench):
        assert bench.refusal(bench.stranger, encode_lock(bench.lock())) == "allowance too low"
        assert bench.refusal(bench.payer, encode_lock(bench.lock(amount=10**30))) == "balance too low"
        assert bench.refusal(bench.payer, encode_lock(bench.lock(amount=2**256 - 1))) == "balance too low"

    def test_native_coin_is_refused_by_every_function(self, bench):
        lock, preimage = bench.lock(), bench.fresh_preimage()
        for data in (encode_lock(lock), encode_claim(bench.lock(preimage), preimage), encode_refund(lock), b""):
            assert bench.refusal(bench.payer, data, value=1) is None

    def test_calls_that_are_cut_short_or_have_dirty_addresses_are_refused(self, bench):
        data = encode_lock(bench.lock())
        token_word = 4 + 2 * 32
        assert bench.refusal(bench.payer, data[:-1]) is None
        assert bench.refusal(bench.payer, data[:token_word] + b"\x01" + data[token_word + 1 :]) is None
        with pytest.raises(RpcError):
            bench.simulate(bench.payer, b"\x00\x00\x00\x00")


def _rest(lock: Lock) -> tuple[object, ...]:
    return (lock.token, lock.claimer, lock.refunder, lock.timelock)
