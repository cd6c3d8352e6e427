"""``layer2 backup`` and ``layer2 restore``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layer2 import ConfigurationError, StorageError, SystemClock, TransferState, UntrustedCopy, ValidationError
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode
from layer2.cli._text import utc
from layer2.connect import load_signer, provider_store_url
from layer2.storage import Store, StoreContents, StoredSwap, contents, copy_key, restore_copy, swaps
from layer2.swaps import Role
from layer2.transfers import act_by_of, state_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_to"]

_PAGE = 200
_OF_THE_PROVIDER = typer.Option("--provider", help="The store of `layer2 provider serve` instead of your own.")
_WILL = {
    TransferState.AGREED: "nothing is begun; it expires",
    TransferState.AWAITING_PAYMENT: "nothing is paid or locked anew; a lock of the provider's is claimed if the time allows",
    TransferState.PAYING: "no payment is begun; one that is under way is followed, and a lock of the provider's is claimed",
    TransferState.LOCKING: "no lock is sent; one that stands is followed, and refunded after its timelock",
    TransferState.LOCKED: "the lock is followed: it settles, or is refunded after its timelock",
    TransferState.CLAIMING: "the claim is pursued until the chain shows its end",
    TransferState.REFUNDING: "the refund is pursued until the chain shows its end",
    TransferState.SETTLED: "it is watched until it is final",
    TransferState.REFUNDED: "it is watched until it is final",
    TransferState.EXPIRED: "what is left is given up in order",
    TransferState.NEEDS_ATTENTION: "a person must look at it: see the runbook",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "backup")(backup)
    command(app, "restore")(restore)


async def backup(
    cli: Cli,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy is written, readable by you only.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    provider: Annotated[bool, _OF_THE_PROVIDER] = False,
) -> None:
    """Copy the store to a file. Works beside a running service; the copy is consistent. It holds secrets: keep it safe."""
    clock = SystemClock()
    if not await asyncio.to_thread(file.parent.is_dir):
        raise ValidationError(f"there is no folder {file.parent} for the copy", field="FILE")
    key = await _key(cli, _role(provider))
    with cli.working("copying the store"):
        async with await Store.open(_url(cli, provider=provider), clock=clock, read_only=True) as store:
            if force:
                part = file.with_name(f"{file.name}.part")
                await asyncio.to_thread(part.unlink, missing_ok=True)
                await store.backup(part, key=key)
                await asyncio.to_thread(os.replace, part, file)
            else:
                await store.backup(file, key=key)
        path = await asyncio.to_thread(file.absolute)
        async with await Store.open(f"sqlite:///{path}", clock=clock, read_only=True) as copy:
            held = await copy.run(contents)
    value = {"file": str(file), "authenticated": key is not None, **_contents_json(held)}
    cli.emit(value, lambda: _contents_table(f"Copy {file}", held))
    if key is None:
        cli.note(
            "No signer is configured, so the copy is not authenticated: nobody will see whether it was changed, and layer2 restore "
            "takes it with --unauthenticated only. Configure [signer] and take another."
        )
    cli.say(
        "A copy goes stale with the next step of any transfer. Restored (layer2 restore FILE), it follows what stands on both "
        "layers, claims and refunds, but begins no payment and no lock for the transfers in it, and does not know later ones: "
        "for those see layer2 rescue. It must never be used while the original is in use."
    )


async def restore(
    cli: Cli,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A copy that layer2 backup wrote.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Move a store that is there aside.")] = False,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Take over the store as it stands: moved here, or restored on the server."),
    ] = False,
    unauthenticated: Annotated[
        bool,
        typer.Option(
            "--unauthenticated",
            help="Take FILE although no signer vouches for it. Only if nobody else could write it: it is believed.",
        ),
    ] = False,
    provider: Annotated[bool, _OF_THE_PROVIDER] = False,
) -> ExitCode:
    """Put a copy in the place of the store. Only once the original is gone for good: two live copies of one store lose money.

    Nothing is sent: that is for the next layer2 run. What is in the copy begins no payment and no lock any more. The copy must be
    what layer2 backup wrote with the same signer.
    """
    if (file is None) is not in_place or ((replace or unauthenticated) and in_place):
        raise ValidationError("name the FILE of the copy, or give --in-place alone", field="FILE")
    url, clock = _url(cli, provider=provider), SystemClock()
    if in_place and url.startswith("sqlite:///") and not await asyncio.to_thread(Path(url[10:]).is_file):
        raise StorageError(f"there is no store at {url[10:]}", hint="name the file of a copy", url=url)
    if file is not None and not await asyncio.to_thread(file.is_file):
        raise ValidationError(f"there is no copy {file}", field="FILE")
    role = _role(provider)
    key = None if in_place or unauthenticated else await _key(cli, role)
    if file is not None and key is None and not unauthenticated:
        raise UntrustedCopy.because(
            "without a signer nobody can tell whether the copy was changed: configure [signer]", url
        )
    waiting: list[StoredSwap] = []
    with cli.working("restoring the store"):
        aside = None
        if file is not None:
            aside = await restore_copy(url, file, clock=clock, key=key, role=role, replace=replace)
        async with await Store.open(url, clock=clock, adopt=True, role=role) as store:
            held = await store.run(contents)
            while page := await store.run(swaps.page_active, after_id=waiting[-1].id if waiting else None, limit=_PAGE):
                waiting += page
            name = store.info.url
    value = {
        "store": name,
        "moved_aside": None if aside is None else str(aside),
        "authenticated": key is not None,
        **_contents_json(held),
        "transfers": [_swap_json(swap) for swap in waiting],
    }
    cli.emit(value, lambda: _contents_table(f"Restored to {name}", held))
    if aside is not None:
        cli.note(f"the store that was there is now {aside}")
    if key is None:
        cli.note(
            "NOT AUTHENTICATED: whoever could write it may have put anything into it. Its transfers begin no payment and no lock; "
            "look through them before layer2 run, since it follows, claims and refunds what they say."
        )
    if waiting:
        cli.emit_people(lambda: _swaps_table(waiting))
    cli.note(
        "What happened after the copy was taken is not in it. Asked again, an idempotency key of that time would send a second "
        "time: look at the node and the chain first. Run layer2 rescue for locks that the copy does not know, then layer2 run."
    )
    return ExitCode.OK


def _role(provider: bool) -> Role:
    return Role.PROVIDER if provider else Role.CLIENT


async def _key(cli: Cli, role: Role) -> bytes | None:
    signer = await load_signer(cli.config)
    return None if signer is None else await copy_key(signer, role)


def _url(cli: Cli, *, provider: bool) -> str:
    if cli.config.is_embedded and cli.config.store.url is None:
        raise ConfigurationError(
            "the embedded network is made anew each time and its store is in memory: there is nothing to copy or restore",
            key="network",
        )
    return provider_store_url(cli.config) if provider else cli.config.store_url


def _contents_json(held: StoreContents) -> dict[str, Any]:
    return {
        "swaps": held.swaps,
        "unfinished": held.unfinished,
        "transactions": held.transactions,
        "open_transactions": held.open_transactions,
        "operations": held.operations,
        "newest_change_ms": held.newest_change_ms,
        "restored": held.restored,
    }


def _contents_table(title: str, held: StoreContents) -> Table:
    shown = table(title, "", "")
    shown.add_row("transfers", f"{held.swaps}, {held.unfinished} of them unfinished")
    shown.add_row("signed transactions", f"{held.transactions}, {held.open_transactions} of them not final")
    shown.add_row("payments and transfers on one layer", str(held.operations))
    newest = held.newest_change_ms
    shown.add_row("newest change", "none" if newest is None else utc(newest // 1000))
    return shown


def _will(swap: StoredSwap) -> str:
    if swap.deal.role is Role.PROVIDER:
        return "no payment and no lock is begun; what stands on both layers is followed, claimed, settled or refunded"
    return _WILL[state_of(swap)]


def _swap_json(swap: StoredSwap) -> dict[str, Any]:
    return {
        "id": swap.id,
        "role": swap.deal.role.value,
        "direction": swap.deal.direction.value,
        "state": state_of(swap).value,
        "run_again_by": act_by_of(swap),
        "will": _will(swap),
    }


def _swaps_table(waiting: list[StoredSwap]) -> Table:
    shown = table("Unfinished", "transfer", "state in the copy", "must run again by", "what happens")
    for swap in waiting:
        by = act_by_of(swap)
        shown.add_row(swap.id, state_of(swap).value, "-" if by is None else utc(by), _will(swap))
    return shown
