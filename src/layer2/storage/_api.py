"""The functions on swaps that ``Store.run`` takes, in one place: ``layer2.storage.swaps``."""

from __future__ import annotations

from layer2.storage._codecs import state_kinds
from layer2.storage._history import history, verify_history
from layer2.storage._meta import next_preimage_time
from layer2.storage._queries import (
    by_idempotency_key,
    by_lock_id,
    by_payment_hash,
    count_active,
    effects_of,
    list_swaps,
    load_swap,
    page_active,
    pending_effects,
)
from layer2.storage._swaps import (
    annotate,
    apply_transition,
    hash_known,
    hash_owner,
    insert_swap,
    mark_begun,
    mark_effect,
)

__all__ = [
    "annotate",
    "apply_transition",
    "by_idempotency_key",
    "by_lock_id",
    "by_payment_hash",
    "count_active",
    "effects_of",
    "hash_known",
    "hash_owner",
    "history",
    "insert_swap",
    "list_swaps",
    "load_swap",
    "mark_begun",
    "mark_effect",
    "next_preimage_time",
    "page_active",
    "pending_effects",
    "state_kinds",
    "verify_history",
]
