"""``layer2 proof``: verify and show proofs of transfers. Uses no network and no store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layer2 import BTC, AssetForm, AssetRegistry, Depth, EvmAddress, Layer2Config, ValidationError
from layer2.cli._cli import Cli, table
from layer2.cli._command import command
from layer2.cli._exit import ExitCode
from layer2.cli._proof_files import Anchors, block_hash, read_anchors, read_proof, sidecar_of
from layer2.cli._text import clean, msat, utc
from layer2.proofs import CheckResult, verify_transfer_proof

if TYPE_CHECKING:
    from rich.table import Table

    from layer2.proofs import Report, TransferProof

__all__ = ["app", "verify_file"]

app = typer.Typer(name="proof", help="Verify and show proofs of transfers, with no network.", no_args_is_help=True)

_STYLES = {CheckResult.PASSED: "green", CheckResult.FAILED: "bold red", CheckResult.UNCHECKED: "yellow"}


@command(app, "verify", settings=False)
def verify(
    cli: Cli,
    file: Annotated[Path, typer.Argument(help="The proof.")],
    trust_block: Annotated[
        list[str] | None,
        typer.Option(metavar="HASH[:DEPTH]", help="A block you know to be of the chain. May be given again."),
    ] = None,
    trusted_blocks: Annotated[Path | None, typer.Option(help="A file of such blocks.")] = None,
    token: Annotated[
        str | None, typer.Option(metavar="CONTRACT[:DECIMALS]", help="What BTC is on the proof's chain.")
    ] = None,
    contract: Annotated[list[str] | None, typer.Option(help="The HTLC contract, if it stands elsewhere.")] = None,
    min_depth: Annotated[str | None, typer.Option(help="included, safe or finalized.")] = None,
) -> ExitCode:
    """Make every check of a proof that applies to it. Exit code 0 only if all of them hold."""
    proof = read_proof(file)
    anchors = _anchors(file, trust_block or [], trusted_blocks)
    if token is not None:
        anchors = replace(anchors, tokens=(_token(token, proof.terms.lock.chain_id),))
    report = verify_transfer_proof(
        proof,
        trusted_blocks=anchors.blocks,
        assets=_registry(anchors.tokens),
        contracts=None if not contract else {proof.terms.lock.chain_id: [EvmAddress.parse(text) for text in contract]},
        min_depth=None if min_depth is None else _depth(min_depth),
    )
    return _show_report(cli, file, report, anchors)


def verify_file(file: Path) -> Report:
    """What ``layer2 proof verify FILE`` checks, with the anchors beside the file."""
    anchors = read_anchors(sidecar_of(file))
    return verify_transfer_proof(read_proof(file), trusted_blocks=anchors.blocks, assets=_registry(anchors.tokens))


def _anchors(file: Path, named: list[str], trusted: Path | None) -> Anchors:
    blocks: dict[bytes, Depth] = {}
    for text in named:
        digits, _, depth = text.partition(":")
        try:
            blocks[block_hash(digits)] = _depth(depth or "included")
        except ValueError as error:
            raise ValidationError(
                f"{text!r:.80} is no block hash", field="--trust-block", hint="64 hexadecimal digits"
            ) from error
    if trusted is None and not blocks and sidecar_of(file).is_file():
        trusted = sidecar_of(file)
    if trusted is None:
        return Anchors(blocks=blocks)
    found = read_anchors(trusted)
    return replace(found, blocks={**found.blocks, **blocks})


def _depth(text: str) -> Depth:
    if text.upper() not in ("INCLUDED", "SAFE", "FINALIZED"):
        raise ValidationError(f"{text!r:.40} is no depth", field="depth", hint="included, safe or finalized")
    return Depth[text.upper()]


def _token(text: str, chain_id: int) -> AssetForm:
    address, _, decimals = text.partition(":")
    if not (decimals or "8").isdecimal():
        raise ValidationError(f"{decimals!r:.20} is no number of decimals", field="--token")
    return AssetForm(asset=BTC, chain_id=chain_id, contract=EvmAddress.parse(address), decimals=int(decimals or "8"))


def _registry(tokens: tuple[AssetForm, ...]) -> AssetRegistry:
    """BOB's own BTC, unless another token was named."""
    registry = Layer2Config(network="bob").asset_registry()
    for form in tokens:
        registry = registry.with_form(form)
    return registry


def _show_report(cli: Cli, file: Path, report: Report, anchors: Anchors) -> ExitCode:
    value = json.loads(report.to_json())
    origin = None if anchors.origin is None else str(anchors.origin)
    cli.emit({"file": str(file), "verified": report.ok, "anchors_from": origin, **value}, lambda: _checks(report))
    if anchors.origin is not None:
        cli.say(
            f"The trusted blocks and the token come from {anchors.origin}. Whoever wrote that file decides what this"
        )
        cli.say("result is worth: if it is not yours, name blocks you know yourself with --trust-block HASH.")
    elif not anchors.blocks:
        cli.say("No block is trusted, so nothing could be anchored: name one with --trust-block HASH.")
    if any(check.name == "token" and check.result is CheckResult.FAILED for check in report.checks):
        cli.say("If you know the token to be BTC on that chain, name it too: --token CONTRACT[:DECIMALS].")
    cli.say("What had to be trusted:")
    for line in report.trusted:
        cli.say(f"  - {line}")
    cli.say("What is not shown by it:")
    for line in report.notes:
        cli.say(f"  - {line}")
    if report.ok:
        cli.say(f"{file}: VERIFIED, every check that applies holds", style="bold green")
        return ExitCode.OK
    words = "DOES NOT VERIFY" if report.failed else "COULD NOT BE VERIFIED: not every check could be made"
    cli.say(f"{file}: {words}", style="bold red")
    return ExitCode.NOT_VERIFIED


def _checks(report: Report) -> Table:
    shown = table("Checks", "check", "result", "what was found")
    for check in report.checks:
        shown.add_row(check.name, check.result.value, clean(check.reason), style=_STYLES.get(check.result, "dim"))
    return shown


@command(app, "show", settings=False)
def show(cli: Cli, file: Annotated[Path, typer.Argument(help="The proof.")]) -> None:
    """Show what a proof says, without believing it."""
    proof = read_proof(file)
    terms, lock = proof.terms, proof.terms.lock
    value = {
        "direction": terms.direction.value,
        "swap_id": terms.swap_id,
        "chain_id": lock.chain_id,
        "htlc_contract": str(lock.contract),
        "token": str(lock.token),
        "lock_amount": str(lock.amount),
        "invoice_amount_msat": str(terms.invoice_amount_msat),
        "provider_fee": str(terms.provider_fee),
        "payment_hash": lock.preimage_hash.hex(),
        "claimer": str(lock.claimer),
        "refunder": str(lock.refunder),
        "provider": str(terms.provider),
        "timelock": lock.timelock,
        "created_at": terms.created_at,
        "depth": proof.depth.name.lower(),
        "blocks": [{"number": block.number, "hash": f"0x{block.hash.hex()}"} for block in proof.blocks],
    }
    cli.emit(value, lambda: _contents(proof))
    cli.say("Nothing was checked; that is: layer2 proof verify")


def _contents(proof: TransferProof) -> Table:
    terms, lock = proof.terms, proof.terms.lock
    shown = table("What the proof says", "", "")
    for name, text in (
        ("direction", f"{terms.direction.value} (swap {terms.swap_id})"),
        ("chain", str(lock.chain_id)),
        ("HTLC contract", str(lock.contract)),
        ("token", str(lock.token)),
        ("locked", f"{lock.amount} base units"),
        ("invoice", msat(terms.invoice_amount_msat)),
        ("provider's fee", f"{terms.provider_fee} base units"),
        ("payment hash", lock.preimage_hash.hex()),
        ("claimer", str(lock.claimer)),
        ("refunder", str(lock.refunder)),
        ("provider", str(terms.provider)),
        ("agreed", utc(terms.created_at)),
        ("settled at depth", proof.depth.name.lower()),
        *((f"block {block.number}", f"0x{block.hash.hex()}") for block in proof.blocks),
    ):
        shown.add_row(name, clean(text))
    return shown
