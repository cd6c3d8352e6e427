"""From files, variables and arguments to a checked ``Layer2Config``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from layer2._config_convert import Source, convert, inline_secrets
from layer2._config_environment import FILE_VARIABLE, PREFIX, from_environment, name_variable, refuse_near_misses
from layer2._config_file import ALLOW_FOREIGN, check_not_writable, read_settings
from layer2._config_secret import check_not_readable
from layer2.errors import ConfigurationError

if TYPE_CHECKING:
    from layer2.assets import AssetRegistry
    from layer2.config import Layer2Config
    from layer2.terms import ChainTiming

__all__ = [
    "asset_registry",
    "build",
    "chain_timing",
    "check_settings",
    "check_timing_names",
    "data_folder",
    "given_settings",
    "load",
]

C = TypeVar("C", bound="Layer2Config")

BOB_MAINNET_BTC = "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"


def data_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the user's stores lie by default."""
    return _folder("XDG_DATA_HOME", ".local/share", os.environ if environ is None else environ)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the user's ``layer2.toml`` lies by default."""
    return _folder("XDG_CONFIG_HOME", ".config", os.environ if environ is None else environ)


def _folder(variable: str, default: str, environ: Mapping[str, str]) -> Path:
    named = environ.get(variable)
    return (Path(named) if named else Path(environ.get("HOME") or Path.home()) / default) / "layer2"


def load(cls: type[C], path: str | Path | None, environ: Mapping[str, str] | None, overrides: Mapping[str, Any]) -> C:
    """See ``Layer2Config.load``."""
    environ = os.environ if environ is None else environ
    file = _find_file(path, environ)
    from_variables = from_environment(cls, environ)
    # What the file itself says of that does not count.
    foreign = _merge(from_variables, overrides).get(ALLOW_FOREIGN, False) in (True, "true")
    from_file = {} if file is None else read_settings(file, allow_foreign=foreign)
    below = _merge(from_file, from_variables)
    settings = _merge(below, overrides)
    refuse_near_misses(cls, environ, settings)
    if not settings and file is None:
        raise ConfigurationError(
            "nothing is configured: no layer2.toml in this folder or in "
            f"{config_folder(environ)}, no {FILE_VARIABLE}, no {PREFIX}... variables",
            hint="run `layer2 init` to write one, or use Layer2Config.embedded() to try it out in this process",
        )
    base = Path.cwd() if file is None else file.parent
    config = build(
        cls,
        settings,
        base=base,
        path=file,
        environ=environ,
        is_argument=lambda key: _is_argument(key, overrides, below),
    )
    if file is not None:
        for key in inline_secrets(cls, from_file):
            check_not_readable(file, key=key, allow_readable=config.allow_readable_secrets)
    keystore = None if config.signer is None else config.signer.keystore
    if keystore is not None and keystore.is_file():
        # Whoever can read it can guess passwords at leisure.
        check_not_readable(keystore, key="signer.keystore", allow_readable=config.allow_readable_secrets)
    certificate = None if config.lightning is None else config.lightning.tls_cert
    for named, key in ((keystore, "signer.keystore"), (certificate, "lightning.tls_cert")):
        if named is not None and named.is_file():
            check_not_writable(named, key=key, allow_foreign=config.allow_foreign_files)
    return config


def given_settings(config: Layer2Config | None, *, needed: bool) -> Layer2Config | None:
    """The settings that were given, or read from the usual places if there are none and some are needed.

    Raises:
        ConfigurationError: as ``Layer2Config.load`` and ``check_settings`` do.
    """
    if config is not None:
        check_settings(config)
    elif needed:
        from layer2.config import Layer2Config

        config = Layer2Config.load()
    return config


def check_settings(config: object) -> None:
    """Refuse what is no ``Layer2Config``, such as the name of a file.

    Raises:
        ConfigurationError: it is something else; the hint says how to read settings.
    """
    from layer2.config import Layer2Config

    if not isinstance(config, Layer2Config):
        how = '"layer2.toml"' if isinstance(config, str | Path) else "..."
        raise ConfigurationError(
            f"config must be a Layer2Config, not {type(config).__name__}", hint=f"write Layer2Config.load({how})"
        )


def build(
    cls: type[C],
    settings: Mapping[str, Any],
    *,
    base: Path,
    path: Path | None,
    environ: Mapping[str, str] | None = None,
    is_argument: Callable[[str], bool] = lambda _: False,
) -> C:
    """Make the value from nested settings; ``base`` is the folder to which relative paths belong."""
    source = Source(
        base=base,
        environ=os.environ if environ is None else environ,
        allow_readable=settings.get("allow_readable_secrets", False) in (True, "true"),
        allow_foreign=settings.get(ALLOW_FOREIGN, False) in (True, "true"),
    )
    try:
        config: C = convert(cls, settings, "", source)
    except ConfigurationError as error:
        if error.key and is_argument(error.key):
            error.message = f"argument {error.key.partition('.')[0]}: {error.message}"
            error.args = (error.message,)
        else:
            name_variable(error, settings, None if path is None else str(path))
        raise
    return config


def _is_argument(key: str, arguments: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether an argument alone is at fault for what is wrong with a setting; ``below`` is what the other sources say."""
    node: Any = arguments
    names = key.split(".")
    for name in names:
        if not isinstance(node, Mapping) or name not in node:
            break
        node = node[name]
    return names[0] in arguments and (names[0] not in below or not isinstance(node, Mapping))


def _find_file(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigurationError(
                f"there is no settings file {file}", path=str(file), hint="run `layer2 init` to write one"
            )
        return file.absolute()
    if named := environ.get(FILE_VARIABLE):
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigurationError(f"{FILE_VARIABLE} names {file}, which is no file", path=str(file))
        return file.absolute()
    for file in (Path("layer2.toml"), config_folder(environ) / "layer2.toml"):
        if file.is_file():
            return file.absolute()
    return None


def _merge(lower: Mapping[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, but a table that stands for a secret replaces another as a whole."""
    merged = dict(lower)
    for key, value in higher.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not {"file", "env"} & {*old, *value}:
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def check_timing_names(timing: Mapping[str, int]) -> None:
    """Refuse constants that ``ChainTiming`` does not have, or that a number cannot stand for.

    Raises:
        ConfigurationError: there is one.
    """
    from layer2.terms import ChainTiming

    known = [item.name for item in fields(ChainTiming) if item.name != "name"]
    for name in timing:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"provider.timing.{name} is no constant of the timing",
                key=f"provider.timing.{name}",
                hint=f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}",
            )


def chain_timing(config: Layer2Config) -> ChainTiming:
    """See ``Layer2Config.chain_timing``."""
    from layer2.swaps._deadlines import BOB_TIMING, DEVNET_TIMING, check_timing

    preset = BOB_TIMING if config.network in ("bob", "bob-sepolia") else DEVNET_TIMING
    changes: dict[str, Any] = dict(config.provider.timing) if config.provider is not None else {}
    try:
        return check_timing(replace(preset, **changes))
    except ValueError as error:
        raise ConfigurationError(f"provider.timing is unsafe: {error}", key="provider.timing") from error


def asset_registry(config: Layer2Config) -> AssetRegistry:
    """See ``Layer2Config.asset_registry``."""
    from layer2.addresses import EvmAddress
    from layer2.assets import BTC, ETH, AssetForm, AssetId, AssetRegistry

    chain_id = config.chain_id
    registry = AssetRegistry([AssetForm(asset=ETH, chain_id=chain_id, contract=None, decimals=18)])
    if config.network == "bob" and (config.bob is None or config.bob.chain == "bob"):
        token = EvmAddress.parse(BOB_MAINNET_BTC)
        registry = registry.with_form(AssetForm(asset=BTC, chain_id=chain_id, contract=token, decimals=8))
    for name, asset in config.assets.items():
        preset = {BTC.name: BTC.decimals, ETH.name: ETH.decimals}.get(name)
        decimals = asset.decimals if asset.decimals is not None else preset or 8
        if preset is not None and decimals != preset:
            key = f"assets.{name}.decimals"
            raise ConfigurationError(f"{key}: {name} has {preset}, not {decimals}", key=key)
        registry = registry.with_form(
            AssetForm(
                asset=AssetId(name=name, decimals=decimals),
                chain_id=chain_id,
                contract=asset.contract,
                decimals=decimals if asset.contract_decimals is None else asset.contract_decimals,
            )
        )
    return registry
