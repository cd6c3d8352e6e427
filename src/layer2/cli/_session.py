"""Opens what commands work on: a manager, or one that only reads and so can run beside a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from layer2 import ConfigurationError, InitializationError, Layer2Manager, StoreConfig, TransferState
from layer2.cli._text import utc

if TYPE_CHECKING:
    from layer2 import Layer2Config, Transfer
    from layer2.cli._cli import Cli

__all__ = ["GONE", "driver", "reader", "unfinished", "writer"]

GONE: Final = "the embedded network ends with this command, and what was begun on it with it"


@asynccontextmanager
async def writer(cli: Cli, config: Layer2Config | None = None) -> AsyncIterator[Layer2Manager]:
    """A manager on the configured store, initialised. Leaving it says what is unfinished, and by when it must run again."""
    async with Layer2Manager(cli.config if config is None else config) as manager:
        try:
            with cli.working("connecting"):
                await manager.initialize_all_async()
            yield manager
        finally:
            await _say_unfinished(cli, manager)


@asynccontextmanager
async def driver(cli: Cli) -> AsyncIterator[Layer2Manager]:
    """A ``writer`` that drives what is unfinished."""
    async with writer(cli) as manager:
        config = cli.config
        drives = config.is_embedded or (config.bob is not None and config.signer is not None)
        if not drives and manager.health().unfinished_transfers:
            raise ConfigurationError(
                "what is unfinished needs BOB with a signer", key="signer", hint="add [bob] and [signer]"
            )
        yield manager


@asynccontextmanager
async def reader(
    cli: Cli, config: Layer2Config | None = None, *, partly: bool = False
) -> AsyncIterator[tuple[Layer2Manager, InitializationError | None]]:
    """A manager that has a store of its own, in memory: nothing is driven and nothing is written.

    ``partly``: layers that do not start are given back as an error instead of raised.
    """
    config = (cli.config if config is None else config).with_changes(store=StoreConfig(url="sqlite://"))
    async with Layer2Manager(config) as manager:
        failed = None
        with cli.working("connecting"):
            try:
                await manager.initialize_all_async()
            except InitializationError as error:
                if not partly:
                    raise
                failed = error
        yield manager, failed


async def unfinished(manager: Layer2Manager) -> list[Transfer]:
    """Transfers whose outcome for the user is not decided, those with the nearest deadline first."""
    if not manager.health().unfinished_transfers:
        return []
    found = [t async for t in manager.transfers_async() if not t.state.is_final]
    return sorted(found, key=lambda transfer: (transfer.act_by is None, transfer.act_by or 0))


async def _say_unfinished(cli: Cli, manager: Layer2Manager) -> None:
    for transfer in await unfinished(manager):
        if cli.config.is_embedded:
            cli.note(f"transfer {transfer.id} is not finished ({transfer.state.value}): {GONE}")
        elif transfer.state is TransferState.NEEDS_ATTENTION:
            cli.note(f"transfer {transfer.id} needs attention: {transfer.reason or 'see the runbook'}")
        elif transfer.act_by is not None:
            cli.note(
                f"transfer {transfer.id} is not finished ({transfer.state.value}) and goes on when layer2 runs. "
                f"Run it again by {utc(transfer.act_by)}: layer2 transfers resume {transfer.id} --until-done"
            )
        else:
            cli.note(f"transfer {transfer.id} is not finished ({transfer.state.value}); nothing of yours is bound")
