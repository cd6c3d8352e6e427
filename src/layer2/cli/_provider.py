"""``layer2 provider``: offer swaps to others."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import typer

from layer2.cli._cli import Cli
from layer2.cli._command import command
from layer2.cli._signals import on_signals
from layer2.cli._text import utc

if TYPE_CHECKING:
    from layer2.provider import ProviderDaemon

__all__ = ["app"]

app = typer.Typer(name="provider", help="Offer swaps: a daemon over your node and your account.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Offer swaps: a daemon over your node and your account."""


@command(app, "serve")
def serve(cli: Cli) -> Coroutine[Any, Any, None]:
    """Serve swaps over HTTP until stopped (Ctrl-C, SIGTERM). Open swaps stay in the store: start again before their deadlines."""
    from layer2.provider import ProviderDaemon

    return _serve(cli, ProviderDaemon(cli.config))


async def _serve(cli: Cli, daemon: ProviderDaemon) -> None:
    with cli.working("starting"):
        await daemon.start()
    with on_signals(signal.SIGINT, signal.SIGTERM, action=daemon.stop):
        try:
            cli.emit({"event": "ready", "url": daemon.url, "open_swaps": daemon.runtime.inventory.active})
            cli.say(f"listening on {daemon.url} (description of the interface: {daemon.url}/docs)")
            cli.say(f"{daemon.runtime.inventory.active} swap(s) open. Ctrl-C stops it in order.")
            await daemon.serve()
        finally:
            await _close(cli, daemon)


async def _close(cli: Cli, daemon: ProviderDaemon) -> None:
    open_swaps = daemon.runtime.inventory.active
    await daemon.close()
    by = daemon.run_again_by
    cli.emit({"event": "stopped", "open_swaps": open_swaps, "run_again_by": by})
    if by is not None:
        cli.note(f"{open_swaps} swap(s) are open: start the provider again by {utc(by)}")
    elif open_swaps:
        cli.note(f"{open_swaps} swap(s) are open, but nothing of yours is bound yet")
