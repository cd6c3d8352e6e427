"""What all sync twins share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layer2._portal import Portal

__all__ = ["Twin", "twin"]


class Twin:
    """Holds an object of the async side and the portal to the loop on which it lives."""

    def __init__(self, portal: Portal, target: Any) -> None:
        self._portal = portal
        self._async: Any = target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._async!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Twin) and bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)


def twin(portal: Portal, value: Any) -> Any:
    """``value`` for the sync side: its twin if it has one, its items' twins if it is a list, else itself."""
    if isinstance(value, list):
        return [twin(portal, item) for item in value]
    # By name, so that a layer that nobody uses is not imported for the comparison.
    for base in type(value).__mro__:
        if base.__module__.startswith("layer2"):
            made = _twin_of(base.__name__)
            if made is not None:
                return made(portal, value)
    return value


def _twin_of(name: str) -> type[Twin] | None:
    from layer2 import _sync_manager, _sync_protocols

    found = {"Transfer": _sync_manager.TransferSync, "Layer2ProtocolAsync": _sync_protocols.Layer2ProtocolSync}.get(
        name
    )
    return found or getattr(_sync_protocols, f"{name}Sync", None)
