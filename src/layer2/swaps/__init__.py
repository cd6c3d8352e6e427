"""The swap engine.

- decisions, pure: ``_submarine_client``, ``_submarine_provider``, ``_reverse_client``, ``_reverse_provider``;
- what they are about: ``_states``, ``_observations``, ``_effects``, and ``_deadlines``;
- what carries them out: ``_driver`` looks (``_look``), decides, persists, acts (``_act``), through the interfaces in ``_ports``;
- the other side: ``_wire``, ``_provider_client``, and ``_checks`` of all that it says.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layer2.swaps._act_by import act_by, run_again_by
    from layer2.swaps._checks import Expected, check_invoice, check_reverse_terms, check_submarine_terms
    from layer2.swaps._claims import ClaimSearch
    from layer2.swaps._deadlines import (
        BOB_TIMING,
        DEVNET_TIMING,
        TIMELOCK_SPREAD_S,
        check_timing,
        claim_room_s,
        depth_wait_s,
        expected_s,
        fast_s,
        latest_claim_start,
        may_claim,
        may_lock_reverse,
        may_pay,
        min_invoice_life_s,
        refund_margin_s,
        reverse_final_cltv,
        reverse_lock_by,
        reverse_timelock,
        slow_s,
        submarine_lock_by,
        submarine_timelock,
        worst_s,
    )
    from layer2.swaps._driver import HashTakenError
    from layer2.swaps._effects import (
        CancelInvoice,
        Claim,
        Decision,
        Effect,
        PayInvoice,
        Refund,
        RefundEarly,
        SendLock,
        SettleInvoice,
    )
    from layer2.swaps._engine import EngineStore, SwapEngine, log_unfinished
    from layer2.swaps._evm_account import EvmAccount, SwapGas
    from layer2.swaps._evm_chain import EvmSwapChain
    from layer2.swaps._machine import decide, first_state
    from layer2.swaps._observations import (
        CancelRequested,
        ChainView,
        EffectRefused,
        HashTaken,
        InvoiceStatus,
        InvoiceView,
        LockReading,
        LockStatus,
        Observation,
        OwnTransaction,
        PaymentStatus,
        PaymentView,
        RefundOffer,
    )
    from layer2.swaps._ports import (
        Ask,
        Counterparty,
        ExitAgainError,
        NoCounterparty,
        StoredEffect,
        StoredSwap,
        SwapChain,
        SwapStore,
        WaitsForBlockError,
        ask_at_once,
        every_unfinished,
    )
    from layer2.swaps._preimage import FORBIDDEN_HASHES, PreimageSource, preimage_label, search_preimage
    from layer2.swaps._provider_client import HttpProvider, ProviderApi
    from layer2.swaps._requests import Account, Place, Price, SwapRequests
    from layer2.swaps._rescue import FoundLock, Rescue, RescueAction, RescuePlan, search_window_ms
    from layer2.swaps._states import (
        Abandoned,
        Agreed,
        AwaitingLock,
        Cancelling,
        Claiming,
        Closed,
        Deal,
        Failed,
        Invoiced,
        Locked,
        Locking,
        NeedsAttention,
        Offered,
        Paid,
        Paying,
        Refunded,
        Refunding,
        Revealed,
        Role,
        Settled,
        Settling,
        State,
        Watch,
    )
    from layer2.swaps._units import token_units, whole_satoshi
    from layer2.swaps._wire import (
        Fees,
        Info,
        Limits,
        Pair,
        Problem,
        RefundResponse,
        ReverseRequest,
        StatusName,
        SubmarineRequest,
        SwapResponse,
        SwapStatus,
    )

_HOMES = {
    "_act_by": "act_by run_again_by",
    "_attempts": "next_attempt_ms",
    "_checks": "Expected check_invoice check_reverse_terms check_submarine_terms",
    "_claims": "ClaimSearch",
    "_deadlines": (
        "BOB_TIMING DEVNET_TIMING TIMELOCK_SPREAD_S check_timing claim_room_s depth_wait_s expected_s fast_s "
        "latest_claim_start may_claim may_lock_reverse may_pay "
        "min_invoice_life_s refund_margin_s reverse_final_cltv "
        "reverse_lock_by reverse_timelock slow_s submarine_lock_by submarine_timelock worst_s"
    ),
    "_driver": "HashTakenError",
    "_effects": "CancelInvoice Claim Decision Effect PayInvoice Refund RefundEarly SendLock SettleInvoice",
    "_engine": "EngineStore SwapEngine log_unfinished",
    "_evm_account": "EvmAccount SwapGas",
    "_evm_chain": "EvmSwapChain",
    "_machine": "decide first_state",
    "_observations": (
        "CancelRequested ChainView EffectRefused HashTaken InvoiceStatus InvoiceView LockReading LockStatus Observation "
        "OwnTransaction PaymentStatus PaymentView RefundOffer"
    ),
    "_ports": (
        "Ask Counterparty ExitAgainError NoCounterparty StoredEffect StoredSwap SwapChain SwapStore WaitsForBlockError "
        "ask_at_once every_unfinished"
    ),
    "_preimage": "FORBIDDEN_HASHES PreimageSource preimage_label search_preimage",
    "_provider_client": "HttpProvider ProviderApi",
    "_requests": "Account Place Price SwapRequests",
    "_rescue": "FoundLock Rescue RescueAction RescuePlan search_window_ms",
    "_states": (
        "Abandoned Agreed AwaitingLock Cancelling Claiming Closed Deal Failed Invoiced Locked Locking NeedsAttention Offered "
        "Paid Paying Refunded Refunding Revealed Role Settled Settling State Watch"
    ),
    "_units": "token_units whole_satoshi",
    "_wire": (
        "Fees Info Limits Pair Problem RefundResponse ReverseRequest StatusName SubmarineRequest SwapResponse SwapStatus"
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "BOB_TIMING",
    "DEVNET_TIMING",
    "FORBIDDEN_HASHES",
    "TIMELOCK_SPREAD_S",
    "Abandoned",
    "Account",
    "Agreed",
    "Ask",
    "AwaitingLock",
    "CancelInvoice",
    "CancelRequested",
    "Cancelling",
    "ChainView",
    "Claim",
    "ClaimSearch",
    "Claiming",
    "Closed",
    "Counterparty",
    "Deal",
    "Decision",
    "Effect",
    "EffectRefused",
    "EngineStore",
    "EvmAccount",
    "EvmSwapChain",
    "ExitAgainError",
    "Expected",
    "Failed",
    "Fees",
    "FoundLock",
    "HashTaken",
    "HashTakenError",
    "HttpProvider",
    "Info",
    "InvoiceStatus",
    "InvoiceView",
    "Invoiced",
    "Limits",
    "LockReading",
    "LockStatus",
    "Locked",
    "Locking",
    "NeedsAttention",
    "NoCounterparty",
    "Observation",
    "Offered",
    "OwnTransaction",
    "Paid",
    "Pair",
    "PayInvoice",
    "Paying",
    "PaymentStatus",
    "PaymentView",
    "Place",
    "PreimageSource",
    "Price",
    "Problem",
    "ProviderApi",
    "Refund",
    "RefundEarly",
    "RefundOffer",
    "RefundResponse",
    "Refunded",
    "Refunding",
    "Rescue",
    "RescueAction",
    "RescuePlan",
    "Revealed",
    "ReverseRequest",
    "Role",
    "SendLock",
    "SettleInvoice",
    "Settled",
    "Settling",
    "State",
    "StatusName",
    "StoredEffect",
    "StoredSwap",
    "SubmarineRequest",
    "SwapChain",
    "SwapEngine",
    "SwapGas",
    "SwapRequests",
    "SwapResponse",
    "SwapStatus",
    "SwapStore",
    "WaitsForBlockError",
    "Watch",
    "act_by",
    "ask_at_once",
    "check_invoice",
    "check_reverse_terms",
    "check_submarine_terms",
    "check_timing",
    "claim_room_s",
    "decide",
    "depth_wait_s",
    "every_unfinished",
    "expected_s",
    "fast_s",
    "first_state",
    "latest_claim_start",
    "log_unfinished",
    "may_claim",
    "may_lock_reverse",
    "may_pay",
    "min_invoice_life_s",
    "preimage_label",
    "refund_margin_s",
    "reverse_final_cltv",
    "reverse_lock_by",
    "reverse_timelock",
    "run_again_by",
    "search_preimage",
    "search_window_ms",
    "slow_s",
    "submarine_lock_by",
    "submarine_timelock",
    "token_units",
    "whole_satoshi",
    "worst_s",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
