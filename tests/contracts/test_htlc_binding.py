"""The binding without a chain: what it refuses to read and to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer2._crypto import keccak256, sha256
from layer2.addresses import EvmAddress
from layer2.errors import UnexpectedReply, ValidationError
from layer2.evm import (
    CLAIM_TOPIC,
    HTLC_ADDRESS,
    LOCKED,
    LOCKUP_TOPIC,
    NEVER,
    REFUND_TOPIC,
    REFUNDED,
    ClaimEvent,
    LockPhase,
    LockState,
    cooperative_refund_digest,
    decode_address,
    decode_bool,
    decode_bytes32,
    decode_htlc_event,
    decode_htlc_revert,
    decode_revert,
    decode_state,
    decode_status,
    decode_uint,
    encode_allowance,
    encode_approve,
    encode_balance_of,
    encode_call,
    encode_decimals,
    encode_refund_cooperative,
    encode_transfer,
    encode_transfer_from,
    encode_word,
    htlc_topics,
    parse_htlc_log,
    selector,
    storage_slot,
    usable_preimage,
)
from layer2.terms import Lock

ALICE, BOB = EvmAddress(raw=b"\x0a" * 20), EvmAddress(raw=b"\x0b" * 20)
PREIMAGE = sha256(b"preimage")
LOCK = Lock(
    chain_id=60808,
    contract=HTLC_ADDRESS,
    preimage_hash=sha256(PREIMAGE),
    amount=5,
    token=EvmAddress(raw=b"\x0c" * 20),
    claimer=ALICE,
    refunder=BOB,
    timelock=2_000_000_000,
)


class TestStates:
    @pytest.mark.parametrize(("value", "state"), [(0, NEVER), (1, LOCKED), (2, REFUNDED)])
    def test_small_values_are_states(self, value, state):
        assert decode_status(value.to_bytes(32)) == decode_state(value) == state

    def test_everything_else_is_the_preimage(self):
        state = LockState(phase=LockPhase.CLAIMED, preimage=PREIMAGE)
        assert decode_status(PREIMAGE, LOCK.preimage_hash) == decode_state(int.from_bytes(PREIMAGE)) == state
        assert LockState.from_json(state.to_json()) == state

    def test_a_preimage_of_another_hash_is_a_lie(self):
        with pytest.raises(UnexpectedReply):
            decode_status(sha256(b"other"), LOCK.preimage_hash)

    @pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), bytes(64)])
    def test_anything_but_one_word_is_refused(self, data):
        for decode in (decode_status, decode_uint, decode_bool, decode_bytes32, decode_address):
            with pytest.raises(UnexpectedReply):
                decode(data)

    @pytest.mark.parametrize("value", [-1, 2**256])
    def test_no_slot_holds_such_a_number(self, value):
        with pytest.raises(UnexpectedReply):
            decode_state(value)

    def test_a_state_has_a_preimage_exactly_if_claimed(self):
        for phase, preimage in ((LockPhase.CLAIMED, None), (LockPhase.LOCKED, PREIMAGE)):
            with pytest.raises(ValidationError):
                LockState(phase=phase, preimage=preimage)

    def test_no_repr_shows_a_preimage(self):
        event = ClaimEvent(lock_id=LOCK.lock_id, preimage_hash=LOCK.preimage_hash, preimage=PREIMAGE)
        for value in (decode_status(PREIMAGE), event):
            assert PREIMAGE.hex() not in repr(value)
            assert repr(PREIMAGE) not in repr(value)

    def test_usable_preimages(self):
        assert not any(usable_preimage(value.to_bytes(32)) for value in (0, 1, 2))
        assert usable_preimage((3).to_bytes(32))
        assert not usable_preimage(b"\x05" * 31)

    def test_the_slot_hashes_the_mappings_slot_before_the_key(self):
        assert storage_slot(LOCK.lock_id) == keccak256(bytes(32) + LOCK.lock_id)
        with pytest.raises(ValidationError):
            storage_slot(b"short")


class TestWords:
    @given(st.integers(0, 2**256 - 1))
    def test_numbers_come_back(self, value):
        assert decode_uint(encode_word(value)) == value

    @pytest.mark.parametrize("value", [-1, 2**256, b"", bytes(31)])
    def test_what_fits_no_word_is_refused(self, value):
        with pytest.raises(ValidationError):
            encode_word(value)

    def test_too_many_bits_for_the_type_are_refused(self):
        for decode in (decode_bool, decode_address, lambda data: decode_uint(data, 8)):
            with pytest.raises(UnexpectedReply):
                decode(b"\x01" + bytes(31))
        assert decode_bool(encode_word(1)) is True
        assert decode_address(encode_word(ALICE)) == ALICE

    def test_the_count_of_arguments_must_fit(self):
        with pytest.raises(ValidationError):
            encode_call("transfer(address,uint256)", ALICE)
        with pytest.raises(ValidationError):
            encode_call("decimals()", 1)

    def test_erc20_selectors(self):
        calls = {
            "a9059cbb": encode_transfer(ALICE, 1),
            "23b872dd": encode_transfer_from(ALICE, BOB, 1),
            "095ea7b3": encode_approve(ALICE, 1),
            "70a08231": encode_balance_of(ALICE),
            "dd62ed3e": encode_allowance(ALICE, BOB),
            "313ce567": encode_decimals(),
        }
        assert {wanted: data[:4].hex() for wanted, data in calls.items()} == {wanted: wanted for wanted in calls}
        assert encode_transfer(ALICE, 258)[4:] == bytes(12) + ALICE.raw + bytes(30) + b"\x01\x02"


class TestReverts:
    def test_errors_are_named_by_selector(self):
        assert decode_htlc_revert(selector("NotLocked()")) == "NotLocked"
        assert decode_htlc_revert(selector("NotLocked()") + b"\x00") is None
        assert decode_htlc_revert(b"") is None

    def test_built_in_errors(self):
        text = bytes.fromhex("08c379a0") + encode_word(32) + encode_word(2) + b"no".ljust(32, b"\0")
        assert decode_htlc_revert(text) == "no"
        assert decode_revert(bytes.fromhex("4e487b71") + encode_word(0x11)) == "Panic(0x11)"

    @pytest.mark.parametrize("length", [33, 2**255, 2**256 - 1])
    def test_a_text_that_claims_to_be_longer_than_it_is(self, length):
        assert decode_revert(bytes.fromhex("08c379a0") + encode_word(32) + encode_word(length) + bytes(32)) is None

    def test_a_hostile_text_is_cut_and_cleaned(self):
        text = b"\x1b[31m\n" + b"x" * 5000
        data = bytes.fromhex("08c379a0") + encode_word(32) + encode_word(len(text)) + text
        reason = decode_revert(data)
        assert len(reason) == 1024
        assert reason.isprintable() or "\ufffd" in reason
        assert "\x1b" not in reason
        assert "\n" not in reason

    @given(st.binary(max_size=200))
    def test_no_data_breaks_it(self, data):
        decode_htlc_revert(data)
        decode_htlc_revert(bytes.fromhex("08c379a0") + data)


class TestEvents:
    @staticmethod
    def lockup(**changes):
        words = {
            "amount": encode_word(LOCK.amount),
            "token": encode_word(LOCK.token),
            "refunder": encode_word(LOCK.refunder),
            "timelock": encode_word(LOCK.timelock),
        } | changes
        return {
            "address": HTLC_ADDRESS.raw,
            "topics": [LOCKUP_TOPIC, LOCK.lock_id, LOCK.preimage_hash, encode_word(LOCK.claimer)],
            "data": b"".join(words.values()),
        }

    @staticmethod
    def read(log):
        return decode_htlc_event(chain_id=60808, contract=HTLC_ADDRESS, **log)

    def test_a_good_one_gives_the_lock(self):
        assert self.read(self.lockup()).lock == LOCK

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": encode_word(6)},
            {"amount": encode_word(0)},
            {"token": b"\x01" + encode_word(LOCK.token)[1:]},
            {"timelock": encode_word(2**64)},
            {"timelock": b""},
            {"more": bytes(32)},
        ],
    )
    def test_parameters_that_the_id_does_not_commit_to(self, changes):
        with pytest.raises(UnexpectedReply):
            self.read(self.lockup(**changes))

    def test_the_same_log_on_another_chain_or_contract(self):
        log = self.lockup()
        with pytest.raises(UnexpectedReply):
            decode_htlc_event(chain_id=1, contract=HTLC_ADDRESS, **log)
        with pytest.raises(UnexpectedReply):
            decode_htlc_event(chain_id=60808, contract=ALICE, **log)
        with pytest.raises(UnexpectedReply):
            decode_htlc_event(chain_id=60808, contract=ALICE, **(log | {"address": ALICE.raw}))

    @pytest.mark.parametrize(
        ("topics", "data"),
        [
            ([], b""),
            ([LOCKUP_TOPIC], b""),
            ([CLAIM_TOPIC, LOCK.lock_id, LOCK.preimage_hash], sha256(b"other")),
            ([CLAIM_TOPIC, LOCK.lock_id, sha256((2).to_bytes(32))], (2).to_bytes(32)),
            ([CLAIM_TOPIC, LOCK.lock_id, LOCK.preimage_hash], PREIMAGE + b"\0"),
            ([CLAIM_TOPIC, LOCK.lock_id], PREIMAGE),
            ([REFUND_TOPIC, LOCK.lock_id, LOCK.preimage_hash], bytes(32)),
            ([REFUND_TOPIC, LOCK.lock_id, LOCK.preimage_hash, bytes(32)], b""),
            ([sha256(b"no event of ours"), LOCK.lock_id, LOCK.preimage_hash], b""),
        ],
    )
    def test_entries_that_the_contract_never_wrote(self, topics, data):
        with pytest.raises(UnexpectedReply):
            self.read({"address": HTLC_ADDRESS.raw, "topics": topics, "data": data})

    @pytest.mark.parametrize(
        "changes",
        [
            {"topics": None},
            {"topics": "0x00"},
            {"topics": ["0x00"]},
            {"topics": [None]},
            {"topics": ["0x" + "00" * 32] * 5},
            {"data": "0xabc"},
            {"data": "0x ab"},
            {"data": None},
            {"data": 5},
            {"address": "0x00"},
            {"address": HTLC_ADDRESS.raw.hex()},
        ],
    )
    def test_json_that_is_malformed(self, changes):
        good = {
            "address": str(HTLC_ADDRESS),
            "topics": ["0x" + topic.hex() for topic in (CLAIM_TOPIC, LOCK.lock_id, LOCK.preimage_hash)],
            "data": "0x" + PREIMAGE.hex(),
        }
        assert parse_htlc_log(good, chain_id=60808, contract=HTLC_ADDRESS).preimage == PREIMAGE
        with pytest.raises(UnexpectedReply):
            parse_htlc_log(good | changes, chain_id=60808, contract=HTLC_ADDRESS)

    def test_filters_end_at_the_last_given_topic(self):
        assert htlc_topics() == []
        assert htlc_topics(event=CLAIM_TOPIC) == ["0x" + CLAIM_TOPIC.hex()]
        assert htlc_topics(preimage_hash=LOCK.preimage_hash) == [None, None, "0x" + LOCK.preimage_hash.hex()]


class TestConsent:
    @pytest.mark.parametrize("signature", [b"", bytes(64), bytes(65), bytes(66)])
    def test_no_signature_is_not_encoded(self, signature):
        with pytest.raises(ValidationError):
            encode_refund_cooperative(LOCK, signature)

    def test_the_digest_is_pinned(self):
        assert (
            cooperative_refund_digest(LOCK).hex() == "841aa19b88c810a4b255f0197686de49bed637e76aa0e0408e6e6b7dc2de1981"
        )
