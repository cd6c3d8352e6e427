"""How a value is written to disk: named fields, each with a way out and a way back. Strict both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

__all__ = ["BOOL", "HEX", "INT", "TEXT", "UINT", "Field", "Shape", "ShapeError", "maybe", "nested", "shared"]

T = TypeVar("T")

SHARED: Final = 64
"""Different values of a ``shared`` field that are kept."""


class ShapeError(ValueError):
    """What is on disk is not of this shape."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value's way to JSON and back; both refuse what is not of the type."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _exactly(cls: type[T]) -> Callable[[Any], T]:
    def check(value: Any) -> T:
        if type(value) is not cls:
            raise ShapeError(f"{cls.__name__} expected, not {type(value).__name__}")
        return value

    return check


def _write_uint(value: Any) -> str:
    if _exactly(int)(value) < 0:
        raise ShapeError("an amount is not negative")
    return str(value)


def _read_uint(value: Any) -> int:
    text = _exactly(str)(value)
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise ShapeError("an amount is a decimal number without leading zeros")
    return int(text)


def _read_hex(value: Any) -> bytes:
    text = _exactly(str)(value)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = None
    if raw is None or raw.hex() != text:
        raise ShapeError("bytes are lower-case hexadecimal")
    return raw


def _write_hex(value: Any) -> str:
    return _exactly(bytes)(value).hex()


TEXT: Final = Field(_exactly(str), _exactly(str))
BOOL: Final = Field(_exactly(bool), _exactly(bool))
INT: Final = Field(_exactly(int), _exactly(int))
UINT: Final = Field(_write_uint, _read_uint)
"""An amount, as decimal text: no database or parser gets to round it."""
HEX: Final = Field(_write_hex, _read_hex)


def maybe(field: Field) -> Field:
    """``field`` or None."""
    return Field(
        lambda value: None if value is None else field.write(value),
        lambda value: None if value is None else field.read(value),
    )


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """A frozen dataclass on disk: ``fields`` maps its attribute names, which are the names on disk as well."""

    cls: type[T]
    fields: Mapping[str, Field]

    def write(self, value: T) -> dict[str, Any]:
        """The JSON object for ``value``.

        Raises:
            ShapeError: another class, or a field of another type.
        """
        if type(value) is not self.cls:
            raise ShapeError(f"{self.cls.__name__} expected, not {type(value).__name__}")
        return {name: self._each(name, field.write, getattr(value, name)) for name, field in self.fields.items()}

    def read(self, data: Any) -> T:
        """The value for a JSON object that ``write`` made.

        Raises:
            ShapeError: a field is missing, unknown or of another type, or the values do not go together.
        """
        if not isinstance(data, dict) or data.keys() != self.fields.keys():
            raise ShapeError(f"{self.cls.__name__} has the fields {sorted(self.fields)}")
        values = {name: self._each(name, field.read, data[name]) for name, field in self.fields.items()}
        try:
            return self.cls(**values)
        except ValueError as exc:
            raise ShapeError(f"{self.cls.__name__}: {exc}") from exc

    def _each(self, name: str, convert: Callable[[Any], Any], value: Any) -> Any:
        try:
            return convert(value)
        except ValueError as exc:
            raise ShapeError(f"{self.cls.__name__}.{name}: {exc}") from exc


def nested(shape: Shape[Any]) -> Field:
    """A field that is itself a dataclass."""
    return Field(shape.write, shape.read)


def shared(shape: Shape[Any]) -> Field:
    """A field that is a dataclass of numbers and texts, and the same one in very many rows: equal ones are one object."""
    names = tuple(shape.fields)
    pick = itemgetter(*names)

    # Typed: what is equal but of another type, as 1 and true are, is not taken for what was checked.
    @lru_cache(maxsize=SHARED, typed=True)
    def checked(*values: Any) -> Any:
        return shape.read(dict(zip(names, values, strict=True)))

    def read(data: Any) -> Any:
        try:
            values = pick(data)
            if len(data) == len(names):
                return checked(*values)
        except (KeyError, TypeError):
            # Nothing of this shape, or with values that cannot be kept: the strict way says what is wrong.
            pass
        return shape.read(data)

    return Field(shape.write, read)
