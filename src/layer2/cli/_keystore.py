"""``layer2 keystore``: the encrypted file in which the key of an account on BOB lies."""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from layer2 import Secret, ValidationError
from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.signers import LocalSigner, keystore_address, load_keystore, save_keystore

__all__ = ["app"]

_LONGEST_KEY = 4096
_File = Annotated[Path, typer.Argument(metavar="[FILE]", help="The keystore file.")]
_PasswordFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Read the password from FILE instead of asking for it.")
]

app = typer.Typer(name="keystore", help="Make and read the encrypted file of your account's key.", no_args_is_help=True)


@command(app, "new", settings=False)
def new(
    cli: Cli, file: _File = Path("keystore.json"), password_file: _PasswordFile = None
) -> Coroutine[Any, Any, None]:
    """Make a fresh random key and write it, encrypted, to FILE. A file that is there is never replaced."""
    return _save(
        cli, file.absolute(), LocalSigner.generate(), _password(cli, password_file, new=True), _absolute(password_file)
    )


@command(app, "import", settings=False)
def import_key(
    cli: Cli,
    file: _File = Path("keystore.json"),
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the key from FILE; - is standard input. By default it is asked for."),
    ] = None,
    password_file: _PasswordFile = None,
) -> Coroutine[Any, Any, None]:
    """Encrypt a private key that you have (64 hexadecimal digits) to FILE. The key is never an argument: others could see it."""
    signer = LocalSigner.from_hex(_key(cli, key_file))
    return _save(cli, file.absolute(), signer, _password(cli, password_file, new=True), _absolute(password_file))


@command(app, "show", settings=False)
def show(
    cli: Cli,
    file: _File = Path("keystore.json"),
    check: Annotated[bool, typer.Option("--check", help="Open it with the password.")] = False,
    password_file: _PasswordFile = None,
) -> Coroutine[Any, Any, None]:
    """Show the account that a keystore file is of. With --check it is opened, which shows that the password is right."""
    opened = check or password_file is not None
    return _show(cli, file.absolute(), _password(cli, password_file, new=False) if opened else None)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


async def _show(cli: Cli, file: Path, password: str | None) -> None:
    address = await keystore_address(file) if password is None else (await load_keystore(file, password)).address
    cli.emit({"path": str(file), "address": str(address), "checked": password is not None})
    cli.say(str(address))


async def _save(cli: Cli, file: Path, signer: LocalSigner, password: str, password_file: Path | None) -> None:
    with cli.working("encrypting"):
        await save_keystore(file, signer, password)
    cli.emit({"path": str(file), "address": str(signer.address)})
    cli.say(str(signer.address))
    source = '{ env = "LAYER2_PASSWORD" }'
    if password_file is not None:
        source = f"{{ file = {json.dumps(str(password_file))} }}"
    cli.say(f"wrote {file}. Keep copies of it and of its password: without both the account is lost. In the settings:")
    cli.say(f"[signer]\nkeystore = {json.dumps(str(file))}\npassword = {source}")


def _password(cli: Cli, file: Path | None, *, new: bool) -> str:
    if file is not None:
        return Secret.from_file(file, key="--password-file").reveal()
    if not cli.asks:
        raise ValidationError(
            "nobody is there to be asked for the password", field="--password-file", hint="name it with --password-file"
        )
    password: str = typer.prompt("password of the keystore", hide_input=True, confirmation_prompt=new, err=True)
    if new and password != password.strip():
        raise ValidationError(
            "the password begins or ends with white space, which settings do not keep", field="password"
        )
    return password


def _key(cli: Cli, file: Path | None) -> str:
    if file is not None and str(file) != "-":
        return Secret.from_file(file, key="--key-file").reveal()
    if file is None and cli.asks:
        asked: str = typer.prompt("private key (64 hexadecimal digits)", hide_input=True, err=True)
        return asked
    if sys.stdin.isatty():
        raise ValidationError("nobody is there to be asked for the key", field="--key-file", hint="give --key-file")
    return sys.stdin.read(_LONGEST_KEY)
