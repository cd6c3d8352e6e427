"""Turns a function into a command: the options that all commands share, the event loop, and errors into exit codes."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from layer2 import Layer2Error
from layer2.cli._cli import Cli
from layer2.cli._exit import ExitCode, code_for
from layer2.cli._signals import on_signals

__all__ = ["command"]

_EXTRAS: Final = {
    "devnet": {"eth", "eth_tester", "eth_utils", "rlp", "trie"},
    "provider": {"fastapi", "prometheus_client", "starlette", "uvicorn"},
    "postgres": {"psycopg"},
}
_EXACT: Final = 2**53
_SHARED: Final[dict[str, tuple[Any, Any]]] = {
    "json_output": (
        Annotated[bool, typer.Option("--json", help="Write JSON for programs to standard output, and nothing else.")],
        False,
    ),
    "config_path": (
        Annotated[
            Path | None,
            typer.Option("--config", "-c", metavar="FILE", help="Settings file instead of the usual places."),
        ],
        None,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Log everything to standard error; full trace of errors.")],
        False,
    ),
}


def command(
    app: typer.Typer, name: str, *, settings: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Add a function to ``app``. It takes a ``Cli`` first, and may give a coroutine, which is run.

    A returned ``ExitCode`` is the command's; errors of layer2 have theirs. ``settings``: it needs them, so they are read before an
    event loop runs.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        kept = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for key, (kind, default) in _SHARED.items()
        ]

        def run(**arguments: Any) -> None:
            options = {key: arguments.pop(key) for key in _SHARED}
            code = _run(Cli(**options), function, arguments, settings=settings)
            if code is not ExitCode.OK:
                raise typer.Exit(code)

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
        made: Any = run
        # What ``inspect.signature`` reads, and typer by it.
        made.__signature__ = inspect.Signature([*keyword, *shared])
        made.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword, *shared]}
        made.__name__, made.__doc__ = function.__name__, inspect.getdoc(function)
        app.command(name)(run)
        return run

    return decorate


def _run(cli: Cli, function: Callable[..., Any], arguments: dict[str, Any], *, settings: bool) -> ExitCode:
    if cli.debug:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        logging.getLogger("layer2").setLevel(logging.DEBUG)
    try:
        if settings:
            _ = cli.config
        result = function(cli, **arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(_until_terminated(cli, result))
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        cli.fail("interrupted", hint=None, code=ExitCode.INTERRUPTED, details={"type": "KeyboardInterrupt"})
        return ExitCode.INTERRUPTED
    except asyncio.CancelledError:
        cli.fail("terminated", hint=None, code=ExitCode.TERMINATED, details={"type": "SIGTERM"})
        return ExitCode.TERMINATED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a user gets a message, not a stack trace
        return _explain(cli, error)
    return result if isinstance(result, ExitCode) else ExitCode.OK


async def _until_terminated(cli: Cli, work: Coroutine[Any, Any, Any]) -> Any:
    """SIGTERM ends a command as Ctrl-C does: what is open is closed in order."""
    task = asyncio.current_task()
    assert task is not None

    def terminate() -> None:
        cli.terminated = True
        task.cancel()

    with on_signals(signal.SIGTERM, action=terminate):
        return await work


def _explain(cli: Cli, error: Exception) -> ExitCode:
    if cli.debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, Layer2Error):
        code = code_for(error)
        details = {
            "type": type(error).__name__,
            "money_may_have_moved": error.money_may_have_moved,
            "retry_safe": error.retry_safe,
            "fields": {key: _field(value) for key, value in error.fields().items() if key != "quote"},
        }
        cli.fail(error.message, hint=error.hint, code=code, details=details)
        return code
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_of(error.name)) is not None:
        install = f"pip install 'layer2[{extra}]'"
        message = f"this command needs packages that are not installed ({error.name})"
        cli.fail(message, hint=install, code=ExitCode.CONFIGURATION, details={"type": "ModuleNotFoundError"})
        return ExitCode.CONFIGURATION
    hint = None if cli.debug else "run it again with --debug for the full trace"
    message = f"unexpected {type(error).__name__}: {error}"
    cli.fail(message, hint=hint, code=ExitCode.UNEXPECTED, details={"type": type(error).__name__})
    return ExitCode.UNEXPECTED


def _field(value: object) -> bool | int | str:
    """A field of an error: whole numbers that every JSON parser keeps exactly stay numbers."""
    return value if isinstance(value, int) and abs(value) < _EXACT else str(value)


def _extra_of(module: str | None) -> str | None:
    root = (module or "").partition(".")[0]
    return next((extra for extra, modules in _EXTRAS.items() if root in modules), None)
