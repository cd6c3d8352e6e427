"""When a claim or refund that failed for good is tried again: ever more rarely, and more often near its deadline.

Each attempt costs gas, and whether one failed is known from one endpoint. One that lies, or is broken, must not burn the account;
a token that was paused or a nonce that was taken must not cost the lock.
"""

from __future__ import annotations

from typing import Final

__all__ = ["next_attempt_ms"]

FIRST_PAUSE_BLOCKS: Final = 30
LEAST_PAUSE_BLOCKS: Final = 5
"""However near the deadline is: less than this has no block of its own to try in."""
LONGEST_PAUSE_S: Final = 3600


def next_attempt_ms(
    failures: int, *, last_made_ms: int, now_ms: int, deadline: int | None, block_time_s: float
) -> int | None:
    """The Unix milliseconds before which no new attempt is made; None: one may be made now.

    The pause doubles with each failure up to an hour. It is at most a quarter of the time that was left when the last attempt was
    made, so that many fit in before the deadline, and after the deadline at most as long as it was late by then.

    Args:
        failures: attempts that failed for good, at least one.
        last_made_ms: when the last of them was signed.
        now_ms: the clock. One that stands before ``last_made_ms`` was set back, and is no reason to wait.
        deadline: Unix seconds by which it should be included.
        block_time_s: of the chain.
    """
    pause_s = min(FIRST_PAUSE_BLOCKS * block_time_s * 2 ** min(failures - 1, 20), LONGEST_PAUSE_S)
    if deadline is not None:
        left_s = deadline - last_made_ms / 1000
        pause_s = min(pause_s, left_s / 4 if left_s > 0 else -left_s)
    due_ms = last_made_ms + int(max(pause_s, LEAST_PAUSE_BLOCKS * block_time_s) * 1000)
    return due_ms if last_made_ms <= now_ms < due_ms else None
