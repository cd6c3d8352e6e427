"""The durable store: swaps with history and outbox, signed transactions, operations.

``Store.run(function, ...)`` runs one of the functions below in one transaction. ``swaps`` gathers those for swaps.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2.storage import _api as swaps
    from layer2.storage._contents import StoreContents, contents
    from layer2.storage._copies import restore_copy
    from layer2.storage._copy_mac import copy_key
    from layer2.storage._journal import SwapJournal
    from layer2.storage._operations import SqlOperationJournal
    from layer2.storage._rows import (
        EffectStatus,
        HashTaken,
        Inserted,
        NewSwap,
        StaleVersion,
        StoredEffect,
        StoredEvent,
        StoredSwap,
    )
    from layer2.storage._runner import Store
    from layer2.storage._session import StoreInfo
    from layer2.storage._transactions import SqlTxJournal

__all__ = [
    "EffectStatus",
    "HashTaken",
    "Inserted",
    "NewSwap",
    "SqlOperationJournal",
    "SqlTxJournal",
    "StaleVersion",
    "Store",
    "StoreContents",
    "StoreInfo",
    "StoredEffect",
    "StoredEvent",
    "StoredSwap",
    "SwapJournal",
    "contents",
    "copy_key",
    "restore_copy",
    "swaps",
]

_HOMES = {
    "SqlOperationJournal": "_operations",
    "SqlTxJournal": "_transactions",
    "Store": "_runner",
    "StoreInfo": "_session",
    "SwapJournal": "_journal",
    "StoreContents": "_contents",
    "contents": "_contents",
    "copy_key": "_copy_mac",
    "restore_copy": "_copies",
    **dict.fromkeys(
        (
            "EffectStatus",
            "HashTaken",
            "Inserted",
            "NewSwap",
            "StaleVersion",
            "StoredEffect",
            "StoredEvent",
            "StoredSwap",
        ),
        "_rows",
    ),
}


def __getattr__(name: str) -> Any:
    """SQLAlchemy is loaded with the first use, not with ``import layer2``."""
    if name == "swaps":
        return import_module("layer2.storage._api")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"layer2.storage.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
