"""Settings from environment variables, which variable an error is about, and a refusal of names that were meant to be settings."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from layer2._config_convert import EnvText, arms, hints
from layer2._config_secret import Secret
from layer2.errors import ConfigurationError

__all__ = ["FILE_VARIABLE", "PREFIX", "from_environment", "name_variable", "refuse_near_misses"]

PREFIX: Final = "LAYER2_"
FILE_VARIABLE: Final = "LAYER2_CONFIG"
_NOT_SETTINGS: Final = {
    FILE_VARIABLE,
    "LAYER2_ANVIL",
    "LAYER2_BENCH_PEERS",
    "LAYER2_BTCD",
    "LAYER2_CACHE",
    "LAYER2_LND",
    "LAYER2_PASSWORD",
}
"""Variables of this package that are no settings; the last is what ``layer2 init`` writes as the keystore's password."""
_OF_A_CONTAINER_PLATFORM: Final = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|(?P<url>PORT))", re.ASCII
)
"""Kubernetes gives every container such variables for each service, whatever that is called."""


def from_environment(cls: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """The nested settings that stand in variables.

    Raises:
        ConfigurationError: one variable gives a value where another gives a section.
    """
    known = {item.name for item in dataclasses.fields(cls)}
    settings: dict[str, Any] = {}
    for name in sorted(environ):
        keys = _keys(name)
        if not keys or (len(keys) == 1 and keys[0] not in known):
            continue
        table = settings
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ConfigurationError(
                    f"the variable {name} contradicts a shorter one", key=".".join(keys), variable=name
                )
        table[keys[-1]] = EnvText.of(name, environ[name])
    return settings


def _keys(name: str) -> list[str]:
    """The way to a setting; empty if the name has not the form of one. Settings are lower case, names of assets are not."""
    if not name.startswith(PREFIX) or name in _NOT_SETTINGS:
        return []
    parts = name.removeprefix(PREFIX).split("__")
    if "" in parts or parts[0].startswith("_"):
        return []
    section = parts[0].lower()
    return [section, *(p if section == "assets" and i == 0 else p.lower() for i, p in enumerate(parts[1:]))]


def refuse_near_misses(cls: Any, environ: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Refuse variables that set nothing but look as if they should: what was meant would silently not hold.

    Args:
        cls: the settings.
        environ: all variables.
        settings: what is in force; variables that it names for its secrets may be called anything.

    Raises:
        ConfigurationError: such a variable; the hint says what was probably meant.
    """
    known = {item.name for item in dataclasses.fields(cls)}
    for name in sorted({name for name in environ if name.startswith(PREFIX)} - _NOT_SETTINGS - set(_named(settings))):
        keys = _keys(name)
        if len(keys) > 1 or (keys and keys[0] in known):
            continue
        own = _OF_A_CONTAINER_PLATFORM.fullmatch(name.removeprefix(PREFIX))
        if own is not None and (own["url"] is None or "://" in environ[name]):
            continue
        if meant := _meant(cls, name):
            raise ConfigurationError(
                f"the variable {name} is no setting",
                key=name.removeprefix(PREFIX).lower(),
                hint=f"did you mean {' or '.join(meant)}? If it is not for layer2, give it a name that does not look so",
                variable=name,
            )


def _named(settings: Mapping[str, Any]) -> Iterator[str]:
    for value in settings.values():
        if isinstance(value, Mapping):
            if set(value) == {"env"}:
                yield str(value["env"])
            yield from _named(value)


def _meant(cls: Any, name: str) -> list[str]:
    """The variables that a name is close to."""
    paths = list(_paths(cls))
    flat = re.sub("_+", "_", name.removeprefix(PREFIX).lower()).strip("_")
    by_flat = {"_".join(path): _variable(path) for path in paths} | {"config": FILE_VARIABLE}
    if flat in by_flat:
        return [by_flat[flat]]
    if bare := [_variable(path) for path in paths if len(path) > 1 and "_".join(path[1:]) == flat]:
        return bare
    sections = {path[0] for path in paths if len(path) > 1} | {"assets"}
    section = next((section for section in sorted(sections) if flat.startswith(f"{section}_")), None)
    if section is not None:
        of_section = [key for key in by_flat if key.startswith(f"{section}_")]
        close = difflib.get_close_matches(flat, of_section, n=1)
        return [by_flat[key] for key in close] or [
            f"{_variable((section,))}__{'NAME__KEY' if section == 'assets' else 'KEY'}"
        ]
    return [by_flat[key] for key in difflib.get_close_matches(flat, by_flat, n=1, cutoff=0.8)]


def _paths(cls: Any) -> Iterator[tuple[str, ...]]:
    for item in dataclasses.fields(cls):
        section = next((arm for arm in arms(hints(cls)[item.name]) if dataclasses.is_dataclass(arm)), None)
        if section is None:
            yield (item.name,)
            continue
        for entry in dataclasses.fields(section):
            yield (item.name, entry.name)
            if Secret in arms(hints(section)[entry.name]):
                yield (item.name, entry.name, "file")
                yield (item.name, entry.name, "env")


def _variable(path: Iterable[str]) -> str:
    return PREFIX + "__".join(path).upper()


def name_variable(error: ConfigurationError, settings: Mapping[str, Any], path: str | None) -> None:
    """Say in ``error`` where the value came from that is wrong: a variable, the file at ``path``, or both."""
    variables, alone = _origin(error, settings)
    if variables:
        error.variable = ", ".join(variables)
    if not alone and error.path is None:
        error.path = path
    elif not variables:
        return
    sources = [] if alone or error.path is None else [error.path]
    if where := " with ".join([*sources, *([error.variable] if error.variable else [])]):
        error.message = f"{where}: {error.message}"
        error.args = (error.message,)


def _origin(error: ConfigurationError, settings: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The variables behind the setting that an error is about, and whether nothing else can be at fault."""
    node: Any = settings
    above: Mapping[str, Any] = {}
    names = (error.key or "").split(".")
    for depth, name in enumerate(names):
        if not isinstance(node, Mapping) or name not in node:
            break
        above, node = node, node[name]
        if isinstance(node, EnvText):
            return [node.variable], True
        if depth == len(names) - 1 and not isinstance(node, Mapping):
            # From the file. Where two settings contradict each other, the other one may be a variable's.
            others = {".".join([*names[:-1], key]): value for key, value in above.items()}
            return [v.variable for key, v in others.items() if isinstance(v, EnvText) and key in error.message], False
    values = [] if node is settings else list(_values(node))
    variables = [value.variable for value in values if isinstance(value, EnvText)]
    return variables, bool(values) and len(variables) == len(values)


def _values(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _values(value)
    else:
        yield node
