"""EVM chains: transport, typed client, transactions, the sender with its journal, fees, and the HTLC contract's binding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.evm._abi import (
        Word,
        decode_address,
        decode_bool,
        decode_bytes32,
        decode_revert,
        decode_uint,
        encode_call,
        encode_word,
        event_topic,
        selector,
        split_words,
    )
    from layer2.evm._artifacts import (
        CREATE2_PROXY,
        CREATE2_PROXY_DEPLOYER,
        CREATE2_PROXY_DEPLOYMENT,
        CREATE2_PROXY_FUNDING_WEI,
        CREATE2_SALT,
        HTLC_ADDRESS,
        HTLC_CODE_HASH,
        TEST_TOKEN_ADDRESS,
        Artifact,
        create2_address,
        encode_create2,
        load_artifact,
    )
    from layer2.evm._client import (
        BlockRef,
        EvmClient,
        FeeHistory,
        Header,
        Log,
        Receipt,
        translate_rpc_error,
    )
    from layer2.evm._delivery import (
        SenderSettings,
        send_foreign,
    )
    from layer2.evm._deploy import Deployment, check_htlc, deploy_htlc, deploy_test_token
    from layer2.evm._erc20 import (
        TRANSFER_EVENT,
        encode_allowance,
        encode_approve,
        encode_balance_of,
        encode_decimals,
        encode_mint,
        encode_transfer,
        encode_transfer_from,
    )
    from layer2.evm._fees import (
        DataFee,
        FeeLimits,
        FeeOracle,
        GasPrice,
        NoDataFee,
    )
    from layer2.evm._htlc import (
        CLAIM_GAS,
        LOCK_GAS,
        LOCKED,
        LOCKS_SLOT,
        MAX_TIMELOCK_S,
        NEVER,
        REFUND_COOPERATIVE_GAS,
        REFUND_GAS,
        REFUNDED,
        REVERT_NAMES,
        LockPhase,
        LockState,
        cooperative_refund_digest,
        decode_htlc_revert,
        decode_state,
        decode_status,
        encode_claim,
        encode_lock,
        encode_refund,
        encode_refund_cooperative,
        encode_status,
        storage_slot,
        usable_preimage,
        verify_cooperative_refund,
    )
    from layer2.evm._htlc_events import (
        CLAIM_TOPIC,
        LOCKUP_TOPIC,
        REFUND_TOPIC,
        ClaimEvent,
        HtlcEvent,
        LockupEvent,
        RefundEvent,
        decode_htlc_event,
        htlc_topics,
        parse_htlc_log,
    )
    from layer2.evm._journal import (
        MemoryTxJournal,
        SignedVariant,
        TxJournal,
        TxRecord,
        TxState,
    )
    from layer2.evm._queue import (
        SubmitProgress,
        request_digest,
    )
    from layer2.evm._rpc import (
        HttpLimits,
        HttpTransport,
        RpcTransport,
        exit_lane,
        public_endpoint,
    )
    from layer2.evm._rpc_error import (
        RpcError,
    )
    from layer2.evm._sender import (
        TxSender,
    )
    from layer2.evm._status import (
        Heads,
        StatusReader,
    )
    from layer2.evm._transactions import (
        SignedTransaction,
        UnsignedTransaction,
        decode_transaction,
        sign_transaction,
        unsigned_size,
    )

__all__ = [
    "CLAIM_GAS",
    "CLAIM_TOPIC",
    "CREATE2_PROXY",
    "CREATE2_PROXY_DEPLOYER",
    "CREATE2_PROXY_DEPLOYMENT",
    "CREATE2_PROXY_FUNDING_WEI",
    "CREATE2_SALT",
    "HTLC_ADDRESS",
    "HTLC_CODE_HASH",
    "LOCKED",
    "LOCKS_SLOT",
    "LOCKUP_TOPIC",
    "LOCK_GAS",
    "MAX_TIMELOCK_S",
    "NEVER",
    "REFUNDED",
    "REFUND_COOPERATIVE_GAS",
    "REFUND_GAS",
    "REFUND_TOPIC",
    "REVERT_NAMES",
    "TEST_TOKEN_ADDRESS",
    "TRANSFER_EVENT",
    "Artifact",
    "BlockRef",
    "ClaimEvent",
    "DataFee",
    "Deployment",
    "EvmClient",
    "FeeHistory",
    "FeeLimits",
    "FeeOracle",
    "GasPrice",
    "Header",
    "Heads",
    "HtlcEvent",
    "HttpLimits",
    "HttpTransport",
    "LockPhase",
    "LockState",
    "LockupEvent",
    "Log",
    "MemoryTxJournal",
    "NoDataFee",
    "Receipt",
    "RefundEvent",
    "RpcError",
    "RpcTransport",
    "SenderSettings",
    "SignedTransaction",
    "SignedVariant",
    "StatusReader",
    "SubmitProgress",
    "TxJournal",
    "TxRecord",
    "TxSender",
    "TxState",
    "UnsignedTransaction",
    "Word",
    "check_htlc",
    "cooperative_refund_digest",
    "create2_address",
    "decode_address",
    "decode_bool",
    "decode_bytes32",
    "decode_htlc_event",
    "decode_htlc_revert",
    "decode_revert",
    "decode_state",
    "decode_status",
    "decode_transaction",
    "decode_uint",
    "deploy_htlc",
    "deploy_test_token",
    "encode_allowance",
    "encode_approve",
    "encode_balance_of",
    "encode_call",
    "encode_claim",
    "encode_create2",
    "encode_decimals",
    "encode_lock",
    "encode_mint",
    "encode_refund",
    "encode_refund_cooperative",
    "encode_status",
    "encode_transfer",
    "encode_transfer_from",
    "encode_word",
    "event_topic",
    "exit_lane",
    "htlc_topics",
    "load_artifact",
    "parse_htlc_log",
    "public_endpoint",
    "request_digest",
    "selector",
    "send_foreign",
    "sign_transaction",
    "split_words",
    "storage_slot",
    "translate_rpc_error",
    "unsigned_size",
    "usable_preimage",
    "verify_cooperative_refund",
]

_MODULES = {
    "_abi": (
        "Word decode_address decode_bool decode_bytes32 decode_revert decode_uint encode_call encode_word "
        "event_topic selector split_words"
    ),
    "_artifacts": (
        "Artifact CREATE2_PROXY CREATE2_PROXY_DEPLOYER CREATE2_PROXY_DEPLOYMENT CREATE2_PROXY_FUNDING_WEI "
        "CREATE2_SALT HTLC_ADDRESS HTLC_CODE_HASH TEST_TOKEN_ADDRESS create2_address encode_create2 "
        "load_artifact"
    ),
    "_client": ("BlockRef EvmClient FeeHistory Header Log Receipt translate_rpc_error"),
    "_deploy": ("Deployment check_htlc deploy_htlc deploy_test_token"),
    "_delivery": ("SenderSettings send_foreign"),
    "_erc20": (
        "TRANSFER_EVENT encode_allowance encode_approve encode_balance_of encode_decimals encode_mint "
        "encode_transfer encode_transfer_from"
    ),
    "_fees": ("DataFee FeeLimits FeeOracle GasPrice NoDataFee"),
    "_htlc": (
        "CLAIM_GAS LOCKED LOCKS_SLOT LOCK_GAS LockPhase LockState MAX_TIMELOCK_S NEVER REFUNDED "
        "REFUND_COOPERATIVE_GAS REFUND_GAS REVERT_NAMES cooperative_refund_digest decode_htlc_revert "
        "decode_state decode_status encode_claim encode_lock encode_refund encode_refund_cooperative "
        "encode_status storage_slot usable_preimage verify_cooperative_refund"
    ),
    "_htlc_events": (
        "CLAIM_TOPIC ClaimEvent HtlcEvent LOCKUP_TOPIC LockupEvent REFUND_TOPIC RefundEvent decode_htlc_event "
        "htlc_topics parse_htlc_log"
    ),
    "_journal": ("MemoryTxJournal SignedVariant TxJournal TxRecord TxState"),
    "_queue": ("SubmitProgress request_digest"),
    "_rpc": ("HttpLimits HttpTransport RpcTransport exit_lane public_endpoint"),
    "_rpc_error": ("RpcError"),
    "_sender": ("TxSender"),
    "_status": ("Heads StatusReader"),
    "_transactions": ("SignedTransaction UnsignedTransaction decode_transaction sign_transaction unsigned_size"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
