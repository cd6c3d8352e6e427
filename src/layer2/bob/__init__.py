"""BOB, and any other chain of the OP Stack: the layer, chain presets, and what the rollup charges for L1."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.bob._chains import BOB_MAINNET, BOB_SEPOLIA, DEVNET, ChainPreset
    from layer2.bob._client import BobClient
    from layer2.bob._endpoint import check_chain_id
    from layer2.bob._fees import L1FeeParameters, OpStackFees, l1_fee_upper_bound, operator_fee

__all__ = [
    "BOB_MAINNET",
    "BOB_SEPOLIA",
    "DEVNET",
    "BobClient",
    "ChainPreset",
    "L1FeeParameters",
    "OpStackFees",
    "check_chain_id",
    "l1_fee_upper_bound",
    "operator_fee",
]

_HOME = {
    "BOB_MAINNET": "_chains",
    "BOB_SEPOLIA": "_chains",
    "DEVNET": "_chains",
    "BobClient": "_client",
    "ChainPreset": "_chains",
    "L1FeeParameters": "_fees",
    "OpStackFees": "_fees",
    "check_chain_id": "_endpoint",
    "l1_fee_upper_bound": "_fees",
    "operator_fee": "_fees",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
