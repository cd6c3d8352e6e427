"""Domain values to disk and back. Written in the newest shape, read in every shape that was ever released."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from layer2.errors import StorageError
from layer2.storage import _codec_v1
from layer2.storage._shapes import Shape, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layer2.swaps._effects import Effect
    from layer2.swaps._observations import Observation
    from layer2.swaps._states import Deal, State

__all__ = [
    "Encoded",
    "canonical_json",
    "decode_deal",
    "decode_effect",
    "decode_observation",
    "decode_state",
    "encode_deal",
    "encode_effect",
    "encode_observation",
    "encode_state",
    "exit_kinds",
    "state_kinds",
]

_Family: TypeAlias = "Mapping[str, Shape[Any]]"

CURRENT: Final = 1
_STATES: Final[Mapping[int, _Family]] = {1: _codec_v1.STATES}
_EFFECTS: Final[Mapping[int, _Family]] = {1: _codec_v1.EFFECTS}
_OBSERVATIONS: Final[Mapping[int, _Family]] = {1: _codec_v1.OBSERVATIONS}
_DEALS: Final[Mapping[int, _Family]] = {1: {"deal": _codec_v1.DEAL}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A value as it stands in the store."""

    kind: str
    shape: int
    text: str = field(repr=False)


def canonical_json(data: Any) -> str:
    """The one JSON text of ``data``: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _encode(family: _Family, value: object) -> Encoded:
    for kind, shape in family.items():
        if type(value) is shape.cls:
            try:
                return Encoded(kind=kind, shape=CURRENT, text=canonical_json(shape.write(value)))
            except ShapeError as exc:
                raise StorageError(f"a value cannot be stored: {exc}") from exc
    raise StorageError(f"no disk shape for {type(value).__name__}")


def _decode(shapes: Mapping[int, _Family], kind: str, shape: int, text: str) -> Any:
    found = shapes.get(shape, {}).get(kind)
    if found is None:
        raise StorageError(
            f"the store holds {kind!r} in disk shape {shape}, which this version does not know",
            hint="install the version of layer2 that wrote it, or a later one",
        )
    try:
        return found.read(json.loads(text))
    except ValueError as exc:
        # ShapeError names the field and never the value; what json says has no content either.
        raise StorageError(f"the store holds a damaged {kind!r}: {exc}", hint="restore a backup") from exc


def encode_state(state: State) -> Encoded:
    """``state`` in the newest shape."""
    return _encode(_STATES[CURRENT], state)


def decode_state(kind: str, shape: int, text: str) -> State:
    """The state that was stored.

    Raises:
        StorageError: damaged, or of a shape of a newer version. So do the other ``decode`` functions.
    """
    return cast("State", _decode(_STATES, kind, shape, text))


def encode_effect(effect: Effect) -> Encoded:
    """``effect`` in the newest shape."""
    return _encode(_EFFECTS[CURRENT], effect)


def decode_effect(kind: str, shape: int, text: str) -> Effect:
    """The effect that was stored."""
    return cast("Effect", _decode(_EFFECTS, kind, shape, text))


def encode_observation(observation: Observation) -> Encoded:
    """``observation`` in the newest shape."""
    return _encode(_OBSERVATIONS[CURRENT], observation)


def decode_observation(kind: str, shape: int, text: str) -> Observation:
    """The observation that was stored."""
    return cast("Observation", _decode(_OBSERVATIONS, kind, shape, text))


def encode_deal(deal: Deal) -> Encoded:
    """``deal`` in the newest shape."""
    return _encode(_DEALS[CURRENT], deal)


@lru_cache(maxsize=512)
def decode_deal(shape: int, text: str) -> Deal:
    """The deal that was stored. A swap is read again with each of its steps, and its deal never changes."""
    return cast("Deal", _decode(_DEALS, "deal", shape, text))


def state_kinds() -> frozenset[str]:
    """The names of all states, as ``list_swaps`` takes them."""
    return frozenset(_STATES[CURRENT])


def exit_kinds() -> frozenset[str]:
    """The names of the states of swaps that are on their way out, against a deadline."""
    return frozenset(kind for kind, shape in _STATES[CURRENT].items() if shape.cls.exit)
