"""Random histories of many locks against a model of a few lines: states, balances and refusals must agree at every step."""

from __future__ import annotations

import random

import pytest

from layer2.evm import (
    HTLC_ADDRESS,
    LOCKED,
    NEVER,
    REFUNDED,
    LockPhase,
    LockState,
    cooperative_refund_digest,
    encode_claim,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
)

pytestmark = pytest.mark.slow


class Model:
    """What the contract should do."""

    def __init__(self, locks, preimages) -> None:
        self.states = dict.fromkeys(locks, NEVER)
        self.preimages = preimages

    def expected(self, action, lock, timestamp) -> LockState | str:
        """The state that the action leads to, or the name of its refusal."""
        state = self.states[lock]
        if action == "lock":
            if timestamp >= lock.timelock:
                return "TimelockPassed"
            return LOCKED if state == NEVER else "AlreadyUsed"
        if action == "refund" and timestamp < lock.timelock:
            return "TimelockNotPassed"
        if state != LOCKED:
            return "NotLocked"
        return LockState(phase=LockPhase.CLAIMED, preimage=self.preimages[lock]) if action == "claim" else REFUNDED

    def locked_amount(self) -> int:
        return sum(lock.amount for lock, state in self.states.items() if state == LOCKED)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories(bench, seed):
    rng = random.Random(seed)
    preimages = [rng.randbytes(32) for _ in range(4)]
    pairs = [
        (
            bench.lock(preimage, amount=rng.randint(1, 10**6), timelock=bench.next_timestamp + rng.randint(5, 60)),
            preimage,
        )
        for preimage in [*preimages, *preimages]
    ]
    model = Model([lock for lock, _ in pairs], dict(pairs))
    elsewhere = bench.balance(HTLC_ADDRESS)
    for _ in range(60):
        lock, preimage = rng.choice(pairs)
        action = rng.choice(["lock", "lock", "claim", "refund", "cooperative"])
        data = {
            "lock": lambda lock=lock: encode_lock(lock),
            "claim": lambda lock=lock, preimage=preimage: encode_claim(lock, preimage),
            "refund": lambda lock=lock: encode_refund(lock),
            "cooperative": lambda lock=lock: encode_refund_cooperative(
                lock, bench.claimer.sign(cooperative_refund_digest(lock))
            ),
        }[action]()
        expected = model.expected(action, lock, bench.next_timestamp)
        if isinstance(expected, str):
            assert bench.refusal(bench.payer, data) == expected
        assert bench.succeeds(bench.payer, data) == isinstance(expected, LockState)
        if isinstance(expected, LockState):
            model.states[lock] = expected
        assert bench.status(lock) == model.states[lock]
        assert bench.balance(HTLC_ADDRESS) == elsewhere + model.locked_amount()
        bench.clock.now_s = bench.next_timestamp + rng.choice([0, 0, 1, 3])
    for lock, _ in pairs:
        assert bench.status(lock) == model.states[lock]
