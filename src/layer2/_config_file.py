"""Reads a settings file, unless somebody else may have written it: whoever writes the settings has the account."""

from __future__ import annotations

import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

from layer2.errors import ConfigurationError

__all__ = ["ALLOW_FOREIGN", "check_not_writable", "read_settings"]

ALLOW_FOREIGN: Final = "allow_foreign_files"
_VARIABLE: Final = f"LAYER2_{ALLOW_FOREIGN.upper()}"


def read_settings(file: Path, *, allow_foreign: bool) -> dict[str, Any]:
    """The content of a settings file.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or is another user's, or every user of the machine may write it.
    """
    try:
        with file.open("rb") as opened:
            # Of what was opened: the name may stand for another file by now.
            status = os.fstat(opened.fileno())
            if not allow_foreign:
                _check_owner(file, status)
                _check_mode(file, status, key=None)
            content = opened.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", path=str(file)) from error
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The decoder's message holds no text of the file beyond one character, so no secret gets out with it.
        raise ConfigurationError(f"{file} is not TOML: {error}", path=str(file)) from error


def check_not_writable(path: Path, *, key: str, allow_foreign: bool) -> None:
    """Refuse a file that settings point to and that every user of the machine may write. Another user may own it, as a node does.

    Raises:
        ConfigurationError: others may write it, or it is missing.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{key}: cannot read {path}: {error.strerror}", key=key, path=str(path)) from error
    if not allow_foreign:
        _check_mode(path, status, key=key)


def _check_owner(file: Path, status: os.stat_result) -> None:
    own = os.geteuid()
    if status.st_uid not in (0, own):
        raise ConfigurationError(
            f"the settings file {file} belongs to {_name(status.st_uid)}, who could send your money anywhere: it was not read",
            path=str(file),
            hint=f"if you trust what it says: chown {_name(own)} {file}; if it is not yours, name your own file in LAYER2_CONFIG; "
            f"where files of another user are meant, as in some containers: {_VARIABLE}=true",
        )


def _check_mode(path: Path, status: os.stat_result, *, key: str | None) -> None:
    if not status.st_mode & stat.S_IWOTH:
        return
    if status.st_uid == 0 and os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    what = f"the settings file {path}" if key is None else f"{key}: {path}"
    raise ConfigurationError(
        f"{what} may be written by every user of this machine: it was not read",
        key=key,
        path=str(path),
        hint=f"look at what it holds, then chmod o-w {path}; "
        f"where such files cannot be had otherwise, as on some mounts: {_VARIABLE}=true",
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
