"""How a proof is read from JSON: bounded, strict, and in one spelling only."""

from __future__ import annotations

import json
from typing import Any, Final, Self

from layer2._crypto import sha256
from layer2._values import Value
from layer2.errors import ProofError, ValidationError

__all__ = [
    "MAX_PROOF_JSON_BYTES",
    "ProofValue",
    "checksum_of",
    "load_object",
    "require",
    "require_bytes",
    "require_int",
    "require_nodes",
]

MAX_PROOF_JSON_BYTES: Final = 8 * 1024 * 1024
"""Longest JSON text of a proof that is looked at. Usual ones have 10 to 60 kB."""


class ProofValue(Value):
    """Base of the proofs: JSON as for every value, but everything wrong is a ``ProofError`` and there is one spelling.

    White space and the order of keys are free. Everything else must be written as ``to_json`` writes it: no key twice,
    no number in another form, no hexadecimal digit in another case. So no two different texts are one proof.
    """

    __slots__ = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ProofError: anything else, another kind of proof or another version; ``field`` says where.
        """
        given = load_object(text)
        cls._check_envelope(given)
        cls._check_given(given)
        try:
            value = super().from_json(text)
        except ValidationError as error:
            # The cause would print its input, and that may hold a preimage.
            raise ProofError(error.message, field=error.field, check="format") from None
        if _canonical(json.loads(value.to_json())) != _canonical(given):
            raise ProofError(f"{cls.__name__}: a value is spelled otherwise than to_json writes it", check="format")
        return value

    @classmethod
    def _check_given(cls, given: dict[str, Any]) -> None:
        """Refuse what can be seen to be wrong before the fields are read one by one."""

    def _require_own_envelope(self) -> None:
        """Refuse to be built with another kind or version than the class has."""
        self._check_envelope({name: getattr(self, name) for name in ("kind", "version")})

    @classmethod
    def _check_envelope(cls, given: dict[str, Any]) -> None:
        """Refuse what says itself that it is something else, before its fields are looked at."""
        fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
        for name in ("kind", "version"):
            known = fields[name].default
            if type(given.get(name)) is not type(known) or given[name] != known:
                raise ProofError(
                    f"this is a proof of {name} {given.get(name)!r:.40}; {cls.__name__} reads {name} {known!r} only",
                    field=name,
                    check=name,
                    hint="a later release of layer2 may read it" if name == "version" else None,
                )


def load_object(text: object) -> dict[str, Any]:
    """The JSON object in ``text``, no key twice.

    Raises:
        ProofError: too long, nested too deep, not UTF-8, not JSON, not an object.
    """
    from pydantic_core import from_json

    if not isinstance(text, (str, bytes)):
        raise ProofError(f"a proof is read from text or bytes, not {type(text).__name__}", check="format")
    if len(text) > MAX_PROOF_JSON_BYTES:
        raise ProofError(f"{len(text)} bytes of JSON is more than {MAX_PROOF_JSON_BYTES}", check="format")
    try:
        # The first parser bounds the nesting, the second sees keys that stand twice.
        from_json(text.encode() if isinstance(text, str) else text, allow_inf_nan=False)
        given = json.loads(text, object_pairs_hook=_unique)
    except ProofError:
        raise
    except ValueError as error:
        # The cause's text names a place; its other attributes hold the whole document.
        raise ProofError(f"not JSON: {error}", check="format") from None
    if not isinstance(given, dict):
        raise ProofError("a proof is a JSON object", check="format")
    return given


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProofError("a key stands twice in one JSON object", check="format")
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def checksum_of(given: dict[str, Any]) -> bytes:
    """SHA-256 of the JSON object without ``checksum``: keys sorted, no white space, non-ASCII characters escaped."""
    return sha256(_canonical({key: value for key, value in given.items() if key != "checksum"}).encode())


def require(holds: bool, message: str, *, field: str | None = None, check: str = "format") -> None:
    """Refuse a proof that cannot be right.

    Raises:
        ProofError: ``holds`` is false.
    """
    if not holds:
        raise ProofError(message, field=field, check=check)


def require_bytes(value: object, field: str, length: int | None = None) -> None:
    """Refuse what is not ``bytes``, or not of that length.

    Raises:
        ProofError: naming the field.
    """
    require(isinstance(value, bytes), f"{field} is not bytes but {type(value).__name__}", field=field)
    size = len(value) if isinstance(value, bytes) else 0
    require(length in (None, size), f"{field} has {size} bytes, not {length}", field=field)


def require_int(value: object, field: str, low: int, limit: int) -> None:
    """Refuse what is not an ``int`` (bool is not) with ``low <= value < limit``.

    Raises:
        ProofError: naming the field.
    """
    holds = type(value) is int and low <= value < limit
    require(holds, f"{field} is not a whole number from {low} to below {limit:#x}", field=field)


def require_nodes(value: object, field: str) -> None:
    """Refuse what is not a tuple of ``bytes``.

    Raises:
        ProofError: naming the field.
    """
    holds = isinstance(value, tuple) and all(isinstance(node, bytes) for node in value)
    require(holds, f"{field} is not a tuple of bytes", field=field)
