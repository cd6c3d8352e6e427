"""Strict conversion of nested settings to the dataclasses of ``layer2.config``: right type or an error that names the key."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from layer2._config_secret import Secret, read_secret_file
from layer2.addresses import EvmAddress
from layer2.errors import AddressError, ConfigurationError

__all__ = ["EnvText", "Source", "arms", "convert", "hints", "inline_secrets", "settle"]

_WHOLE = re.compile(r"[+-]?[0-9][0-9_]*", re.ASCII)
_NAMES: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    Path: "the path of a file",
    Secret: 'text, { file = "..." } or { env = "..." }',
    EvmAddress: "an EVM address (0x...)",
}


class EnvText(str):
    """Text of an environment variable: it may stand for a number or a truth value where one is needed."""

    __slots__ = ("variable",)

    variable: str
    """The variable's name."""

    @classmethod
    def of(cls, variable: str, text: str) -> Self:
        """The text of ``variable``."""
        made = cls(text)
        made.variable = variable
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where settings come from, as far as their values depend on it."""

    base: Path
    environ: Mapping[str, str]
    allow_readable: bool
    allow_foreign: bool


def hints(cls: Any) -> dict[str, Any]:
    """Field name -> resolved annotation, of a dataclass."""
    return get_type_hints(cls)


def convert(kind: Any, value: Any, key: str, source: Source, *, sensitive: bool = False) -> Any:
    """Give ``value`` as a ``kind``.

    Raises:
        ConfigurationError: it is none; ``key`` says which setting.
    """
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _union([arm for arm in get_args(kind) if arm is not NoneType], value, key, source, sensitive=sensitive)
    if origin is Literal:
        if value in get_args(kind):
            return str(value)
        raise _wrong(_name(kind), value, key)
    if origin is tuple:
        return _sequence(get_args(kind)[0], value, key, source)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        arm = get_args(kind)[1]
        return {name: convert(arm, item, f"{key}.{name}", source) for name, item in _table(value, key).items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not EvmAddress:
        return value if isinstance(value, kind) else _section(kind, value, key, source)
    return _scalar(kind, value, key, source, sensitive=sensitive)


def _union(arms: list[Any], value: Any, key: str, source: Source, *, sensitive: bool) -> Any:
    if len(arms) == 1:
        return convert(arms[0], value, key, source, sensitive=sensitive)
    if int in arms and (isinstance(value, int) or (isinstance(value, EnvText) and _WHOLE.fullmatch(value))):
        return convert(int, value, key, source)
    if str in arms and isinstance(value, str):
        return str(value)
    raise _wrong(" or ".join(_NAMES.get(arm, str(arm)) for arm in arms), value, key)


def _sequence(arm: Any, value: Any, key: str, source: Source) -> tuple[Any, ...]:
    if isinstance(value, EnvText):
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise _wrong("a TOML list", value, key) from None
    if not isinstance(value, list | tuple):
        raise _wrong("a list", value, key)
    return tuple(convert(arm, item, f"{key}.{index}", source) for index, item in enumerate(value))


def _table(value: Any, key: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise _wrong("a section", value, key)


def _section(kind: type[Any], value: Any, key: str, source: Source) -> Any:
    table = _table(value, key)
    known = {item.name: item for item in dataclasses.fields(kind)}
    arguments = {}
    for name, item in table.items():
        dotted = f"{key}.{name}" if key else name
        if name not in known:
            raise _unknown(name, dotted, known)
        sensitive = bool(known[name].metadata.get("sensitive"))
        arguments[name] = convert(hints(kind)[name], item, dotted, source, sensitive=sensitive)
    for name, item in known.items():
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if needed and name not in arguments:
            raise ConfigurationError(f"{key}.{name} is missing", key=f"{key}.{name}")
    try:
        return kind(**arguments)
    except ConfigurationError as error:
        _put_in_place(error, key)
        raise


def _put_in_place(error: ConfigurationError, key: str) -> None:
    """A section does not know under which name, or at which place of a list, it stands."""
    section, _, name = (error.key or "").rpartition(".")
    if key.startswith(f"{section}."):
        error.key = f"{key}.{name}"
        error.message = error.message.replace(f"{section}.{name}", error.key, 1)
        error.args = (error.message,)


def _unknown(name: str, dotted: str, known: Mapping[str, Any]) -> ConfigurationError:
    close = difflib.get_close_matches(name, known, n=1)
    return ConfigurationError(
        f"unknown setting {dotted}",
        key=dotted,
        hint=f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}",
    )


def _scalar(kind: Any, value: Any, key: str, source: Source, *, sensitive: bool) -> Any:
    if isinstance(value, EnvText) and kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, EnvText) and kind is int and _WHOLE.fullmatch(value):
        return int(value)
    if kind is Secret:
        return value if isinstance(value, Secret) else _secret(value, key, source)
    if kind is str and sensitive and isinstance(value, Mapping):
        return _secret(value, key, source).reveal()
    if kind is Path and isinstance(value, str | Path):
        return source.base / Path(value).expanduser()
    if kind is EvmAddress and isinstance(value, str):
        try:
            return EvmAddress.parse(value)
        except AddressError as error:
            raise ConfigurationError(f"{key}: {error}", key=key) from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(_NAMES[kind], value, key, hide=sensitive)
    return str(value) if kind is str else value


def _secret(value: Any, key: str, source: Source) -> Secret:
    if isinstance(value, str):
        return Secret(str(value))
    if not isinstance(value, Mapping) or len(value) != 1 or not value.keys() <= {"file", "env"}:
        raise _wrong(_NAMES[Secret], value, key, hide=True)
    ((where, name),) = value.items()
    if not isinstance(name, str):
        raise _wrong(_NAMES[Secret], value, key, hide=True)
    if where == "env":
        if not source.environ.get(name):
            raise ConfigurationError(
                f"{key}: the environment variable {name} is not set",
                key=key,
                hint=f'set it, or write {{ file = "..." }} for {key}',
            )
        return Secret(source.environ[name], origin=("env", name))
    path = source.base / Path(name).expanduser()
    content = read_secret_file(path, key=key, allow_readable=source.allow_readable, allow_foreign=source.allow_foreign)
    return Secret(content, origin=("file", str(path)))


def _wrong(wanted: str, value: Any, key: str, *, hide: bool = False) -> ConfigurationError:
    """Secrets are typed too, so what stands in their place is described by its type alone."""
    shown = f"{value!r:.60}" if not hide and isinstance(value, str | int | float | bool) else ""
    kind = "str" if isinstance(value, str) else type(value).__name__
    return ConfigurationError(f"{key} must be {wanted}, not {kind} {shown}".rstrip(), key=key)


def settle(kind: Any, value: Any, key: str, *, sensitive: bool = False) -> Any:
    """Give ``value``, from Python, as a ``kind``. Only text for a ``Secret`` or a ``Path`` and a list for a tuple are changed.

    Raises:
        ConfigurationError: it is neither; ``key`` says which setting.
    """
    found = arms(kind)
    if value is None and NoneType in found:
        return None
    wanted: list[Any] = [arm for arm in found if arm is not NoneType]
    if Secret in wanted and isinstance(value, str | bytes):
        return Secret(value)
    if Path in wanted and isinstance(value, str):
        return Path(value).expanduser()
    for arm in wanted:
        origin = get_origin(arm)
        if origin is Literal and isinstance(value, str) and value in get_args(arm):
            return value
        if origin is tuple and isinstance(value, list | tuple):
            return tuple(settle(get_args(arm)[0], item, f"{key}.{index}") for index, item in enumerate(value))
        if origin is Mapping and isinstance(value, Mapping):
            return {name: settle(get_args(arm)[1], item, f"{key}.{name}") for name, item in value.items()}
        if origin is None and isinstance(value, arm) and (arm is bool or not isinstance(value, bool)):
            return value
    error = _wrong(" or ".join(map(_name, wanted)), value, key, hide=sensitive or Secret in wanted)
    section = wanted[0]
    if isinstance(value, Mapping) and hasattr(section, "__dataclass_fields__") and section is not EvmAddress:
        error.hint = f"write {section.__name__}(...); mappings are for Layer2Config.load"
    raise error


def _name(arm: Any) -> str:
    if get_origin(arm) is Literal:
        return " or ".join(repr(choice) for choice in get_args(arm))
    if get_origin(arm) is not None:
        return "a list" if get_origin(arm) is tuple else "a section"
    return _NAMES.get(arm) or f"a {arm.__name__}"


def inline_secrets(kind: Any, table: Mapping[str, Any], key: str = "") -> Iterator[str]:
    """The dotted names of the settings in ``table`` that hold a secret in plain text."""
    for name, value in table.items():
        found = arms(hints(kind).get(name))
        dotted = f"{key}.{name}" if key else name
        if isinstance(value, Mapping):
            for arm in found:
                if dataclasses.is_dataclass(arm):
                    yield from inline_secrets(arm, value, dotted)
        elif isinstance(value, str) and (Secret in found or (str in found and _has_password(value))):
            yield dotted


def arms(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _has_password(text: str) -> bool:
    try:
        return urlsplit(text).password is not None
    except ValueError:
        return False
