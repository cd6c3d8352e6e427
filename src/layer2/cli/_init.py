"""``layer2 init``: a settings file to start from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from layer2 import ConfigurationError, Layer2Config
from layer2.cli._cli import Cli
from layer2.cli._command import command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", settings=False)(init)


def init(
    cli: Cli,
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("layer2.toml"),
    network: Annotated[str, typer.Option(help="bob, bob-sepolia, devnet or embedded.")] = "bob",
    rpc_url: Annotated[str | None, typer.Option(help="BOB endpoint instead of the public one.")] = None,
    lnd_url: Annotated[str | None, typer.Option(help="REST endpoint of your lnd.")] = None,
    macaroon: Annotated[
        str, typer.Option(help="Its macaroon file.")
    ] = "~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon",
    tls_cert: Annotated[str, typer.Option(help="Its certificate.")] = "~/.lnd/tls.cert",
    provider_url: Annotated[str | None, typer.Option(help="The swap provider to use.")] = None,
    keystore: Annotated[str | None, typer.Option(help="Key file of your account on BOB; see layer2 keystore.")] = None,
    offer_swaps: Annotated[bool, typer.Option("--offer-swaps", help="Add the section of a provider.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented settings file. It never replaces one unless told to."""
    if network not in ("bob", "bob-sepolia", "devnet", "embedded"):
        raise typer.BadParameter(f"{network} is none of bob, bob-sepolia, devnet, embedded", param_hint="--network")
    text = Layer2Config.template(
        network=network,
        rpc_url=rpc_url,
        rest_url=lnd_url,
        macaroon_file=macaroon,
        tls_cert=tls_cert,
        provider_url=provider_url,
        keystore=keystore,
        provider=offer_swaps,
    )
    _write(path, text, force=force)
    cli.emit({"path": str(path.absolute()), "network": network})
    option = "" if path == Path("layer2.toml") else f" --config {shlex.quote(str(path))}"
    if network == "embedded":
        cli.say(
            f"wrote {path}; nothing else is needed: each command starts the embedded network anew, in its own process."
        )
        cli.say(f"next: layer2 transfer bob lightning 25000{option}")
        return
    cli.say(f"wrote {path}; what is commented out in it is to be filled in.")
    if keystore is None or not (path.parent / Path(keystore).expanduser()).exists():
        cli.say(
            f"next: layer2 keystore new{'' if keystore is None else f' {shlex.quote(keystore)}'}, for your account on BOB"
        )
    cli.say(f"then: layer2 doctor{option}, which says what is still missing")


def _write(path: Path, text: str, *, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{path} is there already", path=str(path), hint="name another file, or replace it with --force"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
