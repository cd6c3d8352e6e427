"""Disk shape 1. Frozen: once a store was written with it, it only ever reads and writes exactly this.

A domain type that gains, loses or renames a field gets a new shape in a new file; this one then maps to the changed type on
reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from layer2.addresses import EvmAddress
from layer2.storage._shapes import BOOL, HEX, INT, TEXT, UINT, Field, Shape, ShapeError, maybe, nested, shared
from layer2.swaps import _effects as effects
from layer2.swaps import _observations as seen
from layer2.swaps import _states as states
from layer2.terms import ChainTiming, DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

__all__ = ["DEAL", "EFFECTS", "OBSERVATIONS", "STATES"]


def _choice(names: Mapping[str, Enum]) -> Field:
    back = {value: name for name, value in names.items()}

    def write(value: Any) -> str:
        if value not in back:
            raise ShapeError(f"one of {list(names)} expected")
        return back[value]

    def read(value: Any) -> Enum:
        if not isinstance(value, str) or value not in names:
            raise ShapeError(f"one of {list(names)} expected")
        return names[value]

    return Field(write, read)


_ADDRESS: Final = Field(lambda value: HEX.write(value.raw), lambda value: EvmAddress(raw=HEX.read(value)))
_DEPTH: Final = _choice({"included": Depth.INCLUDED, "safe": Depth.SAFE, "finalized": Depth.FINALIZED})
_DIRECTION: Final = _choice({"submarine": SwapDirection.SUBMARINE, "reverse": SwapDirection.REVERSE})
_ROLE: Final = _choice({"client": states.Role.CLIENT, "provider": states.Role.PROVIDER})
_LOCK_STATUS: Final = _choice(
    {
        "never": seen.LockStatus.NEVER,
        "locked": seen.LockStatus.LOCKED,
        "refunded": seen.LockStatus.REFUNDED,
        "claimed": seen.LockStatus.CLAIMED,
    }
)
_OWN: Final = _choice(
    {"none": seen.OwnTransaction.NONE, "open": seen.OwnTransaction.OPEN, "dead": seen.OwnTransaction.DEAD}
)
_PAYMENT: Final = _choice(
    {
        "none": seen.PaymentStatus.NONE,
        "in_flight": seen.PaymentStatus.IN_FLIGHT,
        "succeeded": seen.PaymentStatus.SUCCEEDED,
        "failed": seen.PaymentStatus.FAILED,
    }
)
_INVOICE: Final = _choice(
    {
        "open": seen.InvoiceStatus.OPEN,
        "accepted": seen.InvoiceStatus.ACCEPTED,
        "settled": seen.InvoiceStatus.SETTLED,
        "canceled": seen.InvoiceStatus.CANCELED,
    }
)

_LOCK: Final = Shape(
    Lock,
    {
        "chain_id": INT,
        "contract": _ADDRESS,
        "preimage_hash": HEX,
        "amount": UINT,
        "token": _ADDRESS,
        "claimer": _ADDRESS,
        "refunder": _ADDRESS,
        "timelock": INT,
    },
)
_POLICY: Final = Shape(DepthPolicy, {"depth": _DEPTH, "confirmations": INT})
_TIMING: Final = Shape(
    ChainTiming,
    {
        "name": TEXT,
        "bitcoin_block_ms": INT,
        "bitcoin_poisson": BOOL,
        "bitcoin_rate_margin_percent": INT,
        "evm_block_s": INT,
        "evm_inclusion_s": INT,
        "evm_clock_skew_s": INT,
        "clock_skew_s": INT,
        "safe_lag_s": INT,
        "finality_s": INT,
        "lock_window_s": INT,
        "invoice_expiry_s": INT,
        "payment_time_limit_s": INT,
        "route_cltv_blocks": INT,
        "hold_expiry_delta_blocks": INT,
        "onchain_resolve_blocks": INT,
        "slack_blocks": INT,
        "grace_s": INT,
        "max_timelock_s": INT,
    },
)
_TERMS: Final = Shape(
    SwapTerms,
    {
        "swap_id": TEXT,
        "direction": _DIRECTION,
        "lock": nested(_LOCK),
        "invoice": TEXT,
        "invoice_amount_msat": UINT,
        "provider_fee": UINT,
        "routing_fee_limit_msat": UINT,
        "lock_by": INT,
        "depth_policy": shared(_POLICY),
        "timing": shared(_TIMING),
        "created_at": INT,
    },
)
_SIGNED: Final = Shape(SignedTerms, {"terms": nested(_TERMS), "signature": HEX})

DEAL: Final = Shape(
    states.Deal,
    {
        "id": TEXT,
        "role": _ROLE,
        "signed": nested(_SIGNED),
        "invoice_expires_at": INT,
        "invoice_final_cltv": INT,
        "pays_itself": BOOL,
        "own_invoice": BOOL,
        "preimage_time_ms": maybe(INT),
        "routing_fee_limit_msat": UINT,
        "max_gas_wei": UINT,
    },
)

STATES: Final[Mapping[str, Shape[Any]]] = {
    "agreed": Shape(states.Agreed, {}),
    "offered": Shape(states.Offered, {}),
    "invoiced": Shape(states.Invoiced, {}),
    "locking": Shape(states.Locking, {}),
    "locked": Shape(states.Locked, {}),
    "paid": Shape(states.Paid, {"preimage": HEX}),
    "paying": Shape(states.Paying, {}),
    "awaiting_lock": Shape(states.AwaitingLock, {}),
    "revealed": Shape(states.Revealed, {}),
    "claiming": Shape(states.Claiming, {"preimage": HEX}),
    "settling": Shape(states.Settling, {"preimage": HEX}),
    "refunding": Shape(states.Refunding, {"signature": maybe(HEX)}),
    "cancelling": Shape(states.Cancelling, {"outcome": TEXT, "reason": TEXT}),
    "failed": Shape(states.Failed, {"reason": TEXT}),
    "settled": Shape(states.Settled, {"preimage": HEX}),
    "refunded": Shape(states.Refunded, {"reason": TEXT}),
    "abandoned": Shape(states.Abandoned, {"reason": TEXT}),
    "closed": Shape(states.Closed, {"outcome": TEXT, "reason": TEXT, "preimage": maybe(HEX)}),
    "needs_attention": Shape(states.NeedsAttention, {"reason": TEXT, "preimage": maybe(HEX)}),
}

EFFECTS: Final[Mapping[str, Shape[Any]]] = {
    "lock": Shape(effects.SendLock, {"not_after": INT}),
    "claim": Shape(effects.Claim, {"preimage": maybe(HEX), "not_after": maybe(INT)}),
    "refund": Shape(effects.Refund, {}),
    "refund_early": Shape(effects.RefundEarly, {"signature": HEX}),
    "pay": Shape(effects.PayInvoice, {}),
    "settle": Shape(effects.SettleInvoice, {"preimage": HEX}),
    "cancel": Shape(effects.CancelInvoice, {}),
}

_READING: Final = nested(Shape(seen.LockReading, {"status": _LOCK_STATUS, "preimage": maybe(HEX)}))

OBSERVATIONS: Final[Mapping[str, Shape[Any]]] = {
    "chain": Shape(
        seen.ChainView,
        {
            "latest": _READING,
            "at_depth": _READING,
            "finalized": _READING,
            "head_timestamp": INT,
            "finalized_timestamp": INT,
            "now_s": INT,
            "own_lock": _OWN,
        },
    ),
    "payment": Shape(
        seen.PaymentView, {"status": _PAYMENT, "preimage": maybe(HEX), "requests_open": BOOL, "now_s": INT}
    ),
    "invoice": Shape(
        seen.InvoiceView, {"status": _INVOICE, "received_msat": UINT, "blocks_left": maybe(INT), "now_s": INT}
    ),
    "refund_offer": Shape(seen.RefundOffer, {"signature": HEX}),
    "cancel_requested": Shape(seen.CancelRequested, {}),
    "effect_refused": Shape(seen.EffectRefused, {"key": TEXT, "reason": TEXT}),
    "hash_taken": Shape(seen.HashTaken, {}),
}
