"""Checks of what callers give: the right type, within bounds, or an error that names the field. A bool is never a number."""

from __future__ import annotations

from layer2.errors import ValidationError

__all__ = ["check_bytes", "check_text", "check_whole", "check_writable", "kind_of"]


def check_whole(
    value: object,
    field: str,
    *,
    least: int = 0,
    below: int = 2**64,
    error: type[ValidationError] = ValidationError,
) -> int:
    """Give ``value`` back if it is an int in ``least..below - 1``.

    Raises:
        ValidationError, or the kind given as ``error``: it is not; bool, float and text are no ints.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{field} must be a whole number, not {kind_of(value)}", field=field)
    if not least <= value < below:
        shown = str(value) if value.bit_length() < 300 else f"one of {value.bit_length()} bits"
        most = f"2**{below.bit_length() - 1} - 1" if below & (below - 1) == 0 else str(below - 1)
        raise error(f"{field} must be between {least} and {most}, not {shown}", field=field)
    return value


def check_text(value: object, field: str, *, error: type[ValidationError] = ValidationError) -> str:
    """Give ``value`` back if it is text of at least one character, which UTF-8 can write.

    Raises:
        ValidationError, or the kind given as ``error``: it is not.
    """
    if not isinstance(value, str):
        raise error(f"{field} must be text, not {kind_of(value)}", field=field)
    if not value:
        raise error(f"{field} is empty", field=field)
    return check_writable(value, field, error=error)


def check_writable(text: str, field: str, *, error: type[ValidationError] = ValidationError) -> str:
    """Give ``text`` back if UTF-8 can write it: half of a surrogate pair is text to Python, and to nobody else.

    Raises:
        ValidationError, or the kind given as ``error``: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise error(
            f"{field} is no Unicode text: character {broken.start} is half of a pair",
            field=field,
            position=broken.start,
        ) from broken
    return text


def check_bytes(
    value: object, field: str, *, length: int | None = None, error: type[ValidationError] = ValidationError
) -> bytes:
    """Give ``value`` back if it is bytes, of ``length`` if that is given.

    Raises:
        ValidationError, or the kind given as ``error``: it is not.
    """
    if not isinstance(value, bytes):
        raise error(
            f"{field} must be bytes, not {kind_of(value)}",
            field=field,
            hint="for hexadecimal text, bytes.fromhex(text without 0x)" if isinstance(value, str) else None,
        )
    if length is not None and len(value) != length:
        raise error(f"{field} must be {length} bytes, not {len(value)}", field=field)
    return value


def kind_of(value: object) -> str:
    """The type of what was given instead. Never the value: it may be a secret, or very long."""
    return type(value).__name__
