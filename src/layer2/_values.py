"""What all public values share: lossless JSON, a JSON schema, and the markers that say how a field is written.

Values are frozen, slotted, keyword-only dataclasses. pydantic does the JSON work and is imported when it is first needed, never by
``import layer2``: the markers below only name its hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from layer2.errors import ValidationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Bytes", "Uint", "Value"]

MAX_JSON_BYTES = 16 * 1024 * 1024
"""Longest JSON text that ``from_json`` looks at."""


class _UintMarker:
    """Whole numbers >= 0, in JSON as decimal strings: JavaScript and many parsers lose digits past 2**53."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(
            int, core_schema.str_schema(pattern=r"^(0|[1-9][0-9]{0,77})$", strict=True)
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.int_schema(ge=0, strict=True),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": "^(0|[1-9][0-9]{0,77})$"}


class _BytesMarker:
    """Bytes, in JSON as lower-case hexadecimal without prefix."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(
            bytes.fromhex, core_schema.str_schema(pattern=r"^([0-9a-f]{2})*$", strict=True)
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.bytes_schema(strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(bytes.hex, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": "^([0-9a-f]{2})*$"}


Uint: TypeAlias = Annotated[int, _UintMarker()]
Bytes: TypeAlias = Annotated[bytes, _BytesMarker()]


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    adapter = _adapters.get(cls)
    if adapter is None:
        from pydantic import TypeAdapter

        adapter = _adapters[cls] = TypeAdapter(cls)
    return adapter


class Value:
    """Base of the public values: ``to_json``, ``from_json`` and ``json_schema``."""

    __slots__ = ()

    def to_json(self) -> str:
        """JSON text from which ``from_json`` makes an equal value. Amounts are decimal strings, bytes are hexadecimal."""
        return _adapter(type(self)).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValidationError: not JSON, an unknown or missing field, a wrong type; ``field`` says where.
        """
        from pydantic import ValidationError as PydanticError

        if not isinstance(text, str | bytes):
            raise ValidationError(f"{cls.__name__}: JSON is text, not {type(text).__name__}", field="text")
        if len(text) > MAX_JSON_BYTES:
            raise ValidationError(f"{cls.__name__}: {len(text)} bytes of JSON is more than {MAX_JSON_BYTES}")
        try:
            value: Self = _adapter(cls).validate_json(text, extra="forbid")
        except PydanticError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise ValidationError(f"{cls.__name__}: {where}: {first['msg']}", field=where) from error
        return value

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema (draft 2020-12) of what ``to_json`` writes."""
        return _adapter(cls).json_schema(mode="serialization")
