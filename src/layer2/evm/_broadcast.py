"""What a node's answer to a sent transaction means. The texts differ from client to client; the meanings do not."""

from __future__ import annotations

import re
from enum import Enum, auto

from layer2.evm._rpc_error import RpcError

__all__ = ["SendAnswer", "classify_refusal"]


class SendAnswer(Enum):
    """Meaning of an answer to ``eth_sendRawTransaction``."""

    TAKEN = auto()
    """It is in the pool, or was before."""
    NONCE_USED = auto()
    """Its nonce is in the chain: by itself, or by another transaction."""
    NONCE_HELD = auto()
    """The pool holds another transaction with its nonce at a price that this one does not beat."""
    PRICE_TOO_LOW = auto()
    FUNDS_TOO_LOW = auto()
    INVALID = auto()
    """It will never be taken as it is."""
    BUSY = auto()
    """The pool is full or the node not ready: later."""
    UNCLEAR = auto()


_PATTERNS: tuple[tuple[SendAnswer, tuple[str, ...]], ...] = (
    (
        SendAnswer.TAKEN,
        ("already known", "already imported", "already exists", "already in mempool", "known transaction:"),
    ),
    (SendAnswer.NONCE_USED, ("nonce too low", "nonce is too low", "oldnonce", "nonce_too_low")),
    (
        SendAnswer.NONCE_HELD,
        ("replacement transaction underpriced", "replacement underpriced", "replacement fee too low"),
    ),
    (
        SendAnswer.PRICE_TOO_LOW,
        (
            "underpriced",
            "max fee per gas less than block base fee",
            "fee cap less than block base fee",
            "gas price too low",
            "feetoolow",
            "max fee per gas too low",
            "tip cap",
            "gas tip",
            "base fee",
        ),
    ),
    (SendAnswer.FUNDS_TOO_LOW, ("insufficient funds", "insufficient balance", "sender doesn't have enough funds")),
    (
        SendAnswer.INVALID,
        (
            "intrinsic gas too low",
            "exceeds block gas limit",
            "gas limit too high",
            "exceeds the limit",
            "floor data gas",
            "invalid sender",
            "invalid signature",
            "invalid chain id",
            "chain id mismatch",
            "oversized data",
            "max initcode size",
            "initcode size",
            "transaction type not supported",
            "rlp:",
            "failed to decode",
            "blocklisted",
            "eip-155",
        ),
    ),
    (
        SendAnswer.BUSY,
        ("txpool is full", "pool is full", "limit reached", "max accounts", "sequencer", "try again", "exceeds max"),
    ),
)


def classify_refusal(error: RpcError) -> SendAnswer:
    """The meaning of an error answer; UNCLEAR for what is not known for certain."""
    text = error.message.lower()
    for meaning, patterns in _PATTERNS:
        if any(re.search(r"\b" + re.escape(pattern), text) for pattern in patterns):
            return meaning
    return SendAnswer.UNCLEAR
